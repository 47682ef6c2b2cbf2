"""albumentations on arrays, decoded by OpenCV. Its resize is OpenCV's: bilinear or bicubic, without antialiasing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from view_recipes import ASPECT, FLIP_P, GRAY_P, JITTER_P, MEAN, SIGMA_PX, STD, Recipe, ViewSpec


def view(spec: ViewSpec) -> Callable[[Any], Any]:
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    brightness, contrast, saturation, hue = spec.jitter
    filter_ = cv2.INTER_CUBIC if spec.bicubic else cv2.INTER_LINEAR
    steps = [
        A.RandomResizedCrop(size=(spec.size, spec.size), scale=spec.area, ratio=ASPECT, interpolation=filter_),
        A.HorizontalFlip(p=FLIP_P),
        A.ColorJitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, p=JITTER_P),
        A.ToGray(p=GRAY_P),
    ]
    if spec.blur_p:
        steps.append(A.GaussianBlur(blur_limit=0, sigma_limit=SIGMA_PX, p=spec.blur_p))
    if spec.solarize_p:
        steps.append(A.Solarize(threshold_range=(0.5, 0.5), p=spec.solarize_p))
    transform = A.Compose([*steps, A.Normalize(MEAN, STD), A.ToTensorV2()])
    return lambda image: transform(image=image)["image"]


def from_pixels(recipe: Recipe) -> Callable[[Any], list[Any]]:
    """Takes uint8 arrays, (H, W, 3)."""
    made = {spec: view(spec) for spec in recipe.distinct}
    views = [made[spec] for spec in recipe.views]
    return lambda image: [transform(image) for transform in views]


def decode(jpeg: bytes) -> Any:
    """JPEG to a uint8 array, (H, W, 3)."""
    import cv2
    import numpy as np

    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def from_jpeg(recipe: Recipe) -> Callable[[bytes], list[Any]]:
    transform = from_pixels(recipe)
    return lambda jpeg: transform(decode(jpeg))
