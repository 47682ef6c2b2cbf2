"""Gaussian holes in a spectrum, under lightly's name."""

from __future__ import annotations

import torch
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
        return self.apply_gaussian_mixture_mask(freq_image, self.num_gaussians, self.std_range)

    def apply_gaussian_mixture_mask(self, freq_image: Tensor, num_gaussians: int, std: tuple[float, float]) -> Tensor:
        """(C, U, V), complex, to the same, with a number of Gaussians and a range of deviations given here."""
        return dig_holes(freq_image, num_gaussians, std)

    def gaussian_kernel(self, size: tuple[int, int], sigma: Tensor, center: Tensor) -> Tensor:
        """One Gaussian, 1 at its centre.

        Args:
            size: Rows and columns.
            sigma, center: (2,), the deviation and the place of the centre along rows and columns.

        Returns:
            `size`, on the device of sigma.
        """
        distances = [torch.arange(n, device=sigma.device) - c for n, c in zip(size, center, strict=True)]
        rows, columns = (torch.exp(-(d**2) / (2 * s**2)) for d, s in zip(distances, sigma, strict=True))
        return rows[:, None] * columns
