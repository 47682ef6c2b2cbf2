"""Rows of all processes of the default group, without gradient."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor

__all__ = ["gather_counts", "gather_rows", "world_size"]

# A process tells the others the position of its type here.
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def world_size() -> int:
    """Number of processes of the default group; 1 where torch.distributed is not in use."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


@torch.no_grad()
def gather_counts(rows: Tensor) -> list[int]:
    """How many rows every process has, in the order of their ranks.

    Every process must call this. A mismatch is an error everywhere and not a hang.

    Raises:
        ValueError: A process has no row, another number of columns or another type.
    """
    processes = torch.distributed.get_world_size()
    own = torch.tensor([*rows.shape, _DTYPES.index(rows.dtype)], device=rows.device)
    shapes = [torch.empty_like(own) for _ in range(processes)]
    torch.distributed.all_gather(shapes, own)
    table = [(int(count), int(width), _DTYPES[int(dtype)]) for count, width, dtype in (s.tolist() for s in shapes)]
    if any(count == 0 for count, _, _ in table) or len({(width, dtype) for _, width, dtype in table}) > 1:
        raise ValueError(
            f"gather_distributed: the processes hold rows of (count, width, type) {table}; every process needs at "
            "least one row, and all the same width and type, so give every process a batch of the same model."
        )
    return [count for count, _, _ in table]


@torch.no_grad()
def gather_rows(rows: Tensor, counts: list[int] | None = None) -> list[Tensor]:
    """The rows of every process in the order of their ranks, (n_r, D) each; n_r may differ between processes.

    Every process must call this, with the counts of `gather_counts`, or without, which exchanges them first and raises
    as it does.
    """
    counts = gather_counts(rows) if counts is None else counts
    longest = max(counts)
    # As bytes: not every backend knows every floating-point type.
    padded = rows.new_zeros((longest, rows.shape[1]))
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather([part.view(torch.uint8) for part in gathered], padded.view(torch.uint8))
    return [part[:count] for part, count in zip(gathered, counts, strict=True)]
