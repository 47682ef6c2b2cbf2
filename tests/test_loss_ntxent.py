"""NT-Xent and InfoNCE of one process: against their definitions, plain torch, lightly, autograd and the compiler."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import reference_losses as reference
import torch
from conftest import devices
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import fastssl.loss
from fastssl.loss import NTXentLoss, _operators, _tiles, ntxent

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that a few rows make many of them."""
    monkeypatch.setattr(_tiles, "CPU_TILE", (3, 6))
    monkeypatch.setattr(_tiles, "GPU_TILE", (3, 6))


def rows(count: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)


@st.composite
def embeddings(draw: st.DrawFn) -> Tensor:
    """(2B, D) in float64, with duplicates, opposites, rows of zeros and rows of lengths from 1e-3 to 1e3."""
    pairs, width = draw(st.integers(1, 9)), draw(st.integers(1, 20))
    z = rows(2 * pairs, width, torch.float64, seed=draw(st.integers(0, 2**31)))
    for i in draw(st.lists(st.integers(0, 2 * pairs - 1), max_size=3)):
        kind = draw(st.sampled_from(["zero", "duplicate", "opposite", "long", "short"]))
        other = z[draw(st.integers(0, 2 * pairs - 1))].clone()
        made = {"zero": 0 * other, "duplicate": other, "opposite": -other, "long": 1e3 * z[i], "short": 1e-3 * z[i]}
        z[i] = made[kind].clamp(-6e4, 6e4)  # within float16
    return z


temperatures = st.sampled_from([0.01, 0.0239, 0.024, 0.07, 0.1, 0.5, 1.0])


def gradient(loss: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves, allow_unused=True)]


def assert_as_exact_as_plain(
    loss: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    exact: Callable[..., Tensor],
    inputs: list[Tensor],
    t: float,
) -> None:
    """Value and gradients: at most twice the error of plain torch in the same type, and what one rounding can do.

    That is, for the value, eps of the value and of a logit, 1 / t; for the gradient in a unit row, which is at most
    4 / (n t), eps of a logit too. A gradient is compared times the length of its row, because it is inverse to it.
    """
    dtype, count = inputs[0].dtype, len(inputs[0])
    results = gradient(loss, *inputs), gradient(plain, *inputs), gradient(exact, *[x.double() for x in inputs])
    eps = torch.finfo(dtype).eps * (8 if dtype == torch.float64 else 1)  # the exact one is rounded to float64 itself
    for k, (ours, theirs, truth) in enumerate(zip(*results, strict=True)):
        length = 1.0 if k == 0 else inputs[k - 1].double().norm(dim=1, keepdim=True).clamp(min=1e-12)
        finite = torch.ones_like(truth, dtype=torch.bool) if k == 0 else truth.abs() <= torch.finfo(dtype).max
        error, plain_error = (((x.double() - truth) * length).abs().where(finite, 0).amax() for x in (ours, theirs))
        plain_error = plain_error.nan_to_num(nan=math.inf)
        floor = eps * (truth.abs() + 1 / t) if k == 0 else eps * (1 + 1 / t) * 4 / (count * t)
        assert error <= 2 * plain_error + floor, f"output {k}: off by {error:.2e}, plain torch by {plain_error:.2e}"


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=40)
@given(z=embeddings(), t=temperatures)
def test_ntxent_is_as_exact_as_plain_torch(device: str, dtype: torch.dtype, z: Tensor, t: float) -> None:
    assert_as_exact_as_plain(
        lambda x: ntxent(x, t),
        lambda x: reference.plain_ntxent(x, t),
        lambda x: reference.ntxent(x, t),
        [z.to(device=device, dtype=dtype)],
        t,
    )


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("t", [0.01, 0.1])
@pytest.mark.parametrize("pairs, width", [(1, 1), (1, 3), (4, 2), (7, 5), (8, 32), (13, 17)])
@pytest.mark.usefixtures("small_tiles")
def test_ntxent_does_not_depend_on_tiles(pairs: int, width: int, t: float, device: str) -> None:
    z = rows(2 * pairs, width, torch.float64, device=device)
    ours, exact = gradient(lambda x: ntxent(x, t), z), gradient(lambda x: reference.ntxent(x, t), z)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("t", [0.01, 0.1])
