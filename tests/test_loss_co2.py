"""CO2: against its definition, plain torch and lightly; its gradient, which lightly's lacks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import reference_variants as reference
import torch
from conftest import devices, devices_and_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import TYPES, gradient, rows
from loss_checks import LargestTensor, assert_exact_within, pairs
from torch import Tensor, nn

from fastssl.loss import _consistency, _tiles
from fastssl.loss.regularizer import CO2Regularizer, co2

temperatures = st.sampled_from([0.01, 0.05, 0.1, 1.0])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Products this small take longer with two, which wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that a few rows make many of them."""
    monkeypatch.setattr(_tiles, "CPU_TILE", (3, 6))
    monkeypatch.setattr(_tiles, "GPU_TILE", (3, 6))


@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=15)
@given(z=pairs(), t=temperatures, size=st.integers(0, 30), seed=st.integers(0, 2**31))
def test_co2_is_as_exact_as_plain_torch(
    device: str, dtype: torch.dtype, z: Tensor, t: float, size: int, seed: int
) -> None:
    """Against a bank of `size` rows, or the batch where that is 0."""
    count, bank = len(z) // 2, None
    if size:
        bank = nn.functional.normalize(rows(size, z.shape[1], seed=seed), dim=1).to(device)
    inputs = [x.to(device=device, dtype=dtype) for x in z.chunk(2)]
    assert_exact_within(
        lambda q, k: co2(q, k, bank, t_consistency=t),
        lambda q, k: reference.plain_co2(q, k, bank, t),
        lambda q, k: reference.co2(q, k, None if bank is None else bank.double(), t),
        inputs,
        2 / t,
        # A logit's gradient is its probability times a difference of logits, 2 / t, and enters with 1 / t.
        2 * (1 + 2 / t) / (t * count),
    )


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("t", [0.01, 0.05, 1.0])
@pytest.mark.parametrize("with_bank", [True, False])
@pytest.mark.usefixtures("small_tiles")
def test_co2_does_not_depend_on_tiles_nor_on_the_length_of_the_bank_rows(
    with_bank: bool, t: float, device: str
) -> None:
    query, key, bank = (rows(n, 5, torch.float64, seed=n, device=device) for n in (10, 10, 23))
    key = query + 0.3 * key
    for scale in (1.0, 5.0):
        used = scale * bank if with_bank else None
        ours = gradient(lambda q, k, used=used: co2(q, k, used, 0.7, t), query, key)
        exact = gradient(lambda q, k, used=used: 0.7 * reference.co2(q, k, used, t), query, key)
        for a, b in zip(ours, exact, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("small_tiles")
def test_gradients_are_those_of_finite_differences() -> None:
    query, key, bank = (rows(n, 3, torch.float64, seed=n).requires_grad_(n < 9) for n in (7, 8, 13))
    query = rows(8, 3, torch.float64, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: _consistency.divergences(q, k, bank, 5.0), (query, key))
    assert torch.autograd.gradcheck(lambda q, k: _consistency.divergences(q, k, None, 5.0), (query, key))


@pytest.mark.parametrize("with_bank", [True, False])
def test_pairs_that_are_nearly_alike_keep_their_relative_accuracy(with_bank: bool) -> None:
    query, bank = nn.functional.normalize(rows(16, 8), dim=1), nn.functional.normalize(rows(40, 8, seed=1), dim=1)
    key = query + 1e-3 * rows(16, 8, seed=2)
    used = bank if with_bank else None
    ours = gradient(lambda q, k: co2(q, k, used), query, key)
    exact = gradient(
        lambda q, k: reference.co2(q, k, None if used is None else used.double(), 0.05), query.double(), key.double()
    )
    assert 0 < exact[0] < 1e-2
    # Logits of 20 differ by 0.02 or so: that difference is known to eps of a logit, 2e-6, so to 1e-4 of itself.
    assert abs(ours[0] - exact[0]) <= 1e-3 * exact[0]
    plain = gradient(lambda q, k: reference.plain_co2(q, k, used, 0.05), query, key)
    for a, b, c in zip(ours[1:], exact[1:], plain[1:], strict=True):
        assert (a - b).abs().max() <= max(2 * (c - b).abs().max(), 1e-3 * b.abs().max())


def test_rows_of_zeros_have_finite_gradients() -> None:
    query, key, bank = rows(6, 4), rows(6, 4, seed=1), rows(9, 4, seed=2)
    query[1], key[2] = 0, 0
    for used in (bank, None):
        value, *grads = gradient(lambda q, k, used=used: co2(q, k, used), query, key)
        assert value.isfinite() and all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("dtype", TYPES)
def test_value_is_float32_and_gradients_are_of_the_input_types(dtype: torch.dtype) -> None:
    for bank in (None, rows(9, 4, dtype, seed=2)):
        value, *grads = gradient(lambda q, k, bank=bank: co2(q, k, bank), rows(6, 4, dtype), rows(6, 4, dtype, seed=1))
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32) and value.shape == ()
        assert all(grad.dtype == dtype for grad in grads)


