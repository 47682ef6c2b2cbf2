"""The logsumexp over the allowed entries of S = scale * query @ key^T and its gradients in plain torch, tile by tile.

One of the backends under _operators.py: the one for the CPU, for float64, and for devices without kernels. Plain
functions on plain tensors: no autograd, no checks of arguments, no collectives. A tile is used while it is in the
cache and then dropped, so that memory is O(R D).

Everything in here is in base 2 (exp2, logits times log2 e), because exp2 takes a quarter of the time of exp in torch's
CPU build; what goes in and out is in base e.

Note [Which rows need a maximum]
    A logit lies within |scale| times the largest lengths of a query and a key, 1/t for unit rows. Up to
    LARGEST_WITHOUT_SHIFT neither exp(1/t) nor exp(-1/t) leaves float32, even summed over a million rows, so the sums
    need no shift at all, and one exponential serves both a row's sum and a column's. Beyond that every row and every
    column has its own shift, the maximum of its logits, found on the way (`_OnlineSums`).

Note [One pass of the gradient]
    With G the gradient in the logits, dq = scale * G k and dk = scale * G^T q, and G_ij is the exponential of the logit
    times a number of the row plus a number of the column. Where the keys are the queries, dq = scale * (G + G^T) q, and
    a tile above the diagonal gives both its rows and its columns their part: half of the logits are enough.

Note [The gradient in the scale]
    It is sum_ij G_ij q_i . k_j, hence the sum of q_i . dq_i / scale: no logit is needed, and none that was left out
    (-inf) meets the scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fastssl.loss._pairs import EqualIds
from fastssl.loss._rows import add_shifted_rows, in_input, in_use, shifted_rows, working_dtype

__all__ = ["backward", "forward", "forward_with_means", "product", "tile_shape"]

# See Note [Which rows need a maximum]: exp(1 / 0.024) is 1.2e18, the largest float32 3.4e38.
LARGEST_WITHOUT_SHIFT = 1 / 0.024

# Logits a tile holds (rows, columns); columns are a multiple of rows. On a CPU two tiles of float32 fit the L3 cache
# beside the rows; a GPU needs more of them to fill its multiprocessors.
CPU_TILE = (512, 1024)
GPU_TILE = (2048, 4096)

LOG2_E = 1 / math.log(2)
LN_2 = math.log(2)


def forward(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    positive: int | None,
    columns: bool,
    normalize_query: bool,
    normalize_key: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, (N,), positives, (N,) or (0,), and columns, (M,) or (0,), as `contrastive_sums` says."""
    matrix = _Matrix(query, key, scale, query_ids, key_ids, normalize_query, normalize_key)
    q, k = matrix.query, matrix.key
    row_sums = _sums(q, len(q), matrix.shifted)
    column_sums = row_sums if matrix.symmetric else _sums(q, len(k), matrix.shifted) if columns else None
    for rows, cols, tile in matrix.tiles():
        if not matrix.shifted:
            tile.exp2_()
        if column_sums is not None and not (matrix.symmetric and rows == cols):
            column_sums.add(cols, tile.t(), keep=True)
        row_sums.add(rows, tile, keep=False)
    positives = q.new_empty(0)
    if positive is not None:
        positives = (q * shifted_rows(k, positive, len(q))).sum(dim=1) * scale
    of_columns = q.new_empty(0) if column_sums is None or matrix.symmetric else column_sums.logarithm()
    return row_sums.logarithm(), positives, of_columns


def forward_with_means(
    query: Tensor,
    key: Tensor,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    normalize_query: bool,
    normalize_key: bool,
) -> tuple[Tensor, Tensor]:
    """Rows, (N,), and the mean of the keys under the softmax of each row over its allowed entries, (N, D).

    The gradient in the queries is grad_rows times scale times the mean: the backward pass then needs no key, and the
    two take two thirds of the time.
    """
    matrix = _Matrix(query, key, scale, query_ids, key_ids, normalize_query, normalize_key)
    q, k = matrix.query, matrix.key
    sums, means = _sums(q, len(q), matrix.shifted), torch.zeros_like(q)
    for rows, cols, tile in matrix.tiles():
        if not matrix.shifted:
            tile.exp2_()
        rescale = sums.add(rows, tile, keep=False)
        if rescale is not None:
            means[rows] *= rescale[:, None]
        means[rows] += product(tile, k[cols].t())
    means /= sums.sums[:, None]
    return sums.logarithm(), means.masked_fill_((sums.sums == 0)[:, None], 0)


