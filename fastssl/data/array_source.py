"""Images that lie in memory already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastssl.data.sources import PixelArray, Source

__all__ = ["ArraySource"]


class ArraySource(Source):
    """Images of one size in an array, which may be memory-mapped; the Loader reads them without Python.

    Args:
        images: An array or tensor, uint8 or uint16: (N, H, W, C), or (N, H, W) for images of one channel, gray. A tensor whose
            second dimension is 3 and whose last is not is taken as (N, 3, H, W), as torch has images; write
            `images.permute(0, 2, 3, 1)` to decide it yourself. Not copied where the values of a row of pixels lie side by side,
            as they do in (N, H, W, C); (N, 3, H, W) in torch's own order is copied once, whole.
        targets: N labels; None for 0.
        filenames: N names; None for the indices.

    Raises:
        TypeError: images is no array or tensor, or of another type.
        ValueError: It has another shape or no image, or there are not N targets or filenames.

    >>> ArraySource(np.zeros((5, 32, 32, 3), dtype=np.uint8), targets=[1, 2, 3, 4, 5]).target(2)
    3
    """

    def __init__(
        self,
        images: Any,
        targets: Sequence[int] | np.ndarray | Tensor | None = None,
        filenames: Sequence[str] | None = None,
    ) -> None:
        array = _as_array(images)
        self.images: np.ndarray = array
        self.channels = array.shape[3]
        n = len(array)
        labels = (
            torch.zeros(n, dtype=torch.int64, device="cpu")
            if targets is None
            else torch.as_tensor(targets, device="cpu")
        )
        if labels.shape != (n,) or labels.is_floating_point() or labels.is_complex():
            raise ValueError(
                f"ArraySource: targets are {labels.dtype} of shape {tuple(labels.shape)}; {n} images need ({n},) whole numbers."
            )
        self.targets = labels.to(torch.int64)
        self.filenames = None if filenames is None else [str(name) for name in filenames]
        if self.filenames is not None and len(self.filenames) != n:
            raise ValueError(f"ArraySource: {len(self.filenames)} filenames do not go with {n} images.")

    def __len__(self) -> int:
        return len(self.images)

    def native(self) -> PixelArray:
        return PixelArray(self.images)

    def fetch(self, index: int) -> Tensor:
        """A copy: the array may be one that must not be written."""
        return torch.from_numpy(self.images[index].copy())

    def target(self, index: int) -> int:
        return int(self.targets[index])

    def filename(self, index: int) -> str:
        return str(index) if self.filenames is None else self.filenames[index]

    def targets_of(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(self.targets.numpy()[indices.numpy()])  # numpy: Note [Torch's threads]

    def filenames_of(self, indices: Tensor) -> list[str]:
        names = self.filenames
        return list(map(str, indices.tolist())) if names is None else [names[i] for i in indices.tolist()]

    def __repr__(self) -> str:
        n, height, width, channels = self.images.shape
        return f"ArraySource({n} images of {height} x {width}, {channels} channels, {self.images.dtype})"


def _as_array(images: Any) -> np.ndarray:
    """(N, H, W, C), with the values of a row of pixels side by side."""
    if isinstance(images, Tensor):
        if images.device.type != "cpu":
            raise TypeError(f"ArraySource: the images are on {images.device}; write images.cpu().")
        if images.dim() == 4 and images.shape[1] == 3 and images.shape[3] != 3:
            images = images.permute(0, 2, 3, 1)
        if images.dtype not in (torch.uint8, torch.uint16):
            raise TypeError(_wrong_type(images.dtype))
        images = images.detach().numpy()
    if not isinstance(images, np.ndarray):
        raise TypeError(
            f"ArraySource: got {type(images).__name__}; it takes an array or a tensor. For a list of images use DatasetSource."
        )
    if images.dtype not in (np.uint8, np.uint16):
        raise TypeError(_wrong_type(images.dtype))
    if images.ndim == 3:
        images = images[:, :, :, None]
    if images.ndim != 4 or not images.size:
        raise ValueError(
            f"ArraySource: images of shape {images.shape}; they must be (N, H, W, C) or (N, H, W), and not empty."
        )
    item, channels = images.itemsize, images.shape[3]
    # Where a side is 1, its stride is of no consequence and may be anything.
    packed = (channels == 1 or images.strides[3] == item) and (
        images.shape[2] == 1 or images.strides[2] == channels * item
    )
    if not packed or min(images.strides) < 0 or not images.dtype.isnative:
        images = np.ascontiguousarray(images, dtype=images.dtype.newbyteorder("="))
    return images


def _wrong_type(dtype: Any) -> str:
    return (
        f"ArraySource: the images are {dtype}; they must be uint8 or uint16. Values in [0, 1] become so by "
        "(images * 255).round(), converted to uint8."
    )
