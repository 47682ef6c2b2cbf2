"""SimCLR's views under lightly's names and arguments."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.utils import IMAGENET_NORMALIZE
from fastssl.transforms.view import Blur, Crop, Flip, Grayscale, Jitter, Normalize, QuarterTurn, View

__all__ = ["SimCLRTransform", "SimCLRViewTransform", "simclr_view"]


class SimCLRTransform(MultiViewTransform):
    """Two views of an image as in SimCLR (arXiv:2002.05709, 2006.10029), with lightly's arguments and defaults.

    Crop, flips, quarter turn, color jitter, grayscale, blur, normalization, in this order; both views are rendered in
    one call. Arithmetic stays in float from pixel to output, where Pillow rounds to 8 bits after every step, and the
    blur is a true Gaussian, where Pillow's is three box filters.

    Args:
        input_size: Side of the views, in pixels.
        cj_prob: Probability of the color jitter.
        cj_strength: Multiplies cj_bright, cj_contrast, cj_sat and cj_hue; 0.5 suits small images such as CIFAR's.
        cj_bright: Brightness is multiplied by a factor in [max(0, 1 - v), 1 + v], v = cj_strength * cj_bright.
        cj_contrast: Likewise for contrast, about the mean luma.
        cj_sat: Likewise for saturation.
        cj_hue: The hue is shifted by a part of the circle in [-v, v], v = cj_strength * cj_hue, at most 0.5.
        min_scale: Smallest part of the image's area that a crop keeps, in (0, 1].
        random_gray_scale: Probability of grayscale.
        gaussian_blur: Probability of the blur.
        sigmas: Smallest and largest deviation of the blur, in pixels of the view.
        vf_prob: Probability of a vertical flip.
        hf_prob: Probability of a horizontal flip.
        rr_prob: Probability of a rotation by 90 degrees counter-clockwise.
        rr_degrees: Rotation by free angles in lightly: not there yet, so None, unless rr_prob is 0.
        normalize: {"mean": [r, g, b], "std": [r, g, b]} for values in [0, 1]; None leaves them there.
        kernel_size: Ignored, with a warning, as in lightly 1.5; the blur goes by sigmas alone.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: an argument is not of its type.
        NotImplementedError: rr_degrees is given and rr_prob > 0.

    >>> import torch
    >>> view0, view1 = SimCLRTransform(input_size=32)(torch.zeros(3, 60, 40, dtype=torch.uint8))
    >>> view0.shape, view0.dtype
    (torch.Size([3, 32, 32]), torch.float32)
    """

    def __init__(
        self,
        input_size: int = 224,
        cj_prob: float = 0.8,
        cj_strength: float = 1.0,
        cj_bright: float = 0.8,
        cj_contrast: float = 0.8,
        cj_sat: float = 0.8,
        cj_hue: float = 0.2,
        min_scale: float = 0.08,
        random_gray_scale: float = 0.2,
        gaussian_blur: float = 0.5,
        sigmas: tuple[float, float] = (0.1, 2),
        vf_prob: float = 0.0,
        hf_prob: float = 0.5,
        rr_prob: float = 0.0,
        rr_degrees: float | tuple[float, float] | None = None,
        normalize: Mapping[str, Sequence[float]] | None = IMAGENET_NORMALIZE,
        *,
        kernel_size: float | None = None,
    ) -> None:
        view = simclr_view(
            type(self).__name__,
            input_size=input_size,
            cj_prob=cj_prob,
            cj_strength=cj_strength,
            cj_bright=cj_bright,
            cj_contrast=cj_contrast,
            cj_sat=cj_sat,
            cj_hue=cj_hue,
            min_scale=min_scale,
            random_gray_scale=random_gray_scale,
            gaussian_blur=gaussian_blur,
            kernel_size=kernel_size,
            sigmas=sigmas,
            vf_prob=vf_prob,
            hf_prob=hf_prob,
            rr_prob=rr_prob,
            rr_degrees=rr_degrees,
            normalize=normalize,
        )
        transform = ViewTransform(view)
        super().__init__([transform, transform])


class SimCLRViewTransform(ViewTransform):
    """One view of an image as in SimCLR; arguments, order and errors as for `SimCLRTransform`.

    >>> import torch
    >>> SimCLRViewTransform(input_size=32)(torch.zeros(3, 60, 40, dtype=torch.uint8)).shape
    torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        input_size: int = 224,
        cj_prob: float = 0.8,
        cj_strength: float = 1.0,
        cj_bright: float = 0.8,
        cj_contrast: float = 0.8,
        cj_sat: float = 0.8,
        cj_hue: float = 0.2,
        min_scale: float = 0.08,
        random_gray_scale: float = 0.2,
        gaussian_blur: float = 0.5,
        sigmas: tuple[float, float] = (0.1, 2),
        vf_prob: float = 0.0,
        hf_prob: float = 0.5,
        rr_prob: float = 0.0,
        rr_degrees: float | tuple[float, float] | None = None,
        normalize: Mapping[str, Sequence[float]] | None = IMAGENET_NORMALIZE,
        *,
        kernel_size: float | None = None,
    ) -> None:
        view = simclr_view(
            type(self).__name__,
            input_size=input_size,
            cj_prob=cj_prob,
            cj_strength=cj_strength,
            cj_bright=cj_bright,
            cj_contrast=cj_contrast,
            cj_sat=cj_sat,
            cj_hue=cj_hue,
            min_scale=min_scale,
            random_gray_scale=random_gray_scale,
            gaussian_blur=gaussian_blur,
            kernel_size=kernel_size,
            sigmas=sigmas,
            vf_prob=vf_prob,
            hf_prob=hf_prob,
            rr_prob=rr_prob,
            rr_degrees=rr_degrees,
            normalize=normalize,
        )
        super().__init__(view)