@pytest.mark.parametrize("with_bank", [True, False])
def test_no_tensor_is_larger_than_a_tile_or_the_rows(with_bank: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "CPU_TILE", (128, 256))
    query, key = rows(1024, 8).requires_grad_(), rows(1024, 8, seed=1).requires_grad_()
    bank = rows(3000, 8, seed=2) if with_bank else None
    allowed = max(math.prod(_tiles.CPU_TILE), 3000 * 8)
    with LargestTensor() as largest:
        co2(query, key, bank).backward()
    assert largest.elements <= allowed < 1024 * 1024 / 20


def test_backward_keeps_nothing_of_the_bank_which_may_change() -> None:
    kept: list[Tensor] = []
    query, key, bank = rows(32, 8).requires_grad_(), rows(32, 8, seed=1).requires_grad_(), rows(500, 8, seed=2)
    before = gradient(lambda q, k: co2(q, k, bank), query, key)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        value = co2(query, key, bank)
    assert max(x.numel() for x in kept) == 32 * 8
    bank.zero_()
    value.backward()
    assert torch.equal(query.grad, before[1]) and torch.equal(key.grad, before[2])


def test_autocast_changes_nothing() -> None:
    query, key = rows(8, 4), rows(8, 4, seed=1)
    for bank in (None, rows(9, 4, seed=2)):
        plain = gradient(lambda q, k, bank=bank: co2(q, k, bank), query, key)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = gradient(lambda q, k, bank=bank: co2(q, k, bank), query, key)
        assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_second_derivatives_are_refused() -> None:
    for bank in (None, rows(9, 4, seed=2)):
        query, key = rows(8, 4).requires_grad_(), rows(8, 4, seed=1)
        (grad,) = torch.autograd.grad(co2(query, key, bank), query, create_graph=True)
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            grad.sum().backward()


