"""Changes to the spectrum of images: of whole batches, with everything drawn from torch's generator.

A spectrum is `torch.fft.rfft2` of the images, (..., C, U, V), complex. What is drawn is drawn once an image, for all
its channels.

Source: "Disentangling the Effects of Data Augmentation and Format Transform in Self-Supervised Learning of Image
Representations", 2023, arXiv:2312.02205; the meaning of each change and the numbers are those of lightly's classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastssl.transforms._checks import check_p, check_pair

__all__ = ["FrequencySteps", "dig_holes", "mask_frequencies", "rescale_amplitudes", "shift_phases"]


def rescale_amplitudes(spectrum: Tensor, factors: tuple[float, float]) -> Tensor:
    """Each frequency times a factor of its own, uniform in `factors`.

    Args:
        spectrum: (..., C, U, V), complex.
        factors: The smallest and the largest.

    >>> rescale_amplitudes(torch.ones(3, 4, 3, dtype=torch.complex64), (2.0, 2.0)).real.unique()
    tensor([2.])
    """
    return spectrum * _uniform(spectrum, spectrum.shape[-2:], factors)


def shift_phases(
    spectrum: Tensor, angles: tuple[float, float], include_negatives: bool = False, sign_probability: float = 0.5
) -> Tensor:
    """All phases of an image turned by one angle.

    Args:
        spectrum: (..., C, U, V), complex.
        angles: The smallest and the largest, in radians.
        include_negatives: Whether the angle is negative with probability 1 - sign_probability.
        sign_probability: That of a positive angle.

    >>> shift_phases(torch.ones(1, 1, 1, dtype=torch.complex64), (torch.pi, torch.pi)).real.item()
    -1.0
    """
    theta = _uniform(spectrum, (1, 1), angles)
    if include_negatives:
        positive = torch.rand(theta.shape, device=theta.device) < sign_probability
        theta = torch.where(positive, theta, -theta)
    return spectrum * torch.polar(torch.ones_like(theta), theta)


def mask_frequencies(spectrum: Tensor, shares: tuple[float, float]) -> Tensor:
    """Frequencies set to zero, each with a probability that is uniform in `shares`; never the mean.

    Args:
        spectrum: (..., C, U, V), complex.
        shares: The smallest and the largest probability.

    >>> mask_frequencies(torch.ones(1, 2, 2, dtype=torch.complex64), (1.0, 1.0)).real
    tensor([[[1., 0.],
             [0., 0.]]])
    """
    share = _uniform(spectrum, (1, 1), shares)
    keep = torch.rand((*spectrum.shape[:-3], 1, *spectrum.shape[-2:]), device=spectrum.device) > share
    keep[..., 0, 0] = True
    return spectrum * keep


def dig_holes(spectrum: Tensor, count: int, std: tuple[float, float]) -> Tensor:
    """The spectrum times one minus a Gaussian, for each of `count` Gaussians with centres anywhere.

    Args:
        spectrum: (..., C, U, V), complex.
        count: Number of Gaussians.
        std: Smallest and largest deviation, one drawn for each axis, in rows and columns of the spectrum.

    >>> dig_holes(torch.ones(1, 1, 1, dtype=torch.complex64), 1, (5.0, 5.0)).abs().item()
    0.0
    """
    lead, (rows, columns), device = spectrum.shape[:-3], spectrum.shape[-2:], spectrum.device
    # One axis at a time, as a Gaussian is a product: (..., count, 1, rows, 1) times (..., count, 1, 1, columns).
    axes = []
    for length in (rows, columns):
        centre = torch.randint(length, (*lead, count, 1), device=device)
        sigma = std[0] + (std[1] - std[0]) * torch.rand((*lead, count, 1), device=device)
        axes.append(torch.exp(-((torch.arange(length, device=device) - centre) ** 2) / (2 * sigma**2)))
    mask = torch.ones((*lead, 1, rows, columns), device=device)
    for i in range(count):  # count masks at once would take count times the memory of the batch
        mask *= 1 - (axes[0][..., i, :, None] * axes[1][..., i, None, :]).unsqueeze(-3)
    return spectrum * mask


def _uniform(spectrum: Tensor, shape: tuple[int, ...] | torch.Size, limits: tuple[float, float]) -> Tensor:
    """Uniform numbers (..., 1, *shape), for a spectrum (..., C, U, V)."""
    low, high = limits
    return low + (high - low) * torch.rand((*spectrum.shape[:-3], 1, *shape), device=spectrum.device)


@dataclass(frozen=True, kw_only=True)
class FrequencySteps:
    """The changes to the spectrum of FDA, each with its probability: the `custom` step of `fastssl.recipes.fda`.

    What leaves [0, 1] is clamped.

    Args:
        rescale_p, rescale: Amplitudes times factors; see `rescale_amplitudes`.
        shift_p, shift: Phases turned; see `shift_phases`.
        mask_p, mask: Frequencies left out; see `mask_frequencies`.
        holes_p, holes, holes_std: Gaussian holes; see `dig_holes`.

    >>> FrequencySteps()(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """

    rescale_p: float = 0.2
    rescale: tuple[float, float] = (0.8, 1.75)
    shift_p: float = 0.2
    shift: tuple[float, float] = (0.4, 0.7)
    mask_p: float = 0.5
    mask: tuple[float, float] = (0.01, 0.1)
    holes_p: float = 0.2
    holes: int = 20
    holes_std: tuple[float, float] = (10, 15)

    def __post_init__(self) -> None:
        for name in ("rescale_p", "shift_p", "mask_p", "holes_p"):
            check_p(f"FrequencySteps, {name}", getattr(self, name))
        for name in ("rescale", "shift", "mask", "holes_std"):
            low, high = check_pair(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"FrequencySteps: {name}={getattr(self, name)} must hold 0 <= low <= high.")
        if not isinstance(self.holes, int) or isinstance(self.holes, bool) or self.holes < 0:
            raise ValueError(f"FrequencySteps: holes={self.holes!r} must be a whole number of Gaussians, from 0 up.")
        if self.holes_p and not self.holes_std[0] > 0:
            raise ValueError(f"FrequencySteps: holes_std={self.holes_std} must be above 0.")

    def __call__(self, images: Tensor) -> Tensor:
        """Changes a batch.

        Args:
            images: (B, C, H, W), float32 in [0, 1].

        Returns:
            The same shape and type, in [0, 1]; an image that no change fell on is as it was.
        """
        chosen = torch.rand((4, len(images)), device=images.device)
        probabilities = (self.rescale_p, self.shift_p, self.mask_p, self.holes_p)
        which = [row < p for row, p in zip(chosen, probabilities, strict=True)]
        touched = torch.stack(which).any(dim=0)
        if not touched.any():
            return images
        spectrum = torch.fft.rfft2(images[touched])
        rescaled, shifted, masked, holed = (rows[touched] for rows in which)
        spectrum[rescaled] = rescale_amplitudes(spectrum[rescaled], self.rescale)
        spectrum[shifted] = shift_phases(spectrum[shifted], self.shift)
        spectrum[masked] = mask_frequencies(spectrum[masked], self.mask)
        spectrum[holed] = dig_holes(spectrum[holed], self.holes, self.holes_std)
        out = images.clone()
        out[touched] = torch.fft.irfft2(spectrum, s=images.shape[-2:]).clamp_(0, 1)
        return out
