"""The images that the benchmarks run on: a folder given, the photographs beside the repository, or generated ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from harness import ROOT
from PIL import Image

PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "imagenet-sample"
EXTENSIONS = {".jpg", ".jpeg"}


def find_jpegs(folder: str | None, count: int, scratch: Path) -> tuple[list[Path], str]:
    """`count` JPEG files at most, evenly from the whole folder, and in words where they come from."""
    given = folder or os.environ.get("DATA")
    root = Path(given) if given else PHOTOGRAPHS
    if given and not root.is_dir():
        raise SystemExit(f"{root} is not a folder; pass one that holds JPEG files: --data FOLDER")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS) if root.is_dir() else []
    if given and not paths:
        raise SystemExit(f"{root} holds no .jpg or .jpeg file; pass a folder that does: --data FOLDER")
    if not paths:
        return generate_jpegs(scratch, count), f"{count} generated JPEGs (no photographs at hand)"
    chosen = [paths[i * len(paths) // min(count, len(paths))] for i in range(min(count, len(paths)))]
    name = "the ImageNet sample" if root == PHOTOGRAPHS else root.name
    return chosen, f"{len(chosen)} JPEGs of {name}"


def generate_jpegs(folder: Path, count: int) -> list[Path]:
    """JPEGs of 500 x 400 pixels with the spectrum of photographs: noise whose amplitude falls as 1 / frequency."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(400)[:, None], np.fft.rfftfreq(500)[None, :])
    frequency[0, 0] = np.inf
    paths = []
    for i in range(count):
        noise = rng.standard_normal((3, *frequency.shape)) + 1j * rng.standard_normal((3, *frequency.shape))
        plane = np.fft.irfft2(noise / frequency, s=(400, 500))
        pixels = 128 + 50 * plane / plane.std(axis=(1, 2), keepdims=True)
        path = folder / f"{i:04d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy()).save(path, quality=90)
        paths.append(path)
    return paths
