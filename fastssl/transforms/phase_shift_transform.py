"""Shifted phases, under lightly's name."""

from __future__ import annotations

from torch import Tensor

from fastssl.transforms.frequency import shift_phases

__all__ = ["PhaseShiftTransform"]


class PhaseShiftTransform:
    """All phases of a spectrum turned by one angle; see `fastssl.transforms.frequency.shift_phases`.

    Args:
        range: The smallest and the largest angle, in radians.
        include_negatives: Whether the angle may be negative.
        sign_probability: Then, the probability of a positive one.

    >>> import torch
    >>> PhaseShiftTransform((torch.pi, torch.pi))(torch.ones(1, 1, 1, dtype=torch.complex64)).real.item()
    -1.0
    """

    def __init__(
        self, range: tuple[float, float] = (0.4, 0.7), include_negatives: bool = False, sign_probability: float = 0.5
    ) -> None:
        self.range = range
        self.include_negatives, self.sign_probability = include_negatives, sign_probability

    def __call__(self, freq_image: Tensor) -> Tensor:
        """(C, U, V), complex, to the same."""
        return shift_phases(freq_image, self.range, self.include_negatives, self.sign_probability)
