"""What a view is: its crop, and what happens to it, each with the range from which it is drawn.

Every part is frozen, takes keywords only, and is checked where it is written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

__all__ = [
    "IMAGENET",
    "Blur",
    "CenterCrop",
    "Crop",
    "Flip",
    "Grayscale",
    "Jitter",
    "Normalize",
    "QuarterTurn",
    "Recipe",
    "Solarize",
    "Step",
    "View",
]

Interpolation = Literal["bilinear", "bicubic"]
Step = Literal["jitter", "grayscale", "blur", "solarize"]
_STEPS: tuple[Step, ...] = ("jitter", "grayscale", "blur", "solarize")
_MAX_SIZE = 16384  # kMaxSize of csrc/cpu/render.cpp, which checks it again


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _check_p(who: str, p: Any) -> None:
    if not _number(p) or not 0 <= p <= 1:
        raise ValueError(f"{who}: p={p!r} must be a probability, from 0 to 1.")


def _check_pair(part: Any, name: str) -> tuple[float, float]:
    pair = getattr(part, name)
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(_number(v) for v in pair):
        raise ValueError(f"{type(part).__name__}: {name}={pair!r} must be two numbers, the least and the greatest.")
    object.__setattr__(part, name, tuple(pair))  # a list would not be hashable
    return pair[0], pair[1]


def _check_size(who: str, size: Any) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _MAX_SIZE:
        raise ValueError(
            f"{who}: size={size!r} must be a whole number of pixels from 1 to {_MAX_SIZE}; views are square."
        )


def _check_interpolation(who: str, interpolation: Any) -> None:
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f'{who}: interpolation={interpolation!r} must be "bilinear" or "bicubic".')


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Random resized crop, antialiased.

    Args:
        size: Side of the output, in pixels.
        area: Smallest and largest part of the source's area to keep, in (0, 1].
        aspect: Smallest and largest width over height, drawn uniformly in the logarithm.
        interpolation: "bilinear" or "bicubic".

    Source: Szegedy et al., 2015, arXiv:1409.4842, section 6.
    """

    size: int
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        _check_size("Crop", self.size)
        low, high = _check_pair(self, "area")
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"Crop: area={self.area} must hold 0 < low <= high <= 1; it is a part of the source's area, so write "
                "(0.08, 1.0) for 8 % to 100 %."
            )
        low, high = _check_pair(self, "aspect")
        if not 0 < low <= high < float("inf"):
            raise ValueError(
                f"Crop: aspect={self.aspect} must hold 0 < low <= high; it is width over height, as in (3 / 4, 4 / 3)."
            )
        _check_interpolation("Crop", self.interpolation)

    def _encoded(self) -> dict[str, Any]:
        return {"crop": "random", "area": list(self.area), "aspect": list(self.aspect), **_encoded_size(self)}


@dataclass(frozen=True, kw_only=True)
class CenterCrop:
    """The central square, resized: the view for evaluation.

    Args:
        size: Side of the output, in pixels.
        keep: Side of the square over the shorter side of the source, in (0, 1]; 0.875 is the usual 224 of 256.
        interpolation: "bilinear" or "bicubic".
    """

    size: int
    keep: float = 0.875
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        _check_size("CenterCrop", self.size)
        if not _number(self.keep) or not 0 < self.keep <= 1:
            raise ValueError(
                f"CenterCrop: keep={self.keep!r} must be a part of the shorter side, above 0 and at most 1."
            )
        _check_interpolation("CenterCrop", self.interpolation)

    def _encoded(self) -> dict[str, Any]:
        return {"crop": "center", "keep": self.keep, **_encoded_size(self)}


def _encoded_size(crop: Crop | CenterCrop) -> dict[str, Any]:
    return {"size": crop.size, "filter": crop.interpolation}


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirrors with probability p; sideways as `View(flip=...)`, upside down as `View(vflip=...)`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_p("Flip", self.p)


