"""The spectrum of an image, under lightly's name."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RFFT2DTransform"]


class RFFT2DTransform:
    """The spectrum of an image: `torch.fft.rfft2`.

    >>> RFFT2DTransform()(torch.ones(1, 2, 2)).real
    tensor([[[4., 0.],
             [0., 0.]]])
    """

    def __call__(self, image: Tensor) -> Tensor:
        """(..., H, W), float, to (..., H, W // 2 + 1), complex."""
        return torch.fft.rfft2(image)