def simclr_view(
    who: str,
    *,
    input_size: int,
    cj_prob: float,
    cj_strength: float,
    cj_bright: float,
    cj_contrast: float,
    cj_sat: float,
    cj_hue: float,
    min_scale: float,
    random_gray_scale: float,
    gaussian_blur: float,
    kernel_size: float | None,
    sigmas: tuple[float, float],
    vf_prob: float,
    hf_prob: float,
    rr_prob: float,
    rr_degrees: float | tuple[float, float] | None,
    normalize: Mapping[str, Sequence[float]] | None,
) -> View:
    """The view that lightly's arguments describe, checked in their own terms: `who` opens every error."""
    chances = {
        "cj_prob": cj_prob,
        "random_gray_scale": random_gray_scale,
        "gaussian_blur": gaussian_blur,
        "vf_prob": vf_prob,
        "hf_prob": hf_prob,
        "rr_prob": rr_prob,
    }
    for name, value in chances.items():
        chances[name] = _number(who, name, value)
        if not 0 <= chances[name] <= 1:
            raise ValueError(f"{who}: {name}={value} must lie in [0, 1]; it is a probability.")
    jitter = {
        "cj_strength": cj_strength,
        "cj_bright": cj_bright,
        "cj_contrast": cj_contrast,
        "cj_sat": cj_sat,
        "cj_hue": cj_hue,
    }
    for name, value in jitter.items():
        jitter[name] = _number(who, name, value)
        if not 0 <= jitter[name] < math.inf:
            raise ValueError(f"{who}: {name}={value} must be 0 or more, and finite; 0 turns that jitter off.")
    strength = jitter["cj_strength"]
    if strength * jitter["cj_hue"] > 0.5:
        raise ValueError(
            f"{who}: cj_strength * cj_hue = {cj_strength} * {cj_hue} must be at most 0.5; the hue is a circle of "
            "length 1, so 0.5 either way already reaches every hue."
        )
    least_area = _number(who, "min_scale", min_scale)
    if not 0 < least_area <= 1:
        raise ValueError(
            f"{who}: min_scale={min_scale} must lie in (0, 1]; it is a part of the image's area, so write 0.08 for 8 %."
        )
    low, high = _numbers(who, "sigmas", sigmas, 2, "(0.1, 2.0), the smallest and the largest deviation in pixels")
    if not 0 <= low <= high < math.inf:
        raise ValueError(f"{who}: sigmas={sigmas} must hold 0 <= low <= high, in pixels; write for example (0.1, 2.0).")
    if rr_degrees is not None and chances["rr_prob"] > 0:
        raise NotImplementedError(
            f"{who}: rr_degrees={rr_degrees}: rotation by free angles is not there yet; leave rr_degrees=None for "
            "rotation by 90 degrees, or put torchvision.transforms.RandomRotation before this transform."
        )
    if kernel_size is not None:
        warnings.warn(
            f"{who}: kernel_size={kernel_size} is ignored, as in lightly; the blur goes by sigmas, in pixels.",
            DeprecationWarning,
            stacklevel=3,
        )
    # What never happens is None, so that equal views are equal, whichever way they were written.
    return View(
        crop=Crop(size=_side(who, input_size), area=(least_area, 1.0)),
        flip=Flip(p=chances["hf_prob"]) if chances["hf_prob"] else None,
        vflip=Flip(p=chances["vf_prob"]) if chances["vf_prob"] else None,
        turn=QuarterTurn(p=chances["rr_prob"]) if chances["rr_prob"] else None,
        jitter=Jitter(
            p=chances["cj_prob"],
            brightness=strength * jitter["cj_bright"],
            contrast=strength * jitter["cj_contrast"],
            saturation=strength * jitter["cj_sat"],
            hue=strength * jitter["cj_hue"],
        )
        if chances["cj_prob"]
        else None,
        grayscale=Grayscale(p=chances["random_gray_scale"]) if chances["random_gray_scale"] else None,
        blur=Blur(p=chances["gaussian_blur"], sigma_px=(low, high)) if chances["gaussian_blur"] and high else None,
        normalize=_normalize(who, normalize),
    )


