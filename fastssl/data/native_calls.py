"""What a Loader's native threads need of Python: images as addresses, and functions that they may call.

An image is (address, height, width, stride in bytes, channels, type); beside it stands what keeps its memory alive.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastssl._native import _C, DecodeError
from fastssl.data.sources import Source
from fastssl.ops.decode import to_image

__all__ = ["ImageStep", "array_of", "encoded_of", "fetcher", "is_plain", "pixels_of", "stepper"]

ImageStep = Callable[[Tensor], Tensor]

_PIXEL_TYPES = {torch.uint8: _C.PixelType.uint8, torch.uint16: _C.PixelType.uint16}


def pixels_of(image: Tensor) -> tuple[Any, Tensor]:
    """What native code needs of decoded pixels, and what keeps them alive."""
    if image.dtype not in _PIXEL_TYPES or image.dim() != 3 or not image.numel() or image.device.type != "cpu":
        raise DecodeError(
            f"an image of {image.dtype} and shape {tuple(image.shape)} on {image.device}; it must be uint8 or uint16, (H, W, C), "
            "on the CPU"
        )
    image = image.contiguous()
    height, width, channels = image.shape
    # Not image.stride(0): an image of one row may have any.
    stride = width * channels * image.itemsize
    return (image.data_ptr(), height, width, stride, channels, _PIXEL_TYPES[image.dtype]), image


def array_of(source: Source) -> tuple[Any, ...] | None:
    """What native code needs of images that lie in memory, and what keeps them alive."""
    native = source.native()
    if native is None:
        return None
    images, rows = native.images, native.rows
    if images.dtype not in (np.uint8, np.uint16) or images.ndim != 4 or not images.size or min(images.strides) < 0:
        raise ValueError(
            f"Loader: the source's native() gave images of {images.dtype} and shape {images.shape}; they must be uint8 or "
            "uint16, (N, H, W, C), with strides above 0."
        )
    item, pixel = images.itemsize, images.itemsize * images.shape[3]
    if (images.shape[3] > 1 and images.strides[3] != item) or (images.shape[2] > 1 and images.strides[2] != pixel):
        raise ValueError(
            "Loader: the source's native() gave images whose values in a row of pixels do not lie side by side."
        )
    count = len(images) if rows is None else len(rows)
    if count != len(source):
        raise ValueError(f"Loader: the source's native() gave {count} images for {len(source)} samples.")
    if rows is not None:
        rows = rows.to(torch.int64).contiguous()
        if count and not 0 <= int(rows.min()) <= int(rows.max()) < len(images):
            raise ValueError(f"Loader: the source's native() gave rows beyond its {len(images)} images.")
    kind = _C.PixelType.uint8 if images.dtype == np.uint8 else _C.PixelType.uint16
    first = (images.ctypes.data, images.shape[1], images.shape[2], images.strides[1], images.shape[3], kind)
    return first, images.strides[0], count, 0 if rows is None else rows.data_ptr(), (images, rows)


def encoded_of(data: Any) -> tuple[int, int, Any]:
    """What native code needs of encoded bytes, and what keeps them alive."""
    array = np.frombuffer(data, dtype=np.uint8) if not isinstance(data, Tensor) else data.contiguous().numpy()
    if not array.size:
        raise DecodeError("the data is empty (0 bytes)")
    if array.dtype != np.uint8:
        raise DecodeError(f"encoded data of {array.dtype}; it must be uint8")
    return array.ctypes.data, array.nbytes, array


def is_plain(source: Source, index: int) -> bool:
    """Whether a sample is a JPEG that may be left to a decoder of a device. One that cannot be read is none."""
    try:
        path = source.path(index)
        data = _C.read_file(path) if path is not None else source.fetch(index)
        if not isinstance(data, bytes | bytearray | memoryview | Tensor) or (
            isinstance(data, Tensor) and data.dim() != 1
        ):
            return False
        address, size, _owner = encoded_of(data)
    except (OSError, ValueError, RuntimeError, TypeError, LookupError):  # which the iteration meets, and says
        return False
    return _C.plain_jpeg_size(address, size) > 0


def fetcher(source: Source, crashes: list[Exception], labels: bool = False) -> Any:
    """What the engine calls for a sample without a path. It must not hold the iteration: that would be a cycle.

    With `labels`, target and name come behind, as the cache is to store them.
    """

    def fetch(index: int) -> tuple[Any, ...]:
        image = native(index)
        return (*image, json.dumps((source.target(index), source.filename(index))).encode()) if labels else image

    def native(index: int) -> tuple[Any, ...]:
        try:
            image = source.fetch(index)
            if isinstance(image, Tensor) and image.dim() == 3:
                return pixels_of(image)
            if isinstance(image, bytes | bytearray | memoryview) or (isinstance(image, Tensor) and image.dim() == 1):
                return encoded_of(image)
            return pixels_of(to_image(image))
        except (OSError, ValueError, RuntimeError):  # what readers and decoders raise: the sample is bad
            raise
        except Exception as error:  # a mistake in the source: the consumer gets it as it is
            crashes.append(error)
            raise

    return fetch


def stepper(source: Source, step: ImageStep, crashes: list[Exception]) -> Any:
    """What the engine calls to have `step` applied to a decoded image."""

    def apply(index: int, image: tuple[Any, ...]) -> tuple[Any, ...]:
        address, height, width, stride, channels, kind = image
        dtype = torch.uint8 if kind == _C.PixelType.uint8 else torch.uint16
        memory = (ctypes.c_uint8 * ((height - 1) * stride + width * channels * dtype.itemsize)).from_address(address)
        rows = torch.frombuffer(memory, dtype=dtype)
        # A copy: the step may keep its image, or write into it.
        pixels = rows.as_strided((height, width, channels), (stride // dtype.itemsize, channels, 1)).clone()
        try:
            result = step(pixels)
            if not isinstance(result, Tensor):
                raise TypeError(
                    f"it returned {type(result).__name__}; it must return a tensor, (H, W, C), uint8 or uint16."
                )
            return pixels_of(result)
        except (OSError, ValueError, RuntimeError) as error:
            raise DecodeError(f"image_step: {type(error).__name__}: {error}") from error
        except Exception as error:  # a mistake in the step: the consumer gets it, and the sample's name
            mistake = RuntimeError(
                f"Loader: image_step failed on {source.filename(index)}: {type(error).__name__}: {error}"
            )
            mistake.__cause__ = error
            crashes.append(mistake)
            raise

    return apply
