"""MSN's views under lightly's names and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization, check_views, lightly_view
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform

__all__ = ["MSNTransform", "MSNViewTransform", "msn_views", "GaussianBlur"]


@dataclass(eq=False, repr=False)
class MSNTransform(MultiViewTransform):
    """Random views of an image and smaller, focal ones as in MSN (arXiv:2204.07141), rendered in one call.

    cj_bright, cj_contrast, cj_sat and cj_hue hold for all views, where lightly's focal views do not follow them; and
    normalize=None leaves the values in [0, 1], in lightly an error.

    Args:
        random_size, focal_size: Sides of the views, in pixels.
        random_views, focal_views: Numbers of views.
        random_crop_scale, focal_crop_scale: Smallest and largest part of the image's area that a crop keeps, in (0, 1].

    The other arguments are those of `SimCLRTransform`.

    >>> [transform.view.size for transform in MSNTransform(focal_views=1).transforms]
    [224, 224, 96]
    """

    random_size: int = 224
    focal_size: int = 96
    random_views: int = 2
    focal_views: int = 10
    random_crop_scale: tuple[float, float] = (0.3, 1.0)
    focal_crop_scale: tuple[float, float] = (0.05, 0.3)
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.8
    cj_hue: float = 0.2
    gaussian_blur: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2)
    random_gray_scale: float = 0.2
    hf_prob: float = 0.5
    vf_prob: float = 0.0
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(msn_views(self))


def msn_views(owner: object, colours: Mapping[str, Any] | None = None) -> list[ViewTransform]:
    """The views that MSN's arguments describe, which its collate has too."""
    views = []
    for kind in ("random", "focal"):
        replaced = {
            **(colours or {}),
            "crop_size": vars(owner)[f"{kind}_size"],
            "crop_scale": vars(owner)[f"{kind}_crop_scale"],
        }
        count = check_views(owner, f"{kind}_views", 0)
        views += [ViewTransform(lightly_view(owner, replaced, stacklevel=5))] * count
    return views


@dataclass(eq=False, repr=False)
class MSNViewTransform(ViewTransform):
    """One view of an image as in MSN; arguments as for `MSNTransform`, but those of one view.

    >>> MSNViewTransform(32).view.crop.area
    (0.3, 1.0)
    """

    crop_size: int = 224
    crop_scale: tuple[float, float] = (0.3, 1.0)
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.8
    cj_hue: float = 0.2
    gaussian_blur: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2)
    random_gray_scale: float = 0.2
    hf_prob: float = 0.5
    vf_prob: float = 0.0
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(lightly_view(self))
