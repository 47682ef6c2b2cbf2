"""Gaussian holes in a spectrum, under lightly's name."""

from __future__ import annotations

from torch import Tensor

from fastssl.transforms.frequency import dig_holes

__all__ = ["GaussianMixtureMask"]


class GaussianMixtureMask:
    """A spectrum times one minus each of several Gaussians; see `fastssl.transforms.frequency.dig_holes`.

    Args:
        num_gaussians: Number of Gaussians.
        std_range: Smallest and largest deviation, in rows and columns of the spectrum.

    >>> import torch
    >>> GaussianMixtureMask(num_gaussians=1)(torch.ones(1, 1, 1, dtype=torch.complex64)).abs().item()
    0.0
    """

    def __init__(self, num_gaussians: int = 20, std_range: tuple[float, float] = (10, 15)) -> None:
        self.num_gaussians, self.std_range = num_gaussians, std_range

    def __call__(self, freq_image: Tensor) -> Tensor:
        """(C, U, V), complex, to the same."""
        return dig_holes(freq_image, self.num_gaussians, self.std_range)
