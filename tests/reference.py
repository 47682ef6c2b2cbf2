"""The meaning of every operation, in float64: what fastssl's executors are measured against.

Written from the definitions that torchvision.transforms.v2.functional documents (for the box blur and posterize, from
Pillow's), as plainly as they can be said, and from nothing in csrc/. An image is (C, H, W) in [0, 1]; speed is of no
concern. By how much a result may differ is said in bands.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0, 1, 2, 3

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601-7, 2.5.1

Row = Mapping[str, float]  # each field of the plan, for one view of one image
Operation = tuple[str, tuple[Any, ...]]  # the name of a function below, and what it takes beside the image


def render(image: np.ndarray, row: Row, view: Any) -> np.ndarray:
    """One view, (C, S, S), of an image, (H, W, C), uint8 or uint16."""
    x = unit(image)
    for name, arguments in operations(row, view):
        x = apply(name, x, arguments)
    return x


def unit(image: np.ndarray) -> np.ndarray:
    """(C, H, W) from 0 to 1: the largest number of the type is 1."""
    return image.astype(np.float64).transpose(2, 0, 1) / np.iinfo(image.dtype).max


def apply(name: str, x: np.ndarray, arguments: tuple[Any, ...]) -> np.ndarray:
    return globals()[name](x, *arguments)


def operations(row: Row, view: Any) -> Iterator[Operation]:
    """What happens to the image, first to last: the steps in the view's order, then normalization, then erasing."""
    for step in view.order if "crop" in view.order else ("crop", *view.order):
        if getattr(view, step) is not None:
            yield from STEPS[step](row, view)
    if view.normalize is not None:
        yield "normalize", (view.normalize.mean, view.normalize.std)
    if view.erase is not None and row["erase_height"] > 0:
        box = tuple(int(row[f"erase_{name}"]) for name in ("top", "left", "height", "width"))
        yield "erase", (*box, view.erase.value)


def crop_step(row: Row, view: Any) -> Iterator[Operation]:
    yield "crop", tuple(int(row[name]) for name in ("top", "left", "height", "width"))
    yield "resize", (view.crop.size, view.crop.interpolation)
    if row["flip_h"]:
        yield "flip_h", ()
    if row["flip_v"]:
        yield "flip_v", ()
    if row["turns"]:
        yield "quarter_turns", (int(row["turns"]),)
    if row["angle"]:
        yield "rotate", (row["angle"], "nearest" if view.rotate is None else view.rotate.interpolation)


def jitter_step(row: Row, view: Any) -> Iterator[Operation]:
    """The four operations in the order that was drawn."""
    order = [int(row[f"order{i}"]) for i in range(4)]
    assert sorted(order) == [0, 1, 2, 3], f"not an order of the four operations: {order}"
    for which in order:
        name = ("brightness", "contrast", "saturation", "hue")[which]
        yield f"adjust_{name}", (row[name],)


def grayscale_step(row: Row, view: Any) -> Iterator[Operation]:
    if row["grayscale"]:
        yield "grayscale", ()


def blur_step(row: Row, view: Any) -> Iterator[Operation]:
    if row["sigma_px"] > 0:
        yield {"gaussian": "blur", "box": "box_blur"}[view.blur.kind], (row["sigma_px"],)


def solarize_step(row: Row, view: Any) -> Iterator[Operation]:
    if row["solarize"] < math.inf:
        yield "solarize", (row["solarize"],)


def posterize_step(row: Row, view: Any) -> Iterator[Operation]:
    if row["posterize"] < 8:
        yield "posterize", (int(row["posterize"]),)


def custom_step(row: Row, view: Any) -> Iterator[Operation]:
    yield "custom", (view.custom,)


STEPS: dict[str, Callable[[Row, Any], Iterator[Operation]]] = {
    "crop": crop_step,
    "jitter": jitter_step,
    "grayscale": grayscale_step,
    "blur": blur_step,
    "solarize": solarize_step,
    "posterize": posterize_step,
    "custom": custom_step,
}


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


