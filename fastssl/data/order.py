"""Which samples make up which batch: a function of (seed, epoch, position), on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastssl._native import _C

__all__ = ["Order", "Step"]


@dataclass(frozen=True)
class Step:
    """One batch of one rank.

    Args:
        epoch: The epoch.
        places: Where its samples stand in the order of the epoch.
        indices: The samples, in the same order, (n,), int64; part of the epoch's order, not to be written.
        after: How many samples of the epoch all ranks together have seen after it.
    """

    epoch: int
    places: range
    indices: Tensor
    after: int


@dataclass(frozen=True)
class Order:
    """The order in which epochs visit `length` samples.

    All ranks step through the same order, in batches of `batch_size * world_size`; each takes its slice of every one. So the
    ranks of a larger world see together what one rank alone would see.
    """

    length: int
    batch_size: int
    seed: int
    shuffle: bool
    drop_last: bool
    rank: int
    world_size: int

    def permutation(self, epoch: int) -> Tensor:
        """The samples in the order of the epoch, (length,), int64."""
        if not self.shuffle:
            return torch.arange(self.length, device="cpu")
        out = torch.empty(self.length, dtype=torch.int64, device="cpu")
        _C.draw_permutation(self.seed, epoch, self.length, out.data_ptr())
        return out

    def steps_per_epoch(self, position: int = 0) -> int:
        """Batches of an epoch from `position` on."""
        left, whole = self.length - position, self.batch_size * self.world_size
        return left // whole if self.drop_last else -(-left // whole)

    def steps(self, epoch: int, position: int, order: Tensor) -> Iterator[Step]:
        """The batches of this rank in `order`, the permutation of `epoch`, from `position` on."""
        whole = self.batch_size * self.world_size
        for _ in range(self.steps_per_epoch(position)):
            after = min(position + whole, self.length)
            first = position + self.rank * self.batch_size
            last = min(first + self.batch_size, after)
            yield Step(epoch, range(first, last), order[first:last], after)
            position = after
