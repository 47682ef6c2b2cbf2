"""BYOL's views under lightly's names and arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization, lightly_view
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.rotation import random_rotation_transform
from fastssl.transforms.solarize import RandomSolarization

__all__ = [
    "BYOLTransform",
    "BYOLView1Transform",
    "BYOLView2Transform",
    "GaussianBlur",
    "random_rotation_transform",
    "RandomSolarization",
]


@dataclass(eq=False, repr=False)
class BYOLView1Transform(ViewTransform):
    """The first view of an image as in BYOL (arXiv:2006.07733): always blurred, never solarized.

    Args:
        solarization_prob: Probability of solarization, after the blur.

    The other arguments are those of `SimCLRTransform`.

    >>> BYOLView1Transform(32).view.blur.p
    1.0
    """

    input_size: int = 224
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.2
    cj_hue: float = 0.1
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    gaussian_blur: float = 1.0
    solarization_prob: float = 0.0
    sigmas: tuple[float, float] = (0.1, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(lightly_view(self))


@dataclass(eq=False, repr=False)
class BYOLView2Transform(BYOLView1Transform):
    """The second view of an image as in BYOL: seldom blurred, now and then solarized; arguments as for `BYOLView1Transform`.

    >>> BYOLView2Transform(32).view.solarize.p
    0.2
    """

    gaussian_blur: float = 0.1
    solarization_prob: float = 0.2


class BYOLTransform(MultiViewTransform):
    """Two views of an image as in BYOL (arXiv:2006.07733), rendered in one call.

    Args:
        view_1_transform: Makes the first view; None for `BYOLView1Transform()`.
        view_2_transform: Makes the second; None for `BYOLView2Transform()`.

    >>> [transform.view.size for transform in BYOLTransform(BYOLView1Transform(96), BYOLView2Transform(64)).transforms]
    [96, 64]
    """

    def __init__(
        self,
        view_1_transform: Callable[[Any], Any] | None = None,
        view_2_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__([view_1_transform or BYOLView1Transform(), view_2_transform or BYOLView2Transform()])
