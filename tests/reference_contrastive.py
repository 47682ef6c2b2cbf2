"""Contrastive sums by their definition, of the whole matrix of logits: exact in float64, plain torch in the inputs' type.

S = scale * unit(query) @ unit(key).T; rows and columns are logsumexp over the pairs that are allowed; positives are S[i,
(i + shift) mod M].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Case:
    """Arguments of fastssl.loss._cuda.forward, and the gradients of what it returns."""

    query: Tensor
    key: Tensor | None
    scale: Tensor
    query_ids: Tensor | None = None
    key_ids: Tensor | None = None
    positive: int | None = None
    columns: bool = False
    normalize_query: bool = True
    normalize_key: bool = True
    grad_rows: Tensor | None = None
    grad_positives: Tensor | None = None
    grad_columns: Tensor | None = None

    def arguments(self) -> tuple:
        ids = self.query_ids, self.key_ids
        return (
            self.query, self.key, self.scale, *ids, self.positive, self.columns, self.normalize_query, self.normalize_key
        )  # fmt: skip

    def gradients(self) -> tuple:
        return self.grad_rows, self.grad_positives, self.grad_columns

    def to(self, dtype: torch.dtype) -> Case:
        """All but the ids in this type."""
        return replace(
            self,
            **{
                name: value.to(dtype)
                for name, value in vars(self).items()
                if isinstance(value, Tensor) and value.is_floating_point()
            },
        )


def unit_rows(x: Tensor) -> Tensor:
    """Divided by their length, or by 1e-12 if they are shorter; of rows whose squares exceed the type, the same direction."""
    largest = x.detach().abs().amax(dim=1, keepdim=True)
    scaled = x / torch.where(largest > 1e10, largest, torch.ones_like(largest))
    return torch.nn.functional.normalize(scaled, dim=1, eps=1e-12)


def sums(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, positives, columns, differentiable."""
    query = unit_rows(case.query) if case.normalize_query else case.query
    key, key_ids = query, case.query_ids
    if case.key is not None:
        key, key_ids = (unit_rows(case.key) if case.normalize_key else case.key), case.key_ids
    logits = (query @ key.T) * case.scale
    masked = logits
    if case.query_ids is not None:
        masked = logits.masked_fill(case.query_ids[:, None] == key_ids[None, :], -torch.inf)
    empty = logits.new_empty(0)
    positives = empty
    if case.positive is not None:
        partner = (torch.arange(len(query), device=query.device) + case.positive) % len(key)
        positives = logits.gather(1, partner[:, None])[:, 0]
    return _log_sum(masked, 1), positives, _log_sum(masked, 0) if case.columns else empty


def _log_sum(logits: Tensor, dim: int) -> Tensor:
    """logsumexp whose gradient is 0, and not NaN, where there is nothing to sum."""
    nothing = torch.isneginf(logits).all(dim=dim)
    held = logits.masked_fill(nothing.unsqueeze(dim), 0.0)
    return torch.logsumexp(held, dim=dim).masked_fill(nothing, -torch.inf)


def with_gradients(case: Case) -> dict[str, Tensor]:
    """Sums, and gradients in query, key and scale, by autograd."""
    leaves = replace(case, query=case.query.detach().requires_grad_(), scale=case.scale.detach().requires_grad_())
    if case.key is not None:
        leaves.key = case.key.detach().requires_grad_()
    results = sums(leaves)
    total = leaves.scale.sum() * 0 + leaves.query.sum() * 0
    for result, gradient in zip(results, case.gradients(), strict=True):
        if gradient is not None and len(result):
            finite = torch.isfinite(result)
            total = total + (result[finite] * gradient[finite]).sum()
    total.backward()
    found = dict(zip(("rows", "positives", "columns"), (r.detach() for r in results), strict=True))
    found |= {"grad_query": leaves.query.grad, "grad_scale": leaves.scale.grad}
    if case.key is not None:
        found["grad_key"] = leaves.key.grad
    return found
