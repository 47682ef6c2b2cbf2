"""Collate functions for views of several sizes; `fastssl.data.collate` has their names too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fastssl.data.collate_base import MultiViewCollateFunction
from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization
from fastssl.transforms.dino_transform import dino_views
from fastssl.transforms.msn_transform import msn_views
from fastssl.transforms.multi_crop_transform import MultiCropTransform
from fastssl.transforms.smog_transform import smog_views
from fastssl.transforms.swav_transform import swav_views

__all__ = [
    "DINOCollateFunction",
    "MSNCollateFunction",
    "MultiCropCollateFunction",
    "SMoGCollateFunction",
    "SwaVCollateFunction",
]


class MultiCropCollateFunction(MultiViewCollateFunction):
    """Makes crops of several sizes of every image of a batch, with one transform after them.

    Args:
        crop_sizes, crop_counts, crop_min_scales, crop_max_scales, transforms: As for `fastssl.transforms.MultiCropTransform`.
        dtype, channels_last: As for `CollateFunction`.

    >>> from fastssl.transforms import SwaVViewTransform
    >>> len(MultiCropCollateFunction([32, 16], [2, 3], [0.5, 0.1], [1.0, 0.5], SwaVViewTransform()).transforms)
    5
    """

    def __init__(
        self,
        crop_sizes: Sequence[int],
        crop_counts: Sequence[int],
        crop_min_scales: Sequence[float],
        crop_max_scales: Sequence[float],
        transforms: Callable[[Any], Any],
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
    ) -> None:
        crops = MultiCropTransform(crop_sizes, crop_counts, crop_min_scales, crop_max_scales, transforms)
        super().__init__(crops.transforms, dtype, channels_last)


@dataclass(eq=False, repr=False)
class SwaVCollateFunction(MultiCropCollateFunction):
    """Makes the views of SwaV (arXiv:2006.09882) of every image of a batch.

    Arguments as for `fastssl.transforms.SwaVTransform`, but cj_strength, which is the jitter of brightness, contrast and
    saturation; that of the hue is a quarter of it. dtype, channels_last and blur_kind as for `ImageCollateFunction`.

    >>> SwaVCollateFunction().transforms[0].view.jitter.hue
    0.2
    """

    crop_sizes: Sequence[int] = (224, 96)
    crop_counts: Sequence[int] = (2, 6)
    crop_min_scales: Sequence[float] = (0.14, 0.05)
    crop_max_scales: Sequence[float] = (1.0, 0.14)
    hf_prob: float = 0.5
    vf_prob: float = 0.0
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    cj_prob: float = 0.8
    cj_strength: float = 0.8
    random_gray_scale: float = 0.2
    gaussian_blur: float = 0.5
    kernel_size: float | None = None
    sigmas: tuple[float, float] = (0.2, 2)
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False
    blur_kind: BlurKind = "gaussian"

    def __post_init__(self) -> None:
        colours = {"cj_bright": 1.0, "cj_contrast": 1.0, "cj_sat": 1.0, "cj_hue": 0.25}
        MultiViewCollateFunction.__init__(self, swav_views(self, colours), self.dtype, self.channels_last)


@dataclass(eq=False, repr=False)
class DINOCollateFunction(MultiViewCollateFunction):
    """Makes the global and local views of DINO (arXiv:2104.14294) of every image of a batch.

    Arguments as for `fastssl.transforms.DINOTransform`, but without cj_strength; kernel_scale is ignored like kernel_size.
    dtype, channels_last and blur_kind as for `ImageCollateFunction`.

    >>> [transform.view.size for transform in DINOCollateFunction(n_local_views=1).transforms]
    [224, 224, 96]
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
    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.2
    cj_hue: float = 0.1
    random_gray_scale: float = 0.2
    gaussian_blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    kernel_size: float | None = None
    kernel_scale: float | None = None
    sigmas: tuple[float, float] = (0.1, 2)
    solarization_prob: float = 0.2
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False
    blur_kind: BlurKind = "gaussian"

    def __post_init__(self) -> None:
        super().__init__(dino_views(self), self.dtype, self.channels_last)


@dataclass(eq=False, repr=False)
class MSNCollateFunction(MultiViewCollateFunction):
    """Makes the random and focal views of MSN (arXiv:2204.07141) of every image of a batch.

    Arguments as for `fastssl.transforms.MSNTransform`, dtype, channels_last and blur_kind as for `ImageCollateFunction`.

    >>> [transform.view.size for transform in MSNCollateFunction(focal_views=1).transforms]
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
    gaussian_blur: float = 0.5
    kernel_size: float | None = None
    sigmas: tuple[float, float] = (0.2, 2)
    random_gray_scale: float = 0.2
    hf_prob: float = 0.5
    vf_prob: float = 0.0
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False
    blur_kind: BlurKind = "gaussian"

    def __post_init__(self) -> None:
        colours = {"cj_bright": 0.8, "cj_contrast": 0.8, "cj_sat": 0.8, "cj_hue": 0.2}
        super().__init__(msn_views(self, colours), self.dtype, self.channels_last)


@dataclass(eq=False, repr=False)
class SMoGCollateFunction(MultiViewCollateFunction):
    """Makes the views of SMoG (arXiv:2207.06167) of every image of a batch.

    Arguments as for `fastssl.transforms.SMoGTransform`; gaussian_blur_kernel_sizes are ignored like kernel_size. dtype,
    channels_last and blur_kind as for `ImageCollateFunction`.

    >>> [transform.view.size for transform in SMoGCollateFunction(crop_counts=(1, 1)).transforms]
    [224, 96]
    """

    crop_sizes: Sequence[int] = (224, 96)
    crop_counts: Sequence[int] = (4, 4)
    crop_min_scales: Sequence[float] = (0.2, 0.05)
    crop_max_scales: Sequence[float] = (1.0, 0.2)
    gaussian_blur_probs: Sequence[float] = (0.5, 0.1)
    gaussian_blur_kernel_sizes: Sequence[float | None] | None = (None, None)
    gaussian_blur_sigmas: tuple[float, float] = (0.2, 2)
    solarize_probs: Sequence[float] = (0.0, 0.2)
    hf_prob: float = 0.5
    cj_prob: float = 1.0
    cj_strength: float = 0.5
    random_gray_scale: float = 0.2
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False
    blur_kind: BlurKind = "gaussian"

    def __post_init__(self) -> None:
        sizes = [size for size in self.gaussian_blur_kernel_sizes or () if size is not None]
        replaced = {"cj_bright": 0.8, "cj_contrast": 0.8, "cj_sat": 0.4, "cj_hue": 0.2, "kernel_size": sizes or None}
        super().__init__(smog_views(self, replaced), self.dtype, self.channels_last)
