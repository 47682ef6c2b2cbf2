"""lightly's arguments, made into views: what the transform classes and collate functions under lightly's names share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any, Literal

from fastssl.transforms.geometry import Crop, Flip, Interpolation, QuarterTurn, Rotate
from fastssl.transforms.steps import Blur, Grayscale, Jitter, Normalize, Solarize
from fastssl.transforms.utils import IMAGENET_NORMALIZE
from fastssl.transforms.view import Step, View

__all__ = [
    "NORMALIZE",
    "BlurKind",
    "Checker",
    "Normalization",
    "check_lengths",
    "check_views",
    "lightly_view",
    "view_kinds",
]

Normalization = Mapping[str, Any] | None
BlurKind = Literal["gaussian", "box"]

_ORDER: tuple[Step, ...] = ("crop", "jitter", "grayscale", "blur", "solarize", "posterize", "custom")


class _Default(Mapping[str, list[float]]):
    """A mapping that does not change: equal to its dict, and hashable, as the default of a dataclass must be."""

    def __init__(self, values: Mapping[str, list[float]]) -> None:
        self._values = {name: list(value) for name, value in values.items()}

    def __getitem__(self, name: str) -> list[float]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values))

    def __repr__(self) -> str:
        return repr(self._values)


NORMALIZE = _Default(IMAGENET_NORMALIZE)


def lightly_view(
    owner: object,
    replaced: Mapping[str, Any] | None = None,
    *,
    interpolation: Interpolation = "bilinear",
    order: tuple[Step, ...] = _ORDER,
    stacklevel: int = 4,
) -> View:
    """The view that lightly's arguments describe, checked in their own terms.

    Read are those of the arguments that the owner has: input_size or crop_size; min_scale, crop_scale, or crop_min_scale and
    crop_max_scale; hf_prob, vf_prob, rr_prob and rr_degrees; cj_prob, cj_strength, cj_bright, cj_contrast, cj_sat and cj_hue;
    random_gray_scale; gaussian_blur or gaussian_blur_prob; sigmas or gaussian_blur_sigmas; solarization_prob or
    solarize_prob; normalize; blur_kind. What it has not does not happen. A kernel_size is ignored, with a warning, as in
    lightly 1.5.

    Args:
        owner: The transform or collate, with its arguments as attributes; its class opens every error.
        replaced: Arguments that take the place of the owner's, or that it has under other names.
        interpolation: Of the crop.
        order: Of the steps.
        stacklevel: Of the warning: from here to who made the owner.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: an argument is not of its type.
    """
    given = {**vars(owner), **(replaced or {})}
    check = Checker(type(owner).__name__, given)
    if given.get("kernel_size") is not None:
        warnings.warn(
            f"{check.who}: kernel_size={given['kernel_size']} is ignored, as in lightly; the blur goes by sigmas, in pixels.",
            DeprecationWarning,
            stacklevel=stacklevel,
        )
    # What never happens is None, so that equal views are equal, whichever way they were written.
    hf, vf = check.p("hf_prob"), check.p("vf_prob")
    turn, rotate = check.rotation()
    gray, solarize = check.p("random_gray_scale"), check.p("solarization_prob", "solarize_prob")
    return View(
        crop=Crop(size=check.side(), area=check.area(), interpolation=interpolation),
        flip=Flip(p=hf) if hf else None,
        vflip=Flip(p=vf) if vf else None,
        turn=turn,
        rotate=rotate,
        jitter=check.jitter(),
        grayscale=Grayscale(p=gray) if gray else None,
        blur=check.blur(),
        solarize=Solarize(p=solarize) if solarize else None,
        normalize=check.normalize(),
        order=order,
    )


class Checker:
    """Reads arguments by lightly's names; errors name the class and the argument."""

    def __init__(self, who: str, given: Mapping[str, Any]) -> None:
        self.who, self.given = who, given

    def number(self, name: str, value: Any) -> float:
        if not isinstance(value, Real):  # numpy's numbers are of this kind too
            raise TypeError(f"{self.who}: {name}={value!r} is a {type(value).__name__}, and must be a number.")
        return float(value)

    def numbers(self, name: str, values: Any, count: int, example: str) -> list[float]:
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != count:
            raise TypeError(f"{self.who}: {name}={values!r} must be {count} numbers; write {example}.")
        return [self.number(f"{name}[{i}]", values[i]) for i in range(count)]

    def name(self, *names: str) -> str:
        """The first of the names that is given, or else the first."""
        return next((name for name in names if name in self.given), names[0])

    def p(self, *names: str) -> float:
        """A probability, 0 where there is no such argument."""
        name = self.name(*names)
        value = self.number(name, self.given.get(name, 0.0))
        if not 0 <= value <= 1:
            raise ValueError(f"{self.who}: {name}={value} must lie in [0, 1]; it is a probability.")
        return value

    def range(self, name: str) -> tuple[float, float]:
        """Two numbers from 0 up, the smaller first."""
        low, high = self.numbers(name, self.given[name], 2, "the smallest and the largest")
        if not 0 <= low <= high < math.inf:
            raise ValueError(f"{self.who}: {name}={self.given[name]} must hold 0 <= low <= high.")
        return low, high

    def side(self) -> int:
        """The side of the view, also from the (side, side) that torchvision's crop takes."""
        name = self.name("input_size", "crop_size")
        size = self.given[name]
        if isinstance(size, tuple | list) and len(size) in (1, 2) and len({*size}) == 1:
            size = size[0]
        if isinstance(size, bool) or not isinstance(size, Integral):
            raise TypeError(f"{self.who}: {name}={size!r} must be a whole number of pixels; views are square.")
        if size < 1:
            raise ValueError(f"{self.who}: {name}={size} must be 1 pixel or more.")
        return int(size)

    def area(self) -> tuple[float, float]:
        given = self.given
        if "crop_scale" in given:
            low, high = self.numbers("crop_scale", given["crop_scale"], 2, "(0.08, 1.0)")
            names = f"crop_scale={given['crop_scale']}"
        elif "crop_min_scale" in given:
            low, high = (self.number(name, given[name]) for name in ("crop_min_scale", "crop_max_scale"))
            names = f"crop_min_scale={low}, crop_max_scale={high}"
        else:
            low, high = self.number("min_scale", given.get("min_scale", 1.0)), 1.0
            names = f"min_scale={given.get('min_scale')}"
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"{self.who}: {names} must lie in (0, 1], the smaller first; it is a part of the image's area, so write 0.08 "
                "for 8 %."
            )
        return low, high

    def rotation(self) -> tuple[QuarterTurn | None, Rotate | None]:
        p, degrees = self.p("rr_prob"), self.given.get("rr_degrees")
        if not p:
            return None, None
        if degrees is None:
            return QuarterTurn(p=p), None
        if isinstance(degrees, Real):
            most = self.number("rr_degrees", degrees)
            low, high = -most, most
        else:
            low, high = self.numbers("rr_degrees", degrees, 2, "30, or (-30, 60), in degrees")
        if not -36000 <= low <= high <= 36000:
            raise ValueError(
                f"{self.who}: rr_degrees={degrees} must be a number from 0 up, or two, the smaller first; write 30 for -30 to 30."
            )
        return None, Rotate(p=p, degrees=(low, high)) if low or high else None

    def jitter(self) -> Jitter | None:
        p = self.p("cj_prob")
        values = {}
        for name in ("cj_strength", "cj_bright", "cj_contrast", "cj_sat", "cj_hue"):
            value = self.given.get(name, 1.0 if name == "cj_strength" else 0.0)
            values[name] = self.number(name, value)
            if not 0 <= values[name] < math.inf:
                raise ValueError(f"{self.who}: {name}={value} must be 0 or more, and finite; 0 turns that jitter off.")
        strength, hue = values["cj_strength"], values["cj_hue"]
        if strength * hue > 0.5:
            raise ValueError(
                f"{self.who}: cj_strength * cj_hue = {strength} * {hue} must be at most 0.5; the hue is a circle of "
                "length 1, so 0.5 either way already reaches every hue."
            )
        if not p:
            return None
        parts = (strength * values[name] for name in ("cj_bright", "cj_contrast", "cj_sat"))
        brightness, contrast, saturation = parts
        return Jitter(p=p, brightness=brightness, contrast=contrast, saturation=saturation, hue=strength * hue)

    def blur(self) -> Blur | None:
        p, name = self.p("gaussian_blur", "gaussian_blur_prob"), self.name("sigmas", "gaussian_blur_sigmas")
        sigmas = self.given.get(name, (0.1, 2.0))
        low, high = self.numbers(name, sigmas, 2, "(0.1, 2.0), the smallest and the largest deviation in pixels")
        if not 0 <= low <= high <= 1000:
            raise ValueError(
                f"{self.who}: {name}={sigmas} must hold 0 <= low <= high <= 1000, in pixels; write for example (0.1, 2.0)."
            )
        kind = self.given.get("blur_kind", "gaussian")
        if kind not in ("gaussian", "box"):
            raise ValueError(f'{self.who}: blur_kind={kind!r} must be "gaussian" or "box", which is Pillow\'s.')
        return Blur(p=p, sigma_px=(low, high), kind=kind) if p and high else None

    def normalize(self) -> Normalize | None:
        normalize = self.given.get("normalize")
        if normalize is None or (isinstance(normalize, Mapping) and not normalize):
            return None
        if not isinstance(normalize, Mapping) or not {"mean", "std"} <= {*normalize}:
            raise TypeError(
                f"{self.who}: normalize={normalize!r} must be a dict with mean and std, or None for values in [0, 1]; write "
                'for example {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}.'
            )
        mean, std = (
            self.numbers(f'normalize["{name}"]', normalize[name], 3, "one for each of red, green and blue")
            for name in ("mean", "std")
        )
        if not all(0 < value < math.inf for value in std):
            raise ValueError(f'{self.who}: normalize["std"]={std} must be above 0; the view is divided by it.')
        return Normalize(mean=tuple(mean), std=tuple(std))


