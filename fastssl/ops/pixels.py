"""Where images lie in memory, in the form that native code takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastssl._native import _C

__all__ = ["Pixels", "channels_of", "device_of", "locate"]

_TYPES = {
    torch.uint8: _C.PixelType.uint8,
    torch.uint16: _C.PixelType.uint16,
    torch.float32: _C.PixelType.float32,
}
# Address, height, width, bytes from row to row, channels, type, bytes from channel to channel (0: side by side).
Located = tuple[int, int, int, int, int, _C.PixelType, int]


class Pixels(NamedTuple):
    """A batch of images: one entry each; or one entry and the bytes from each image to the next."""

    table: list[Located]
    number: int
    step: int
    keep: list[Tensor]  # copies that must live until the images have been read


def channels_of(images: Sequence[Tensor] | Tensor) -> int:
    if isinstance(images, Tensor):
        return images.shape[-1] if images.dim() == 4 else 3
    first = images[0] if len(images) else None
    return first.shape[2] if isinstance(first, Tensor) and first.dim() == 3 else 3


def device_of(images: Sequence[Tensor] | Tensor) -> torch.device:
    if isinstance(images, Tensor):
        return images.device
    first = images[0] if images else None
    return first.device if isinstance(first, Tensor) else torch.device("cpu")


def locate(images: Sequence[Tensor] | Tensor) -> Pixels:
    """Checks images, (H, W, C) each, or (B, H, W, C), and says where they are.

    The channels of a pixel lie side by side, or each channel is a plane whose rows are contiguous, as in a (C, H, W) tensor seen
    through `permute(1, 2, 0)`. On the CPU, other images are copied.

    Raises:
        TypeError, ValueError: An image is no such tensor, or not on the device of the first, or has other channels than it.
    """
    if isinstance(images, Tensor):
        if images.dim() != 4:
            raise TypeError(
                f"render: images are one tensor, {tuple(images.shape)}; it must be (B, H, W, C). One that is (B, C, H, W) "
                "becomes so by images.permute(0, 2, 3, 1)."
            )
        if not len(images):
            return Pixels([], 0, 0, [])
        entry, kept = _locate_one(images[0], 0, channels_of(images), images.device)
        if kept is None:
            return Pixels([entry], len(images), images.stride(0) * images.itemsize, [])
        images = images.unbind(0)
    channels, device = channels_of(images), device_of(images)
    located = [_locate_one(image, i, channels, device) for i, image in enumerate(images)]
    return Pixels([entry for entry, _ in located], len(located), 0, [kept for _, kept in located if kept is not None])


def _locate_one(image: Tensor, i: int, channels: int, device: torch.device) -> tuple[Located, Tensor | None]:
    if not isinstance(image, Tensor):
        raise TypeError(
            f"render: image {i} is a {type(image).__name__}; images are uint8 tensors, (H, W, C), which "
            "fastssl.ops.to_image makes."
        )
    kind = _TYPES.get(image.dtype)
    if kind is None or image.dim() != 3 or image.device.type not in ("cpu", "cuda"):
        raise TypeError(
            f"render: image {i} is {image.dtype}, {tuple(image.shape)}, on {image.device}; images are uint8, uint16, or float32 "
            "in [0, 1], (H, W, C), on the CPU or a GPU. fastssl.ops.to_image makes them from arrays, PIL images, bytes and paths."
        )
    height, width, own = image.shape
    if own != channels:
        raise ValueError(
            f"render: image {i} has {own} channels, and image 0 has {channels}; a batch needs as many in each."
        )
    if image.device != device:
        raise ValueError(
            f"render: image {i} is on {image.device}, and image 0 on {device}; a batch lies on one device."
        )
    row, pixel, value = image.stride()
    kept = None
    side_by_side = (value == 1 or own == 1) and (pixel == own or width == 1)
    # One plane expanded to several channels is none of its own: 0 bytes apart stands for side by side.
    if not side_by_side and (pixel != 1 or value == 0):
        if device.type != "cpu":
            raise ValueError(
                f"render: image {i} has strides {image.stride()}; on a GPU its channels must lie side by side or be planes with "
                "contiguous rows. Call .contiguous() on it first."
            )
        image = kept = image.contiguous()
        row, side_by_side = image.stride(0), True
    size = image.itemsize
    plane = 0 if side_by_side else value * size
    return (image.data_ptr(), height, width, row * size, own, kind, plane), kept
