"""Encoded images, and whatever else data sets return, to tensors of pixels, by default 8-bit RGB."""

from __future__ import annotations

import io
import os
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from fastssl._native import _C, DecodeError

__all__ = ["Encoded", "Mode", "check_mode", "decode", "decode_other", "to_image"]

Mode = Literal["RGB", "unchanged"]
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
Encoded = bytes | bytearray | memoryview | Tensor | str | os.PathLike[str]


def decode(data: Encoded, mode: Mode = "RGB") -> Tensor:
    """One image, decoded.

    JPEG goes through libjpeg-turbo, everything else through Pillow. The EXIF orientation is not applied, as Pillow and
    torchvision do not.

    Args:
        data: A path, or the encoded bytes (as bytes or as a uint8 tensor of one dimension).
        mode: "RGB": 8-bit RGB; grayscale, palette, CMYK and transparent images become RGB as with Pillow's `convert("RGB")`, and
            16 bits are scaled to 8. "unchanged": the channels and bits of the file; gray is one channel, gray with alpha two,
            RGBA and CMYK four; only palettes are looked up, to RGB or RGBA, and one bit is 0 or 255.

    Returns:
        Pixels, (height, width, 3), uint8; for "unchanged" (height, width, channels), uint8 or uint16.

    Raises:
        DecodeError: The file cannot be read, is no image, or is damaged or truncated; for "unchanged" also where its values fit
            into neither type, or Pillow would cut them down, as in a PNG with colours of 16 bits; a ValueError.
        TypeError: data is none of the above.
    """
    check_mode("decode", mode)
    if isinstance(data, str | os.PathLike):
        try:
            with open(data, "rb") as file:
                content = file.read()
        except OSError as error:
            raise DecodeError(f"{os.fspath(data)}: cannot open: {error.strerror}") from error
        if not content:
            raise DecodeError(f"{os.fspath(data)}: the file is empty (0 bytes)")
        try:
            return _decode_bytes(_as_bytes(content), mode)
        except DecodeError as error:
            raise DecodeError(f"{os.fspath(data)}: {error}") from error
    encoded = _as_bytes(data)
    if not encoded.numel():
        raise DecodeError("decode: the data is empty (0 bytes)")
    return _decode_bytes(encoded, mode)


def check_mode(who: str, mode: str) -> None:
    """Raises ValueError if `mode` is none."""
    if mode not in ("RGB", "unchanged"):
        raise ValueError(f'{who}: mode={mode!r} must be "RGB" or "unchanged" (the channels and bits of the file).')


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
            torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
            if data
            else torch.empty(0, dtype=torch.uint8, device="cpu")
        )
    if isinstance(data, bytearray | memoryview):
        return _as_bytes(bytes(data))
    raise TypeError(f"decode: got {type(data).__name__}; it takes a path, bytes, or a uint8 tensor of encoded bytes.")


def _decode_bytes(encoded: Tensor, mode: Mode) -> Tensor:
    address, size = encoded.data_ptr(), encoded.numel()
    if not _C.is_jpeg(address, size):
        return decode_other(encoded.numpy(), mode)
    height, width, channels = _C.jpeg_size(address, size)
    if mode == "RGB":
        channels = 3
    elif channels == 4:
        return decode_other(encoded.numpy(), mode)
    pixels = torch.empty((height, width, channels), dtype=torch.uint8, device="cpu")
    _C.jpeg_decode(address, size, pixels.data_ptr(), height, width, channels)
    return pixels


def decode_other(encoded: Any, mode: Mode = "RGB") -> Tensor:
    """Decodes what is not JPEG; see `decode`. Takes anything with a buffer.

    Pillow and not torchvision.io.decode_image, which is deprecated: its PNG decoder (release 0.29) ends the process on some
    damaged files (the longjmp of libpng), where Pillow raises; and it is no faster on the whole (a photograph of
    500 x 600 pixels: PNG 7.8 against 8.6 ms, WebP 10.5 against 7.0, GIF 2.9 against 1.8).
    """
    content = bytes(encoded)
    try:
        with PIL.Image.open(io.BytesIO(content)) as picture:
            return _from_pil(picture) if mode == "RGB" else _as_stored(picture)
    except PIL.UnidentifiedImageError as error:
        raise DecodeError(f"no image format that is known; it begins with {content[:12]!r}") from error
    except PIL.Image.DecompressionBombError as error:
        raise DecodeError(f"too many pixels: {error}") from error
    except DecodeError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow raises for damaged files
        raise DecodeError(f"damaged image: {error}") from error


_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8


def _is_cut_down(picture: PIL.Image.Image) -> bool:
    """Whether the file holds more bits a channel than Pillow's 8 for images of several channels."""
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(_BITS_PER_SAMPLE, 8)  # type: ignore[attr-defined]
        return max(bits if isinstance(bits, tuple) else (bits,)) > 8
    # The raw mode of the first tile: "RGB;16B" in a PNG; in a PPM it comes with the largest value.
    tile = getattr(picture, "tile", None)
    arguments = tile[0][3] if tile else ""
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    raw, *rest = arguments or ("",)
    return "16" in str(raw) or (picture.format == "PPM" and any(isinstance(v, int) and v > 255 for v in rest))


def _as_stored(picture: PIL.Image.Image) -> Tensor:
    if picture.mode in _SIXTEEN_BITS or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        return torch.from_numpy(np.asarray(picture).astype(np.uint16)[:, :, None])
    if picture.mode in ("I", "F"):
        raise DecodeError(f"32 bits a channel (mode {picture.mode!r}); images hold 8 or 16")
    if _is_cut_down(picture):
        raise DecodeError(
            f"{picture.format} of more than 8 bits in several channels, which Pillow cuts down to 8. For these use mode='RGB', "
            "or read the file with another library and pass its pixels"
        )
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if picture.mode == "PA" or "transparency" in picture.info else "RGB")
    elif picture.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        picture = picture.convert({"1": "L", "La": "LA", "RGBa": "RGBA"}.get(picture.mode, "RGB"))
    pixels = np.array(picture)
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None])


def _from_pil(picture: PIL.Image.Image) -> Tensor:
    if picture.mode in _SIXTEEN_BITS or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
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
