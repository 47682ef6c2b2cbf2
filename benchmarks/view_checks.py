"""What a contender's output must be before it is timed.

Draws differ between libraries, so pixels cannot agree. What must agree with torchvision's v2 functions, on the same
images with draws of its own, in float, for the views of each size together:

* mean and deviation of all values;
* detail: mean absolute second difference along rows over the mean absolute first. It is 13 to 15 % higher in all recipes
  of 224 px if the blur is left out, and higher too where a resize has no antialiasing;
* gray: the part of the views that have no colour;
* spread: the deviation, over views, of a view's own mean, which without the jitter is 38 % lower for SimCLR, 14 % for DINO.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from contenders import torchvision
from harness import CheckFailed
from view_recipes import GRAY_P, MEAN, STD, Recipe

# How far the draw of one view moves each statistic: n views move it by 1 / sqrt(n) of that (largest standard deviation
# over 16 draws of 120 images of the ImageNet sample, SimCLR and DINO). In the units of the output, but of those in PARTS
# as a part. Four times that is allowed, for the difference of two samples.
DRAW = {"mean": 0.9, "deviation": 0.4, "detail": 0.35, "gray": math.sqrt(GRAY_P * (1 - GRAY_P)), "spread": 0.5}
PARTS = ("deviation", "detail", "spread")
# What is allowed beside, since operations differ by design: rounding to 8 bits between them (all but fastssl and kornia;
# 3 % of detail), blur by repeated boxes (Pillow), contrast about mid-grey and hue in YIQ (DALI).
DESIGN = {"mean": 0.05, "deviation": 0.025, "detail": 0.05, "gray": 0.01, "spread": 0.05}
GRAY_LEVELS = 2.5 / 255  # between red and blue of a view without colour: what rounding in a colour matrix leaves


class Sums:
    """Running statistics of the views added."""

    def __init__(self) -> None:
        self.views = self.gray_views = 0
        self.total = self.squares = self.steps = self.bends = 0.0  # means over a view, summed over views
        self.squared_means = 0.0

    def add(self, views: Any) -> None:
        """Views of several images, (B, 3, H, W)."""
        import torch

        def total(values: Any) -> float:
            return values.mean(dtype=torch.float64).item() * views.shape[0]

        step = views[..., 1:] - views[..., :-1]
        unit = [views[:, c] * STD[c] + MEAN[c] for c in (0, 2)]
        self.views += views.shape[0]
        self.total += total(views)
        self.squares += total(views.square())
        self.squared_means += views.mean((1, 2, 3), dtype=torch.float64).square().sum().item()
        self.steps += total(step.abs())
        self.bends += total((step[..., 1:] - step[..., :-1]).abs())
        self.gray_views += int(((unit[0] - unit[1]).abs().amax((1, 2)) <= GRAY_LEVELS).sum())

    @property
    def mean(self) -> float:
        return self.total / self.views

    @property
    def deviation(self) -> float:
        return math.sqrt(self.squares / self.views - self.mean**2)

    @property
    def spread(self) -> float:
        return math.sqrt(self.squared_means / self.views - self.mean**2)

    @property
    def detail(self) -> float:
        return self.bends / self.steps

    @property
    def gray(self) -> float:
        return self.gray_views / self.views


def views_of(batch: Any) -> Sequence[Any]:
    return batch[0] if isinstance(batch, list | tuple) else batch.views


def expected_of(recipe: Recipe, images: Iterable[Any]) -> dict[int, Sums]:
    """Statistics for each size of view, by torchvision in float, without rounding, of uint8 tensors, (3, H, W)."""
    transform = torchvision.from_pixels(recipe, white=1)
    sums = {spec.size: Sums() for spec in recipe.views}
    for image in images:
        for spec, view in zip(recipe.views, transform(image.float() / 255), strict=True):
            sums[spec.size].add(view[None])
    return sums


def remembered(path: Path, make: Callable[[], dict[int, Sums]]) -> dict[int, Sums]:
    """What `make` gives, made once: later tasks on the same images and recipe, in other processes too, find it in the file."""
    if not path.exists():
        path.write_text(json.dumps({size: vars(sums) for size, sums in make().items()}))
    read: dict[int, Sums] = {}
    for size, values in json.loads(path.read_text()).items():
        read[int(size)] = sums = Sums()
        vars(sums).update(values)
    return read


def check_views(
    recipe: Recipe, count: int, batch_size: int, expected: Callable[[], dict[int, Sums]], antialiased: bool = True
) -> Callable[[Iterable[Any]], dict[str, Any]]:
    """All views of all images, float32, in batches of `batch_size`, with the statistics expected.

    Args:
        antialiased: Whether the contender's resize is; if not, it may have more detail.
    """

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
            found |= compared(size, got, expected()[size], antialiased)
        return found

    return check


def compared(size: int, got: Sums, wanted: Sums, antialiased: bool) -> dict[str, float]:
    """The statistics of views of one size; raises where they are too far from what is wanted."""
    found = {}
    for name in DRAW:
        value, goal = getattr(got, name), getattr(wanted, name)
        allowed = 4 * math.sqrt(1 / got.views + 1 / wanted.views) * DRAW[name] + DESIGN[name]
        if name in PARTS:
            allowed *= goal
        above = math.inf if name == "detail" and not antialiased else goal + allowed
        if not goal - allowed <= value <= above:
            raise CheckFailed(
                f"{name} {value:.3f} of the {size} px views; must be from {goal - allowed:.3f} to {above:.3f}"
            )
        found[f"{name}_{size}"] = round(value, 4)
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