@pytest.mark.parametrize("pairs", [255, 256, 900])  # off a tile, one tile, several with a rest
def test_ntxent_is_as_exact_as_plain_torch_over_many_tiles(
    pairs: int, t: float, dtype: torch.dtype, device: str
) -> None:
    assert_as_exact_as_plain(
        lambda x: ntxent(x, t),
        lambda x: reference.plain_ntxent(x, t),
        lambda x: reference.plain_ntxent(x.double(), t),
        [rows(2 * pairs, 48, dtype, device=device)],
        t,
    )


@pytest.mark.parametrize("t", [0.01, 0.1])
@pytest.mark.usefixtures("small_tiles")
def test_gradients_are_those_of_finite_differences(t: float) -> None:
    z = rows(10, 3, torch.float64).requires_grad_()
    query, key = (rows(4, 3, torch.float64, seed=s).requires_grad_() for s in (1, 2))
    bank = rows(13, 3, torch.float64, seed=3)
    assert torch.autograd.gradcheck(lambda x: ntxent(x, t), z)
    assert torch.autograd.gradcheck(lambda x: _operators.ntxent_losses(x, t), z)  # each row's loss, with its own weight
    assert torch.autograd.gradcheck(lambda q, k: _operators.infonce_losses(q, k, bank, t), (query, key))


def test_orthogonal_rows_give_the_logarithm_of_the_other_rows() -> None:
    assert ntxent(torch.eye(6), temperature=1.0).item() == pytest.approx(math.log(5), abs=1e-6)
    same = torch.ones(6, 2)  # all logits equal
    assert ntxent(same, temperature=0.1).item() == pytest.approx(math.log(5), abs=1e-6)


@pytest.mark.parametrize("t", [0.01, 0.1])
def test_one_pair_has_no_loss_and_no_gradient(t: float) -> None:
    value, grad = gradient(lambda x: ntxent(x, t), rows(2, 5))
    assert value == 0
    assert not grad.any()


