"""What hands encoded images to a pipeline, batch by batch: the form of such batches, and shares of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fastssl._native import _C
from fastssl.transforms._checks import check_whole
from fastssl.transforms.plan import check_key

__all__ = ["RawBatch", "Reader", "Share"]


@dataclass
class RawBatch:
    """Images of a batch as they are stored.

    Args:
        images: Of each: the file, (n,), uint8, on the CPU; or its pixels, (H, W, 3), uint8; or why it cannot be read.
        targets: One an image.
        indices: Places of the samples in their source.
        names: How errors name each.
        filenames: How the batch names each.
    """

    images: list[Tensor | str]
    targets: list[int]
    indices: list[int]
    names: list[str]
    filenames: list[str]


class Reader(Protocol):
    """Batches of encoded images."""

    def count(self, batch_size: int) -> int:
        """Batches of an epoch."""
        ...

    def batches(self, epoch: int, batch_size: int, threads: int) -> Iterator[RawBatch]:
        """Those of an epoch; a generator, whose close() ends what it began. It may be gone through more than once."""
        ...


@dataclass(frozen=True)
class Share:
    """Which samples of each epoch a reader takes, and in which order, as DALI's readers shard.

    Args:
        who: Opens errors.
        shuffle: Whether each epoch has its own order.
        seed: Of the order, 0 to 2^64 - 1; the same for all shards.
        shard, shards: The part of each epoch's order that is this reader's: of n samples those from n * shard // shards on.
        drop_last: Whether a last batch that is not full is left out. All shards then have as many batches, of
            (n // shards) // batch_size; else their numbers may differ by one.

    Raises:
        ValueError: An argument is out of its range.
    """

    who: str
    shuffle: bool
    seed: int
    shard: int
    shards: int
    drop_last: bool

    def __post_init__(self) -> None:
        check_key(self.who, self.seed, 0)
        check_whole(self.who, "shards", self.shards, 1)
        check_whole(self.who, "shard", self.shard, 0, self.shards - 1)

    def check(self, length: int) -> None:
        """Raises ValueError where a shard would be empty."""
        if length < self.shards:
            raise ValueError(
                f"{self.who}: shards={self.shards} is more than there are samples, {length}; some shards would be empty."
            )

    def permutation(self, epoch: int, length: int) -> Tensor:
        """The order of the epoch, (length,), int64: with the same seed that of `fastssl.Loader`."""
        check_key(self.who, self.seed, epoch)
        if not self.shuffle:
            return torch.arange(length, device="cpu")
        out = torch.empty(length, dtype=torch.int64, device="cpu")
        _C.draw_permutation(self.seed, epoch, length, out.data_ptr())
        return out

    def bounds(self, length: int, batch_size: int) -> tuple[int, int]:
        """First and last place, itself excluded, of what is taken of an order of that length."""
        first, last = length * self.shard // self.shards, length * (self.shard + 1) // self.shards
        if self.drop_last:
            last = first + length // self.shards // batch_size * batch_size
        return first, last

    def count(self, length: int, batch_size: int) -> int:
        """Batches of an epoch."""
        first, last = self.bounds(length, batch_size)
        return -(-(last - first) // batch_size)
