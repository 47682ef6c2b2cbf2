"""DINO's views under lightly's names and arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Checker, Normalization, check_views, lightly_view
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.rotation import random_rotation_transform
from fastssl.transforms.solarize import RandomSolarization

__all__ = [
    "DINOTransform",
    "DINOViewTransform",
    "dino_views",
    "GaussianBlur",
    "random_rotation_transform",
    "RandomSolarization",
]


@dataclass(eq=False, repr=False)
class DINOTransform(MultiViewTransform):
    """Two global views of an image and local ones as in DINO (arXiv:2104.14294), rendered in one call.

    cj_strength holds for all views; in lightly the second global view always has 0.5.

    Args:
        global_crop_size, local_crop_size: Sides of the views, in pixels.
        global_crop_scale, local_crop_scale: Smallest and largest part of the image's area that a crop keeps, in (0, 1].
        n_local_views: Number of local views.
        gaussian_blur: Probability of the blur of the first global view, the second, and the local ones.
        solarization_prob: Probability of solarization of the second global view.

    The other arguments are those of `SimCLRTransform`.

    >>> import torch
    >>> views = DINOTransform(32, local_crop_size=16, n_local_views=2)(torch.zeros(3, 60, 40, dtype=torch.uint8))
    >>> [view.shape[-1] for view in views]
    [32, 32, 16, 16]
    """

    global_crop_size: int = 224
    global_crop_scale: tuple[float, float] = (0.4, 1.0)
    local_crop_size: int = 96
    local_crop_scale: tuple[float, float] = (0.05, 0.4)
    n_local_views: int = 6
    hf_prob: float = 0.5
    vf_prob: float = 0
    rr_prob: float = 0
    rr_degrees: float | tuple[float, float] | None = None
    cj_prob: float = 0.8
    cj_strength: float = 0.5
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.4
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    gaussian_blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    sigmas: tuple[float, float] = (0.1, 2)
    solarization_prob: float = 0.2
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(dino_views(self))


def dino_views(owner: DINOTransform | object) -> list[ViewTransform]:
    """The views that DINO's arguments describe, which iBOT's transform and DINO's collate have too."""
    given = vars(owner)
    who = type(owner).__name__
    blurs = Checker(who, given).numbers(
        "gaussian_blur", given["gaussian_blur"], 3, "(1.0, 0.1, 0.5): both global views, and the local ones"
    )
    locals_ = check_views(owner, "n_local_views", 0)
    views = []
    for kind, blur, solarize, count in (
        ("global", blurs[0], 0.0, 1),
        ("global", blurs[1], given["solarization_prob"], 1),
        ("local", blurs[2], 0.0, locals_),
    ):
        replaced = {
            "crop_size": given[f"{kind}_crop_size"],
            "crop_scale": given[f"{kind}_crop_scale"],
            "gaussian_blur": blur,
            "solarization_prob": solarize,
        }
        views += [ViewTransform(lightly_view(owner, replaced, interpolation="bicubic", stacklevel=5))] * count
    return views


@dataclass(eq=False, repr=False)
class DINOViewTransform(ViewTransform):
    """One view of an image as in DINO, crop bicubic; arguments as for `DINOTransform`, but those of one view.

    >>> DINOViewTransform(32).view.crop.interpolation
    'bicubic'
    """

    crop_size: int = 224
    crop_scale: tuple[float, float] = (0.4, 1.0)
    hf_prob: float = 0.5
    vf_prob: float = 0
    rr_prob: float = 0
    rr_degrees: float | tuple[float, float] | None = None
    cj_prob: float = 0.8
    cj_strength: float = 0.5
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.4
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    gaussian_blur: float = 1.0
    sigmas: tuple[float, float] = (0.1, 2)
    solarization_prob: float = 0.2
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(lightly_view(self, interpolation="bicubic"))
