"""The parts of a view that say where it comes from: crop, flips, turn, rotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fastssl.transforms._checks import check_interpolation, check_p, check_pair, check_size, number

__all__ = ["AnyCrop", "CenterCrop", "Crop", "Flip", "QuarterTurn", "Resize", "Rotate", "SameCrop"]

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Random resized crop, antialiased.

    Args:
        size: Side of the output, in pixels.
        area: Smallest and largest part of the source's area to keep, in (0, 1].
        aspect: Smallest and largest width over height, drawn uniformly in the logarithm.
        interpolation: "bilinear" or "bicubic".
        inside: Index of an earlier view of the recipe whose crop takes the place of the source, as for local crops within a
            global one; None for all of the image.

    Source: Szegedy et al., 2015, arXiv:1409.4842, section 6.
    """

    size: int
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    inside: int | None = None

    def __post_init__(self) -> None:
        check_size("Crop", self.size)
        low, high = check_pair(self, "area")
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"Crop: area={self.area} must hold 0 < low <= high <= 1; it is a part of the source's area, so write "
                "(0.08, 1.0) for 8 % to 100 %."
            )
        low, high = check_pair(self, "aspect")
        if not 0 < low <= high < float("inf"):
            raise ValueError(
                f"Crop: aspect={self.aspect} must hold 0 < low <= high; it is width over height, as in (3 / 4, 4 / 3)."
            )
        check_interpolation("Crop", self.interpolation)
        if self.inside is not None:
            _check_view("Crop", "inside", self.inside)

    def _encoded(self) -> dict[str, Any]:
        of = -1 if self.inside is None else self.inside
        random = {"crop": "random", "area": list(self.area), "aspect": list(self.aspect), "of": of}
        return {**random, **_encoded_size(self)}


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
        check_size("CenterCrop", self.size)
        if not number(self.keep) or not 0 < self.keep <= 1:
            raise ValueError(
                f"CenterCrop: keep={self.keep!r} must be a part of the shorter side, above 0 and at most 1."
            )
        check_interpolation("CenterCrop", self.interpolation)

    def _encoded(self) -> dict[str, Any]:
        return {"crop": "center", "keep": self.keep, **_encoded_size(self)}


@dataclass(frozen=True, kw_only=True)
class Resize:
    """All of the image, resized to a square; its aspect is not kept, see `CenterCrop` for that.

    Args:
        size: Side of the output, in pixels.
        interpolation: "bilinear" or "bicubic", antialiased.
    """

    size: int
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        check_size("Resize", self.size)
        check_interpolation("Resize", self.interpolation)

    def _encoded(self) -> dict[str, Any]:
        return {"crop": "whole", **_encoded_size(self)}


@dataclass(frozen=True, kw_only=True)
class SameCrop:
    """The crop of an earlier view with its flips, turn and rotation, at a size of its own: the same place in other colours.

    Args:
        size: Side of the output, in pixels.
        of: Index of that view in the recipe.
        interpolation: "bilinear" or "bicubic", antialiased.
    """

    size: int
    of: int = 0
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        check_size("SameCrop", self.size)
        _check_view("SameCrop", "of", self.of)
        check_interpolation("SameCrop", self.interpolation)

    def _encoded(self) -> dict[str, Any]:
        return {"crop": "same", "of": self.of, **_encoded_size(self)}


AnyCrop = Crop | CenterCrop | Resize | SameCrop


def _encoded_size(crop: AnyCrop) -> dict[str, Any]:
    return {"size": crop.size, "filter": crop.interpolation}


def _check_view(who: str, name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{who}: {name}={value!r} must be the index of an earlier view of the recipe, from 0 up.")


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirrors with probability p; sideways as `View(flip=...)`, upside down as `View(vflip=...)`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_p("Flip", self.p)


@dataclass(frozen=True, kw_only=True)
class QuarterTurn:
    """Turns by a multiple of 90 degrees counter-clockwise with probability p, after the flips.

    Args:
        p: Probability.
        turns: How many quarter turns; of several numbers one is drawn, all with the same chance: (0, 1, 2, 3) for any.
    """

    p: float = 0.5
    turns: int | tuple[int, ...] = 1

    def __post_init__(self) -> None:
        check_p("QuarterTurn", self.p)
        turns = tuple(self.turns) if isinstance(self.turns, tuple | list) else (self.turns,)
        if not turns or any(isinstance(t, bool) or t not in (0, 1, 2, 3) for t in turns):
            raise ValueError(
                f"QuarterTurn: turns={self.turns!r} must be 0, 1, 2 or 3, or some of them, such as (1, 2, 3)."
            )
        object.__setattr__(self, "turns", tuple(int(t) for t in turns))


@dataclass(frozen=True, kw_only=True)
class Rotate:
    """Rotates about the middle by an angle that is drawn, with probability p; what comes from outside is black.

    Args:
        p: Probability.
        degrees: Smallest and largest angle, counter-clockwise, in degrees; a number d stands for (-d, d).
        interpolation: "nearest", torchvision's and lightly's default, or "bilinear".
    """

    p: float = 0.5
    degrees: float | tuple[float, float] = (-30.0, 30.0)
    interpolation: Literal["nearest", "bilinear"] = "nearest"

    def __post_init__(self) -> None:
        check_p("Rotate", self.p)
        if number(self.degrees):
            if self.degrees < 0:  # type: ignore[operator]
                raise ValueError(f"Rotate: degrees={self.degrees} must be 0 or more, or two angles, such as (-30, 60).")
            object.__setattr__(self, "degrees", (-self.degrees, self.degrees))  # type: ignore[operator]
        low, high = check_pair(self, "degrees")
        if not -36000 <= low <= high <= 36000:
            raise ValueError(f"Rotate: degrees={self.degrees} must hold -36000 <= low <= high <= 36000, in degrees.")
        if self.interpolation not in ("nearest", "bilinear"):
            raise ValueError(f'Rotate: interpolation={self.interpolation!r} must be "nearest" or "bilinear".')
