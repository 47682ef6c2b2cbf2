"""Images for the tests: pixels by numpy, files by Pillow, and the formats Pillow cannot write, by hand."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

EXIF_ORIENTATION = 0x0112


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3) with the 1/f spectrum of photographs, correlated channels, and some hard edges."""
    rng = np.random.default_rng((seed, height, width))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    amplitude = 1 / np.maximum(frequency, 1 / max(height, width, 2))
    layers = np.fft.irfft2(amplitude * np.fft.rfft2(rng.standard_normal((4, height, width))), s=(height, width))
    layers /= layers.std(axis=(1, 2), keepdims=True) + 1e-9
    pixels = 120 + 45 * layers[3] + 30 * layers[:3]
    for _ in range(3):  # flat boxes: edges, and runs of one colour
        top, left = rng.integers(0, height), rng.integers(0, width)
        pixels[:, top : top + height // 3, left : left + width // 4] = rng.integers(0, 256, (3, 1, 1))
    return np.ascontiguousarray(pixels.clip(0, 255).round().astype(np.uint8).transpose(1, 2, 0))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Independent uniform pixels: the worst case for a resize."""
    return np.random.default_rng((1, seed, height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def extremes(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Channels of 0 or 255 only: all eight corners of the colour cube, where clamping and hue sectors meet."""
    return noise(height, width, seed) // 128 * 255


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows downwards, green to the right, blue against both; every hue sector occurs."""
    y = np.linspace(0, 255, height)[:, None] + np.zeros(width)
    x = np.linspace(0, 255, width)[None, :] + np.zeros((height, 1))
    return np.stack([y, x, 255 - (x + y) / 2], axis=-1).round().astype(np.uint8)


def flat(height: int, width: int, colour: tuple[int, int, int] = (200, 100, 50)) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def gray(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Three equal channels: no saturation, hence no hue."""
    return np.repeat(photo(height, width, seed)[:, :, :1], 3, axis=2)


KINDS = {"photo": photo, "noise": noise, "extremes": extremes, "gradient": gradient, "flat": flat, "gray": gray}


# --- files ------------------------------------------------------------------------------------------------------------


def encode(image: np.ndarray | Image.Image, format: str = "JPEG", **options: object) -> bytes:
    """The image as a file of this format, through Pillow, which takes the options."""
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


def jpeg(image: np.ndarray | Image.Image, *, quality: int = 90, orientation: int | None = None, **options) -> bytes:
    """A JPEG file; `orientation` writes the EXIF tag, 1 to 8."""
    if orientation is not None:
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        options["exif"] = exif
    return encode(image, "JPEG", quality=quality, **options)


def png(image: np.ndarray | Image.Image) -> bytes:
    return encode(image, "PNG")


def cmyk_jpeg(image: np.ndarray, *, ycck: bool = False) -> bytes:
    """A JPEG of four channels with Adobe's marker.

    Pillow writes plain CMYK. Adobe's transform flag set to 2 makes the same coefficients mean YCCK, which
    shows other colours but is a valid file.
    """
    data = bytearray(encode(Image.fromarray(image).convert("CMYK"), "JPEG", quality=90))
    at = data.index(b"Adobe\x00")
    assert data[at - 4 : at - 2] == b"\xff\xee", "Pillow wrote no Adobe marker"
    if ycck:
        data[at + 11] = 2
    return bytes(data)


def png_of_sixteen_bits(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel from uint16 (H, W) or (H, W, 3), which Pillow cannot write in colour."""
    height, width = pixels.shape[:2]
    colour_type = 0 if pixels.ndim == 2 else 2
    rows = pixels.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\x00" + row.tobytes() for row in rows)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def palette_png(image: np.ndarray, *, transparent: bool = False) -> bytes:
    picture = Image.fromarray(image).quantize(64)
    if not transparent:
        return encode(picture, "PNG")
    return encode(picture, "PNG", transparency=bytes(range(0, 256, 4)))  # an alpha for each of the 64 entries


def rgb(data: bytes) -> np.ndarray:
    """What Pillow's open().convert("RGB") makes of a file."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


SIZES = [(96, 128), (64, 64), (120, 75), (33, 47), (150, 200)]


def write_folder(root: Path, classes: dict[str, int], *, seed: int = 0) -> None:
    """Writes root/<class>/<class>_<number>.jpg, in sizes that differ; the class "" writes into root itself."""
    for label, (name, count) in enumerate(classes.items()):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            height, width = SIZES[(label + i) % len(SIZES)]
            data = jpeg(photo(height, width, seed=1000 * seed + 100 * label + i))
            (folder / f"{name or 'image'}_{i:03d}.jpg").write_bytes(data)