def backward(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    positive: int | None,
    columns: bool,
    normalize_query: bool,
    normalize_key: bool,
    rows: Tensor,
    column_values: Tensor,
    grad_rows: Tensor,
    grad_positives: Tensor,
    grad_columns: Tensor,
    needs_query: bool,
    needs_key: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients in query, (N, D), key, (M, D), and scale, (); (0, D) where not needed or where there is no key.

    Args:
        rows, column_values: From the forward pass. `columns` says whether there are any; with key=None there are not,
            and the gradient in the rows counts for both.
        grad_rows, grad_positives, grad_columns: Gradients in the outputs.
        needs_query, needs_key: Which of the gradients are wanted; that in the scale is always made.
    """
    matrix = _Matrix(query, key, scale, query_ids, key_ids, normalize_query, normalize_key)
    q, k = matrix.query, matrix.key
    of_rows = _Weights.of(rows, grad_rows)
    of_columns = of_rows if matrix.symmetric else _Weights.of(column_values, grad_columns) if columns else None
    makes_query = needs_query or not needs_key  # for the scale
    by_row = torch.zeros_like(q) if makes_query else q.new_empty(0, q.shape[1])
    # Transposed: half the time of the product the other way.
    by_column = q.new_zeros(q.shape[1], len(k)) if needs_key or matrix.symmetric else None
    for r, c, tile in matrix.tiles():
        _to_gradient(tile, of_rows.part(r), of_columns.part(c) if of_columns else None, matrix.shifted)
        if by_column is not None and not (matrix.symmetric and r == c):
            by_column[:, c] += product(q[r].t().contiguous(), tile.t())
        if makes_query:
            by_row[r] += product(tile, k[c].t())
    by_key = q.new_empty(0, q.shape[1]) if by_column is None else by_column.t().contiguous()
    if positive is not None:
        pull = grad_positives[:, None].to(q.dtype)
        if makes_query:
            by_row.addcmul_(pull, shifted_rows(k, positive, len(q)))
        if by_column is not None:
            add_shifted_rows(by_key, pull * q, positive)
    if matrix.symmetric:
        by_row.add_(by_key)
        by_key = q.new_empty(0, q.shape[1])
    along, of = (by_row, q) if makes_query else (by_key, k)
    grad_scale = (along * of).sum(dtype=torch.float64).to(scale.dtype)
    if matrix.symmetric:
        grad_scale = grad_scale / 2
    return (
        in_input((by_row if needs_query else by_row[:0]) * scale, q, matrix.query_norm, query.dtype),
        in_input(by_key * scale, k, matrix.key_norm, query.dtype if key is None else key.dtype),
        grad_scale,
    )


class _Matrix:
    """S in base 2, made tile by tile, with -inf where it is not allowed."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor | None,
        scale: Tensor,
        query_ids: Tensor | None,
        key_ids: Tensor | None,
        normalize_query: bool,
        normalize_key: bool,
    ) -> None:
        dtype = working_dtype(query.dtype)
        self.symmetric = key is None
        self.query, self.query_norm = in_use(query, dtype, normalize_query)
        self.key, self.key_norm = (self.query, None) if key is None else in_use(key, dtype, normalize_key)
        self.shifted = _needs_shift(self.query, self.key, scale, normalize_query, normalize_key or self.symmetric)
        self._scaled = self.query * (scale * LOG2_E)
        self._height, self._width = tile_shape(query.device)
        self._excluded = None
        if query_ids is not None:
            self._excluded = EqualIds(query_ids, query_ids if key_ids is None else key_ids, self._height)

    def tiles(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows, columns and logits of each tile; of a symmetric matrix those on and above the diagonal."""
        height, width = self._height, self._width
        count, other = len(self.query), len(self.key)
        for top in range(0, count, height):
            bottom = min(top + height, count)
            lefts = [(left, min(left + width, other)) for left in range(0, other, width)]
            if self.symmetric:  # the tile on the diagonal is a square
                lefts = [(top, bottom), *((left, min(left + width, other)) for left in range(bottom, other, width))]
            for left, right in lefts:
                rows, columns = slice(top, bottom), slice(left, right)
                tile = product(self._scaled[rows], self.key[columns])
                if self._excluded is not None:
                    self._excluded.fill(tile, rows, columns, -math.inf)
                yield rows, columns, tile


def _needs_shift(query: Tensor, key: Tensor, scale: Tensor, unit_query: bool, unit_key: bool) -> bool:
    """Whether exponentials of the logits may leave float32: Note [Which rows need a maximum]."""
    if query.device.type != "cpu":
        return True  # to know it would be to wait for the device
    largest = abs(scale.item())
    for rows, unit in ((query, unit_query), (key, unit_key)):
        if not unit:
            largest *= torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).amax().item()
    return not largest <= LARGEST_WITHOUT_SHIFT


class _PlainSums:
    """Sum of 2 ** logit of each row, where no logit is too large; given the exponentials."""

    def __init__(self, like: Tensor, count: int) -> None:
        self.sums = like.new_zeros(count)

    def add(self, rows: slice, tile: Tensor, keep: bool) -> Tensor | None:
        self.sums[rows] += tile.sum(dim=1)
        return None

    def logarithm(self) -> Tensor:
        return torch.log(self.sums)


class _OnlineSums:
    """Sum of 2 ** (logit - shift) of each row, the shift the largest of its logits so far; given the logits."""

    def __init__(self, like: Tensor, count: int) -> None:
        self.sums = like.new_zeros(count)
        # Finite, so that the difference of two is 0 and not nan where a row has no logit yet.
        self._shift = like.new_full((count,), torch.finfo(like.dtype).min)

    def add(self, rows: slice, tile: Tensor, keep: bool) -> Tensor:
        """Takes the tile, overwriting it by the exponentials unless it is to be kept; what older sums were times."""
        highest = torch.maximum(tile.amax(dim=1), self._shift[rows])
        rescale = torch.exp2(self._shift[rows] - highest)
        powers = torch.sub(tile, highest[:, None], out=None if keep else tile).exp2_()
        self.sums[rows] = self.sums[rows] * rescale + powers.sum(dim=1)
        self._shift[rows] = highest
        return rescale

    def logarithm(self) -> Tensor:
        return torch.log(self.sums) + self._shift * LN_2


def _sums(like: Tensor, count: int, shifted: bool) -> _PlainSums | _OnlineSums:
    return _OnlineSums(like, count) if shifted else _PlainSums(like, count)


class _Weights:
    """What turns the logits of rows or columns into gradients: a gradient in each sum, and the sum's logarithm."""

    def __init__(self, grad: Tensor, shift: Tensor, weight: Tensor) -> None:
        self.grad, self.shift, self.weight = grad, shift, weight

    @classmethod
    def of(cls, sums: Tensor, grad: Tensor) -> _Weights:
        # A sum of nothing has no gradient; its logarithm of +inf makes every power 0.
        sums = torch.where(sums == -math.inf, math.inf, sums)
        return cls(grad.to(sums.dtype), sums * LOG2_E, grad * torch.exp(-sums))

    def part(self, where: slice) -> _Weights:
        return _Weights(self.grad[where], self.shift[where], self.weight[where])


def _to_gradient(tile: Tensor, of_rows: _Weights, of_columns: _Weights | None, shifted: bool) -> None:
    """Turns logits into the gradient in them, in place; Note [One pass of the gradient]."""
    if not shifted:
        weight = of_rows.weight[:, None]
        tile.exp2_().mul_(weight if of_columns is None else weight + of_columns.weight)
        return
    other = None if of_columns is None else torch.sub(tile, of_columns.shift).exp2_().mul_(of_columns.grad)
    tile.sub_(of_rows.shift[:, None]).exp2_().mul_(of_rows.grad[:, None])
    if other is not None:
        tile.add_(other)


def tile_shape(device: torch.device) -> tuple[int, int]:
    """Rows and columns of a tile."""
    return CPU_TILE if device.type == "cpu" else GPU_TILE


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b^T, (m, n), of a (m, k) and b (n, k), newly allocated."""
    if a.dtype == torch.float32 and a.device.type == "cpu" and _HAS_ONEDNN:
        # On AMD CPUs MKL, torch's default, stays with AVX2: 176 GFLOP/s on two cores of Zen 5, against 390 of oneDNN.
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return torch.mm(a, b.t())


_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
