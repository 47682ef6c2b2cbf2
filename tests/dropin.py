"""Images, folders and datasets for the tests of the drop-ins; a module of its own so that spawned workers find it."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image


def lightly() -> ModuleType:
    """lightly, or a skip where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies deprecate things while they are imported
        pytest.importorskip("lightly", reason="lightly is not installed, so there is nothing to compare with")
        import lightly
        import lightly.data
        import lightly.transforms
    return lightly


def photograph(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: noise with the 1/f spectrum and the correlated channels of photographs."""
    rng = np.random.default_rng(seed)
    fy, fx = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    noise = np.fft.ifft2(amplitude[..., None] * np.fft.fft2(rng.normal(size=(height, width, 3)), axes=(0, 1)), axes=(0, 1))
    mix = np.array([[1.0, 1.0, 1.0], [0.4, 0.0, -0.4], [-0.1, 0.2, -0.1]])  # luma, then two weaker colour axes
    pixels = noise.real @ mix
    pixels = 0.5 + 0.22 * (pixels - pixels.mean()) / pixels.std() + np.array([0.05, 0.0, -0.08])
    return (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, format: str, **options: Any) -> bytes:
    """The image as the bytes of a file."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format=format, **options)
    return buffer.getvalue()


def make_folder(root: Path, names: list[str]) -> Path:
    """A folder of small images, each other than the rest, in the formats that their endings say."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(24 + i, 30, seed=i)).save(path)
    return root


def structure(thing: Any) -> Any:
    """What a consumer of a batch relies on: kinds of containers, shapes and types, and the values of targets and names."""
    if isinstance(thing, torch.Tensor):
        return ("tensor", tuple(thing.shape), thing.dtype, thing.tolist() if thing.dtype == torch.int64 else None)
    if isinstance(thing, (list, tuple)):
        return (type(thing).__name__, [structure(part) for part in thing])
    return thing


class Images:
    """A dataset of one image over and over: what differs between samples is what was drawn."""

    def __init__(self, count: int, transform: Any = None, names: bool = True) -> None:
        self.image = photograph(40, 48)
        self.count, self.transform, self.names = count, transform, names

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image: Any = Image.fromarray(self.image)
        if self.transform is not None:
            image = self.transform(image)
        return (image, index, f"{index}.png") if self.names else (image, index)


class SharedFlags:
    """Collates, and says for each view whether it lies in shared memory."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, batch: list[Any]) -> list[bool]:
        views, _, _ = self.collate(batch)
        return [view.is_shared() for view in views]
