"""The meaning of every operation, in float64: what fastssl's executors are measured against.

Written from the definitions that torchvision.transforms.v2.functional documents, as plainly as they can be said,
and from nothing in csrc/. An image is (3, H, W) in [0, 1]; speed is of no concern.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0, 1, 2, 3

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601-7, 2.5.1


def render(image: np.ndarray, row: Mapping[str, float], view: Any) -> np.ndarray:
    """One view, (3, S, S), of an image, uint8 (H, W, 3); `row` maps each field of the plan to its number."""
    return render_with_slack(image, row, view)[0]


def render_with_slack(
    image: np.ndarray, row: Mapping[str, float], view: Any, band: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """As render, and by how much its discontinuities excuse another result: (3, S, S), 0 nearly everywhere.

    Where solarize sees a value v within `band` of its threshold, an error as small as that decides between v and
    1 - v, which are |1 - 2 v| apart. Steps after solarize carry that on as they carry a difference of the image. In
    units of a channel in [0, 1], as before normalization.
    """
    top, left, height, width = (int(row[name]) for name in ("top", "left", "height", "width"))
    x = image.astype(np.float64).transpose(2, 0, 1) / 255
    x = crop(x, top, left, height, width)
    x = resize(x, view.crop.size, view.crop.interpolation)
    if row["flip_h"]:
        x = flip_h(x)
    if row["flip_v"]:
        x = flip_v(x)
    x = quarter_turns(x, int(row["turns"]))
    slack = np.zeros(x.shape)
    for operation in view.order:
        if operation in ("crop", "posterize", "custom"):
            continue
        if operation == "jitter":
            assert not slack.any(), "jitter after solarize: how it carries a slack on is not worked out"
            order = [int(row[f"order{i}"]) for i in range(4)]
            x = jitter(x, order, row["brightness"], row["contrast"], row["saturation"], row["hue"])
        elif operation == "grayscale":
            x, slack = (grayscale(x), grayscale(slack)) if row["grayscale"] else (x, slack)
        elif operation == "blur":
            x, slack = (blur(x, row["sigma_px"]), blur(slack, row["sigma_px"])) if row["sigma_px"] > 0 else (x, slack)
        elif operation == "solarize":
            slack = slack + np.where(np.abs(x - row["solarize"]) < band, np.abs(1 - 2 * x) + band, 0)
            x = solarize(x, row["solarize"])
        else:
            raise ValueError(f"no such operation: {operation}")
    if view.normalize is not None:
        x = normalize(x, view.normalize.mean, view.normalize.std)
    return x, slack


# --- geometry ---------------------------------------------------------------------------------------------------------


def crop(x: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    assert 0 <= top <= top + height <= x.shape[1] and 0 <= left <= left + width <= x.shape[2], "crop leaves the image"
    assert height >= 1 and width >= 1, "crop is empty"
    return x[:, top : top + height, left : left + width]


def resize(x: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    """Antialiased: when it shrinks, the filter widens by the same factor. The result is clamped to [0, 1]."""
    rows = resize_weights(x.shape[1], size, interpolation)
    columns = resize_weights(x.shape[2], size, interpolation)
    return np.clip(rows @ x @ columns.T, 0, 1)


def resize_weights(source: int, target: int, interpolation: str) -> np.ndarray:
    """(target, source): what each source pixel gives to each output pixel; each row sums to 1.

    Pixel centres lie at i + 0.5. Weights past the border are dropped and the rest renormalized.
    """
    kernel = {"bilinear": triangle, "bicubic": cubic}[interpolation]
    scale = source / target
    centre = (np.arange(target) + 0.5) * scale
    distance = (np.arange(source) + 0.5)[None, :] - centre[:, None]
    weights = kernel(distance / max(scale, 1.0))
    return weights / weights.sum(axis=1, keepdims=True)


def triangle(t: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(t))


def cubic(t: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys' kernel (Keys 1981, equation 4), a = -0.5 as in Pillow and in torch's antialiased resize."""
    t = np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    return np.where(t < 1, near, np.where(t < 2, far, 0))


def flip_h(x: np.ndarray) -> np.ndarray:
    return x[:, :, ::-1]


def flip_v(x: np.ndarray) -> np.ndarray:
    return x[:, ::-1, :]


