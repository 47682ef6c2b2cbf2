"""Recipes: what the views of a method are. Functions that return tuples of View; every number has a source."""

from __future__ import annotations

from fastssl.transforms.view import (
    IMAGENET,
    Blur,
    CenterCrop,
    Crop,
    Flip,
    Grayscale,
    Jitter,
    Recipe,
    View,
)

__all__ = ["evaluation", "simclr"]


def simclr(size: int = 224, strength: float = 1.0, blur: bool = True) -> Recipe:
    """Two views as in SimCLR.

    Deviations, shared with lightly: the crop is bilinear where the paper's code is bicubic, and the result is normalized.

    Args:
        size: Side of the views, in pixels.
        strength: Of the colour jitter; the paper's s, 1.0 for ImageNet, 0.5 for CIFAR-10.
        blur: Whether views are blurred; the paper leaves it out for small images (appendix B.9).

    Source: Chen et al., 2020, arXiv:2002.05709, appendix A.

    >>> [view.size for view in simclr(96)]
    [96, 96]
    """
    if not isinstance(strength, int | float) or not 0 <= strength <= 2.5:
        raise ValueError(f"simclr: strength={strength!r} must be from 0 to 2.5, where the hue has gone all around.")
    s = float(strength)
    view = View(
        crop=Crop(size=size, area=(0.08, 1.0)),
        flip=Flip(p=0.5),
        jitter=Jitter(p=0.8, brightness=0.8 * s, contrast=0.8 * s, saturation=0.8 * s, hue=0.2 * s),
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.5, sigma_px=(0.1, 2.0)) if blur else None,
        normalize=IMAGENET,
    )
    return (view, view)


def evaluation(size: int = 224, keep: float = 0.875) -> Recipe:
    """One view that nothing is drawn for: the central square, resized and normalized.

    Args:
        size: Side of the view, in pixels.
        keep: Side of the square over the shorter side; 0.875 is the usual 224 of 256, 1 keeps all of a square image.
    """
    return (View(crop=CenterCrop(size=size, keep=keep), normalize=IMAGENET),)
