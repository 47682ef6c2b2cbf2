"""By how much the discontinuities of a view excuse another result than the reference's.

An executor may be off by BAND, in units of a channel in [0, 1], before any step. Where a step jumps within that, as
solarize and posterize do at their thresholds, the error decides between two results, and what lies between them is
excused. Rotation by the nearest pixel jumps where a place lies within EDGE of the border between two pixels. What
follows carries an excuse on as it carries a difference of the image, or by a bound of that. Hue needs no band: written
as value less chroma times a trapezoid, the shift is continuous, gray included.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import reference

BAND = 1e-3
EDGE = 1e-4  # pixels; in float32 a place in a view of 256 pixels is known to 5e-5


def render_with_slack(
    image: np.ndarray, row: reference.Row, view: Any, band: float = BAND
) -> tuple[np.ndarray, np.ndarray]:
    """The reference's view, (C, S, S), and what is excused of it, of the same shape, 0 nearly everywhere.

    What is excused is in units of a channel in [0, 1], as before normalization.
    """
    x = reference.unit(image)
    slack = np.zeros(x.shape)
    for name, arguments in reference.operations(row, view):
        if name in JUMPS:
            slack = JUMPS[name](x, slack, band, *arguments)
        elif slack.any():
            slack = CARRIED[name](slack, *arguments)
        slack = np.minimum(slack, 1)
        x = reference.apply(name, x, arguments)
        slack = slack if slack.shape == x.shape else np.zeros(x.shape)
    return x, slack


# --- where an excuse begins -------------------------------------------------------------------------------------------


def solarize(x: np.ndarray, slack: np.ndarray, band: float, threshold: float) -> np.ndarray:
    near = np.abs(x - threshold) < slack + band
    here = reference.solarize(x, threshold)
    # Where the value is in doubt about the threshold, the result lies among those of the ends of both branches.
    ends = np.stack([x - slack - band, 1 - (x + slack + band), threshold + 0 * x, 1 - threshold + 0 * x])
    return np.where(near, np.abs(ends - here).max(axis=0), slack)


def posterize(x: np.ndarray, slack: np.ndarray, band: float, bits: int) -> np.ndarray:
    reach = slack + band
    low, here, high = (reference.posterize(np.clip(v, 0, 1), bits) for v in (x - reach, x, x + reach))
    return np.maximum(here - low, high - here)  # it never falls


def rotate(x: np.ndarray, slack: np.ndarray, band: float, degrees: float, interpolation: str) -> np.ndarray:
    if interpolation == "bilinear":  # continuous
        return reference.rotate(slack, degrees, interpolation)
    rows, columns = reference.places_before_rotation(x.shape[1], degrees)
    here = reference.rotate(x, degrees, interpolation)
    result = reference.rotate(slack, degrees, interpolation)
    for down, right in itertools.product((-EDGE, EDGE), repeat=2):
        place = np.floor(rows + down), np.floor(columns + right)
        other = np.abs(reference.pixels_at(x, *place) - here)
        result = np.maximum(result, other + np.where(other > 0, reference.pixels_at(slack, *place), 0))
    return result


JUMPS: dict[str, Callable[..., np.ndarray]] = {"solarize": solarize, "posterize": posterize, "rotate": rotate}

# --- how it is carried on ---------------------------------------------------------------------------------------------


def linear(name: str) -> Callable[..., np.ndarray]:
    """Linear, with no weight below 0: a difference is carried as the image is."""
    return lambda slack, *arguments: reference.apply(name, slack, arguments)


def resize(slack: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    rows, columns = (np.abs(reference.resize_weights(n, size, interpolation)) for n in slack.shape[1:])
    return rows @ slack @ columns.T


def adjust_contrast(slack: np.ndarray, factor: float) -> np.ndarray:
    return factor * slack + abs(1 - factor) * reference.luma(slack).mean()


def adjust_saturation(slack: np.ndarray, factor: float) -> np.ndarray:
    return factor * slack + abs(1 - factor) * reference.luma(slack)


def adjust_hue(slack: np.ndarray, shift: float) -> np.ndarray:
    """A channel of the result is the value, less the chroma times t, t in [0, 1]. Within a sextant the chroma times t is a
    difference of two channels and |k| <= 2 times the chroma. If each channel moves by s, so does the value, the
    difference and the chroma by 2 s: 7 s in all."""
    largest = 7 * slack.max(axis=0, keepdims=True)
    return np.repeat(largest, 3, axis=0) if shift else slack


def erase(slack: np.ndarray, top: int, left: int, height: int, width: int, value: float) -> np.ndarray:
    return reference.erase(slack, top, left, height, width, 0.0)


def custom(slack: np.ndarray, function: Any) -> np.ndarray:
    raise NotImplementedError("a step of the user's own after a jump: how it carries an excuse on is not known")


CARRIED: dict[str, Callable[..., np.ndarray]] = {
    **{name: linear(name) for name in ("crop", "flip_h", "flip_v", "quarter_turns", "grayscale", "blur", "box_blur")},
    "resize": resize,
    "adjust_brightness": lambda slack, factor: factor * slack,
    "adjust_contrast": adjust_contrast,
    "adjust_saturation": adjust_saturation,
    "adjust_hue": adjust_hue,
    "custom": custom,
    "normalize": lambda slack, mean, std: slack,
    "erase": erase,
}
