"""Rescaled amplitudes, under lightly's name."""

from __future__ import annotations

from torch import Tensor

from fastssl.transforms.frequency import rescale_amplitudes

__all__ = ["AmplitudeRescaleTransform"]


class AmplitudeRescaleTransform:
    """Each frequency of a spectrum times a factor of its own; see `fastssl.transforms.frequency.rescale_amplitudes`.

    Args:
        range: The smallest and the largest factor.

    >>> import torch
    >>> AmplitudeRescaleTransform((2.0, 2.0))(torch.ones(1, 1, 1, dtype=torch.complex64)).real.item()
    2.0
    """

    def __init__(self, range: tuple[float, float] = (0.8, 1.75)) -> None:
        self.range = range

    def __call__(self, freq_image: Tensor) -> Tensor:
        """(C, U, V), complex, to the same."""
        return rescale_amplitudes(freq_image, self.range)
