"""Which random numbers a sample gets: the keys of Philox (csrc/core/philox.h) for whole batches of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastssl._native import _C
from fastssl.transforms.plan import check_key

__all__ = ["Keys", "seed_from_torch"]

_VIEWS = 16  # streams of one maker of masks, one a view


@dataclass(frozen=True, eq=False)
class Keys:
    """What identifies the random numbers of B samples, beside the number of the draw.

    Args:
        indices: Of the samples in their source, (B,), int64, on the device to draw on.
        seed: 0 to 2^64 - 1.
        epoch: 0 to 2^32 - 1.
        stream: What stands in the place of a view in the counter, 0 to 0xFFFF.
    """

    indices: Tensor
    seed: int
    epoch: int
    stream: int

    @staticmethod
    def of_masks(who: str, maker: int, indices: Any, seed: int, epoch: int, view: int, device: Any) -> Keys:
        """The keys of a maker of masks, from what a user gave.

        Args:
            who: Opens the errors.
            maker: Number of the maker, 0 to 7; each has streams of its own.
            indices: A tensor or a sequence of B whole numbers, at least 0.
            seed, epoch: See `Keys`.
            view: Which of several masks of a sample, 0 to 15.
            device: To draw on; None for that of `indices`.

        Raises:
            ValueError: an argument is out of its range. On a GPU the indices are not looked at, which would wait for it,
                nor under torch.compile, where it would break the graph.
        """
        check_key(who, seed, epoch)
        if not isinstance(view, int) or isinstance(view, bool) or not 0 <= view < _VIEWS:
            raise ValueError(f"{who}: view={view!r} must be a whole number from 0 to {_VIEWS - 1}.")
        return Keys(_as_indices(who, indices, device), seed, epoch, _C.MASK_STREAM + _VIEWS * maker + view)

    @staticmethod
    def from_torch(maker: int, count: int, device: Any) -> Keys:
        """Keys for samples without indices, with a seed from torch's default generator."""
        return Keys(torch.arange(count, device=device), seed_from_torch(), 0, _C.MASK_STREAM + _VIEWS * maker)

    @property
    def parts(self) -> tuple[Tensor, int, int, int]:
        """The first four arguments of the operators in `fastssl.ops.masks`."""
        return self.indices, self.seed, self.epoch, self.stream

    @property
    def device(self) -> torch.device:
        return self.indices.device

    def __len__(self) -> int:
        return self.indices.shape[0]


def seed_from_torch() -> int:
    """A seed, 0 to 2^63 - 2, from torch's default generator: torch.manual_seed and the seeds of workers govern it."""
    return int(torch.randint(2**63 - 1, (), device="cpu").item())


def _as_indices(who: str, indices: Any, device: Any) -> Tensor:
    if isinstance(indices, np.ndarray):
        indices = torch.as_tensor(indices)
    if not isinstance(indices, Tensor):
        if not isinstance(indices, Sequence) or not all(map(_is_index, indices)):
            raise ValueError(f"{who}: indices={indices!r} must be whole numbers, at least 0, in a list or a tensor.")
        indices = torch.tensor([int(i) for i in indices], dtype=torch.int64, device="cpu")
    if indices.dim() != 1 or indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(
            f"{who}: indices is {tuple(indices.shape)} {indices.dtype}, and must be (B,) of whole numbers, one a sample."
        )
    if indices.device.type == "cpu" and not torch.compiler.is_compiling() and bool((indices < 0).any()):
        raise ValueError(f"{who}: indices={indices.tolist()} must be at least 0.")
    return indices.to(device=device, dtype=torch.int64, non_blocking=indices.device.type == "cpu")


def _is_index(value: Any) -> bool:
    whole = type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))  # the first is quick
    return whole and 0 <= value < 2**63
