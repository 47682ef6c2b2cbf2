"""Batches of encoded images: what a DataLoader's workers gather for `fastssl.to_device`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from fastssl._native import _C, DecodeError
from fastssl.data.multi_view_collate import label, split_samples
from fastssl.ops.decode import to_image
from fastssl.ops.shared import empty_batch

__all__ = ["BytesCollate", "EncodedBatch"]


@dataclass
class EncodedBatch:
    """Images of a batch, one behind the other, not decoded.

    Args:
        data: All of them, (n,), uint8.
        sizes: Bytes of each, (B,), int64.
        sides: Height and width of those that are pixels already, 8-bit RGB, (B, 2), int64; 0, 0 for encoded ones.
        targets: (B,), int64.
        filenames: B names, or none where the samples have none.
        names: How errors name each: its path, or its filename; empty where it has neither.
        unreadable: By place in the batch, why an image could not be read; its size is 0.
    """

    data: Tensor
    sizes: Tensor
    sides: Tensor
    targets: Tensor
    filenames: list[str]
    names: list[str]
    unreadable: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sizes)

    def images(self) -> list[Tensor]:
        """The bytes of each, views of `data`."""
        return list(self.data.split(self.sizes.tolist()))


class BytesCollate:
    """Gathers a batch of images as they are stored, for `fastssl.to_device` to decode; the `collate_fn` of a DataLoader.

    A worker then does no more than read files: no pixel goes through its memory, and a batch is handed over in one piece.

    >>> batch = BytesCollate()([(b"one", 4, "a.jpg"), (b"three", 2, "b.jpg")])
    >>> batch.sizes, batch.targets, batch.filenames, bytes(batch.images()[1].numpy())
    (tensor([3, 5]), tensor([4, 2]), ['a.jpg', 'b.jpg'], b'three')
    """

    def __call__(self, batch: Sequence[Any]) -> EncodedBatch:
        """Gathers a batch.

        Args:
            batch: B samples `(image, target, filename)` or `(image, target)`. An image is a path, or encoded bytes (as bytes or a
                uint8 tensor of one dimension). It may also be pixels, as `fastssl.ops.to_image` takes them, which costs what
                this class is there to save: torchvision's data sets return paths with `loader=str`.

        Returns:
            The batch. A file that cannot be read is noted in it: what follows from that is for `to_device` to decide.

        Raises:
            TypeError: A sample or its image is not as above. Names the sample.
            ValueError: The batch is empty.
        """
        if len(batch) == 0:
            raise ValueError(
                "BytesCollate: the batch is empty, and needs at least one sample (image, target, filename)."
            )
        images, targets, filenames = split_samples("BytesCollate", batch)
        pieces: list[np.ndarray] = []
        names: list[str] = []
        sides = torch.zeros((len(images), 2), dtype=torch.int64, device="cpu")
        unreadable: dict[int, str] = {}
        for i, image in enumerate(images):
            names.append(
                os.fspath(image) if isinstance(image, str | os.PathLike) else filenames[i] if filenames else ""
            )
            try:
                piece = _bytes_of(image)
                if piece is None:
                    pixels = to_image(image)
                    sides[i] = torch.tensor(pixels.shape[:2], device="cpu")
                    piece = pixels.contiguous().view(-1).numpy()
                elif not piece.size:
                    unreadable[i] = "the data is empty (0 bytes)"
            except DecodeError as error:
                unreadable[i] = str(error)
                piece = np.empty(0, dtype=np.uint8)
            except TypeError as error:
                raise TypeError(f"BytesCollate: sample {label(i, filenames)}: {error}") from error
            pieces.append(piece)
        sizes = torch.tensor([piece.size for piece in pieces], dtype=torch.int64, device="cpu")
        data = empty_batch((int(sizes.sum()),), torch.uint8)
        if data.numel():
            np.concatenate(pieces, out=data.numpy())
        return EncodedBatch(data, sizes, sides, targets, filenames, names, unreadable)


def _bytes_of(image: Any) -> np.ndarray | None:
    """The encoded bytes of an image; None for pixels."""
    if isinstance(image, str | os.PathLike):
        return np.frombuffer(_C.read_file(image), dtype=np.uint8)
    if isinstance(image, bytes | bytearray | memoryview):
        return np.frombuffer(image, dtype=np.uint8)
    if isinstance(image, Tensor) and image.dim() == 1 and image.dtype == torch.uint8:
        return image.contiguous().numpy()
    if isinstance(image, Tensor | np.ndarray | PIL.Image.Image):
        return None
    raise TypeError(
        f"got {type(image).__name__}; an image is a path, encoded bytes, or pixels. A data set with a transform returns "
        "something else: leave the transform out, the views are made by fastssl.to_device."
    )
