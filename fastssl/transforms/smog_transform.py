"""SMoG's views under lightly's names and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastssl.transforms._arguments import (
    NORMALIZE,
    BlurKind,
    Normalization,
    lightly_view,
    view_kinds,
)
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.solarize import RandomSolarization

__all__ = ["SMoGTransform", "SmoGViewTransform", "smog_views", "GaussianBlur", "RandomSolarization"]


@dataclass(eq=False, repr=False)
class SMoGTransform(MultiViewTransform):
    """Views of an image of several sizes as in SMoG (arXiv:2207.06167), rendered in one call.

    Args:
        crop_sizes: Sides of each kind of view, in pixels.
        crop_counts: Number of views of each kind.
        crop_min_scales, crop_max_scales: Smallest and largest part of the image's area that a crop of each kind keeps.
        gaussian_blur_probs: Probability of the blur, of each kind.
        gaussian_blur_sigmas: Smallest and largest deviation of the blur, in pixels of the view.
        solarize_probs: Probability of solarization, of each kind.

    The other arguments are those of `SimCLRTransform`.

    >>> [transform.view.size for transform in SMoGTransform(crop_counts=(1, 2)).transforms]
    [224, 96, 96]
    """

    crop_sizes: tuple[int, ...] = (224, 96)
    crop_counts: tuple[int, ...] = (4, 4)
    crop_min_scales: tuple[float, ...] = (0.2, 0.05)
    crop_max_scales: tuple[float, ...] = (1.0, 0.2)
    gaussian_blur_probs: tuple[float, ...] = (0.5, 0.1)
    gaussian_blur_sigmas: tuple[float, float] = (0.1, 2)
    solarize_probs: tuple[float, ...] = (0.0, 0.2)
    hf_prob: float = 0.5
    cj_prob: float = 1.0
    cj_strength: float = 0.5
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.4
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    normalize: Normalization = NORMALIZE
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(smog_views(self))


def smog_views(owner: object, replaced: Mapping[str, Any] | None = None) -> list[ViewTransform]:
    """The views that SMoG's arguments describe, which its collate has too."""
    views = []
    for kind, count in view_kinds(owner, gaussian_blur_prob="gaussian_blur_probs", solarize_prob="solarize_probs"):
        views += [ViewTransform(lightly_view(owner, {**(replaced or {}), **kind}, stacklevel=5))] * count
    return views


@dataclass(eq=False, repr=False)
class SmoGViewTransform(ViewTransform):
    """One view of an image as in SMoG; arguments as for `SMoGTransform`, but those of one view.

    >>> SmoGViewTransform(32, crop_max_scale=0.5).view.crop.area
    (0.2, 0.5)
    """

    crop_size: int = 224
    crop_min_scale: float = 0.2
    crop_max_scale: float = 1.0
    gaussian_blur_prob: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2)
    solarize_prob: float = 0.0
    hf_prob: float = 0.5
    cj_prob: float = 1.0
    cj_strength: float = 0.5
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.4
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(lightly_view(self))