def _side(who: str, size: Any) -> int:
    """The side of the view, also from the (side, side) that torchvision's crop takes."""
    if isinstance(size, tuple | list) and len(size) in (1, 2) and len({*size}) == 1:
        size = size[0]
    if isinstance(size, bool) or not isinstance(size, Integral):
        raise TypeError(f"{who}: input_size={size!r} must be a whole number of pixels; views are square.")
    if size < 1:
        raise ValueError(f"{who}: input_size={size} must be 1 pixel or more.")
    return int(size)


def _number(who: str, name: str, value: Any) -> float:
    if not isinstance(value, Real):  # numpy's numbers are of this kind too
        raise TypeError(f"{who}: {name}={value!r} is a {type(value).__name__}, and must be a number.")
    return float(value)


def _numbers(who: str, name: str, values: Any, count: int, example: str) -> list[float]:
    if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != count:
        raise TypeError(f"{who}: {name}={values!r} must be {count} numbers; write {example}.")
    return [_number(who, f"{name}[{i}]", values[i]) for i in range(count)]


def _normalize(who: str, normalize: Any) -> Normalize | None:
    if normalize is None or (isinstance(normalize, Mapping) and not normalize):
        return None
    if not isinstance(normalize, Mapping) or not {"mean", "std"} <= {*normalize}:
        raise TypeError(
            f"{who}: normalize={normalize!r} must be a dict with mean and std, or None for values in [0, 1]; write "
            'for example {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}.'
        )
    mean = _numbers(who, 'normalize["mean"]', normalize["mean"], 3, "one for each of red, green and blue")
    std = _numbers(who, 'normalize["std"]', normalize["std"], 3, "one for each of red, green and blue")
    if not all(0 < value < math.inf for value in std):
        raise ValueError(f'{who}: normalize["std"]={std} must be above 0; the view is divided by it.')
    return Normalize(mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))
