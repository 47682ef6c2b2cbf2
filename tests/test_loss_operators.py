"""The engine under the contrastive losses: its sums and gradients, whatever the masks, the scale and the lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import devices, devices_and_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import rows
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastssl.loss import (
    _operators,
    _sigmoid,
    _tiles,
    co2,
    dcl,
    dclw,
    densecl,
    detcon_b,
    detcon_s,
    directclr,
    info_nce,
    macl,
    ntxent,
)
from fastssl.loss._operators import Sums, contrastive_sums


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products this small take longer with two, which wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def by_definition(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor | float,
    *,
    query_ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    positive: int | None = None,
    columns: bool = False,
    normalize_query: bool = True,
    normalize_key: bool = True,
) -> Sums:
    """The same with the matrix stored."""
    if key is None:
        key, key_ids, normalize_key = query, query_ids, normalize_query
    q, k = (
        x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=1e-12) if wanted else x
        for x, wanted in ((query, normalize_query), (key, normalize_key))
    )
    logits = q @ k.T * scale
    allowed = logits
    if query_ids is not None and key_ids is not None:
        allowed = logits.masked_fill(query_ids[:, None] == key_ids, -math.inf)
    at = torch.arange(len(q), device=q.device)
    return Sums(
        allowed.logsumexp(dim=1),
        logits[at, (at + positive) % len(k)] if positive is not None else q.new_empty(0),
        allowed.logsumexp(dim=0) if columns else q.new_empty(0),
    )


def results(
    function: Callable[..., Sums], tensors: list[Tensor | None], weights: list[Tensor], **options: Any
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Sums, and the gradients of their weighted sum; sums of nothing (-inf) take no part in it."""
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in tensors]
    sums = function(*leaves, **options)
    total = sum((w * torch.where(s.isinf(), 0, s)).sum() for s, w in zip(sums, weights, strict=True) if len(s))
    grads = torch.autograd.grad(total, [x for x in leaves if x is not None], allow_unused=True)
    return [s.detach() for s in sums], list(grads)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Tensor | None], dict[str, Any]]:
    symmetric = draw(st.booleans())
    count, width = draw(st.integers(1, 20)), draw(st.integers(1, 9))
    other = count if symmetric else draw(st.integers(1, 25))
    seed = draw(st.integers(0, 2**31))
    scale = torch.tensor(draw(st.sampled_from([1.0, 10.0, 41.6, 42.0, 100.0])), dtype=torch.float64)
    query = rows(count, width, torch.float64, seed)
    key = None if symmetric else rows(other, width, torch.float64, seed + 1)
    options: dict[str, Any] = {}
    kinds = draw(st.integers(0, 30))
    if kinds:
        generator = torch.Generator().manual_seed(seed)
        options["query_ids"] = torch.randint(kinds, (count,), generator=generator)
        if not symmetric:
            options["key_ids"] = torch.randint(kinds, (other,), generator=generator)
    if other >= count and draw(st.booleans()):
        options["positive"] = draw(st.integers(0, other - 1))
    if not symmetric:
        options["columns"] = draw(st.booleans())
        options["normalize_key"] = draw(st.booleans())
    options["normalize_query"] = draw(st.booleans())
    return [query, key, scale], options


@settings(deadline=None, max_examples=150)
@given(case=cases(), listed=st.booleans())
def test_sums_and_gradients_are_those_of_the_stored_matrix(
    case: tuple[list[Tensor | None], dict[str, Any]], listed: bool
) -> None:
    tensors, options = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tiles, "CPU_TILE", (3, 6))
        patch.setattr("fastssl.loss._pairs.SMALL_MATRIX", 0)
        patch.setattr("fastssl.loss._pairs.MOST_LISTED", 1000 if listed else 0)
        exact_sums = by_definition(*tensors, **options)
        weights = [rows(1, len(s), torch.float64, 7)[0] if len(s) else s for s in exact_sums]
        ours, our_grads = results(contrastive_sums, tensors, weights, **options)
        exact, exact_grads = results(by_definition, tensors, weights, **options)
    for a, b in zip([*ours, *our_grads], [*exact, *exact_grads], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=50)
