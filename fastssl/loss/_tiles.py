"""Contrastive losses and their gradients, tile by tile, so that no similarity matrix is stored.

Plain functions on plain tensors: no autograd, no checks of arguments, no collectives. What they mean to autograd is in
_operators.py, what they mean between processes in _distributed.py.

Rows have unit length, a logit is their product divided by the temperature, and everything here is in base 2 (exp2,
logits times log2 e), because exp2 takes a quarter of the time of exp in torch's CPU build. Rows i and i + B are the
two views of image i.

Note [Which rows need a maximum]
    A logit of unit rows lies in [-1/t, 1/t]. For t >= 0.024 neither exp(1/t) nor exp(-1/t) leaves float32, even summed
    over a million rows, so the sums need no shift at all, and one tile serves both the rows and, transposed, the
    columns. Below that every row has its own shift, the maximum of its logits, found on the way (`_online_sums`).

Note [Small losses]
    With N the sum over the negatives and p the exponential of the positive, the loss of a row is log((N + p) / p).
    Taken as softplus(log N - log p) it keeps its relative accuracy when it is small, and so does the gradient of the
    positive logit, -N / (N + p) = expm1(-loss). So N is summed without the positive, and the positive is read from the
    tile itself.

Note [One pass of the gradient]
    dL/dz_i = sum_j H_ij z_j / t with H = G + G^T, G the gradient in the logits. H is symmetric and each of its entries
    needs the logit and two numbers a row (weight and sum), so a tile above the diagonal gives rows and columns their
    gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

__all__ = [
    "NORM_EPS",
    "infonce_forward",
    "ntxent_backward",
    "ntxent_forward",
    "unit_rows",
    "unit_rows_backward",
    "working_dtype",
]

# The same as torch.nn.functional.normalize: rows shorter than this are divided by this.
NORM_EPS = 1e-12

# See Note [Which rows need a maximum]: exp(1 / 0.024) is 1.2e18, the largest float32 3.4e38.
LEAST_TEMPERATURE_WITHOUT_SHIFT = 0.024

# Logits a tile holds (rows, columns). On a CPU two tiles of float32 fit the L3 cache beside the rows; a GPU needs more
# of them to fill its multiprocessors.
CPU_TILE = (512, 1024)
GPU_TILE = (2048, 4096)

LOG2_E = 1 / math.log(2)
LN_2 = math.log(2)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the logits and of the value: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unit_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of x divided by their length, (R, D), and the lengths, (R, 1), at least NORM_EPS, both in the working dtype.

    Lengths are summed in float64, so that rows as long as 1e30 keep their direction.
    """
    dtype = working_dtype(x.dtype)
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64).to(dtype)
    norm.clamp_(min=NORM_EPS)
    return x.to(dtype) / norm, norm


def unit_rows_backward(grad: Tensor, unit: Tensor, norm: Tensor, dtype: torch.dtype) -> Tensor:
    """Gradient in x of `unit_rows`, in dtype, given the gradient in the unit rows; overwrites grad.

    A row shorter than NORM_EPS is only scaled, by 1e12; where that exceeds dtype (float16) its gradient is the largest
    finite number. In other rows overflow stays infinite, for a GradScaler to see.
    """
    short = norm <= NORM_EPS
    along = (grad * unit).sum(dim=1, keepdim=True).masked_fill_(short, 0)
    grad.addcmul_(unit, along, value=-1).div_(norm)
    limit = torch.finfo(dtype).max
    return torch.where(short, grad.clamp(-limit, limit), grad).to(dtype)