@dataclass(frozen=True, kw_only=True)
class QuarterTurn:
    """Turns by 90 degrees counter-clockwise with probability p, after the flips."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_p("QuarterTurn", self.p)


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
        _check_p("Jitter", self.p)
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            if not _number(value) or not 0 <= value < float("inf"):
                raise ValueError(
                    f"Jitter: {name}={value!r} must be a number from 0 up; 0.8 draws a factor from [0.2, 1.8]."
                )
        if not _number(self.hue) or not 0 <= self.hue <= 0.5:
            raise ValueError(f"Jitter: hue={self.hue!r} must be from 0 to 0.5, half of the circle.")


@dataclass(frozen=True, kw_only=True)
class Grayscale:
    """Replaces the colours by their luma with probability p."""

    p: float = 0.2

    def __post_init__(self) -> None:
        _check_p("Grayscale", self.p)


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Gaussian blur with probability p.

    Args:
        p: Probability.
        sigma_px: Smallest and largest standard deviation, in pixels of the view, drawn uniformly. The kernel is as long as
            sigma needs; the border is reflected.
    """

    p: float = 0.5
    sigma_px: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        _check_p("Blur", self.p)
        low, high = _check_pair(self, "sigma_px")
        if not 0 <= low <= high <= 1000:
            raise ValueError(f"Blur: sigma_px={self.sigma_px} must hold 0 <= low <= high <= 1000, in pixels.")


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
        _check_p("Solarize", self.p)
        if not _number(self.threshold) or not 0 <= self.threshold <= 256:
            raise ValueError(
                f"Solarize: threshold={self.threshold!r} must be from 0 to 256, on the scale of 8 bits; 128 is usual."
            )


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """Subtracts the mean and divides by the standard deviation, a channel; the channels are in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple | list) or len(values) != 3 or not all(_number(v) for v in values):
                raise ValueError(
                    f"Normalize: {name}={values!r} must be three numbers, for red, green and blue in [0, 1]."
                )
            object.__setattr__(self, name, tuple(values))
        if not all(v > 0 for v in self.std):
            raise ValueError(f"Normalize: std={self.std} must be above 0 in every channel.")


# The statistics of ImageNet's training images that torchvision's models are trained with.
IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class View:
    """One view of an image: a crop, then flips and turn, then the steps in `order`, then normalization.

    What is None does not happen.

    Args:
        crop: A `Crop` or a `CenterCrop`.
        flip, vflip: Mirrored sideways, upside down.
        turn: Turned by 90 degrees.
        jitter, grayscale, blur, solarize: The steps.
        normalize: Applied last; None leaves the channels in [0, 1].
        order: The order of the steps; a permutation of the four names.

    >>> View(crop=Crop(size=96), flip=Flip(p=0.5)).size
    96
    """

    crop: Crop | CenterCrop
    flip: Flip | None = None
    vflip: Flip | None = None
    turn: QuarterTurn | None = None
    jitter: Jitter | None = None
    grayscale: Grayscale | None = None
    blur: Blur | None = None
    solarize: Solarize | None = None
    normalize: Normalize | None = IMAGENET
    order: tuple[Step, ...] = _STEPS

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) and not (value is None and name != "crop"):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise TypeError(f"View: {name}={value!r} must be {wanted}{'' if name == 'crop' else ' or None'}.")
        if not isinstance(self.order, tuple | list) or sorted(map(str, self.order)) != sorted(_STEPS):
            raise ValueError(f"View: order={self.order!r} must name each of {', '.join(_STEPS)} once.")
        object.__setattr__(self, "order", tuple(self.order))
        # Made here and not when asked for, so that torch.compile need not follow.
        object.__setattr__(self, "_json", _encode(self))

    @property
    def size(self) -> int:
        """Side of the view, in pixels."""
        return self.crop.size

    def with_(self, **parts: Any) -> View:
        """The same view with some parts replaced: `view.with_(blur=None)`."""
        return replace(self, **parts)

    def encode(self) -> str:
        """The view as JSON with the names of the native ViewSpec, which the operators take."""
        return self._json  # type: ignore[attr-defined]


_KINDS: dict[str, tuple[type, ...]] = {
    "crop": (Crop, CenterCrop),
    "flip": (Flip,),
    "vflip": (Flip,),
    "turn": (QuarterTurn,),
    "jitter": (Jitter,),
    "grayscale": (Grayscale,),
    "blur": (Blur,),
    "solarize": (Solarize,),
    "normalize": (Normalize,),
}


def _factors(strength: float) -> list[float]:
    return [max(0.0, 1.0 - strength), 1.0 + strength]


def _encode(view: View) -> str:
    spec: dict[str, Any] = view.crop._encoded()
    spec["steps"] = list(view.order)
    for name in ("flip", "vflip", "turn", "grayscale"):
        part = getattr(view, name)
        if part is not None:
            spec[f"{name}_p"] = part.p
    if view.jitter is not None:
        spec["jitter_p"] = view.jitter.p
        for name in ("brightness", "contrast", "saturation"):
            spec[name] = _factors(getattr(view.jitter, name))
        spec["hue"] = [-view.jitter.hue, view.jitter.hue]
    if view.blur is not None:
        spec["blur_p"], spec["sigma_px"] = view.blur.p, list(view.blur.sigma_px)
    if view.solarize is not None:
        spec["solarize_p"], spec["threshold"] = view.solarize.p, view.solarize.threshold / 255
    if view.normalize is not None:
        spec["normalize"] = True
        spec["mean"], spec["std"] = list(view.normalize.mean), list(view.normalize.std)
    return json.dumps(spec)


Recipe = tuple[View, ...]