@given(case=cases())
def test_means_of_the_keys_serve_the_backward_pass(case: tuple[list[Tensor | None], dict[str, Any]]) -> None:
    """Where the keys need no gradient and rows alone are asked for."""
    (query, key, scale), options = case
    key = query if key is None else key
    options = {
        **options,
        "columns": False,
        "positive": None,
        "key_ids": options.get("key_ids", options.get("query_ids")),
    }
    found = []
    for function in (contrastive_sums, by_definition):
        leaves = [x.clone().requires_grad_() for x in (query, scale)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_tiles, "CPU_TILE", (3, 6))
            patch.setattr("fastssl.loss._pairs.SMALL_MATRIX", 0)
            sums = function(leaves[0], key, leaves[1], **options).rows
        weights = torch.where(sums.isinf(), 0, rows(1, len(sums), torch.float64, 7)[0])
        total = (weights * torch.where(sums.isinf(), 0, sums)).sum()
        found.append([sums.detach(), *torch.autograd.grad(total, leaves, materialize_grads=True)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_logits_of_any_size_give_finite_sums_and_gradients() -> None:
    for length in (1e-3, 1.0, 1e3):  # of logits up to 1e5, of which no exponential exists
        query, key = (length * rows(n, 4, seed=n).requires_grad_() for n in (7, 9))
        sums = contrastive_sums(query, key, 10.0, columns=True, normalize_query=False, normalize_key=False)
        exact = by_definition(
            query.double(), key.double(), 10.0, columns=True, normalize_query=False, normalize_key=False
        )
        for ours, truth in zip(sums, exact, strict=True):
            torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-4)
        assert all(g.isfinite().all() for g in torch.autograd.grad(sums.rows.sum() + sums.columns.sum(), (query, key)))


def test_not_a_number_stays_one() -> None:
    query = rows(5, 3)
    query[2, 1] = math.nan
    for scale in (1.0, 100.0):
        assert contrastive_sums(query, rows(4, 3), scale).rows.isnan().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("ids", [torch.zeros(40), torch.arange(40) % 2, torch.arange(40), torch.arange(40) - 2**62])
def test_ids_may_be_few_or_many(ids: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed where few are alike, compared where many are: both give the same sums."""
    monkeypatch.setattr("fastssl.loss._pairs.SMALL_MATRIX", 0)
    ids, z = ids.long(), rows(40, 3, torch.float64)
    ours, exact = (f(z, None, 5.0, query_ids=ids).rows for f in (contrastive_sums, by_definition))
    torch.testing.assert_close(ours, exact, rtol=1e-12, atol=1e-12)


# What torch asks of an operator

ids = torch.arange(8) % 4
# The number of rows of each embedding, negative where it is stored by columns, and the other arguments.
OPERATIONS: dict[str, tuple[tuple[int, ...], tuple[Any, ...]]] = {
    "symmetric": ((8,), (None, torch.tensor(10.0), ids, None, 4, False, True, True, False)),
    "rectangle": ((8, 9), (torch.tensor(10.0), ids, torch.arange(9), 1, True, True, True, False)),
    "by columns": ((-8, -9), (torch.tensor(10.0), ids, torch.arange(9), 1, True, True, False, False)),
    "bank": ((8, 9), (torch.tensor(10.0), None, None, None, False, True, False, True)),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
@pytest.mark.parametrize("counts, arguments", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", devices_and_kernels())
def test_operators_keep_their_contracts(
    counts: tuple[int, ...], arguments: tuple[Any, ...], dtype: torch.dtype, device: str
) -> None:
    tensors = [rows(n, 4, dtype, n, device) if n > 0 else rows(4, -n, dtype, -n, device).t() for n in counts]
    arguments = tuple(x.to(device) if isinstance(x, Tensor) else x for x in arguments)
    query, key, scale, query_ids, key_ids, positive, columns, normalize_query, normalize_key, keep = (
        *tensors, *arguments
    )  # fmt: skip
    leaves = [x.clone().requires_grad_(n == 0 or not keep) for n, x in enumerate(tensors)]
    torch.library.opcheck(_operators._contrastive, (*leaves, *arguments))
    row_sums, positives, column_sums, kept = _operators._contrastive(*tensors, *arguments)
    tests = ("test_schema", "test_faketensor")
    if keep:
        backward = (query, scale, normalize_query, kept, row_sums)
        torch.library.opcheck(_operators._means_backward, backward, test_utils=tests)
        return
    options = (query_ids, key_ids, positive, columns, normalize_query, normalize_key)
    values = (row_sums, column_sums, row_sums, positives, column_sums)
    for needs in ((True, key is not None), (True, False), (False, key is not None), (False, False)):
        backward = (query, key, scale, *options, *values, *needs)
        torch.library.opcheck(_operators._contrastive_backward, backward, test_utils=tests)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", devices())
def test_other_operators_keep_their_contracts(dtype: torch.dtype, device: str) -> None:
    x, y = (rows(6, 4, dtype, seed, device).requires_grad_() for seed in (0, 1))
    scale, bias = (torch.tensor(number, device=device) for number in (10.0, -3.0))
    torch.library.opcheck(_operators._unit, (x,))
    torch.library.opcheck(_operators._unit, (rows(4, 6, dtype, 0, device).t(),))
    torch.library.opcheck(_sigmoid._pairwise, (rows(4, 6, dtype, 0, device).t().requires_grad_(), y, scale, bias, 0))
    torch.library.opcheck(_sigmoid._pairwise, (x, y, scale, bias, 0))
    x, y = x.detach(), y.detach()
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(_operators._unit_backward, (x, x.float()), test_utils=tests)
    for needs_key in (False, True):
        backward = (x, y, scale, bias, 0, x[:, 0].float(), needs_key)
        torch.library.opcheck(_sigmoid._pairwise_backward, backward, test_utils=tests)


def test_second_derivatives_are_refused() -> None:
    query, scale = rows(8, 4).requires_grad_(), torch.tensor(10.0)
    for key in (None, rows(5, 4), rows(5, 4).requires_grad_()):
        sums = contrastive_sums(query, key, scale)
        (grad,) = torch.autograd.grad(sums.rows.sum(), query, create_graph=True)
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            grad.sum().backward()


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


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_no_tensor_is_larger_than_a_tile_or_the_rows(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "CPU_TILE", (64, 128))
    query, key, ids = rows(512, 4), rows(1500, 4, seed=1), torch.arange(512) % 256
    allowed = max(math.prod(_tiles.CPU_TILE), key.numel())
    assert allowed < len(query) ** 2 / 20
    number = torch.tensor(scale)
    none = query.new_empty(0)
    with LargestTensor() as largest:
        options = (ids, None, 256, False, True, True)
        sums, positives, _ = _tiles.forward(query, None, number, *options)
        _tiles.backward(query, None, number, *options, sums, none, sums, positives, none, True, False)
        options = (ids, torch.arange(1500), 0, True, True, True)
        sums, positives, columns = _tiles.forward(query, key, number, *options)
        _tiles.backward(query, key, number, *options, sums, columns, sums, positives, columns, True, True)
        _tiles.forward_with_means(query, key, number, None, None, True, False)
        losses = _sigmoid.sigmoid_forward(query, key, number, number, 0)
        _sigmoid.sigmoid_backward(query, key, number, number, 0, losses, False, True)
    assert largest.elements <= allowed


def test_backward_keeps_the_rows_and_a_few_numbers_a_row() -> None:
    kept: list[Tensor] = []
    z = rows(64, 8).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        ntxent(z, 0.1)
    assert max(x.numel() for x in kept) == 64 * 8
    assert sum(x.numel() for x in kept if x.numel() == 64 * 8) == 64 * 8
    assert any(x.data_ptr() == z.data_ptr() for x in kept)  # not a copy
    assert sum(x.numel() for x in kept if x.dim() < 2) <= 8 * 64


MASKS = torch.zeros(4, 1, dtype=torch.int64)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch.func's own
@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: co2(x, y),
        lambda x, y: co2(x, y, bank=rows(5, 4, seed=3)),
        lambda x, y: macl(torch.cat([x, y])),
        lambda x, y: dcl(torch.cat([x, y])),
        lambda x, y: dclw(torch.cat([x, y])),
        lambda x, y: directclr(torch.cat([x, y]), 3),
        lambda x, y: detcon_s(x[:, None], y[:, None], MASKS, MASKS),
        lambda x, y: detcon_b(x[:, None], y[:, None], y[:, None], x[:, None], MASKS, MASKS),
        lambda x, y: densecl(x[:, None], y[:, None], x[:, None], y[:, None], rows(5, 4, seed=3)),
    ],
    ids=["co2", "co2 of a bank", "macl", "dcl", "dclw", "directclr", "detcon_s", "detcon_b", "densecl"],
)
def test_no_loss_drops_a_derivative_in_forward_mode(loss: Callable[..., Tensor]) -> None:
    x, y = rows(4, 4), rows(4, 4, seed=1)
    loss(x, y)
    for inputs, call in ((x, lambda x: loss(x, y)), (y, lambda y: loss(x, y))):
        with pytest.raises(NotImplementedError, match="forward mode"):
            torch.func.jvp(call, (inputs,), (torch.ones_like(inputs),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", devices_and_kernels())
def test_backward_keeps_nothing_of_a_bank(device: str, dtype: torch.dtype) -> None:
    kept: list[Tensor] = []
    z, bank = rows(64, 8, dtype, device=device).requires_grad_(), rows(500, 8, seed=1, device=device)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        info_nce(z[:32], z[32:], bank, 0.1)
    assert max(x.numel() for x in kept) == 32 * 8  # queries, keys and means: nothing of the bank


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: contrastive_sums(rows(4, 3), rows(4, 2), 1.0), ValueError, r"query has shape \(4, 3\), key \(4, 2\)"),
        (lambda: contrastive_sums(rows(0, 3), None, 1.0), ValueError, r"query has shape \(0, 3\)"),
        (lambda: contrastive_sums(rows(4, 3).int(), None, 1.0), TypeError, "query is of type torch.int32"),
        (lambda: contrastive_sums(rows(4, 3), None, torch.ones(2)), ValueError, r"scale has shape \(2,\)"),
        (lambda: contrastive_sums(rows(4, 3), None, 1.0, columns=True), ValueError, "columns=True with key=None"),
        (lambda: contrastive_sums(rows(4, 3), rows(5, 3), 1.0, query_ids=ids[:4]), ValueError, "ids of one side only"),
        (lambda: contrastive_sums(rows(4, 3), None, 1.0, query_ids=ids[:4], key_ids=ids[4:]), ValueError, "key=None"),
        (lambda: contrastive_sums(rows(4, 3), None, 1.0, query_ids=ids[:3]), ValueError, r"query_ids has shape \(3,\)"),
        (lambda: contrastive_sums(rows(4, 3), None, 1.0, query_ids=ids[:4].int()), TypeError, "must be int64"),
        (lambda: contrastive_sums(rows(4, 3), rows(3, 3), 1.0, positive=0), ValueError, "4 queries and 3 keys"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
