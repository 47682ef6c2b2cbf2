"""iBOT's views under lightly's names and arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization, lightly_view
from fastssl.transforms.dino_transform import dino_views
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.solarize import RandomSolarization

__all__ = ["IBOTTransform", "IBOTViewTransform", "GaussianBlur", "RandomSolarization"]


@dataclass(eq=False, repr=False)
class IBOTTransform(MultiViewTransform):
    """Two global views of an image and local ones as in iBOT (arXiv:2111.07832); arguments as for `DINOTransform`.

    cj_strength holds for all views; in lightly the second global view always has 0.5.

    >>> [transform.view.crop.area for transform in IBOTTransform(n_local_views=1).transforms]
    [(0.25, 1.0), (0.25, 1.0), (0.05, 0.25)]
    """

    global_crop_size: int = 224
    global_crop_scale: tuple[float, float] = (0.25, 1.0)
    local_crop_size: int = 96
    local_crop_scale: tuple[float, float] = (0.05, 0.25)
    n_local_views: int = 10
    hf_prob: float = 0.5
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


@dataclass(eq=False, repr=False)
class IBOTViewTransform(ViewTransform):
    """One view of an image as in iBOT, crop bicubic; arguments as for `DINOTransform`, but those of one view.

    >>> IBOTViewTransform(32).view.size
    32
    """

    crop_size: int = 224
    crop_scale: tuple[float, float] = (0.4, 1.0)
    hf_prob: float = 0.5
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
