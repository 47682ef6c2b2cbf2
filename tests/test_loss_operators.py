"""The engine under the contrastive losses: its sums and gradients, whatever the masks, the scale and the lengths."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastssl.loss import _tiles
from fastssl.loss._operators import Sums, contrastive_sums


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that a few rows make many of them."""
    monkeypatch.setattr(_tiles, "CPU_TILE", (3, 6))
    monkeypatch.setattr(_tiles, "GPU_TILE", (3, 6))


def rows(count: int, width: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64).to(dtype)


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


def results(function, tensors, weights, **options):  # type: ignore[no-untyped-def]
    """Sums, and the gradients of their weighted sum; sums of nothing (-inf) take no part in it."""
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in tensors]
    sums = function(*leaves, **options)
    total = sum((w * torch.where(s.isinf(), 0, s)).sum() for s, w in zip(sums, weights, strict=True) if len(s))
    grads = torch.autograd.grad(total, [x for x in leaves if x is not None], allow_unused=True)
    return [s.detach() for s in sums], list(grads)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Tensor | None], dict[str, object]]:
    symmetric = draw(st.booleans())
    count, width = draw(st.integers(1, 20)), draw(st.integers(1, 9))
    other = count if symmetric else draw(st.integers(1, 25))
    seed = draw(st.integers(0, 2**31))
    scale = torch.tensor(draw(st.sampled_from([1.0, 10.0, 41.6, 42.0, 100.0])), dtype=torch.float64)
    query, key = rows(count, width, seed=seed), None if symmetric else rows(other, width, seed=seed + 1)
    options: dict[str, object] = {}
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
def test_sums_and_gradients_are_those_of_the_stored_matrix(case, listed) -> None:  # type: ignore[no-untyped-def]
    tensors, options = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tiles, "CPU_TILE", (3, 6))
        patch.setattr("fastssl.loss._pairs.MOST_LISTED", 1000 if listed else 0)
        exact_sums = by_definition(*tensors, **options)
        weights = [rows(1, len(s), seed=7)[0] if len(s) else s for s in exact_sums]
        ours, our_grads = results(contrastive_sums, tensors, weights, **options)
        exact, exact_grads = results(by_definition, tensors, weights, **options)
    for a, b in zip([*ours, *our_grads], [*exact, *exact_grads], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
