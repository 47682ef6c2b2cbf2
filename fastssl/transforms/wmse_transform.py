"""W-MSE's views under lightly's name and arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization, check_views, lightly_view
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.recipes._parts import COLOURS_FIRST

__all__ = ["WMSETransform", "GaussianBlur"]


@dataclass(eq=False, repr=False)
class WMSETransform(MultiViewTransform):
    """Several views of an image as in W-MSE (arXiv:2007.06346): colours on the whole image, then a bicubic crop.

    normalize=None leaves the values in [0, 1]; in lightly it is an error.

    Args:
        num_samples: Number of views.

    The other arguments are those of `SimCLRTransform`.

    >>> WMSETransform(input_size=32).transforms[0].view.order
    ('jitter', 'grayscale', 'crop', 'blur')
    """

    num_samples: int = 2
    input_size: int = 224
    cj_prob: float = 0.8
    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.4
    cj_hue: float = 0.1
    min_scale: float = 0.2
    random_gray_scale: float = 0.1
    hf_prob: float = 0.5
    gaussian_blur: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2.0)
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        view = lightly_view(self, interpolation="bicubic", order=COLOURS_FIRST)
        super().__init__([ViewTransform(view)] * check_views(self, "num_samples"))
