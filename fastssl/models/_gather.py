"""Rows of all processes of the default group, without gradient."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor

__all__ = ["MOST_ROWS", "gather", "gather_counts", "gather_rows", "world_size"]

MOST_ROWS = 2**30  # kernels count rows in 32 bits, and add two counts

# A process tells the others the position of its type here.
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)


def world_size() -> int:
    """Number of processes of the default group; 1 where torch.distributed is not in use."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


@torch.no_grad()
def gather_counts(rows: Tensor) -> list[int]:
    """How many rows every process has, in the order of their ranks: one collective, for which the host waits.

    Every process must call this. A mismatch is an error everywhere and not a hang.

    Raises:
        ValueError: A process has no row, another number of columns or another type.
    """
    own = torch.tensor([[*rows.shape, _DTYPES.index(rows.dtype)]], device=rows.device)
    numbers = own.new_empty((torch.distributed.get_world_size(), 3))
    torch.distributed.all_gather_into_tensor(numbers, own)
    table = [(count, width, _DTYPES[dtype]) for count, width, dtype in numbers.tolist()]
    if any(count == 0 for count, _, _ in table) or len({(width, dtype) for _, width, dtype in table}) > 1:
        raise ValueError(
            f"gather_distributed: the processes hold rows of (count, width, type) {table}; every process needs at "
            "least one row, and all the same width and type, so give every process a batch of the same model."
        )
    return [count for count, _, _ in table]


@torch.no_grad()
def gather_rows(rows: Tensor, counts: list[int] | None = None) -> Tensor:
    """The rows of all processes in the order of their ranks, (T, D); their numbers may differ between processes.

    Every process must call this, with the counts of `gather_counts`, or without, which exchanges them first and raises
    as it does.
    """
    counts = gather_counts(rows) if counts is None else counts
    longest = max(counts)
    alike = min(counts) == longest
    sent = rows.detach().contiguous()
    if not alike:
        sent = rows.new_zeros((longest, rows.shape[1]))
        sent[: len(rows)] = rows
    received = rows.new_empty((len(counts) * longest, rows.shape[1]))
    # As bytes: not every backend knows every type.
    torch.distributed.all_gather_into_tensor(received.view(torch.uint8), sent.view(torch.uint8))
    if alike:
        return received
    return torch.cat([part[:count] for part, count in zip(received.split(longest), counts, strict=True)])


def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of all processes in their order, (T, D), without gradient, and how many each has, (processes,), on the CPU.

    One operator to torch.compile. Every process must call this; it raises as `gather_counts` does.
    """
    return _gather(rows.detach())


@torch.library.custom_op("fastssl::gather_rows", mutates_args=())
def _gather(rows: Tensor) -> tuple[Tensor, Tensor]:
    counts = gather_counts(rows)
    return gather_rows(rows, counts), torch.tensor(counts, device="cpu")


@_gather.register_fake
def _(rows: Tensor) -> tuple[Tensor, Tensor]:
    # What is true of the number, so that nobody need ask: every process has a row.
    total = torch.library.get_ctx().new_dynamic_size(min=world_size(), max=MOST_ROWS)
    return rows.new_empty(total, rows.shape[1]), torch.empty(world_size(), dtype=torch.int64, device="cpu")
