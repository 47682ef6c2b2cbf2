"""The steps of a view in DALI's operators, with the meaning that they have in torchvision and in `fastssl.ops.render`.

DALI's own operators mean something else by some of these words, so the steps are composed of others:

- Crop. `resize` of a region lets its filter reach beyond the region, or repeats the border. Here the crop alone is resized,
  beside a channel of ones, both in a frame of zeros: what becomes of the ones is the weight that the filter had, and divides.
- Contrast. `brightness_contrast` and `color_twist` go about a fixed mid-grey; here it is about the mean luma of the view.
- Saturation. `saturation` and `hsv` take a matrix in YIQ; here each pixel goes towards its luma.
- Hue. `hue`, `hsv` and `color_twist` rotate in YIQ, which is off by up to 24 degrees at 90; here it is turned in HSV.
- Their order. `color_twist` has a fixed one, and clamps at the end; here it is the drawn one, clamped after each.
- Grayscale is the luma of BT.601, and not `hsv(saturation=0)`.
- Gaussian blur is `gaussian_blur` with a window of 4 sigma in place of 3; box blur is `filter`, three times.
- Solarize and posterize, for which there is no operator, are arithmetic.

A step that only some images need stands under a condition, for which DALI splits the batch. DALI's AutoGraph translates these
functions to that end: an `if` over a node of the graph is such a condition; all others are decided while the graph is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastssl.pipelines.dali_modules import fn, math, types
from fastssl.transforms.view import View

__all__ = ["BLENDS", "COLUMNS", "Numbers", "make_view"]

# ITU-R BT.601-7, 2.5.1.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# Below this, a Gaussian has less than 4e-6 of its weight beside the middle.
_LEAST_SIGMA = 0.2

# Parts of the jitter beside the hue, which may all come before it or after it.
BLENDS = 3
# What is drawn for a view, as the graph takes it: one row of numbers.
COLUMNS = [
    *("start_y", "start_x", "shape_y", "shape_x"),  # of the pixels that the crop touches
    *("frame_y", "frame_x"),  # width of the frame of zeros
    *("from_y", "from_x", "to_y", "to_x"),  # the crop within both
    *("mirror_x", "mirror_y", "transposed", "angle"),
    "jitter",
    *(f"{name}_{slot}" for slot in range(2 * BLENDS) for name in ("luma", "factor", "mean")),
    "turn",  # of the hue, in sixths of the circle; 0: none
    *("grayscale", "sigma_px", "window", "solarize", "threshold", "posterize"),
    *("erase", "erase_y", "erase_x", "erase_height", "erase_width"),
]
_AT = {name: i for i, name in enumerate(COLUMNS)}


class Numbers:
    """The numbers of one view, as nodes of the graph.

    Args:
        node: (V, len(COLUMNS)) a sample, float32, on the CPU.
        v: The view.
        on_gpu: Whether pixels are on a GPU, and with them what they are multiplied by.
    """

    def __init__(self, node: Any, v: int, on_gpu: bool) -> None:
        self._node, self._v, self._on_gpu = node, v, on_gpu

    def number(self, name: str) -> Any:
        """An argument of an operator."""
        return self._node[self._v, _AT[name]]

    def factor(self, name: str) -> Any:
        """A number that pixels are combined with."""
        number = self.number(name)
        return number.gpu() if self._on_gpu else number

    def given(self, name: str) -> Any:
        """Whether it is not 0: a condition."""
        return self.number(name) != 0.0

    def pair(self, name: str) -> Any:
        """This number and the one after it."""
        return self._node[self._v, _AT[name] : _AT[name] + 2]

    def whole_pair(self, name: str) -> Any:
        return fn.cast(self.pair(name), dtype=types.INT32)


def make_view(image: Any, view: View, n: Numbers, kernel: Any, half: bool) -> Any:
    """A view of (H, W, 3), uint8, as a node of the graph: (3, S, S).

    Args:
        image: A node.
        view: Without a step of the user's own.
        n: What was drawn.
        kernel: Of a box blur, (K, K) a sample; None for other views.
        half: Whether to float16.
    """
    order = view.order if "crop" in view.order else ("crop", *view.order)
    x = image if order[0] == "crop" else fn.cast(image, dtype=types.FLOAT) * (1 / 255)
    for step in order:
        if step == "crop":
            x = _crop(x, view, n, 255 if order[0] == "crop" else 1)
        elif getattr(view, step) is not None:
            x = _blur(x, n, kernel) if step == "blur" else _COLOURS[step](x, n)
    norm = view.normalize
    x = fn.crop_mirror_normalize(
        x,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[0.0] if norm is None else list(norm.mean),
        std=[1.0] if norm is None else list(norm.std),
    )
    if view.erase is not None:
        x = _erase(x, n, view.erase.value)
    return fn.cast(x, dtype=types.FLOAT16) if half else x


def _crop(x: Any, view: View, n: Numbers, white: int) -> Any:
    """The crop, resized to (S, S, 3) in [0, 1], flipped, turned and rotated."""
    kind = types.UINT8 if white == 255 else types.FLOAT
    x = fn.slice(x, start=n.whole_pair("start_y"), shape=n.whole_pair("shape_y"), axes=[0, 1])
    ones = _channel(x, 0) * types.Constant(0, dtype=kind) + types.Constant(white, dtype=kind)
    frame = n.whole_pair("frame_y")
    x = fn.slice(
        fn.cat(x, ones, axis=2),
        start=-frame,
        shape=n.whole_pair("shape_y") + 2 * frame,
        axes=[0, 1],
        out_of_bounds_policy="pad",
        fill_values=[0.0],
    )
    x = fn.resize(
        x,
        size=[view.size, view.size],
        roi_start=n.pair("from_y"),
        roi_end=n.pair("to_y"),
        interp_type=types.INTERP_CUBIC if view.crop.interpolation == "bicubic" else types.INTERP_LINEAR,
        antialias=True,
        dtype=types.FLOAT,
    )
    x = math.clamp(fn.slice(x, start=[0], shape=[3], axes=[2]) / _channel(x, 3), 0.0, 1.0)
    x = fn.flip(x, horizontal=_whole(n, "mirror_x"), vertical=_whole(n, "mirror_y"))
    if n.given("transposed"):
        x = fn.transpose(x, perm=[1, 0, 2], transpose_layout=False)
    nearest = view.rotate is None or view.rotate.interpolation == "nearest"
    if n.given("angle"):
        x = fn.rotate(
            x,
            angle=n.number("angle"),
            size=[view.size, view.size],
            interp_type=types.INTERP_NN if nearest else types.INTERP_LINEAR,
            fill_value=0.0,
        )
    return x


def _jitter(x: Any, n: Numbers) -> Any:
    """Brightness, contrast and saturation before the hue, as far as they are drawn there; the hue; and those after it."""
    if n.given("jitter"):
        for slot in range(BLENDS):
            x = _blend(x, n, slot)
        if n.given("turn"):
            x = _hue(x, n.factor("turn"))
        for slot in range(BLENDS, 2 * BLENDS):
            x = _blend(x, n, slot)
    return x


def _blend(x: Any, n: Numbers, slot: int) -> Any:
    """With black, where `luma` is 0; with the mean luma or each pixel's, where it is 1; not at all where it is below."""
    kind, factor = n.number(f"luma_{slot}"), n.factor(f"factor_{slot}")
    if kind == 0.0:
        x = math.clamp(x * factor, 0.0, 1.0)
    elif kind == 1.0:
        luma = _luma(x)
        share = n.factor(f"mean_{slot}")
        toward = luma + share * (fn.reductions.mean(luma, axes=[0, 1], keep_dims=True) - luma)
        x = math.clamp(x * factor + toward * (1.0 - factor), 0.0, 1.0)
    return x


