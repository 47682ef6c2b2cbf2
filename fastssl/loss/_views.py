"""What the losses between two batches of views ask of them."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor

from fastssl.loss._checks import check_floats

__all__ = ["check_gather", "check_views"]


def check_views(who: str, first: tuple[str, Tensor], second: tuple[str, Tensor], may_be_empty: bool = False) -> None:
    """Raises where two batches, given with their names, are not of one shape (B, D) and of floating-point types.

    may_be_empty: Whether B = 0 is left to a later check, as where processes must first know each other's shapes.
    """
    for name, out in (first, second):
        check_floats(who, name, out)
    (name0, out0), (name1, out1) = first, second
    empty = out0.dim() == 2 and out0.shape[0] == 0 and not may_be_empty
    if out0.dim() != 2 or out0.shape != out1.shape or out0.shape[1] == 0 or empty:
        raise ValueError(
            f"{who}: {name0} has shape {tuple(out0.shape)}, {name1} {tuple(out1.shape)}; both must be (B, D) with B and D "
            "at least 1, rows i the views of image i, so pass the projections of views[0] and views[1]."
        )


def check_gather(who: str, gather_distributed: bool) -> None:
    """Raises where processes cannot exchange anything."""
    if gather_distributed and not torch.distributed.is_available():
        raise ValueError(
            f"{who}: gather_distributed=True needs torch.distributed, which this build of torch lacks; write "
            "gather_distributed=False, or install a build that has it."
        )
