"""NT-Xent and InfoNCE of one process: against their definitions, plain torch, lightly, autograd and the compiler."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import reference_losses as reference
import torch
from conftest import devices, devices_and_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import TYPES, assert_as_exact_as_plain, embeddings, gradient, rows, temperatures, widths
from torch import Tensor, nn

import fastssl.loss
from fastssl.loss import NTXentLoss, _tiles, ntxent


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that a few rows make many of them."""
    monkeypatch.setattr(_tiles, "CPU_TILE", (3, 6))
    monkeypatch.setattr("fastssl.loss._pairs.SMALL_MATRIX", 0)
    monkeypatch.setattr(_tiles, "GPU_TILE", (3, 6))


@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=25)
@given(data=st.data(), t=temperatures, views=st.sampled_from([2, 2, 3, 5]))
def test_ntxent_is_as_exact_as_plain_torch(
    device: str, dtype: torch.dtype, data: st.DataObject, t: float, views: int
) -> None:
    images = st.integers(1, 18 // views)
    z = data.draw(embeddings(images.map(lambda count: views * count), st.integers(1, 20)))
    weights = rows(1, len(z), seed=1)[0].abs().to(device) if data.draw(st.booleans()) else None
    assert_as_exact_as_plain(
        lambda x, t: ntxent(x, t, views, weights),
        lambda x, t: reference.plain_ntxent(x, t, views, weights),
        lambda x, t: reference.ntxent(x.cpu(), t.cpu(), views, None if weights is None else weights.cpu()).to(device),
        [z.to(device=device, dtype=dtype), torch.tensor(t, dtype=dtype, device=device)],
        1 / t,
    )


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=4)
@given(data=st.data(), t=temperatures)
def test_ntxent_is_as_exact_as_plain_torch_over_many_tiles(
    device: str, dtype: torch.dtype, data: st.DataObject, t: float
) -> None:
    pairs = st.sampled_from([255, 256, 257, 515])  # off a tile, one tile, several with a rest
    z = data.draw(embeddings(pairs.map(lambda count: 2 * count), widths)).to(device=device, dtype=dtype)
    assert_as_exact_as_plain(
        lambda x, t: ntxent(x, t),
        lambda x, t: reference.plain_ntxent(x, t),
        lambda x, t: reference.plain_ntxent(x, t),
        [z, torch.tensor(t, dtype=dtype, device=device)],
        1 / t,
    )


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("width, dtype", [(1, torch.float32), (1030, torch.float32), (1030, torch.bfloat16)])
def test_ntxent_of_1031_images_is_as_exact_as_plain_torch(device: str, dtype: torch.dtype, width: int) -> None:
    z = rows(2 * 1031, width, dtype, device=device)
    assert_as_exact_as_plain(
        lambda x, t: ntxent(x, t),
        lambda x, t: reference.plain_ntxent(x, t),
        lambda x, t: reference.plain_ntxent(x, t),
        [z, torch.tensor(0.07, dtype=dtype, device=device)],
        1 / 0.07,
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


@pytest.mark.parametrize("t", [0.01, 0.1])
@pytest.mark.parametrize("views", [2, 5])
@pytest.mark.usefixtures("small_tiles")
def test_gradients_are_those_of_finite_differences(t: float, views: int) -> None:
    z, temperature = rows(10, 3, torch.float64).requires_grad_(), torch.tensor(t, dtype=torch.float64).requires_grad_()
    weights = rows(1, 10, torch.float64, seed=1)[0]
    assert torch.autograd.gradcheck(lambda x, t: ntxent(x, t, views, weights), (z, temperature))


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
        (lambda: ntxent(rows(3, 4)), ValueError, r"ntxent: z has shape \(3, 4\).*\(2 B, D\).*torch.cat"),
        (lambda: ntxent(rows(4, 4), views=3), ValueError, r"ntxent: z has shape \(4, 4\).*\(3 B, D\)"),
        (lambda: ntxent(rows(4, 4), views=1), ValueError, "ntxent: views=1 must be 2 or more"),
        (lambda: ntxent(rows(4, 4), weights=torch.ones(2)), ValueError, r"weights has shape \(2,\).*must be \(4,\)"),
        (lambda: ntxent(rows(0, 4)), ValueError, r"ntxent: z has shape \(0, 4\)"),
        (lambda: ntxent(rows(4, 0)), ValueError, r"ntxent: z has shape \(4, 0\)"),
        (lambda: ntxent(torch.zeros(4)), ValueError, r"ntxent: z has shape \(4,\)"),
        (lambda: ntxent(rows(4, 4), 0.0), ValueError, "ntxent: temperature=0.0 must be > 0.*write 0.1"),
        (lambda: ntxent(rows(4, 4), math.nan), ValueError, "temperature=nan"),
        (lambda: ntxent(rows(4, 4), torch.ones(2)), TypeError, r"temperature is a tensor of shape \(2,\)"),
        (lambda: ntxent(rows(4, 4), "0.1"), TypeError, "temperature='0.1' is a str and must be a number"),
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
