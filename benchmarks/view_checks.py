"""What a contender's output must be before it is timed.

Draws differ between libraries, so pixels cannot agree. What must agree with torchvision's v2 functions, on the same
images with draws of its own, for the views of each size: mean, deviation, detail (mean difference of neighbours in a
row, which blur and a coarse resize change) and colour (mean difference of red and blue, which grayscale changes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from contenders import torchvision
from harness import CheckFailed
from view_recipes import Recipe

# How far one view's draw moves mean and deviation, in the units of the output and as a part (standard deviations over
# 30 draws of the ImageNet sample; n views move by 1 / sqrt(n) of it). Four times that is allowed, for two samples.
DRAW_MEAN, DRAW_DEVIATION = 0.64, 0.27
# What is allowed beside, since operations differ by design: rounding to 8 bits between them (Pillow, OpenCV), hue in
# YIQ and contrast about mid-grey (DALI), no antialiasing (OpenCV, kornia).
DESIGN_MEAN, DESIGN_DEVIATION = 0.05, 0.05
DETAIL, COLOUR = 0.5, 0.3  # parts; leaving out the blur of SimCLR gives 1.5 and more, leaving out the grayscale 1.25


@dataclass
class Sums:
    """Running statistics of all values of the views added."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    steps: float = 0.0
    colours: float = 0.0
    views: int = 0

    def add(self, view: Any) -> None:
        """A view of several images, (B, 3, H, W)."""
        import torch

        self.views += view.shape[0]
        self.count += view.numel()
        self.total += view.sum(dtype=torch.float64).item()
        self.squares += view.square().sum(dtype=torch.float64).item()
        self.steps += (view[..., 1:] - view[..., :-1]).abs().mean().item() * view.shape[0]
        self.colours += (view[:, 0] - view[:, 2]).abs().mean().item() * view.shape[0]

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def deviation(self) -> float:
        return math.sqrt(self.squares / self.count - self.mean**2)

    @property
    def detail(self) -> float:
        return self.steps / self.views

    @property
    def colour(self) -> float:
        return self.colours / self.views


def views_of(batch: Any) -> Sequence[Any]:
    return batch[0] if isinstance(batch, list | tuple) else batch.views


def expected_of(recipe: Recipe, images: Iterable[Any]) -> dict[int, Sums]:
    """Statistics for each size of view, by torchvision, of uint8 tensors, (3, H, W)."""
    transform = torchvision.from_pixels(recipe)
    sums = {spec.size: Sums() for spec in recipe.views}
    for image in images:
        for spec, view in zip(recipe.views, transform(image), strict=True):
            sums[spec.size].add(view[None])
    return sums


def check_views(
    recipe: Recipe, count: int, batch_size: int, expected: Callable[[], dict[int, Sums]]
) -> Callable[[Iterable[Any]], dict[str, Any]]:
    """All views of all images, float32, in batches of `batch_size`, with the statistics expected."""

    def check(batches: Iterable[Any]) -> dict[str, Any]:
        import torch

        seen, sums = 0, {spec.size: Sums() for spec in recipe.views}
        for batch in batches:
            views = views_of(batch)
            n = min(batch_size, count - seen)
            shapes = [(n, 3, spec.size, spec.size) for spec in recipe.views]
            if [tuple(v.shape) for v in views] != shapes or any(v.dtype != torch.float32 for v in views):
                raise CheckFailed(f"{[(tuple(v.shape), v.dtype) for v in views]}, not float32 of {shapes}")
            for view in views:
                sums[view.shape[-1]].add(view)
            seen += n
        if seen != count:
            raise CheckFailed(f"{seen} images of {count}")
        found: dict[str, Any] = {}
        for size, got in sums.items():
            found |= compared(size, got, expected()[size])
        return found

    return check


def compared(size: int, got: Sums, wanted: Sums) -> dict[str, float]:
    """The statistics of views of one size; raises where they are too far from what is wanted."""
    drawn = 4 * math.sqrt(2 / got.views)
    names = ("mean", "deviation", "detail", "colour")
    found = {f"{name}_{size}": round(getattr(got, name), 4) for name in names}
    off = {
        "mean": (abs(got.mean - wanted.mean), DRAW_MEAN * drawn + DESIGN_MEAN),
        "deviation": (abs(got.deviation / wanted.deviation - 1), DRAW_DEVIATION * drawn + DESIGN_DEVIATION),
        "detail": (abs(got.detail / wanted.detail - 1), DRAW_DEVIATION * drawn + DETAIL),
        "colour": (abs(got.colour / wanted.colour - 1), DRAW_DEVIATION * drawn + COLOUR),
    }
    for name, (distance, allowed) in off.items():
        if not distance <= allowed:
            raise CheckFailed(
                f"{name} {getattr(got, name):.3f} of the {size} px views; expected {getattr(wanted, name):.3f}, and off by at "
                f"most {allowed:.3f}{'' if name == 'mean' else ' of it'}"
            )
    return found


def check_pixels(jpegs: Sequence[bytes]) -> Callable[[Any], dict[str, Any]]:
    """All images have Pillow's shape, and the first its pixels up to 3 levels.

    Decoders may round their inverse DCT and colour differently.
    """

    def check(images: Iterable[Any]) -> dict[str, Any]:
        import io

        import numpy as np
        from PIL import Image

        count, largest = 0, 0
        for count, (image, shape) in enumerate(zip(images, shapes(jpegs), strict=True), 1):
            got = np.asarray(image)
            got = got.transpose(1, 2, 0) if got.shape[0] == 3 else got
            if got.shape != shape:
                raise CheckFailed(f"image {count - 1} is {got.shape}; expected {shape}")
            if count == 1:
                exact = np.asarray(Image.open(io.BytesIO(jpegs[0])).convert("RGB"), np.int16)
                largest = int(abs(got.astype(np.int16) - exact).max())
        if largest > 3:
            raise CheckFailed(f"differs from Pillow by {largest} levels")
        return {"largest_difference": largest}

    return check


def shapes(jpegs: Sequence[bytes]) -> Iterator[tuple[int, int, int]]:
    import io

    from PIL import Image

    for jpeg in jpegs:
        with Image.open(io.BytesIO(jpeg)) as image:
            yield image.height, image.width, 3
