"""FDA's views under lightly's names and arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Checker, Normalization, lightly_view
from fastssl.transforms.amplitude_rescale_transform import AmplitudeRescaleTransform
from fastssl.transforms.frequency import FrequencySteps
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.gaussian_mixture_masks_transform import GaussianMixtureMask
from fastssl.transforms.irfft2d_transform import IRFFT2DTransform
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.phase_shift_transform import PhaseShiftTransform
from fastssl.transforms.random_frequency_mask_transform import RandomFrequencyMaskTransform
from fastssl.transforms.recipes.special import FREQUENCIES_FIRST
from fastssl.transforms.rfft2d_transform import RFFT2DTransform
from fastssl.transforms.rotation import random_rotation_transform
from fastssl.transforms.solarize import RandomSolarization

__all__ = [
    "FDATransform",
    "FDAView1Transform",
    "FDAView2Transform",
    "AmplitudeRescaleTransform",
    "GaussianBlur",
    "GaussianMixtureMask",
    "IRFFT2DTransform",
    "PhaseShiftTransform",
    "RandomFrequencyMaskTransform",
    "RFFT2DTransform",
    "random_rotation_transform",
    "RandomSolarization",
]


@dataclass(eq=False, repr=False)
class FDAView1Transform(ViewTransform):
    """The first view of an image as in FDA (arXiv:2312.02205): changes to its spectrum, then BYOL's colours.

    Flips and rotations come before the spectrum, in lightly after it; and values that leave [0, 1] are clamped, where lightly
    lets them wrap around at 8 bits.

    Args:
        ampl_rescale_range, ampl_rescale_prob: Factors of the amplitudes; see `AmplitudeRescaleTransform`.
        phase_shift_range, phase_shift_prob: Shift of the phases, in radians; see `PhaseShiftTransform`.
        rand_freq_mask_range, rand_freq_mask_prob: Share of frequencies left out; see `RandomFrequencyMaskTransform`.
        gmm_num_gaussians, gmm_std_range, gmm_prob: Gaussian holes; see `GaussianMixtureMask`.
        solarization_prob: Probability of solarization, after the blur.

    The other arguments are those of `SimCLRTransform`.

    >>> FDAView1Transform(32).view.custom.mask_p
    0.5
    """

    input_size: int = 224
    min_scale: float = 0.08
    cj_prob: float = 0.8
    cj_contrast: float = 0.4
    cj_bright: float = 0.4
    cj_sat: float = 0.2
    cj_hue: float = 0.1
    cj_strength: float = 1.0
    random_gray_scale: float = 0.2
    gaussian_blur: float = 1.0
    sigmas: tuple[float, float] = (0.1, 2)
    ampl_rescale_range: tuple[float, float] = (0.8, 1.75)
    ampl_rescale_prob: float = 0.2
    phase_shift_range: tuple[float, float] = (0.4, 0.7)
    phase_shift_prob: float = 0.2
    rand_freq_mask_range: tuple[float, float] = (0.01, 0.1)
    rand_freq_mask_prob: float = 0.5
    gmm_num_gaussians: int = 20
    gmm_std_range: tuple[float, float] = (10, 15)
    gmm_prob: float = 0.2
    solarization_prob: float = 0.0
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        check = Checker(type(self).__name__, vars(self))
        frequencies = FrequencySteps(
            rescale_p=check.p("ampl_rescale_prob"),
            rescale=check.range("ampl_rescale_range"),
            shift_p=check.p("phase_shift_prob"),
            shift=check.range("phase_shift_range"),
            mask_p=check.p("rand_freq_mask_prob"),
            mask=check.range("rand_freq_mask_range"),
            holes_p=check.p("gmm_prob"),
            holes=self.gmm_num_gaussians,
            holes_std=check.range("gmm_std_range"),
        )
        super().__init__(lightly_view(self, order=FREQUENCIES_FIRST).with_(custom=frequencies))


@dataclass(eq=False, repr=False)
class FDAView2Transform(FDAView1Transform):
    """The second view of an image as in FDA: seldom blurred, without holes; arguments as for `FDAView1Transform`.

    >>> FDAView2Transform(32).view.custom.holes_p
    0.0
    """

    gaussian_blur: float = 0.1
    gmm_prob: float = 0.0


class FDATransform(MultiViewTransform):
    """Two views of an image as in FDA (arXiv:2312.02205), rendered in one call.

    Args:
        view_1_transform: Makes the first view; None for `FDAView1Transform()`.
        view_2_transform: Makes the second; None for `FDAView2Transform()`.

    >>> [transform.view.size for transform in FDATransform(FDAView1Transform(96)).transforms]
    [96, 224]
    """

    def __init__(
        self,
        view_1_transform: Callable[[Any], Any] | None = None,
        view_2_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__([view_1_transform or FDAView1Transform(), view_2_transform or FDAView2Transform()])
