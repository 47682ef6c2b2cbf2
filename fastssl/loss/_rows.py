"""Rows divided by their length, and what a gradient is in the rows before."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NORM_EPS", "unit_rows", "unit_rows_backward", "working_dtype"]

# The same as torch.nn.functional.normalize: rows shorter than this are divided by this.
NORM_EPS = 1e-12


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the logits and of the value: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unit_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows of x divided by their length, (R, D), and the lengths, (R, 1), at least NORM_EPS, both in dtype.

    Lengths are summed in float64, so that rows as long as 1e30 keep their direction.
    """
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
