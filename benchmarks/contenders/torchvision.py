"""torchvision v2 on uint8 tensors, the fast way to write it, decoded by torchvision.io."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from view_recipes import ASPECT, BLUR_TAPS, FLIP_P, GRAY_P, JITTER_P, MEAN, SIGMA_PX, STD, Recipe, ViewSpec


def view(spec: ViewSpec, white: float = 255) -> Callable[[Any], Any]:
    import torch
    from torchvision.transforms import v2

    filter_ = v2.InterpolationMode.BICUBIC if spec.bicubic else v2.InterpolationMode.BILINEAR
    steps = [
        v2.RandomResizedCrop(spec.size, spec.area, ASPECT, filter_, antialias=True),
        # Bicubic interpolation overshoots; uint8 ends at white by itself, and the hue of what lies beyond is no number.
        *([v2.Lambda(lambda image: image.clamp(0, 1))] if white == 1 else []),
        v2.RandomHorizontalFlip(FLIP_P),
        v2.RandomApply([v2.ColorJitter(*spec.jitter)], p=JITTER_P),
        v2.RandomGrayscale(GRAY_P),
    ]
    if spec.blur_p:
        steps.append(v2.RandomApply([v2.GaussianBlur(BLUR_TAPS, SIGMA_PX)], p=spec.blur_p))
    if spec.solarize_p:
        steps.append(v2.RandomSolarize(white * 128 / 255, p=spec.solarize_p))
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def from_pixels(recipe: Recipe, white: float = 255) -> Callable[[Any], list[Any]]:
    """Takes tensors, (3, H, W), uint8, or floating in [0, 1] with `white` 1."""
    made = {spec: view(spec, white) for spec in recipe.distinct}
    views = [made[spec] for spec in recipe.views]
    return lambda image: [transform(image) for transform in views]


def decode(jpeg: bytes) -> Any:
    """JPEG to a uint8 tensor, (3, H, W)."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    return decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), ImageReadMode.RGB)


def from_jpeg(recipe: Recipe) -> Callable[[bytes], list[Any]]:
    transform = from_pixels(recipe)
    return lambda jpeg: transform(decode(jpeg))


def batches_of_pixels(recipe: Recipe, inputs: Callable[[], Iterable[Any]], **form: Any) -> Callable[[], Iterable[Any]]:
    """From batches of uint8 tensors, (3, H, W) each, image by image; `form`: type and memory format of the finished views."""
    import torch

    transform = from_pixels(recipe)

    def render(images: Any) -> tuple[list[Any]]:
        views = zip(*(transform(image) for image in images), strict=True)
        return ([torch.stack(of_one).to(**form) for of_one in views],)

    return lambda: map(render, inputs())
