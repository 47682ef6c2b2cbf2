"""The parts of a view that change its pixels: colours, blur, erasing, normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastssl.transforms._checks import check_p, check_pair, number

__all__ = ["IMAGENET", "Blur", "Erase", "Grayscale", "Jitter", "Normalize", "Posterize", "Solarize"]


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Changes brightness, contrast, saturation and hue, in an order that is drawn too.

    Args:
        p: Probability that it happens at all.
        brightness, contrast, saturation: v draws a factor uniformly from [max(0, 1 - v), 1 + v].
        hue: v turns the hue by a part of the circle that is uniform in [-v, v]; at most 0.5.

    Source: torchvision's ColorJitter; its use for contrastive learning: Chen et al., 2020, arXiv:2002.05709, appendix A.
    """

    p: float = 0.8
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        check_p("Jitter", self.p)
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            if not number(value) or not 0 <= value < float("inf"):
                raise ValueError(
                    f"Jitter: {name}={value!r} must be a number from 0 up; 0.8 draws a factor from [0.2, 1.8]."
                )
        if not number(self.hue) or not 0 <= self.hue <= 0.5:
            raise ValueError(f"Jitter: hue={self.hue!r} must be from 0 to 0.5, half of the circle.")


@dataclass(frozen=True, kw_only=True)
class Grayscale:
    """Replaces the colours by their luma with probability p."""

    p: float = 0.2

    def __post_init__(self) -> None:
        check_p("Grayscale", self.p)


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Gaussian blur with probability p.

    Args:
        p: Probability.
        sigma_px: Smallest and largest standard deviation, in pixels of the view, drawn uniformly.
        kind: "gaussian": of true sigma, the kernel as long as sigma needs, the border reflected. "box": three extended box
            filters with a repeated border, as Pillow's GaussianBlur, and so lightly's, but without its rounding to 8 bits.

    Source of "box": Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering", SSVM 2011.
    """

    p: float = 0.5
    sigma_px: tuple[float, float] = (0.1, 2.0)
    kind: Literal["gaussian", "box"] = "gaussian"

    def __post_init__(self) -> None:
        check_p("Blur", self.p)
        low, high = check_pair(self, "sigma_px")
        if not 0 <= low <= high <= 1000:
            raise ValueError(f"Blur: sigma_px={self.sigma_px} must hold 0 <= low <= high <= 1000, in pixels.")
        if self.kind not in ("gaussian", "box"):
            raise ValueError(f'Blur: kind={self.kind!r} must be "gaussian" or "box".')


@dataclass(frozen=True, kw_only=True)
class Solarize:
    """Inverts each channel at or above the threshold, with probability p.

    Args:
        p: Probability.
        threshold: On the scale of 8 bits, 0 to 256; 256 inverts nothing.
    """

    p: float = 0.2
    threshold: float = 128

    def __post_init__(self) -> None:
        check_p("Solarize", self.p)
        if not number(self.threshold) or not 0 <= self.threshold <= 256:
            raise ValueError(
                f"Solarize: threshold={self.threshold!r} must be from 0 to 256, on the scale of 8 bits; 128 is usual."
            )


@dataclass(frozen=True, kw_only=True)
class Posterize:
    """Keeps the highest bits of each channel, of 8, with probability p.

    Args:
        p: Probability.
        bits: 0 to 8; 8 keeps all. A channel is first rounded to 8 bits.
    """

    p: float = 0.2
    bits: int = 4

    def __post_init__(self) -> None:
        check_p("Posterize", self.p)
        if not isinstance(self.bits, int) or isinstance(self.bits, bool) or not 0 <= self.bits <= 8:
            raise ValueError(f"Posterize: bits={self.bits!r} must be a whole number from 0 to 8.")


@dataclass(frozen=True, kw_only=True)
class Erase:
    """Random erasing with probability p: a rectangle of the finished view is replaced by one value.

    Args:
        p: Probability.
        area: Smallest and largest part of the view's area, in (0, 1).
        aspect: Smallest and largest height over width, drawn uniformly in the logarithm.
        value: What it is replaced by, after normalization; 0 is the mean there.

    Source: Zhong et al., 2017, arXiv:1708.04896; drawn as torchvision's RandomErasing.
    """

    p: float = 0.25
    area: tuple[float, float] = (0.02, 0.33)
    aspect: tuple[float, float] = (0.3, 10 / 3)
    value: float = 0.0

    def __post_init__(self) -> None:
        check_p("Erase", self.p)
        low, high = check_pair(self, "area")
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"Erase: area={self.area} must hold 0 < low <= high <= 1; it is a part of the view's area."
            )
        low, high = check_pair(self, "aspect")
        if not 0 < low <= high < float("inf"):
            raise ValueError(f"Erase: aspect={self.aspect} must hold 0 < low <= high; it is height over width.")
        if not number(self.value) or abs(self.value) == float("inf"):
            raise ValueError(f"Erase: value={self.value!r} must be a finite number.")


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """Subtracts the mean and divides by the standard deviation, a channel; the channels are in [0, 1].

    Args:
        mean, std: One number a channel: three for red, green and blue, else as many as the images have.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple | list) or not values or not all(number(v) for v in values):
                raise ValueError(
                    f"Normalize: {name}={values!r} must be a number for each channel, such as three for red, green and blue in "
                    "[0, 1]."
                )
            object.__setattr__(self, name, tuple(values))
        if len(self.mean) != len(self.std):
            raise ValueError(f"Normalize: {len(self.mean)} means need as many deviations, got {len(self.std)}.")
        if not all(v > 0 for v in self.std):
            raise ValueError(f"Normalize: std={self.std} must be above 0 in every channel.")


# The statistics of ImageNet's training images that torchvision's models are trained with.
IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
