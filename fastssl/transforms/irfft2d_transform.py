"""The image of a spectrum, under lightly's name."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["IRFFT2DTransform"]


class IRFFT2DTransform:
    """The image of a spectrum: `torch.fft.irfft2`.

    Args:
        shape: Height and width of the image.

    >>> IRFFT2DTransform((2, 3))(torch.fft.rfft2(torch.ones(1, 2, 3)))
    tensor([[[1., 1., 1.],
             [1., 1., 1.]]])
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def __call__(self, freq_image: Tensor) -> Tensor:
        """(..., H, W // 2 + 1), complex, to (..., H, W), float."""
        return torch.fft.irfft2(freq_image, s=self.shape)
