"""Rows divided by their length, what a gradient is in the rows before, and rows that are another's positives."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "NORM_EPS",
    "add_shifted_rows",
    "in_input",
    "in_use",
    "number",
    "rows_at",
    "shifted_rows",
    "unit_rows",
    "unit_rows_backward",
    "working_dtype",
]

# The same as torch.nn.functional.normalize: rows shorter than this are divided by this.
NORM_EPS = 1e-12

# Of the largest finite number, what the gradient of such a row may reach in one operator: a loss is a few of them, and
# their gradients are added.
PART_OF_LARGEST = 1 / 8


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the logits and of the value: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def number(value: Tensor | float, like: Tensor) -> Tensor:
    """A number, or a tensor of one, as a tensor of no dimension on the device of `like` and in its working dtype."""
    dtype = working_dtype(like.dtype)
    if isinstance(value, Tensor):
        return value.reshape(()).to(device=like.device, dtype=dtype)
    return torch.full((), value, device=like.device, dtype=dtype)


def unit_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows of x divided by their length, (R, D), and the lengths, (R, 1), at least NORM_EPS, both in dtype.

    Lengths are summed in float64, so that rows as long as 1e30 keep their direction.
    """
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64).to(dtype)
    norm.clamp_(min=NORM_EPS)
    return x.to(dtype).contiguous() / norm, norm


def unit_rows_backward(
    grad: Tensor, unit: Tensor, norm: Tensor, dtype: torch.dtype, within: torch.dtype | None = None
) -> Tensor:
    """Gradient in x of `unit_rows`, in dtype, given the gradient in the unit rows; overwrites grad.

    A row shorter than NORM_EPS is only scaled, by 1e12; where that exceeds PART_OF_LARGEST of dtype, or of `within`,
    the type that it will be rounded to (float16), its gradient is that. In other rows overflow stays infinite, for a
    GradScaler to see.
    """
    short = norm <= NORM_EPS
    along = (grad * unit).sum(dim=1, keepdim=True).masked_fill_(short, 0)
    grad.addcmul_(unit, along, value=-1).div_(norm)
    limit = PART_OF_LARGEST * min(torch.finfo(kind).max for kind in (grad.dtype, dtype, within or dtype))
    return torch.where(short, grad.clamp(-limit, limit), grad).to(dtype)


def in_use(rows: Tensor, dtype: torch.dtype, normalize: bool) -> tuple[Tensor, Tensor | None]:
    """Rows as they enter the products, in dtype, and the lengths that they were divided by, if any."""
    return unit_rows(rows, dtype) if normalize else (rows.to(dtype).contiguous(), None)


def in_input(grad: Tensor, rows: Tensor, norm: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Gradient in the rows as they came, in dtype, given that in the rows as `in_use` has them; overwrites grad."""
    if norm is None or len(grad) == 0:
        return grad.to(dtype)
    return unit_rows_backward(grad, rows, norm, dtype)


def rows_at(rows: Tensor, places: Tensor) -> Tensor:
    """rows[places]. Where places repeat, gradients are added in the same order each time: those of index_select on a CPU, those
    of an index, which sorts, on a GPU."""
    return rows.index_select(0, places) if rows.device.type == "cpu" else rows[places]


def shifted_rows(rows: Tensor, shift: int, count: int) -> Tensor:
    """Row (i + shift) mod M of rows, (M, D), for i < count <= M: (count, D)."""
    start = shift % len(rows)
    first = rows[start : start + count]
    return first if len(first) == count else torch.cat([first, rows[: count - len(first)]])


def add_shifted_rows(rows: Tensor, added: Tensor, shift: int) -> None:
    """Adds row i of added to row (i + shift) mod M of rows, (M, D), in place."""
    start = shift % len(rows)
    before_end = min(len(added), len(rows) - start)
    rows[start : start + before_end] += added[:before_end]
    rows[: len(added) - before_end] += added[before_end:]