def quarter_turns(x: np.ndarray, turns: int) -> np.ndarray:
    """Counter-clockwise by 90 degrees, so many times."""
    return np.rot90(x, turns, axes=(1, 2))


# --- colour -----------------------------------------------------------------------------------------------------------


def luma(x: np.ndarray) -> np.ndarray:
    """(1, H, W)."""
    return (LUMA[0] * x[0] + LUMA[1] * x[1] + LUMA[2] * x[2])[None]


def jitter(
    x: np.ndarray, order: list[int], brightness: float, contrast: float, saturation: float, hue: float
) -> np.ndarray:
    """The four operations in this order, each clamped to [0, 1]."""
    assert sorted(order) == [0, 1, 2, 3], f"not an order of the four operations: {order}"
    for operation in order:
        if operation == BRIGHTNESS:
            x = adjust_brightness(x, brightness)
        elif operation == CONTRAST:
            x = adjust_contrast(x, contrast)
        elif operation == SATURATION:
            x = adjust_saturation(x, saturation)
        else:
            x = adjust_hue(x, hue)
    return x


def blend(x: np.ndarray, other: np.ndarray | float, factor: float) -> np.ndarray:
    return np.clip(factor * x + (1 - factor) * other, 0, 1)


def adjust_brightness(x: np.ndarray, factor: float) -> np.ndarray:
    return blend(x, 0.0, factor)


def adjust_contrast(x: np.ndarray, factor: float) -> np.ndarray:
    """About the mean luma of the whole view."""
    return blend(x, luma(x).mean(), factor)


def adjust_saturation(x: np.ndarray, factor: float) -> np.ndarray:
    return blend(x, luma(x), factor)


def adjust_hue(x: np.ndarray, shift: float) -> np.ndarray:
    """Hue in HSV moves by `shift` of a full circle; a gray pixel has no hue and stays."""
    r, g, b = x
    value, least = x.max(axis=0), x.min(axis=0)
    chroma = value - least
    safe = np.where(chroma > 0, chroma, 1)
    sextant = np.where(value == r, ((g - b) / safe) % 6, np.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    sextant = (sextant + 6 * shift) % 6
    # Each channel is the value less the chroma times a trapezoid of the hue (Smith 1978, in its closed form).
    channels = []
    for n in (5, 3, 1):
        k = (n + sextant) % 6
        channels.append(value - chroma * np.clip(np.minimum(k, 4 - k), 0, 1))
    return np.clip(np.stack(channels), 0, 1)


def grayscale(x: np.ndarray) -> np.ndarray:
    return np.repeat(luma(x), 3, axis=0)


def solarize(x: np.ndarray, threshold: float) -> np.ndarray:
    return np.where(x >= threshold, 1 - x, x)


# --- blur -------------------------------------------------------------------------------------------------------------


def blur(x: np.ndarray, sigma_px: float) -> np.ndarray:
    """A Gaussian of this deviation, sampled at the pixels out to 5 deviations (1.5e-6 of its mass in one dimension
    is left out at most), summing to 1; the border reflects without repeating the edge pixel."""
    radius = max(1, math.ceil(5 * sigma_px))
    t = np.arange(-radius, radius + 1)
    kernel = np.exp(-(t**2) / (2 * sigma_px**2))
    kernel /= kernel.sum()
    return convolution(x.shape[1], kernel) @ x @ convolution(x.shape[2], kernel).T


def convolution(n: int, kernel: np.ndarray) -> np.ndarray:
    """(n, n): the matrix that convolves a reflected line of n pixels with the kernel."""
    radius = len(kernel) // 2
    matrix = np.zeros((n, n))
    for offset, weight in zip(range(-radius, radius + 1), kernel, strict=True):
        matrix[np.arange(n), reflect(np.arange(n) + offset, n)] += weight
    return matrix


def reflect(index: np.ndarray, n: int) -> np.ndarray:
    """The pixel that stands at an index off the border: 0 1 2 3 | 2 1 0 1 2 3 2 ..., periodic in 2 (n - 1)."""
    if n == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * (n - 1))
    return np.minimum(index, 2 * (n - 1) - index)


# --- output -----------------------------------------------------------------------------------------------------------


def normalize(x: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    return (x - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
