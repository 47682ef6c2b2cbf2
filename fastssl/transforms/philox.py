"""Philox4x32-10 in plain tensor arithmetic: the random numbers of whole batches, the same bits on every device.

The words are those of csrc/core/philox.h, from the same counters. What follows from a word uses only operations that
IEEE 754 rounds in one way (+ - x /, square root, comparison), each a call of its own, so that none is fused with the
next; logarithms and exponentials of the arguments are taken by the host. So a CPU and a GPU draw the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastssl.transforms.plan import check_key

__all__ = ["MASK_STREAM", "Keys", "below", "log_uniform", "on_host", "philox4x32", "seed_from_torch", "uniform"]

MASK_STREAM = 0xFF00  # kMaskStream of csrc/core/philox.h
_VIEWS = 16  # streams of one maker of masks, one a view
_DRAWS = 2**16  # of one stream, four words each

_LOW = 0xFFFFFFFF
# The multipliers less 2^32: negative, so that their product with a word stays within an int64. The high half of the
# true product is the high half of this one, plus the word.
_M0, _M1 = 0xD2511F53 - 2**32, 0xCD9E8D57 - 2**32
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


def philox4x32(c0: Any, c1: Any, c2: Any, c3: Any, k0: int, k1: int) -> tuple[Any, Any, Any, Any]:
    """Four random words of each counter (Salmon et al., SC 2011).

    Args:
        c0, c1, c2, c3: The counter: int64 tensors or arrays that broadcast, or ints; each in [0, 2^32).
        k0, k1: The key, each in [0, 2^32).

    Returns:
        Four of what the counters broadcast to, each in [0, 2^32).

    >>> [hex(word) for word in philox4x32(0, 0, 0, 0, 0, 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        n0 = ((p1 >> 32) + c2) ^ c1 ^ k0
        n2 = ((p0 >> 32) + c0) ^ c3 ^ k1
        c0, c1, c2, c3 = n0, p1 & _LOW, n2, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


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
            ValueError: an argument is out of its range. On a GPU the indices are not looked at, which would wait for it.
        """
        check_key(who, seed, epoch)
        if not isinstance(view, int) or isinstance(view, bool) or not 0 <= view < _VIEWS:
            raise ValueError(f"{who}: view={view!r} must be a whole number from 0 to {_VIEWS - 1}.")
        return Keys(_as_indices(who, indices, device), seed, epoch, MASK_STREAM + _VIEWS * maker + view)

    @staticmethod
    def from_torch(maker: int, count: int, device: Any) -> Keys:
        """Keys for samples without indices, with a seed from torch's default generator."""
        return Keys(torch.arange(count, device=device), seed_from_torch(), 0, MASK_STREAM + _VIEWS * maker)

    @property
    def device(self) -> torch.device:
        return self.indices.device

    def __len__(self) -> int:
        return self.indices.shape[0]

    def take(self, rows: Tensor | slice) -> Keys:
        """The keys of some of the samples."""
        return Keys(self.indices[rows], self.seed, self.epoch, self.stream)

    def words(self, count: int, first: int = 0) -> Tensor:
        """Random words of each sample.

        Args:
            count: How many words, N.
            first: Number of the draw to begin with; each draw gives four words.

        Returns:
            (B, N), int64, in [0, 2^32).

        >>> keys = Keys(torch.tensor([0]), seed=0, epoch=0, stream=0)
        >>> [hex(word) for word in keys.words(2)[0].tolist()]
        ['0x6627e8d5', '0xe169c58d']
        """
        draws = -(-count // 4)
        if first + draws > _DRAWS:
            raise ValueError(f"Keys.words: a stream holds {_DRAWS} draws, and {first + draws} are asked for.")
        counter = torch.arange(first, first + draws, device=self.device).add_(self.stream << 16)
        index = self.indices[:, None]
        k0, k1 = self.seed & _LOW, self.seed >> 32
        if on_host(self.device):  # the same lines on arrays, whose operations start sooner
            low, high = index & _LOW, (index >> 32) & _LOW
            four = philox4x32(counter.numpy(), self.epoch, low.numpy(), high.numpy(), k0, k1)
            words = torch.stack([torch.from_numpy(word) for word in four], dim=2)
        else:
            words = torch.stack(philox4x32(counter, self.epoch, index & _LOW, (index >> 32) & _LOW, k0, k1), dim=2)
        return words.reshape(len(self), 4 * draws)[:, :count]


def on_host(device: torch.device) -> bool:
    """Whether tensors on the device can be looked at without waiting, and as arrays."""
    return device.type == "cpu"


def seed_from_torch() -> int:
    """A seed, 0 to 2^63 - 2, from torch's default generator: torch.manual_seed and the seeds of workers govern it."""
    return int(torch.randint(2**63 - 1, ()).item())


def uniform(words: Tensor) -> Tensor:
    """Uniform in (0, 1) from each word; float64."""
    return (words.double() + 0.5) * 2.0**-32


def below(words: Tensor, n: Tensor | int) -> Tensor:
    """Uniform in {0, ..., n - 1} from each word by Lemire's multiply, n below 2^31; the bias is at most n / 2^32."""
    return (words * n) >> 32


def log_uniform(words: Tensor, low: float, high: float) -> Tensor:
    """Uniform in the logarithm, from low to high, both above 0; float64, relative error below 1e-10.

    The exponential is a polynomial and squarings, whose every step is rounded alike on all devices.

    >>> log_uniform(torch.tensor([0, 2**31, 2**32 - 1]), 0.25, 4.0)
    tensor([0.2500, 1.0000, 4.0000], dtype=torch.float64)
    """
    width = math.log(high) - math.log(low)
    squarings = max(0, math.ceil(math.log2(width))) if width > 0 else 0  # then |x| <= 1 / 2
    x = (uniform(words) - 0.5) * (width / 2**squarings)
    result = torch.full_like(x, 1 / math.factorial(10))
    for k in range(9, -1, -1):
        result.mul_(x).add_(1 / math.factorial(k))
    for _ in range(squarings):
        result.mul_(result)
    return result.mul_(math.exp((math.log(low) + math.log(high)) / 2)).clamp_(low, high)


def _as_indices(who: str, indices: Any, device: Any) -> Tensor:
    if isinstance(indices, np.ndarray):
        indices = torch.as_tensor(indices)
    if not isinstance(indices, Tensor):
        whole = isinstance(indices, Sequence) and all(
            isinstance(i, Integral) and not isinstance(i, bool) and 0 <= int(i) < 2**63 for i in indices
        )
        if not whole:
            raise ValueError(f"{who}: indices={indices!r} must be whole numbers, at least 0, in a list or a tensor.")
        indices = torch.tensor([int(i) for i in indices], dtype=torch.int64)
    if indices.dim() != 1 or indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(
            f"{who}: indices is {tuple(indices.shape)} {indices.dtype}, and must be (B,) of whole numbers, one a sample."
        )
    if indices.device.type == "cpu" and bool((indices < 0).any()):
        raise ValueError(f"{who}: indices={indices.tolist()} must be at least 0.")
    return indices.to(device=device, dtype=torch.int64, non_blocking=indices.device.type == "cpu")
