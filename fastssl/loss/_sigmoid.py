"""The pairwise sigmoid loss as torch.library operators, tile by tile, so that no similarity matrix is stored.

With S = scale * query @ key^T + bias, a row's loss is the sum of log(1 + exp(S)) over its negatives and of
log(1 + exp(-S)) at its positive. No sum over a row enters its gradient, so, other than in the losses with a softmax,
the backward pass needs no number of the forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastssl.loss._operators import refuse_forward_mode, refuse_second_derivative
from fastssl.loss._rows import add_shifted_rows, in_input, in_use, shifted_rows, working_dtype
from fastssl.loss._tiles import product, tile_shape

__all__ = ["pairwise_losses", "sigmoid_backward", "sigmoid_forward"]

# From here on log(1 + exp(x)) is x, in float64 too: exp(-40) is 4e-18.
SOFTPLUS_IS_LINEAR = 40.0


def pairwise_losses(query: Tensor, key: Tensor, scale: Tensor, bias: Tensor, positive: int | None) -> Tensor:
    """Loss of every row, (N,), in the working dtype; differentiable once, in query, key, scale and bias.

    Args:
        query: (N, D).
        key: (M, D).
        scale, bias: (), in the working dtype.
        positive: If given, key (i + positive) mod M is the positive of query i, M >= N; None: all are negatives.
    """
    refuse_forward_mode(query, key, scale, bias)
    return _pairwise(query, key, scale, bias, positive)


def sigmoid_forward(query: Tensor, key: Tensor, scale: Tensor, bias: Tensor, positive: int | None) -> Tensor:
    """Loss of every row, (N,)."""
    pairs = _Pairs(query, key, scale, bias, positive)
    losses = pairs.query.new_zeros(len(query))
    for rows, _, logits in pairs.tiles():
        losses[rows] += nn.functional.softplus(logits, threshold=SOFTPLUS_IS_LINEAR).sum(dim=1)
    if positive is not None:
        losses += nn.functional.softplus(-pairs.positives(), threshold=SOFTPLUS_IS_LINEAR)
    return losses


def sigmoid_backward(
    query: Tensor,
    key: Tensor,
    scale: Tensor,
    bias: Tensor,
    positive: int | None,
    grad: Tensor,
    of_columns: bool,
    needs_key: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients in query, (N, D), key, (M, D), or (0, D) where not needed, scale, (), and bias, ().

    Args:
        query, key, scale, bias, positive, normalize: As in the forward pass.
        grad: Gradient in the losses, (N,), or, with of_columns, (M,).
        of_columns: Whether the losses are those of the columns.
        needs_key: Whether the gradient in the keys is wanted.
    """
    pairs = _Pairs(query, key, scale, bias, positive)
    q, k = pairs.query, pairs.key
    by_row = torch.zeros_like(q)
    by_column = q.new_zeros(q.shape[1], len(k) if needs_key else 0)
    grad_bias = q.new_zeros((), dtype=torch.float64)
    for rows, columns, tile in pairs.tiles():
        tile.sigmoid_()
        tile.mul_(grad[columns] if of_columns else grad[rows, None])
        grad_bias += tile.sum(dtype=torch.float64)
        by_row[rows] += product(tile, k[columns].t())
        if needs_key:
            by_column[:, columns] += product(q[rows].t().contiguous(), tile.t())
    by_key = by_column.t().contiguous()
    if positive is not None:
        pull = -(shifted_rows(grad, positive, len(q)) if of_columns else grad)
        pull = pull * torch.sigmoid(-pairs.positives())
        grad_bias += pull.sum(dtype=torch.float64)
        by_row.addcmul_(pull[:, None], shifted_rows(k, positive, len(q)))
        if needs_key:
            add_shifted_rows(by_key, pull[:, None] * q, positive)
    grad_scale = (by_row * q).sum(dtype=torch.float64)
    return (
        in_input(by_row * scale, q, pairs.query_norm, query.dtype),
        in_input(by_key * scale, k, pairs.key_norm, key.dtype) if needs_key else key.new_empty(0, key.shape[1]),
        grad_scale.to(scale.dtype),
        grad_bias.to(bias.dtype),
    )


class _Pairs:
    """S made tile by tile, with -inf at the positives."""

    def __init__(self, query: Tensor, key: Tensor, scale: Tensor, bias: Tensor, positive: int | None) -> None:
        dtype = working_dtype(query.dtype)
        self.query, self.query_norm = in_use(query, dtype, True)
        self.key, self.key_norm = in_use(key, dtype, True)
        self._scaled, self._bias, self._positive = self.query * scale, bias, positive

    def positives(self) -> Tensor:
        """Logits of the positives, (N,)."""
        assert self._positive is not None
        keys = shifted_rows(self.key, self._positive, len(self.query))
        return (self._scaled * keys).sum(dim=1) + self._bias

    def tiles(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows, columns and logits of each tile."""
        count, other = len(self.query), len(self.key)
        height, width = tile_shape(self.query.device)
        for top in range(0, count, height):
            for left in range(0, other, width):
                rows, columns = slice(top, min(top + height, count)), slice(left, min(left + width, other))
                tile = product(self._scaled[rows], self.key[columns]).add_(self._bias)
                if self._positive is not None:
                    start = self._positive % other
                    for distance in (start, start - other):  # row i meets column i + distance
                        tile.diagonal(distance + rows.start - columns.start).fill_(-math.inf)
                yield rows, columns, tile


@torch.library.custom_op("fastssl::pairwise_sigmoid", mutates_args=())
def _pairwise(query: Tensor, key: Tensor, scale: Tensor, bias: Tensor, positive: int | None) -> Tensor:
    with torch.autocast(query.device.type, enabled=False):
        return sigmoid_forward(query, key, scale, bias, positive)


@_pairwise.register_fake
def _(query: Tensor, key: Tensor, scale: Tensor, bias: Tensor, positive: int | None) -> Tensor:
    return scale.new_empty(query.shape[0])


@torch.library.custom_op("fastssl::pairwise_sigmoid_backward", mutates_args=())
def _pairwise_backward(
    query: Tensor,
    key: Tensor,
    scale: Tensor,
    bias: Tensor,
    positive: int | None,
    grad: Tensor,
    needs_key: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        return sigmoid_backward(query, key, scale, bias, positive, grad, False, needs_key)


@_pairwise_backward.register_fake
def _(
    query: Tensor,
    key: Tensor,
    scale: Tensor,
    bias: Tensor,
    positive: int | None,
    grad: Tensor,
    needs_key: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_key = key.new_empty(key.shape if needs_key else (0, key.shape[1]))
    return query.new_empty(query.shape), of_key, scale.new_empty(()), bias.new_empty(())


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.positive = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:4]
    grads = _pairwise_backward(*ctx.saved_tensors, ctx.positive, grad, needs[1])
    return *(g if needed else None for g, needed in zip(grads, needs, strict=True)), None


_pairwise.register_autograd(_differentiate, setup_context=_keep)
_pairwise_backward.register_autograd(refuse_second_derivative)
