"""VICRegL's views and grids under lightly's names and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Checker, Normalization, check_views, lightly_view
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.image_grid_transform import ImageGridTransform
from fastssl.transforms.random_crop_and_flip_with_grid import RandomResizedCropAndFlip
from fastssl.transforms.solarize import RandomSolarization
from fastssl.transforms.uncropped import UncroppedTransform

__all__ = ["VICRegLTransform", "VICRegLViewTransform", "vicregl_pair", "GaussianBlur", "RandomSolarization"]


@dataclass(eq=False, repr=False)
class VICRegLTransform(ImageGridTransform):
    """Global and local views of an image as in VICRegL (arXiv:2210.01571), and where their cells lie, in one render call.

    vf_prob, cj_bright, cj_contrast, cj_sat and cj_hue hold for all views; lightly's local views are mirrored upside down half
    of the time and follow none of these.

    Args:
        global_crop_size, local_crop_size: Sides of the views, in pixels.
        n_global_views, n_local_views: Numbers of views.
        global_crop_scale, local_crop_scale: Smallest and largest part of the image's area that a crop keeps, in (0, 1].
        global_grid_size, local_grid_size: Rows and columns of the grids.
        global_gaussian_blur_prob, local_gaussian_blur_prob: Probabilities of the blur.
        global_gaussian_blur_sigmas, local_gaussian_blur_sigmas: Smallest and largest deviation of the blur, in pixels.
        global_solarize_prob, local_solarize_prob: Probabilities of solarization.

    The other arguments are those of `SimCLRTransform`. What comes out: one list, first all views, then the grids, each
    (N, N, 2): x and y in pixels of the image, spaced as lightly's; see `fastssl.transforms.crop_grids`.

    >>> import torch
    >>> out = VICRegLTransform(32, 16, n_local_views=1)(torch.zeros(3, 60, 40, dtype=torch.uint8))
    >>> [tuple(part.shape) for part in out]
    [(3, 32, 32), (3, 32, 32), (3, 16, 16), (7, 7, 2), (7, 7, 2), (3, 3, 2)]
    """

    global_crop_size: int = 224
    local_crop_size: int = 96
    n_global_views: int = 2
    n_local_views: int = 6
    global_crop_scale: tuple[float, float] = (0.2, 1.0)
    local_crop_scale: tuple[float, float] = (0.05, 0.2)
    global_grid_size: int = 7
    local_grid_size: int = 3
    global_gaussian_blur_prob: float = 0.5
    local_gaussian_blur_prob: float = 0.1
    global_gaussian_blur_sigmas: tuple[float, float] = (0.1, 2)
    local_gaussian_blur_sigmas: tuple[float, float] = (0.1, 2)
    global_solarize_prob: float = 0.0
    local_solarize_prob: float = 0.2
    hf_prob: float = 0.5
    vf_prob: float = 0.0
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
        pairs = [vicregl_pair(self, "global")] * check_views(self, "n_global_views", 0)
        pairs += [vicregl_pair(self, "local")] * check_views(self, "n_local_views", 0)
        super().__init__(pairs)


def vicregl_pair(
    owner: object, kind: str, more: Mapping[str, Any] | None = None
) -> tuple[RandomResizedCropAndFlip, UncroppedTransform]:
    """The crop with its grid, and what comes after, of "global" or "local" views; the collate has them too."""
    given = vars(owner)
    replaced = {
        **(more or {}),
        "crop_size": given[f"{kind}_crop_size"],
        "crop_scale": given[f"{kind}_crop_scale"],
        "gaussian_blur": given[f"{kind}_gaussian_blur_prob"],
        "sigmas": given[f"{kind}_gaussian_blur_sigmas"],
        "solarization_prob": given[f"{kind}_solarize_prob"],
    }
    view = lightly_view(owner, replaced, stacklevel=5)
    check = Checker(type(owner).__name__, {"vf_prob": 0.0, **given})
    low, high = replaced["crop_scale"]
    crop = RandomResizedCropAndFlip(
        grid_size=given[f"{kind}_grid_size"],
        crop_size=view.size,
        crop_min_scale=low,
        crop_max_scale=high,
        hf_prob=check.p("hf_prob"),
        vf_prob=check.p("vf_prob"),
    )
    return crop, UncroppedTransform(view.with_(flip=None, vflip=None))


@dataclass(eq=False, repr=False)
class VICRegLViewTransform(UncroppedTransform):
    """What happens to a crop as in VICRegL, at the image's own size: jitter, grayscale, blur, solarization.

    For `ImageGridTransform`, which crops and renders; called by itself, it goes through torchvision.

    >>> import torch
    >>> VICRegLViewTransform()(torch.zeros(3, 60, 40, dtype=torch.uint8)).shape
    torch.Size([3, 60, 40])
    """

    gaussian_blur_prob: float = 0.5
    gaussian_blur_sigmas: tuple[float, float] = (0.1, 2)
    solarize_prob: float = 0.0
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
        super().__init__(lightly_view(self, {"crop_size": 1}))