def test_small_losses_keep_their_relative_accuracy() -> None:
    generator = torch.Generator().manual_seed(0)
    views = torch.eye(8).repeat(2, 1) + 0.01 * torch.randn(16, 8, generator=generator)
    value, grad = gradient(lambda x: ntxent(x, 0.05), views)
    exact, exact_grad = gradient(lambda x: reference.ntxent(x, 0.05), views.double())
    assert exact < 1e-6  # plain float32 has no digit left here
    eps_of_logit = torch.finfo(torch.float32).eps / 0.05
    assert abs(value - exact) <= 4 * eps_of_logit * exact
    torch.testing.assert_close(
        grad.double(), exact_grad, rtol=0, atol=(4 * eps_of_logit * exact_grad.abs().max()).item()
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("t", [0.01, 0.5])
def test_rows_of_zeros_have_finite_gradients(dtype: torch.dtype, t: float) -> None:
    z = rows(8, 4, dtype)
    z[2] = 0
    value, grad = gradient(lambda x: ntxent(x, t), z)
    assert value.isfinite()
    assert grad.isfinite().all()
    assert grad[2].any()
    if dtype in (torch.float32, torch.float64):
        exact = gradient(lambda x: reference.ntxent(x, t), z.double())[1]
        torch.testing.assert_close(grad.double(), exact, rtol=1e-4, atol=1e-4)


def test_very_long_rows_keep_their_direction() -> None:
    z = rows(8, 4)
    long = z.clone()
    long[3] *= 1e30  # its square is beyond float32
    assert ntxent(long, 0.1).item() == pytest.approx(ntxent(z, 0.1).item(), rel=1e-6)


@pytest.mark.parametrize("t", [0.01, 0.1])
def test_not_a_number_stays_one(t: float) -> None:
    z = rows(8, 4)
    z[3, 1] = math.nan
    value, grad = gradient(lambda x: ntxent(x, t), z)
    assert value.isnan()
    assert grad.isnan().any()


def test_overflow_of_a_scaled_gradient_stays_infinite() -> None:  # a GradScaler must see it
    z = (1e-3 * rows(8, 4)).half().requires_grad_()
    (ntxent(z, 0.05) * 2.0**20).backward()
    assert z.grad is not None and not z.grad.isfinite().all()


@pytest.mark.parametrize("dtype", TYPES)
def test_value_is_float32_and_gradient_is_of_the_input_type(dtype: torch.dtype) -> None:
    value, grad = gradient(lambda x: ntxent(x, 0.1), rows(8, 4, dtype))
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.shape == ()
    assert grad.dtype == dtype


def test_rows_need_not_be_contiguous() -> None:
    z = rows(4, 8).t()
    assert not z.is_contiguous()
    for a, b in zip(gradient(ntxent, z), gradient(ntxent, z.contiguous()), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_runs_are_bit_identical() -> None:
    z = rows(1300, 16)
    for a, b in zip(gradient(ntxent, z), gradient(ntxent, z), strict=True):
        assert torch.equal(a, b)


def test_autocast_changes_nothing() -> None:
    z = rows(16, 8)
    plain = gradient(ntxent, z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gradient(ntxent, z)
    for a, b in zip(plain, cast, strict=True):
        assert torch.equal(a, b)


def test_autocast_changes_nothing_with_a_bank() -> None:
    query, key, bank = rows(8, 4), rows(8, 4, seed=1), rows(32, 4, seed=2)
    plain = gradient(lambda q, k: _operators.infonce_losses(q, k, bank, 0.1).mean(), query, key)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gradient(lambda q, k: _operators.infonce_losses(q, k, bank, 0.1).mean(), query, key)
    for a, b in zip(plain, cast, strict=True):
        assert torch.equal(a, b)


def test_gradients_accumulate() -> None:
    a, b = rows(8, 4).requires_grad_(), rows(8, 4, seed=1)
    loss = NTXentLoss()
    loss(a, b).backward()
    (2 * loss(a, b)).backward()
    assert a.grad is not None
    torch.testing.assert_close(a.grad, 3 * gradient(lambda x: loss(x, b), a)[1], rtol=1e-6, atol=1e-9)


def test_second_derivatives_are_refused() -> None:
    for loss in (NTXentLoss(), NTXentLoss(memory_bank_size=(16, 4))):
        a = rows(8, 4).requires_grad_()
        (grad,) = torch.autograd.grad(loss(a, rows(8, 4, seed=1)), a, create_graph=True)
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            grad.sum().backward()


def test_nothing_is_kept_without_gradients() -> None:
    a = rows(8, 4).requires_grad_()
    with torch.no_grad():
        assert not NTXentLoss()(a, a).requires_grad
    with torch.inference_mode():
        assert NTXentLoss()(a, a).isfinite()


# Memory


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements of any tensor that an operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("t", [0.01, 0.1])
def test_no_tensor_is_larger_than_a_tile_or_the_rows(t: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "CPU_TILE", (128, 256))
    unit, _ = _tiles.unit_rows(rows(1024, 8))
    allowed = max(math.prod(_tiles.CPU_TILE), unit.numel())
    assert allowed < len(unit) ** 2 / 20
    with LargestTensor() as largest:
        losses, stats = _tiles.ntxent_forward(unit, [unit[:700]], t)
        _tiles.ntxent_backward(unit, losses, losses, stats, [(unit[:700], stats[:, :700])], t)
    assert largest.elements <= allowed
    bank = rows(3000, 8)
    assert allowed < 512 * len(bank) / 20
    with LargestTensor() as largest:
        _tiles.infonce_forward(unit[:512], unit[512:], bank, t, with_mean=True)
    assert largest.elements <= allowed


def test_backward_keeps_the_rows_and_three_numbers_a_row() -> None:
    kept: list[Tensor] = []
    z, bank = rows(64, 8).requires_grad_(), rows(500, 8, seed=1)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        ntxent(z, 0.1)
    assert sum(x.numel() for x in kept) == 64 * 8 + 3 * 64
    assert any(x.data_ptr() == z.data_ptr() for x in kept)  # not a copy
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        _operators.infonce_losses(z[:32], z[32:], bank, 0.1)
    assert max(x.numel() for x in kept) == 32 * 8  # queries, keys and a mean: nothing of the bank


# InfoNCE against a memory bank


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=30)
@given(z=embeddings(), t=temperatures, size=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_infonce_is_as_exact_as_plain_torch(
    device: str, dtype: torch.dtype, z: Tensor, t: float, size: int, seed: int
) -> None:
    bank = torch.nn.functional.normalize(rows(size, z.shape[1], seed=seed), dim=1).to(device)
    half = len(z) // 2
    assert_as_exact_as_plain(
        lambda q, k: _operators.infonce_losses(q, k, bank, t).mean(),
        lambda q, k: reference.plain_infonce(q, k, bank, t),
        lambda q, k: reference.infonce(q, k, bank.double(), t),
        [z[:half].to(device=device, dtype=dtype), z[half:].to(device=device, dtype=dtype)],
        t,
    )


@pytest.mark.parametrize("t", [0.01, 0.1])
@pytest.mark.usefixtures("small_tiles")
def test_infonce_does_not_depend_on_tiles_nor_on_the_length_of_the_bank_rows(t: float) -> None:
    query, key, bank = (rows(n, 6, torch.float64, seed=n) for n in (8, 8, 23))
    query, key = query, query + 0.1 * key
    for scale in (1.0, 30.0):
        ours = gradient(lambda q, k, s=scale: _operators.infonce_losses(q, k, s * bank, t).mean(), query, key)
        exact = gradient(lambda q, k, s=scale: reference.infonce(q, k, s * bank, t), query, key)
        for a, b in zip(ours, exact, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


# The module, beside lightly's


@pytest.mark.parametrize("t", [0.07, 0.5])
@pytest.mark.parametrize("pairs, width", [(1, 3), (16, 8), (37, 5)])
def test_module_agrees_with_lightly(pairs: int, width: int, t: float) -> None:
    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    inputs = rows(pairs, width, seed=1), rows(pairs, width, seed=2)
    for a, b in zip(gradient(NTXentLoss(t), *inputs), gradient(lightly.NTXentLoss(t), *inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_module_with_a_bank_agrees_with_lightly_step_by_step() -> None:
    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    ours, theirs = NTXentLoss(0.1, memory_bank_size=(20, 6)), lightly.NTXentLoss(0.1, memory_bank_size=(20, 6))
    ours.memory_bank.bank.copy_(theirs.memory_bank.bank)
    for step in range(4):  # 4 x 5 rows: where the ring closes, the two still agree
        inputs = rows(5, 6, seed=2 * step), rows(5, 6, seed=2 * step + 1)
        for a, b in zip(gradient(ours, *inputs), gradient(theirs, *inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.memory_bank.bank, theirs.memory_bank.bank)
        assert ours.memory_bank.bank_ptr.item() == theirs.memory_bank.bank_ptr.item()


def test_bank_is_updated_only_where_the_queries_require_a_gradient() -> None:
    loss = NTXentLoss(memory_bank_size=(6, 4))
    before = loss.memory_bank.bank.clone()
    loss(rows(2, 4), rows(2, 4, seed=1))
    assert torch.equal(before, loss.memory_bank.bank)
    value = loss(rows(2, 4).requires_grad_(), rows(2, 4, seed=1))
    key = torch.nn.functional.normalize(rows(2, 4, seed=1), dim=1)
    torch.testing.assert_close(loss.memory_bank.bank, torch.cat([key, before[2:]]))
    value.backward()  # what it needs of the old bank it has


def test_bank_in_half_precision_serves_float32_queries() -> None:
    loss = NTXentLoss(memory_bank_size=(6, 4)).bfloat16()
    assert loss.memory_bank.bank.dtype == torch.bfloat16
    value, grad, _ = gradient(loss, rows(2, 4), rows(2, 4, seed=1))
    assert value.isfinite() and grad.isfinite().all()


def test_keys_without_gradient_are_left_alone() -> None:
    query, key = rows(4, 3).requires_grad_(), rows(4, 3, seed=1)
    for loss in (NTXentLoss(), NTXentLoss(memory_bank_size=(8, 3))):
        loss(query, key).backward()
        assert key.grad is None and query.grad is not None


def test_temperature_may_change_between_steps() -> None:
    loss, inputs = NTXentLoss(0.5), (rows(4, 3), rows(4, 3, seed=1))
    loss.temperature = 0.1
    assert loss(*inputs) == NTXentLoss(0.1)(*inputs)


def test_module_has_the_arguments_of_lightly() -> None:
    import inspect

    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    for name in ("__init__", "forward"):
        ours, theirs = (inspect.signature(getattr(c, name)).parameters for c in (NTXentLoss, lightly.NTXentLoss))
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


def test_paths_are_those_of_lightly() -> None:
    from fastssl.loss.memory_bank import MemoryBankModule
    from fastssl.loss.ntx_ent_loss import NTXentLoss as same

    assert same is NTXentLoss and MemoryBankModule.__name__ == "MemoryBankModule"
    assert all(hasattr(fastssl.loss, name) for name in fastssl.loss.__all__)


# Operators


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_keep_their_contracts(dtype: torch.dtype) -> None:
    z = rows(8, 4, dtype).requires_grad_()
    query, key, bank = (
        rows(4, 4, dtype).requires_grad_(),
        rows(4, 4, dtype, seed=1).requires_grad_(),
        rows(9, 4, seed=2),
    )
    torch.library.opcheck(_operators._ntxent, (z, 0.1))
    torch.library.opcheck(_operators._infonce, (query, key, bank, 0.1, True))
    losses, stats = (x.detach() for x in _operators._ntxent(z, 0.1))
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(_operators._ntxent_backward, (losses, z.detach(), losses, stats, 0.1), test_utils=tests)
    losses, mean = (x.detach() for x in _operators._infonce(query, key, bank, 0.1, True))
    arguments = (losses, query.detach(), key.detach(), losses, mean, 0.1)
    torch.library.opcheck(_operators._infonce_backward, arguments, test_utils=tests)


def test_compiles_without_a_graph_break() -> None:
    head = nn.Linear(6, 4)
    x, y = rows(8, 6), rows(8, 6, seed=1)

    for eager in (NTXentLoss(0.1), NTXentLoss(0.1, memory_bank_size=(11, 4))):
        start = {name: value.clone() for name, value in eager.state_dict().items()}

        def step(x: Tensor, y: Tensor, loss: NTXentLoss = eager) -> Tensor:
            return loss(head(x), head(y))

        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        results = []
        for run in (step, compiled):
            eager.load_state_dict({name: value.clone() for name, value in start.items()})
            values = [run(x, y), run(y, x)]
            grads = torch.autograd.grad(sum(values), list(head.parameters()))
            results.append([*values, *grads, *eager.state_dict().values()])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


# Errors


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: ntxent(rows(3, 4)), ValueError, r"ntxent: z has shape \(3, 4\).*2B.*torch.cat"),
        (lambda: ntxent(rows(0, 4)), ValueError, r"ntxent: z has shape \(0, 4\)"),
        (lambda: ntxent(rows(4, 0)), ValueError, r"ntxent: z has shape \(4, 0\)"),
        (lambda: ntxent(torch.zeros(4)), ValueError, r"ntxent: z has shape \(4,\)"),
        (lambda: ntxent(rows(4, 4), 0.0), ValueError, "ntxent: temperature=0.0 must be > 0.*write 0.1"),
        (lambda: ntxent(rows(4, 4), math.nan), ValueError, "temperature=nan"),
        (lambda: ntxent(rows(4, 4), torch.tensor(0.1)), TypeError, "temperature=.*Tensor.*must be a number"),
        (
            lambda: ntxent(torch.ones(4, 4, dtype=torch.int)),
            TypeError,
            r"ntxent: z is of type torch.int32.*z.float\(\)",
        ),
        (lambda: NTXentLoss(temperature=0), ValueError, "NTXentLoss: temperature=0 must be > 0"),
        (lambda: NTXentLoss(temperature=-0.5), ValueError, "NTXentLoss: temperature=-0.5"),
        (lambda: NTXentLoss(memory_bank_size=64), ValueError, r"size=64 must be two whole numbers.*\(65536, 128\)"),
        (lambda: NTXentLoss(memory_bank_size=(64,)), ValueError, "size="),
        (lambda: NTXentLoss(memory_bank_size=(64, -1)), ValueError, "size="),
        (lambda: NTXentLoss(memory_bank_size=(64, 0)), ValueError, "size="),
        (lambda: NTXentLoss(memory_bank_size=(6.5, 3)), ValueError, "size="),
        (lambda: NTXentLoss()(rows(4, 3), rows(4, 2)), ValueError, r"out0 has shape \(4, 3\), out1 \(4, 2\)"),
        (lambda: NTXentLoss()(rows(0, 3), rows(0, 3)), ValueError, r"out0 has shape \(0, 3\).*at least 1"),
        (lambda: NTXentLoss()(rows(4, 3), rows(4, 3).bool()), TypeError, "NTXentLoss: out1 is of type torch.bool"),
        (
            lambda: NTXentLoss(memory_bank_size=(8, 5))(rows(4, 3), rows(4, 3)),
            ValueError,
            r"shape \(4, 3\) for a bank of size=\(8, 5\)",
        ),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_gather_distributed_without_torch_distributed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"gather_distributed=True needs torch.distributed.*gather_distributed=False"):
        NTXentLoss(gather_distributed=True)


def test_gather_distributed_of_one_process_is_the_loss_of_the_batch() -> None:
    inputs = rows(4, 3), rows(4, 3, seed=1)
    assert NTXentLoss(gather_distributed=True)(*inputs) == NTXentLoss()(*inputs)