# The module, beside lightly's


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # lightly's own
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")  # lightly's own
@pytest.mark.parametrize("arguments", [{}, {"alpha": 0.3, "t_consistency": 0.5}])
@pytest.mark.parametrize("pairs, width", [(1, 3), (16, 8), (37, 5)])
def test_module_agrees_with_lightly(arguments: dict[str, float], pairs: int, width: int) -> None:
    lightly = pytest.importorskip("lightly.loss.regularizer", reason="lightly is not installed")
    inputs = rows(pairs, width, seed=1), rows(pairs, width, seed=2)
    theirs = lightly.CO2Regularizer(**arguments)(*inputs)
    torch.testing.assert_close(CO2Regularizer(**arguments)(*inputs), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # lightly's own
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")  # lightly's own
def test_module_with_a_bank_agrees_with_lightly_step_by_step_and_has_a_gradient() -> None:
    lightly = pytest.importorskip("lightly.loss.regularizer", reason="lightly is not installed")
    ours, theirs = CO2Regularizer(memory_bank_size=(20, 6)), lightly.CO2Regularizer(memory_bank_size=(20, 6))
    ours.memory_bank.bank.copy_(theirs.memory_bank.bank)
    for step in range(4):  # 4 x 5 rows: where the ring closes, the two still agree
        query, key = rows(5, 6, seed=2 * step).requires_grad_(), rows(5, 6, seed=2 * step + 1)
        value, expected = ours(query, key), theirs(query, key)
        torch.testing.assert_close(value.detach(), expected.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.memory_bank.bank, theirs.memory_bank.bank)
        assert not expected.requires_grad
        value.backward()
        assert query.grad is not None and query.grad.any()


def test_bank_is_updated_only_where_the_queries_require_a_gradient() -> None:
    term = CO2Regularizer(memory_bank_size=(6, 4))
    before = term.memory_bank.bank.clone()
    term(rows(2, 4), rows(2, 4, seed=1))
    assert torch.equal(before, term.memory_bank.bank)
    term(rows(2, 4).requires_grad_(), rows(2, 4, seed=1))
    assert torch.equal(before[2:], term.memory_bank.bank[2:]) and not torch.equal(before, term.memory_bank.bank)


def test_arguments_are_those_of_lightly() -> None:
    lightly = pytest.importorskip("lightly.loss.regularizer", reason="lightly is not installed")
    for name in ("__init__", "forward"):
        ours, theirs = (
            inspect.signature(getattr(c, name)).parameters for c in (CO2Regularizer, lightly.CO2Regularizer)
        )
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


# Operators


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
def test_operators_keep_their_contracts() -> None:
    query, key, bank = rows(6, 4).requires_grad_(), rows(6, 4, seed=1).requires_grad_(), rows(9, 4, seed=2)
    torch.library.opcheck(_consistency._over_bank, (query, key, bank, 20.0, True))
    torch.library.opcheck(_consistency._over_batch, (query, key, 20.0))
    tests = ("test_schema", "test_faketensor")
    values, of_query, of_key = (x.detach() for x in _consistency._over_bank(query, key, bank, 20.0, True))
    arguments = (values, query.detach(), key.detach(), of_query, of_key)
    torch.library.opcheck(_consistency._over_bank_backward, arguments, test_utils=tests)
    values, stats = (x.detach() for x in _consistency._over_batch(query, key, 20.0))
    arguments = (values, query.detach(), key.detach(), stats, 20.0)
    torch.library.opcheck(_consistency._over_batch_backward, arguments, test_utils=tests)


def test_compiles_without_a_graph_break() -> None:
    head, x, y = nn.Linear(6, 4), rows(8, 6), rows(8, 6, seed=1)
    for term in (CO2Regularizer(), CO2Regularizer(memory_bank_size=(11, 4))):
        start = {name: value.clone() for name, value in term.state_dict().items()}

        def step(x: Tensor, y: Tensor, term: CO2Regularizer = term) -> Tensor:
            return term(head(x), head(y))

        results = []
        for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
            term.load_state_dict({name: value.clone() for name, value in start.items()})
            values = [run(x, y), run(y, x)]
            grads = torch.autograd.grad(sum(values), list(head.parameters()))
            results.append([*values, *grads, *term.state_dict().values()])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: co2(rows(3, 4), rows(2, 4)), ValueError, r"co2: query has shape \(3, 4\), key \(2, 4\)"),
        (lambda: co2(rows(3, 4), rows(3, 4), rows(5, 3)), ValueError, r"co2: bank has shape \(5, 3\).*\(M, 4\)"),
        (lambda: co2(rows(3, 4), rows(3, 4), rows(5, 4).int()), TypeError, "co2: bank is of type torch.int32"),
        (lambda: co2(rows(3, 4), rows(3, 4), t_consistency=0.0), ValueError, "co2: t_consistency=0.0 must be > 0"),
        (lambda: co2(rows(3, 4), rows(3, 4).int()), TypeError, "co2: key is of type torch.int32"),
        (
            lambda: CO2Regularizer(t_consistency=torch.tensor(0.1)),  # type: ignore[arg-type]
            TypeError,
            "CO2Regularizer: t_consistency=.*Tensor and must be a number",
        ),
        (lambda: CO2Regularizer()(rows(0, 3), rows(0, 3)), ValueError, r"CO2Regularizer: out0 has shape \(0, 3\)"),
        (
            lambda: CO2Regularizer(memory_bank_size=(8, 5))(rows(4, 3), rows(4, 3)),
            ValueError,
            r"shape \(4, 3\) for a bank of size=\(8, 5\)",
        ),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
