"""What recipes are built of: the colours of the field, blurs, and the checks that all recipes share."""

from __future__ import annotations

from typing import Any

from fastssl.transforms._checks import number
from fastssl.transforms.geometry import Crop, Flip
from fastssl.transforms.steps import Blur, Grayscale, Jitter, Solarize
from fastssl.transforms.view import Step, View

__all__ = [
    "BYOL_COLOURS",
    "COLOURS_FIRST",
    "MOCO_COLOURS",
    "SIMCLR_COLOURS",
    "SOLARIZE_FIRST",
    "check_count",
    "coloured",
    "plain",
]

Colours = tuple[float, float, float, float]  # brightness, contrast, saturation, hue

SIMCLR_COLOURS: Colours = (0.8, 0.8, 0.8, 0.2)
MOCO_COLOURS: Colours = (0.4, 0.4, 0.4, 0.1)
BYOL_COLOURS: Colours = (0.4, 0.4, 0.2, 0.1)

SOLARIZE_FIRST: tuple[Step, ...] = ("crop", "jitter", "grayscale", "solarize", "blur")
COLOURS_FIRST: tuple[Step, ...] = ("jitter", "grayscale", "crop", "blur")


def plain(crop: Crop) -> View:
    """A crop and a flip, and no colours."""
    return View(crop=crop, flip=Flip(p=0.5))


def coloured(
    who: str,
    crop: Crop,
    colours: Colours,
    *,
    strength: float = 1.0,
    jitter: float = 0.8,
    grayscale: float = 0.2,
    blur: float = 0.5,
    solarize: float = 0.0,
    order: tuple[Step, ...] | None = None,
) -> View:
    """A crop, a flip, and the colours that contrastive methods share.

    Args:
        who: Opens the error.
        colours: What `strength` multiplies.
        jitter, grayscale, blur, solarize: Probabilities; what has 0 is left out.
        order: None for the usual one, in which solarize is last.

    Raises:
        ValueError: strength is no number from 0 up, or turns the hue by more than half of the circle.
    """
    if not number(strength) or not 0 <= strength * colours[3] <= 0.5:
        raise ValueError(
            f"{who}: strength={strength!r} must be from 0 to {0.5 / colours[3]:g}, where the hue has gone all around."
        )
    brightness, contrast, saturation, hue = (strength * value for value in colours)
    view = View(
        crop=crop,
        flip=Flip(p=0.5),
        jitter=Jitter(p=jitter, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue),
        grayscale=Grayscale(p=grayscale),
        blur=Blur(p=blur, sigma_px=(0.1, 2.0)) if blur else None,
        solarize=Solarize(p=solarize) if solarize else None,
    )
    return view if order is None else view.with_(order=order)


def check_count(who: str, name: str, count: Any, least: int = 1) -> int:
    """A number of views; a ValueError where it is none."""
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        raise ValueError(f"{who}: {name}={count!r} must be a whole number of views, at least {least}.")
    return count