def rotate(x: np.ndarray, degrees: float, interpolation: str) -> np.ndarray:
    """Counter-clockwise about the middle of a square; black outside of it.

    "nearest" takes the pixel that holds the place an output pixel comes from; "bilinear" the four pixels whose centres
    are around that place, those outside the image being black.
    """
    rows, columns = places_before_rotation(x.shape[1], degrees)
    if interpolation == "nearest":
        return pixels_at(x, np.floor(rows), np.floor(columns))
    assert interpolation == "bilinear", interpolation
    top, left = np.floor(rows - 0.5), np.floor(columns - 0.5)
    down, right = rows - 0.5 - top, columns - 0.5 - left
    upper = (1 - right) * pixels_at(x, top, left) + right * pixels_at(x, top, left + 1)
    lower = (1 - right) * pixels_at(x, top + 1, left) + right * pixels_at(x, top + 1, left + 1)
    return (1 - down) * upper + down * lower


def places_before_rotation(size: int, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Row and column, (S, S) each, that the centre of each output pixel comes from; pixel i reaches from i to i + 1."""
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    angle = math.radians(degrees)
    # Rows grow downwards, so that this, the inverse of a counter-clockwise turn, has the sign of a clockwise one upwards.
    return (
        math.sin(angle) * x + math.cos(angle) * y + size / 2,
        math.cos(angle) * x - math.sin(angle) * y + size / 2,
    )


def pixels_at(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pixels of these whole-numbered rows and columns; black where there is none."""
    inside = (rows >= 0) & (rows < x.shape[1]) & (columns >= 0) & (columns < x.shape[2])
    found = x[:, np.where(inside, rows, 0).astype(int), np.where(inside, columns, 0).astype(int)]
    return np.where(inside, found, 0)


# --- colour -----------------------------------------------------------------------------------------------------------


def luma(x: np.ndarray) -> np.ndarray:
    """(1, H, W)."""
    return (LUMA[0] * x[0] + LUMA[1] * x[1] + LUMA[2] * x[2])[None]


def blend(x: np.ndarray, other: np.ndarray | float, factor: float) -> np.ndarray:
    return np.clip(factor * x + (1 - factor) * other, 0, 1)


def adjust_brightness(x: np.ndarray, factor: float) -> np.ndarray:
    return blend(x, 0.0, factor)


def adjust_contrast(x: np.ndarray, factor: float) -> np.ndarray:
    """About the mean luma of the whole image, or of the view where the crop came before."""
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


def posterize(x: np.ndarray, bits: int) -> np.ndarray:
    """Rounded to 8 bits, of which the highest are kept."""
    level = np.floor(255 * x + 0.5)
    return (level - level % 2 ** (8 - bits)) / 255


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


def box_blur(x: np.ndarray, sigma_px: float) -> np.ndarray:
    """Three box filters in each direction that together have this deviation, as in Pillow's GaussianBlur, unrounded.

    Source: Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering", SSVM 2011.
    """
    radius = box_radius(sigma_px, passes=3)
    rows, columns = (np.linalg.matrix_power(box_filter(n, radius), 3) for n in x.shape[1:])
    return rows @ x @ columns.T


def box_radius(sigma_px: float, passes: int) -> float:
    """The extended box reaches its whole part fully on either side, and the pixel beyond by its fraction."""
    variance = sigma_px**2 / passes
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return whole + fraction


def box_filter(n: int, radius: float) -> np.ndarray:
    """(n, n): the matrix of one pass over a line of n pixels; beyond its ends the last pixel is repeated."""
    whole = math.floor(radius)
    matrix = np.zeros((n, n))
    for offset in range(-whole - 1, whole + 2):
        weight = 1.0 if abs(offset) <= whole else radius - whole
        np.add.at(matrix, (np.arange(n), np.clip(np.arange(n) + offset, 0, n - 1)), weight / (2 * radius + 1))
    return matrix


# --- a step of the user's own, and output -----------------------------------------------------------------------------


def custom(x: np.ndarray, function: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """A batch of this view alone, in float32; so only for functions that do not mix the images of a batch."""
    return function(torch.from_numpy(x[None].astype(np.float32)))[0].double().numpy()


def normalize(x: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    assert len(mean) == len(std) == len(x), "one mean and deviation a channel"
    return (x - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))


def erase(x: np.ndarray, top: int, left: int, height: int, width: int, value: float) -> np.ndarray:
    x = x.copy()
    x[:, top : top + height, left : left + width] = value
    return x
