"""Collate functions that make the views: a batch of images goes in, a batch of views comes out.

lightly 1.5 had these names, with a Python call for every view; here all views of a batch are rendered by one native
call. Their arguments, the order and the defaults are lightly 1.5's; `fastssl.transforms.SimCLRTransform` describes them. A
kernel_size is ignored, with a warning, as it was there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastssl.data.collate_base import BaseCollateFunction, MultiViewCollateFunction
from fastssl.data.collate_multi_crop import (
    DINOCollateFunction,
    MSNCollateFunction,
    MultiCropCollateFunction,
    SMoGCollateFunction,
    SwaVCollateFunction,
)
from fastssl.data.collate_regions import PIRLCollateFunction, VICRegLCollateFunction
from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization, lightly_view
from fastssl.transforms.multi_view_transform import ViewTransform
from fastssl.transforms.recipes._parts import SOLARIZE_FIRST
from fastssl.transforms.utils import IMAGENET_NORMALIZE

__all__ = [
    "BaseCollateFunction",
    "DINOCollateFunction",
    "ImageCollateFunction",
    "MAECollateFunction",
    "MSNCollateFunction",
    "MoCoCollateFunction",
    "MultiCropCollateFunction",
    "MultiViewCollateFunction",
    "PIRLCollateFunction",
    "SMoGCollateFunction",
    "SimCLRCollateFunction",
    "SwaVCollateFunction",
    "VICRegCollateFunction",
    "VICRegLCollateFunction",
    "imagenet_normalize",
]

imagenet_normalize = IMAGENET_NORMALIZE  # the name it had here in lightly 1.5


@dataclass(eq=False, repr=False)
class ImageCollateFunction(BaseCollateFunction):
    """Makes two views of every image of a batch: crop, flips, quarter turn, jitter, grayscale, blur, normalization.

    The arguments, their order and their defaults are lightly 1.5's; `SimCLRTransform` describes them.

    Args:
        dtype: Of the views: float32, float16, bfloat16, or uint8, which needs normalize=None.
        channels_last: Whether the views are stored channels last.
        blur_kind: "box" for Pillow's blur, and so lightly's.

    Raises:
        ValueError, TypeError: as `SimCLRTransform`; and uint8 with a normalization.

    >>> import numpy as np
    >>> (x0, x1), targets, filenames = ImageCollateFunction(32)([(np.zeros((40, 60, 3), np.uint8), 7, "a.jpg")])
    >>> x0.shape, targets, filenames
    (torch.Size([1, 3, 32, 32]), tensor([7]), ['a.jpg'])
    """

    input_size: int = 64
    cj_prob: float = 0.8
    cj_bright: float = 0.7
    cj_contrast: float = 0.7
    cj_sat: float = 0.7
    cj_hue: float = 0.2
    min_scale: float = 0.15
    random_gray_scale: float = 0.2
    gaussian_blur: float = 0.5
    kernel_size: float | None = None
    sigmas: tuple[float, float] = (0.2, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False
    blur_kind: BlurKind = "gaussian"

    def __post_init__(self) -> None:
        super().__init__(ViewTransform(lightly_view(self)), self.dtype, self.channels_last)


@dataclass(eq=False, repr=False)
class SimCLRCollateFunction(BaseCollateFunction):
    """Makes the two views of SimCLR of every image of a batch, for an existing `torch.utils.data.DataLoader`.

    The arguments, their order and their defaults are lightly 1.5's, so cj_strength=0.5 (jitter by 0.4, 0.4, 0.4 and
    0.1) and sigmas from 0.2, where `SimCLRTransform` has 1.0 and from 0.1. `SimCLRTransform` describes the arguments,
    `BaseCollateFunction.forward` what goes in and comes out, `ImageCollateFunction` dtype, channels_last and blur_kind.

    >>> import numpy as np
    >>> collate = SimCLRCollateFunction(input_size=32, normalize=None, dtype=torch.uint8)
    >>> (x0, x1), targets, filenames = collate([(np.zeros((40, 60, 3), np.uint8), 7)])
    >>> x0.shape, x0.dtype, targets, filenames
    (torch.Size([1, 3, 32, 32]), torch.uint8, tensor([7]), [])
    """

    input_size: int = 224
    cj_prob: float = 0.8
    cj_strength: float = 0.5
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    gaussian_blur: float = 0.5
    kernel_size: float | None = None
    sigmas: tuple[float, float] = (0.2, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False
    blur_kind: BlurKind = "gaussian"

    def __post_init__(self) -> None:
        colours = {"cj_bright": 0.8, "cj_contrast": 0.8, "cj_sat": 0.8, "cj_hue": 0.2}
        super().__init__(ViewTransform(lightly_view(self, colours)), self.dtype, self.channels_last)


@dataclass(eq=False, repr=False)
class MoCoCollateFunction(BaseCollateFunction):
    """Makes the two views of MoCo (arXiv:1911.05722) of every image of a batch; arguments as for `SimCLRCollateFunction`.

    cj_strength is the jitter of brightness, contrast, saturation and hue alike. It is at most 0.5, for the hue.

    >>> MoCoCollateFunction(32).transform.view.jitter.hue
    0.4
    """

    input_size: int = 224
    cj_prob: float = 0.8
    cj_strength: float = 0.4
    min_scale: float = 0.2
    random_gray_scale: float = 0.2
    gaussian_blur: float = 0.0
    kernel_size: float | None = None
    sigmas: tuple[float, float] = (0.2, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False
    blur_kind: BlurKind = "gaussian"

    def __post_init__(self) -> None:
        colours = {"cj_bright": 1.0, "cj_contrast": 1.0, "cj_sat": 1.0, "cj_hue": 1.0}
        super().__init__(ViewTransform(lightly_view(self, colours)), self.dtype, self.channels_last)


@dataclass(eq=False, repr=False)
class VICRegCollateFunction(BaseCollateFunction):
    """Makes the two views of VICReg (arXiv:2105.04906) of every image of a batch, solarized before the blur.

    Arguments as for `ImageCollateFunction`.

    >>> VICRegCollateFunction(32).transform.view.solarize.p
    0.1
    """

    input_size: int = 224
    cj_prob: float = 0.8
    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.2
    cj_hue: float = 0.1
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    solarize_prob: float = 0.1
    gaussian_blur: float = 0.5
    kernel_size: float | None = None
    sigmas: tuple[float, float] = (0.2, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False
    blur_kind: BlurKind = "gaussian"

    def __post_init__(self) -> None:
        super().__init__(ViewTransform(lightly_view(self, order=SOLARIZE_FIRST)), self.dtype, self.channels_last)


@dataclass(eq=False, repr=False)
class MAECollateFunction(MultiViewCollateFunction):
    """Makes the view of MAE (arXiv:2111.06377) of every image of a batch: one tensor, and no list.

    Arguments as for `fastssl.transforms.MAETransform`, dtype and channels_last as for `ImageCollateFunction`.

    >>> import numpy as np
    >>> view, targets, filenames = MAECollateFunction(32)([(np.zeros((40, 60, 3), np.uint8), 7)])
    >>> view.shape
    torch.Size([1, 3, 32, 32])
    """

    input_size: int | tuple[int, int] = 224
    min_scale: float = 0.2
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False

    def __post_init__(self) -> None:
        view = lightly_view(self, {"hf_prob": 0.5}, interpolation="bicubic")
        super().__init__([ViewTransform(view)], self.dtype, self.channels_last)

    def forward(self, batch: Sequence[Any]) -> tuple[Tensor, Tensor, list[str]]:
        """Renders a batch, as `BaseCollateFunction.forward`, to one view (B, 3, S, S)."""
        views, targets, filenames = super().forward(batch)
        return views[0], targets, filenames
