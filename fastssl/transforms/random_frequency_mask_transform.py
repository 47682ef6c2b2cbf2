"""Frequencies left out, under lightly's name."""

from __future__ import annotations

from torch import Tensor

from fastssl.transforms.frequency import mask_frequencies

__all__ = ["RandomFrequencyMaskTransform"]


class RandomFrequencyMaskTransform:
    """Frequencies of a spectrum set to zero, never the mean; see `fastssl.transforms.frequency.mask_frequencies`.

    Args:
        k: The smallest and the largest probability of a frequency.

    >>> import torch
    >>> RandomFrequencyMaskTransform((1.0, 1.0))(torch.ones(1, 1, 2, dtype=torch.complex64)).real
    tensor([[[1., 0.]]])
    """

    def __init__(self, k: tuple[float, float] = (0.01, 0.1)) -> None:
        self.k = k

    def __call__(self, fft_image: Tensor) -> Tensor:
        """(C, U, V), complex, to the same."""
        return mask_frequencies(fft_image, self.k)