def ntxent_forward(unit: Tensor, remote: Sequence[Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """Loss of every row, and what its gradient needs.

    Args:
        unit: Unit rows, (2B, D); rows i and i + B are views of one image.
        remote: Further unit rows, (M, D) each: negatives of all rows.
        temperature: > 0.

    Returns:
        Losses, (2B,), and stats, (2, 2B): the sum of 2 ** (logit - shift) over a row without itself, and the shift
        (base 2).
    """
    scaled = unit * (LOG2_E / temperature)
    half = len(unit) // 2
    if temperature >= LEAST_TEMPERATURE_WITHOUT_SHIFT:
        negatives, positive = _symmetric_sums(scaled, unit)
        for columns in remote:
            _add_plain_sums(negatives, scaled, columns)
        shift = torch.zeros_like(negatives)
    else:
        positive = unit.new_empty(half)
        negatives, shift = _online_sums(scaled, [unit, *remote], 1 / temperature, positive)
    positive = positive.repeat(2)
    if temperature < LEAST_TEMPERATURE_WITHOUT_SHIFT:  # the positive is a logit of the row too
        highest = torch.maximum(shift, positive)
        negatives *= torch.exp2(shift - highest)
        shift = highest
    losses = _softplus(torch.log(negatives) + (shift - positive) * LN_2)
    total = negatives + torch.exp2(positive - shift)
    return losses, torch.stack([total, shift])


def ntxent_backward(
    unit: Tensor,
    losses: Tensor,
    weights: Tensor,
    stats: Tensor,
    remote: Iterable[tuple[Tensor, Tensor]],
    temperature: float,
) -> Tensor:
    """Gradient in the unit rows, (2B, D), of the sum over all rows, the remote ones too, of weight times loss.

    Args:
        unit: As in the forward pass, (2B, D).
        losses: From the forward pass, (2B,).
        weights: Gradient in the losses, (2B,).
        stats: Of the unit rows, (2, 2B): weight divided by sum, and shift.
        remote: For further rows: unit rows, (M, D), and their own stats, (2, M), taken one after the other.
        temperature: As in the forward pass.
    """
    scaled = unit * (LOG2_E / temperature)
    shifted = temperature < LEAST_TEMPERATURE_WITHOUT_SHIFT
    half = len(unit) // 2
    positive = weights * torch.expm1(-losses)
    positive = positive[:half] + positive[half:]
    by_row = torch.zeros_like(unit)
    by_column = unit.new_zeros(unit.shape[1], unit.shape[0])  # transposed: half the time of the product the other way
    for rows, columns in _upper_tiles(len(unit), unit.device):
        tile = _product(scaled[rows], unit[columns])
        _to_weights(tile, stats[:, rows], stats[:, columns], shifted)
        for diagonal, images in _positives(tile, rows, columns, half):
            diagonal.copy_(positive[images])
        if rows == columns:
            tile.diagonal().zero_()
        else:
            by_column[:, columns] += _product(unit[rows].t().contiguous(), tile.t())
        by_row[rows] += _product(tile, unit[columns].t())
    for others, other_stats in remote:
        for rows, columns in _all_tiles(len(unit), len(others), unit.device):
            tile = _product(scaled[rows], others[columns])
            _to_weights(tile, stats[:, rows], other_stats[:, columns], shifted)
            by_row[rows] += _product(tile, others[columns].t())
    return by_row.add_(by_column.t()).div_(temperature)


def infonce_forward(
    query: Tensor, key: Tensor, bank: Tensor, temperature: float, with_mean: bool
) -> tuple[Tensor, Tensor]:
    """Loss of every query against one positive and the rows of a bank, and what its gradient needs.

    Args:
        query: Unit rows, (B, D).
        key: Unit rows, (B, D); row i is the positive of query i.
        bank: Negatives of all queries, (M, D), M > 0, rows of any length.
        temperature: > 0.
        with_mean: Whether to sum what the gradient needs.

    Returns:
        Losses, (B,), and the mean of the bank under the softmax of each query over the negatives, (B, D), or (0, D).
    """
    scaled = query * (LOG2_E / temperature)
    mean = torch.zeros_like(query) if with_mean else query.new_empty(0, query.shape[1])
    sums, shift = _online_sums(scaled, [bank], 1 / temperature, None, mean if with_mean else None)
    positive = (scaled * key).sum(dim=1)
    losses = _softplus(torch.log(sums) + (shift - positive) * LN_2)
    return losses, mean.div_(sums[:, None]) if with_mean else mean


def _symmetric_sums(scaled: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of 2 ** logit over the negatives of each row, (R,), and the positive logits, (R / 2,), without shift."""
    count, half = len(unit), len(unit) // 2
    sums, positive = unit.new_zeros(count), unit.new_empty(half)
    for rows, columns in _upper_tiles(count, unit.device):
        tile = _product(scaled[rows], unit[columns])
        diagonals = _positives(tile, rows, columns, half)
        for diagonal, images in diagonals:
            positive[images] = diagonal
        tile.exp2_()
        for diagonal, _ in diagonals:
            diagonal.zero_()
        if rows == columns:
            tile.diagonal().zero_()
        else:
            sums[columns] += tile.sum(dim=0)
        sums[rows] += tile.sum(dim=1)
    return sums, positive


def _add_plain_sums(sums: Tensor, scaled: Tensor, others: Tensor) -> None:
    """Adds the sum of 2 ** logit over all other rows to sums, (R,), without shift."""
    for rows, columns in _all_tiles(len(scaled), len(others), scaled.device):
        sums[rows] += _product(scaled[rows], others[columns]).exp2_().sum(dim=1)


def _online_sums(
    scaled: Tensor,
    groups: Sequence[Tensor],
    largest: float,
    positive: Tensor | None,
    mean: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of 2 ** (logit - shift) over the rows of all groups, (R,), and the shift, (R,), the largest of these logits.

    Args:
        scaled: Unit rows times log2 e / t, (R, D).
        groups: Rows, (M, D) each.
        largest: Largest logit of unit rows, in base e. Where a row has no negative, the shift is twice its opposite.
        positive: If given, the first group are the rows themselves: (R / 2,) receives the positive logits, and neither
            they nor a row's product with itself enter the sums.
        mean: If given, zeros (R, D), receives the sum of 2 ** (logit - shift) times the row.
    """
    count = len(scaled)
    sums = scaled.new_zeros(count)
    shift = scaled.new_full((count,), -2 * LOG2_E * largest)
    for position, others in enumerate(groups):
        for rows, columns in _all_tiles(count, len(others), scaled.device):
            chunk = others[columns].to(scaled.dtype)
            tile = _product(scaled[rows], chunk)
            if positive is not None and position == 0:
                for diagonal, images in _positives(tile, rows, columns, count // 2):
                    positive[images] = diagonal
                    diagonal.fill_(-math.inf)
                tile.diagonal(rows.start - columns.start).fill_(-math.inf)
            highest = torch.maximum(tile.amax(dim=1), shift[rows])
            rescale = torch.exp2(shift[rows] - highest)
            tile.sub_(highest[:, None]).exp2_()
            sums[rows] = sums[rows] * rescale + tile.sum(dim=1)
            if mean is not None:
                mean[rows] = mean[rows] * rescale[:, None] + _product(tile, chunk.t())
            shift[rows] = highest
    return sums, shift


def _to_weights(tile: Tensor, stats: Tensor, column_stats: Tensor, shifted: bool) -> None:
    """Turns logits into H of Note [One pass of the gradient], in place; stats are (2, rows) and (2, columns)."""
    (weight, shift), (column_weight, column_shift) = stats[:, :, None], column_stats[:, None, :]
    if shifted:
        other = torch.sub(tile, column_shift).exp2_().mul_(column_weight)
        tile.sub_(shift).exp2_().mul_(weight).add_(other)
    else:
        tile.exp2_().mul_(weight + column_weight)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); torch's own returns x from 20 on, which float64 notices."""
    return torch.logaddexp(x, x.new_zeros(()))


def _positives(tile: Tensor, rows: slice, columns: slice, half: int) -> list[tuple[Tensor, slice]]:
    """The diagonals of a tile that hold positive logits, and the images they belong to."""
    found = []
    for distance in (half, -half):
        # Row i of the matrix meets column i + distance where both lie in the tile.
        start = max(rows.start, columns.start - distance, 0, -distance)
        stop = min(rows.stop, columns.stop - distance)
        if start < stop:
            diagonal = tile.diagonal(distance + rows.start - columns.start)
            image = start if distance > 0 else start - half
            found.append((diagonal, slice(image, image + stop - start)))
    return found


def _upper_tiles(count: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Tiles of a (count, count) matrix on and above its diagonal; those on it are square."""
    height, width = _tile_shape(device)
    for top in range(0, count, height):
        bottom = min(top + height, count)
        yield slice(top, bottom), slice(top, bottom)
        for left in range(bottom, count, width):
            yield slice(top, bottom), slice(left, min(left + width, count))


def _all_tiles(count: int, columns: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Tiles of a (count, columns) matrix."""
    height, width = _tile_shape(device)
    for top in range(0, count, height):
        for left in range(0, columns, width):
            yield slice(top, min(top + height, count)), slice(left, min(left + width, columns))


def _tile_shape(device: torch.device) -> tuple[int, int]:
    return CPU_TILE if device.type == "cpu" else GPU_TILE


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b^T, (m, n), of a (m, k) and b (n, k), newly allocated."""
    if a.dtype == torch.float32 and a.device.type == "cpu" and _HAS_ONEDNN:
        # On AMD CPUs MKL, torch's default, stays with AVX2: 176 GFLOP/s on two cores of Zen 5, against 390 of oneDNN.
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return torch.mm(a, b.t())


_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
