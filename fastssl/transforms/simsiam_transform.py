"""SimSiam's views under lightly's names and arguments."""

from __future__ import annotations

from dataclasses import dataclass

from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.moco_transform import MoCoV2Transform
from fastssl.transforms.multi_view_transform import MultiViewTransform
from fastssl.transforms.rotation import random_rotation_transform
from fastssl.transforms.simclr_transform import SimCLRViewTransform

__all__ = [
    "SimSiamTransform",
    "SimSiamViewTransform",
    "GaussianBlur",
    "MultiViewTransform",
    "random_rotation_transform",
]


class SimSiamTransform(MoCoV2Transform):
    """Two views of an image as in SimSiam (arXiv:2011.10566), which takes MoCo v2's; arguments as for `SimCLRTransform`.

    >>> SimSiamTransform(64).transforms[0].view == SimSiamViewTransform(64).view
    True
    """


@dataclass(eq=False, repr=False)
class SimSiamViewTransform(SimCLRViewTransform):
    """One view of an image as in SimSiam; arguments as for `SimCLRTransform`.

    >>> SimSiamViewTransform(64).view.crop.area
    (0.2, 1.0)
    """

    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.4
    cj_hue: float = 0.1
    min_scale: float = 0.2