def _hue(x: Any, turn: Any) -> Any:
    """Turns the hue in HSV by so many sixths of the circle, from 1 up to 7; without a branch, as in csrc/core/colour.h."""
    r, g, b = _channel(x, 0), _channel(x, 1), _channel(x, 2)
    value, least = math.max(r, math.max(g, b)), math.min(r, math.min(g, b))
    chroma = value - least
    is_r = fn.cast(value == r, dtype=types.FLOAT)
    is_g = (1.0 - is_r) * fn.cast(value == g, dtype=types.FLOAT)
    is_b = 1.0 - is_r - is_g
    ahead = is_r * (g - b) + is_g * (b - r) + is_b * (r - g)
    h = turn + 2.0 * is_g + 4.0 * is_b + ahead / math.max(chroma, 1e-30)
    h = h - 6.0 * fn.cast(h >= 6.0, dtype=types.FLOAT)
    shares = (math.abs(h - 3.0) - 1.0, 2.0 - math.abs(h - 2.0), 2.0 - math.abs(h - 4.0))
    return fn.cat(*[chroma * math.clamp(share, 0.0, 1.0) + least for share in shares], axis=2)


def _grayscale(x: Any, n: Numbers) -> Any:
    if n.given("grayscale"):
        luma = _luma(x)
        x = fn.cat(luma, luma, luma, axis=2)
    return x


def _blur(x: Any, n: Numbers, kernel: Any) -> Any:
    if n.number("sigma_px") > (_LEAST_SIGMA if kernel is None else 0.0):
        if kernel is None:
            x = fn.gaussian_blur(x, sigma=n.number("sigma_px"), window_size=_whole(n, "window"))
        else:
            for _ in range(3):
                x = fn.filter(x, kernel, border="clamp")
    return x


def _solarize(x: Any, n: Numbers) -> Any:
    if n.given("solarize"):
        bright = fn.cast(x >= n.factor("threshold"), dtype=types.FLOAT)
        x = x + bright * (1.0 - 2.0 * x)
    return x


def _posterize(x: Any, n: Numbers) -> Any:
    """Keeps every so many of the 256 levels."""
    if n.given("posterize"):
        step = n.factor("posterize")
        x = math.floor(math.floor(x * 255.0 + 0.5) / step) * step * (1 / 255)
    return x


def _erase(x: Any, n: Numbers, value: float) -> Any:
    if n.given("erase"):
        x = fn.erase(x, anchor=n.pair("erase_y"), shape=n.pair("erase_height"), axis_names="HW", fill_value=[value])
    return x


_COLOURS = {"jitter": _jitter, "grayscale": _grayscale, "solarize": _solarize, "posterize": _posterize}


def _whole(n: Numbers, name: str) -> Any:
    return fn.cast(n.number(name), dtype=types.INT32)


def _channel(x: Any, c: int) -> Any:
    """(H, W, 1)."""
    return fn.slice(x, start=[c], shape=[1], axes=[2])


def _luma(x: Any) -> Any:
    """(H, W, 1)."""
    return fn.reductions.sum(x * types.Constant(_LUMA), axes=[2], keep_dims=True)
