"""SwaV's views under lightly's names and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization, lightly_view, view_kinds
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.multi_crop_transform import MultiCropTranform, MultiCropTransform
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.rotation import random_rotation_transform
from fastssl.transforms.uncropped import UncroppedTransform

__all__ = [
    "SwaVTransform",
    "SwaVViewTransform",
    "swav_views",
    "GaussianBlur",
    "MultiCropTranform",
    "random_rotation_transform",
]


@dataclass(eq=False, repr=False)
class SwaVTransform(MultiCropTransform):
    """Views of an image of several sizes as in SwaV (arXiv:2006.09882), rendered in one call.

    Args:
        crop_sizes: Sides of each kind of view, in pixels.
        crop_counts: Number of views of each kind.
        crop_min_scales, crop_max_scales: Smallest and largest part of the image's area that a crop of each kind keeps.

    The other arguments are those of `SimCLRTransform`.

    >>> [transform.view.size for transform in SwaVTransform(crop_counts=(1, 2)).transforms]
    [224, 96, 96]
    """

    crop_sizes: tuple[int, ...] = (224, 96)
    crop_counts: tuple[int, ...] = (2, 6)
    crop_min_scales: tuple[float, ...] = (0.14, 0.05)
    crop_max_scales: tuple[float, ...] = (1.0, 0.14)
    hf_prob: float = 0.5
    vf_prob: float = 0.0
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.8
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    gaussian_blur: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2)
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        MultiViewTransform.__init__(self, swav_views(self))


def swav_views(owner: object, replaced: Mapping[str, Any] | None = None) -> list[ViewTransform]:
    """The views that SwaV's arguments describe, which its collate has too."""
    views = []
    for kind, count in view_kinds(owner):
        views += [ViewTransform(lightly_view(owner, {**(replaced or {}), **kind}, stacklevel=5))] * count
    return views


@dataclass(eq=False, repr=False)
class SwaVViewTransform(UncroppedTransform):
    """What happens to a crop as in SwaV, at the image's own size; arguments as for `SimCLRTransform`.

    For `MultiCropTransform`, which crops and renders; called by itself, it goes through torchvision.

    >>> import torch
    >>> SwaVViewTransform()(torch.zeros(3, 60, 40, dtype=torch.uint8)).shape
    torch.Size([3, 60, 40])
    """

    hf_prob: float = 0.5
    vf_prob: float = 0.0
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.8
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    gaussian_blur: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2)
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(lightly_view(self, {"crop_size": 1}))
