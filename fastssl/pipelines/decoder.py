"""What a decoder of the device is: encoded images in, pixels on the device out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Decoded", "Decoder", "LeftImage", "Overlapping", "check_device", "decoded_of", "one_by_one"]

# How libraries say it that have no exception for it.
_NO_MEMORY = ("out of memory", "allocation failed", "can't allocate", "cannot allocate memory", "failed to allocate")


class LeftImage(NamedTuple):
    """A baseline JPEG, gray or YCbCr, whole as far as its markers tell, that was left to the device.

    Args:
        position: In its batch.
        data: The file, (n,), uint8, on the CPU; valid until the batch is rendered.
        height, width: Of the image, in pixels.
        window: (top, left, rows, columns) of the part that its views need, in pixels.
    """

    position: int
    data: Tensor
    height: int
    width: int
    window: tuple[int, int, int, int]


class Decoded(NamedTuple):
    """8-bit RGB pixels on the device, of an image or of a part of it that holds what its views need.

    Args:
        address: Of the first byte.
        stride: Bytes from row to row.
        plane: Bytes from channel to channel; 0 where the three of a pixel lie side by side.
        top, left, rows, columns: Which part.
        owner: Keeps the memory alive.
    """

    address: int
    stride: int
    plane: int
    top: int
    left: int
    rows: int
    columns: int
    owner: Any


class Decoder(Protocol):
    """Decodes on a device. It is used by one thread at a time, which is not always the same."""

    name: str

    def decode(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        """The pixels of each image, valid in the order of torch's current stream; None where it cannot decode one.

        Such an image is decoded on the CPU, which says what is wrong with it, if anything is. Never raises for what an image
        holds; an error of the device itself, such as torch.cuda.OutOfMemoryError, it lets pass.
        """
        ...


@runtime_checkable
class Overlapping(Decoder, Protocol):
    """A decoder that may begin with a batch before the one before it is finished: with one more, no matter how they end."""

    def start(self, images: Sequence[LeftImage]) -> None:
        """Begins with these images, at least one, and comes back at once. They must stay in place until they are finished."""
        ...

    def finish(self) -> list[Decoded | None]:
        """As `decode`, of the batch that was begun first and is not finished yet. If it raises, that batch is finished, too."""
        ...

    def abandon(self) -> None:
        """Forgets what was begun and nobody will finish; its images may go."""
        ...


def decoded_of(pixels: Tensor, planes: bool, top: int = 0, left: int = 0) -> Decoded:
    """Of uint8, (3, H, W) with `planes`, else (H, W, 3): the part of the image from (top, left) on."""
    if pixels.is_contiguous():
        # As all that decoders give; by way of strides it takes 4 us an image, for which the next batch waits.
        if planes:
            _, rows, columns = pixels.shape
            return Decoded(pixels.data_ptr(), columns, rows * columns, top, left, rows, columns, pixels)
        rows, columns, _ = pixels.shape
        return Decoded(pixels.data_ptr(), 3 * columns, 0, top, left, rows, columns, pixels)
    image = pixels.permute(1, 2, 0) if planes else pixels
    stride, column, plane = image.stride()
    if (column, plane) == (3, 1):
        plane = 0
    elif column != 1:
        return decoded_of(image.contiguous(), planes=False, top=top, left=left)
    return Decoded(image.data_ptr(), stride, plane, top, left, image.shape[0], image.shape[1], image)


def check_device(who: str, device: torch.device, error: Exception) -> None:
    """Raises what torch would where a decoder's error is not the images' fault."""
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY):
        raise torch.OutOfMemoryError(f"{who}: {error}") from error
    if device.type == "cuda" and torch.cuda.is_initialized():
        # Raises if a kernel has failed, on whatever stream, which nothing after it survives. To synchronize the device would
        # be to wait for all that training has asked for, and `one_by_one` comes here nine times for one bad image of 256.
        torch.cuda.current_stream(device).synchronize()


def one_by_one(
    decode: Callable[[Sequence[LeftImage]], list[Decoded | None]], images: Sequence[LeftImage]
) -> list[Decoded | None]:
    """`decode` of all images at once; where a RuntimeError ends that, of halves, down to each image: None for those at fault."""
    if not images:
        return []
    try:
        return decode(images)
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # RuntimeErrors, too, but of the device
        raise
    except RuntimeError:
        if len(images) == 1:
            return [None]
    half = len(images) // 2
    return one_by_one(decode, images[:half]) + one_by_one(decode, images[half:])