def check_lengths(who: str, length: int, **lists: Any) -> None:
    """A ValueError where arguments that hold one thing for each kind of view differ in length."""
    for name, values in lists.items():
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != length:
            raise ValueError(
                f"{who}: {name}={values!r} must hold {length} things, as crop_sizes does, one for each size."
            )


def check_views(owner: object, name: str, least: int = 1) -> int:
    """The number of views that the owner's argument `name` asks for."""
    count = getattr(owner, name)
    if isinstance(count, bool) or not isinstance(count, Integral) or count < least:
        raise ValueError(f"{type(owner).__name__}: {name}={count!r} must be a whole number of views, at least {least}.")
    return int(count)


def view_kinds(owner: object, **lists: str) -> Iterator[tuple[dict[str, Any], int]]:
    """For each of the owner's crop_sizes, what `lightly_view` is to take for it, and the number of such views.

    Args:
        lists: Arguments of a single view, and the owner's that hold one for each size.
    """
    given, who = vars(owner), type(owner).__name__
    names = {
        "crop_size": "crop_sizes",
        "crop_min_scale": "crop_min_scales",
        "crop_max_scale": "crop_max_scales",
        **lists,
    }
    check_lengths(who, len(given["crop_sizes"]), **{n: given[n] for n in (*names.values(), "crop_counts")})
    for i, count in enumerate(given["crop_counts"]):
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 0:
            raise ValueError(f"{who}: crop_counts={given['crop_counts']!r} must hold whole numbers of views.")
        yield {name: given[several][i] for name, several in names.items()}, int(count)
