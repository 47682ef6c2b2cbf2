"""MoCo's views under lightly's names and arguments."""

from __future__ import annotations

from dataclasses import dataclass

from fastssl.transforms.simclr_transform import SimCLRTransform

__all__ = ["MoCoV1Transform", "MoCoV2Transform"]


@dataclass(eq=False, repr=False)
class MoCoV1Transform(SimCLRTransform):
    """Two views of an image as in MoCo (arXiv:1911.05722): far hues, no blur; arguments as for `SimCLRTransform`.

    >>> MoCoV1Transform(64).transforms[0].view.jitter.hue
    0.4
    """

    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.4
    cj_hue: float = 0.4
    min_scale: float = 0.2
    gaussian_blur: float = 0.0


@dataclass(eq=False, repr=False)
class MoCoV2Transform(MoCoV1Transform):
    """Two views of an image as in MoCo v2 (arXiv:2003.04297); arguments as for `SimCLRTransform`.

    >>> MoCoV2Transform(64).transforms[0].view.blur.p
    0.5
    """

    cj_hue: float = 0.1
    gaussian_blur: float = 0.5
