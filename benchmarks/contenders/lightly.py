"""lightly: its own transform classes, on Pillow images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from view_recipes import Recipe


def from_pixels(recipe: Recipe) -> Callable[[Any], list[Any]]:
    """Takes Pillow images. The classes' defaults are the recipes; for CIFAR-10 its documentation names the changes."""
    from lightly.transforms import DINOTransform, SimCLRTransform

    if recipe.name == "dino":
        return DINOTransform()
    if recipe.name == "cifar":
        return SimCLRTransform(input_size=recipe.views[0].size, cj_strength=0.5, gaussian_blur=0.0)
    return SimCLRTransform(input_size=recipe.views[0].size)


def from_jpeg(recipe: Recipe) -> Callable[[bytes], list[Any]]:
    import io

    from PIL import Image

    transform = from_pixels(recipe)
    return lambda jpeg: transform(Image.open(io.BytesIO(jpeg)).convert("RGB"))
