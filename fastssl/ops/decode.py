"""Encoded images, and whatever else data sets return, to 8-bit RGB tensors."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from fastssl._native import _C, DecodeError

__all__ = ["Encoded", "decode", "decode_other", "to_image"]

Encoded = bytes | bytearray | memoryview | Tensor | str | os.PathLike[str]


def decode(data: Encoded) -> Tensor:
    """One image, decoded to 8-bit RGB.

    JPEG goes through libjpeg-turbo, everything else through Pillow. Grayscale, palette, CMYK and transparent images become
    RGB as with Pillow's `convert("RGB")`; 16 bits are scaled to 8. The EXIF orientation is not applied, as Pillow and
    torchvision do not.

    Args:
        data: A path, or the encoded bytes (as bytes or as a uint8 tensor of one dimension).

    Returns:
        Pixels, (height, width, 3), uint8.

    Raises:
        DecodeError: The file cannot be read, is no image, or is damaged or truncated; a ValueError.
        TypeError: data is none of the above.
    """
    if isinstance(data, str | os.PathLike):
        try:
            with open(data, "rb") as file:
                content = file.read()
        except OSError as error:
            raise DecodeError(f"{os.fspath(data)}: cannot open: {error.strerror}") from error
        if not content:
            raise DecodeError(f"{os.fspath(data)}: the file is empty (0 bytes)")
        try:
            return _decode_bytes(_as_bytes(content))
        except DecodeError as error:
            raise DecodeError(f"{os.fspath(data)}: {error}") from error
    encoded = _as_bytes(data)
    if not encoded.numel():
        raise DecodeError("decode: the data is empty (0 bytes)")
    return _decode_bytes(encoded)


def _as_bytes(data: Any) -> Tensor:
    if isinstance(data, Tensor):
        if data.dtype != torch.uint8 or data.dim() != 1:
            raise TypeError(
                f"decode: got a tensor of {data.dtype} and shape {tuple(data.shape)}; encoded data is uint8 and has one "
                "dimension. If these are pixels already, pass them to render, or to to_image."
            )
        return data.contiguous()
    if isinstance(data, bytes):
        return (
            torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy()) if data else torch.empty(0, dtype=torch.uint8)
        )
    if isinstance(data, bytearray | memoryview):
        return _as_bytes(bytes(data))
    raise TypeError(f"decode: got {type(data).__name__}; it takes a path, bytes, or a uint8 tensor of encoded bytes.")


def _decode_bytes(encoded: Tensor) -> Tensor:
    address, size = encoded.data_ptr(), encoded.numel()
    if not _C.is_jpeg(address, size):
        return decode_other(encoded.numpy())
    height, width = _C.jpeg_size(address, size)
    pixels = torch.empty((height, width, 3), dtype=torch.uint8)
    _C.jpeg_decode(address, size, pixels.data_ptr(), height, width)
    return pixels


def decode_other(encoded: Any) -> Tensor:
    """Decodes what is not JPEG; see `decode`. Takes anything with a buffer."""
    content = bytes(encoded)
    try:
        with PIL.Image.open(io.BytesIO(content)) as picture:
            return _from_pil(picture)
    except PIL.UnidentifiedImageError as error:
        raise DecodeError(f"no image format that is known; it begins with {content[:12]!r}") from error
    except PIL.Image.DecompressionBombError as error:
        raise DecodeError(f"too many pixels: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow raises for damaged files
        raise DecodeError(f"damaged image: {error}") from error


def _from_pil(picture: PIL.Image.Image) -> Tensor:
    if picture.mode in ("I;16", "I;16B", "I;16L", "I;16N") or (picture.mode == "I" and picture.format == "PNG"):
        gray = np.asarray(picture).astype(np.int32)  # Pillow would clip at 255 instead of scaling
        return (
            torch.from_numpy(((gray + 128) // 257).clip(0, 255).astype(np.uint8))[:, :, None]
            .expand(-1, -1, 3)
            .contiguous()
        )
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow asks for this step
    return torch.from_numpy(np.array(picture.convert("RGB")))


def to_image(image: Any) -> Tensor:
    """Pixels of whatever a data set returns as an image.

    Args:
        image: A PIL image; a uint8 array, (H, W, 3), (H, W, 1) or (H, W); a tensor, (3, H, W), (1, H, W), (H, W) or, if that
            leaves no doubt, (H, W, 3), uint8 or float in [0, 1], which is rounded to 8 bits; a path; encoded bytes; or a uint8
            tensor of one dimension, which is taken as encoded bytes.

    Returns:
        Pixels, (H, W, 3), uint8; a view of the memory given where that is possible.

    Raises:
        DecodeError: Encoded data or a file that cannot be decoded.
        TypeError: Anything else.
    """
    if isinstance(image, PIL.Image.Image):
        try:
            return _from_pil(image)
        except (OSError, SyntaxError) as error:  # Pillow opens lazily: a truncated file is found out here
            raise DecodeError(f"{getattr(image, 'filename', '') or 'PIL image'}: {error}") from error
    if isinstance(image, Tensor) and image.dim() == 1:
        return decode(image)
    if isinstance(image, Tensor):
        if image.dtype.is_floating_point and image.numel() and image.min() >= 0 and image.max() <= 1:
            image = (image * 255).round().to(torch.uint8)
        if image.dtype == torch.uint8 and image.dim() == 2 and image.numel():
            return image[:, :, None].expand(-1, -1, 3).contiguous()
        if image.dtype == torch.uint8 and image.dim() == 3 and image.shape[0] in (1, 3) and image.numel():
            return image.permute(1, 2, 0).expand(-1, -1, 3).contiguous()
        if image.dtype == torch.uint8 and image.dim() == 3 and image.shape[2] == 3 and image.numel():
            return image.contiguous()
        raise TypeError(
            f"to_image: got a tensor of {image.dtype} and shape {tuple(image.shape)}; an image is (3, H, W), (1, H, W), "
            "(H, W) or (H, W, 3), and uint8 or float in [0, 1]. Views are made from 8-bit images, so pass "
            "them before they are normalized."
        )
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 2 and image.size:
            return torch.from_numpy(np.repeat(image[:, :, None], 3, axis=2))
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3) and image.size:
            whole = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
            return torch.from_numpy(whole if whole.flags.writeable else whole.copy())
        raise TypeError(
            f"to_image: got an array of {image.dtype} and shape {image.shape}; an image is uint8 and (H, W, 3), (H, W, 1) or "
            "(H, W)."
        )
    if isinstance(image, bytes | bytearray | memoryview | str | os.PathLike):
        return decode(image)
    raise TypeError(
        f"to_image: got {type(image).__name__}; an image is a PIL image, a uint8 array (H, W, 3), a uint8 tensor (3, H, W), "
        "encoded bytes, or a path."
    )
