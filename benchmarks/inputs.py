"""The images that the benchmarks run on: a folder given, the data beside the repository, or generated ones."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import ROOT
from PIL import Image, ImageOps

PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "imagenet-sample"
CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10"
EXTENSIONS = {".jpg", ".jpeg"}

# Images that are enough where a folder holds links to them, over and over; one takes some 50 ms to make.
GENERATED = 512


def find_jpegs(folder: str | None, count: int, scratch: Path, generated: int | None = None) -> tuple[list[Path], str]:
    """`count` JPEG files at most, evenly from the whole folder, and in words where they come from; where there is none,
    `generated` of them, or as many."""
    given = folder or os.environ.get("DATA")
    root = Path(given) if given else PHOTOGRAPHS
    if given and not root.is_dir():
        raise SystemExit(f"{root} is not a folder; pass one that holds JPEG files: --data FOLDER")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS) if root.is_dir() else []
    if given and not paths:
        raise SystemExit(f"{root} holds no .jpg or .jpeg file; pass a folder that does: --data FOLDER")
    if not paths:
        count = count if generated is None else min(count, generated)
        return generate_jpegs(scratch, count), f"{count} generated JPEGs (no photographs at hand)"
    chosen = [paths[i * len(paths) // min(count, len(paths))] for i in range(min(count, len(paths)))]
    name = "the ImageNet sample" if root == PHOTOGRAPHS else root.name
    return chosen, f"{len(chosen)} JPEGs of {name}"


def generate_jpegs(folder: Path, count: int) -> list[Path]:
    """JPEGs of 500 x 400 pixels with the spectrum of photographs: noise whose amplitude falls as 1 / frequency, and whose
    channels agree for the most part."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(400)[:, None], np.fft.rfftfreq(500)[None, :])
    frequency[0, 0] = np.inf
    paths = []
    for i in range(count):
        noise = rng.standard_normal((4, *frequency.shape)) + 1j * rng.standard_normal((4, *frequency.shape))
        plane = np.fft.irfft2((noise[:1] + 0.3 * noise[1:]) / frequency, s=(400, 500))
        pixels = 128 + 50 * plane / plane.std(axis=(1, 2), keepdims=True)
        path = folder / f"{i:04d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy()).save(path, quality=90)
        paths.append(path)
    return paths


# --- photographs of 12 megapixels -------------------------------------------------------------------------------------

CELLS, CELL_PX = 8, (500, 375)  # a mosaic is 8 x 8 images of the sample's usual size: 4000 x 3000 pixels


def mosaics(paths: Sequence[Path], count: int) -> list[bytes]:
    """`count` JPEGs of 12 megapixels, quality 90, 4:2:0: mosaics of the images, the same each time.

    Each image fills its cell, cut where its shape differs. Blown-up images would have no detail at the scale of a pixel,
    and entropy decoding would be cheaper than it is for a camera's.
    """
    made: dict[int, Image.Image] = {}

    def cell(number: int) -> Image.Image:
        if number not in made:
            with Image.open(paths[number]) as image:
                made[number] = ImageOps.fit(image.convert("RGB"), CELL_PX, Image.Resampling.BICUBIC)
        return made[number]

    jpegs = []
    for number in range(count):
        mosaic = Image.new("RGB", (CELLS * CELL_PX[0], CELLS * CELL_PX[1]))
        for place in range(CELLS * CELLS):
            column, row = place % CELLS, place // CELLS
            image = cell((number * CELLS * CELLS + place) % len(paths))
            mosaic.paste(image, (column * CELL_PX[0], row * CELL_PX[1]))
        buffer = io.BytesIO()
        mosaic.save(buffer, "JPEG", quality=90, subsampling="4:2:0")
        jpegs.append(buffer.getvalue())
    return jpegs


# --- CIFAR-10 ---------------------------------------------------------------------------------------------------------


def cifar_images(folder: str | None, count: int) -> tuple[np.ndarray[Any, Any], str]:
    """`count` images of 32 px at most, evenly from CIFAR-10's test set, (N, 32, 32, 3), uint8; and where they come from.

    `folder` holds test.tar or test/, with a folder for each class, as benchmarks/cifar10.py has it.
    """
    root = Path(folder) if folder else CIFAR10
    encoded = dict(cifar_files(root))
    if folder and not encoded:
        raise SystemExit(
            f"{root} holds neither test/ nor test.tar; give the folder that holds CIFAR-10: --cifar FOLDER"
        )
    if not encoded:
        return generate_small(count), f"{count} generated images of 32 px (no CIFAR-10 at hand)"
    names = sorted(encoded)
    taken = min(count, len(names))
    images = [Image.open(io.BytesIO(encoded[names[i * len(names) // taken]])).convert("RGB") for i in range(taken)]
    return np.stack([np.asarray(image) for image in images]), f"{taken} images of CIFAR-10's test set, decoded"


def cifar_files(root: Path) -> Iterator[tuple[str, bytes]]:
    endings = tuple({*EXTENSIONS, ".png"})
    if (root / "test").is_dir():
        for path in (root / "test").rglob("*"):
            if path.suffix.lower() in endings:
                yield str(path), path.read_bytes()
    elif (root / "test.tar").is_file():
        with tarfile.open(root / "test.tar") as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(endings):
                    yield member.name, tar.extractfile(member).read()  # type: ignore[union-attr]


def generate_small(count: int) -> np.ndarray[Any, Any]:
    """Smooth images: in each channel a wave of drawn direction, phase and strength."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:32, 0:32] / 32
    across, down = rng.uniform(-2, 2, (2, count, 1, 1, 3))
    phase, strength = rng.uniform(0, 1, (count, 1, 1, 3)), rng.uniform(20, 120, (count, 1, 1, 3))
    wave = np.sin(2 * np.pi * (across * x[..., None] + down * y[..., None] + phase))
    return (128 + strength * wave).astype(np.uint8)
