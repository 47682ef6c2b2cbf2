"""VICReg's views under lightly's names and arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization, lightly_view
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.recipes._parts import SOLARIZE_FIRST
from fastssl.transforms.rotation import random_rotation_transform
from fastssl.transforms.solarize import RandomSolarization

__all__ = ["VICRegTransform", "VICRegViewTransform", "GaussianBlur", "random_rotation_transform", "RandomSolarization"]


@dataclass(eq=False, repr=False)
class _VICRegArguments:
    """What a pair of views, or one, is told in lightly's words."""

    input_size: int = 224
    cj_prob: float = 0.8
    cj_strength: float = 0.5
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.4
    cj_hue: float = 0.2
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    solarize_prob: float = 0.1
    gaussian_blur: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)


@dataclass(eq=False, repr=False)
class VICRegTransform(_VICRegArguments, MultiViewTransform):
    """Two views of an image as in VICReg (arXiv:2105.04906), solarized before the blur, as in lightly.

    Args:
        solarize_prob: Probability of solarization.

    The other arguments are those of `SimCLRTransform`.

    >>> VICRegTransform(32).transforms[0].view.order
    ('crop', 'jitter', 'grayscale', 'solarize', 'blur')
    """

    def __post_init__(self) -> None:
        MultiViewTransform.__init__(self, [ViewTransform(lightly_view(self, order=SOLARIZE_FIRST))] * 2)


@dataclass(eq=False, repr=False)
class VICRegViewTransform(_VICRegArguments, ViewTransform):
    """One view of an image as in VICReg; its own sigmas begin at 0.2, as in lightly; arguments as for `VICRegTransform`.

    >>> VICRegViewTransform(32).view.blur.sigma_px
    (0.2, 2.0)
    """

    sigmas: tuple[float, float] = (0.2, 2)

    def __post_init__(self) -> None:
        ViewTransform.__init__(self, lightly_view(self, order=SOLARIZE_FIRST))
