"""SimCLR's views under lightly's names and arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization, lightly_view
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.rotation import random_rotation_transform

__all__ = ["SimCLRTransform", "SimCLRViewTransform", "GaussianBlur", "random_rotation_transform"]


@dataclass(eq=False, repr=False)
class _SimCLRArguments:
    """What a pair of views, or one, is told in lightly's words."""

    input_size: int = 224
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.8
    cj_hue: float = 0.2
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    gaussian_blur: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)


@dataclass(eq=False, repr=False)
class SimCLRTransform(_SimCLRArguments, MultiViewTransform):
    """Two views of an image as in SimCLR (arXiv:2002.05709, 2006.10029), with lightly's arguments and defaults.

    Crop, flips, quarter turn or rotation, color jitter, grayscale, blur, normalization, in this order; both views are
    rendered in one call. Arithmetic stays in float from pixel to output, where Pillow rounds to 8 bits after every step, and
    the blur is a true Gaussian, where Pillow's is three box filters.

    The other transforms of this package take arguments of the same names and meanings.

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
        rr_prob: Probability of a rotation.
        rr_degrees: None rotates by 90 degrees counter-clockwise; two angles in degrees by one between them, a number d by one
            between -d and d, to the nearest pixel, with black from outside.
        normalize: {"mean": [r, g, b], "std": [r, g, b]} for values in [0, 1]; None leaves them there.
        kernel_size: Ignored, with a warning, as in lightly 1.5; the blur goes by sigmas alone.
        blur_kind: "box" for Pillow's blur, and so lightly's, to the pixel but for its rounding.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: an argument is not of its type.

    >>> import torch
    >>> view0, view1 = SimCLRTransform(input_size=32)(torch.zeros(3, 60, 40, dtype=torch.uint8))
    >>> view0.shape, view0.dtype
    (torch.Size([3, 32, 32]), torch.float32)
    """

    def __post_init__(self) -> None:
        MultiViewTransform.__init__(self, [ViewTransform(lightly_view(self))] * 2)


@dataclass(eq=False, repr=False)
class SimCLRViewTransform(_SimCLRArguments, ViewTransform):
    """One view of an image as in SimCLR; arguments, order and errors as for `SimCLRTransform`.

    >>> import torch
    >>> SimCLRViewTransform(input_size=32)(torch.zeros(3, 60, 40, dtype=torch.uint8)).shape
    torch.Size([3, 32, 32])
    """

    def __post_init__(self) -> None:
        ViewTransform.__init__(self, lightly_view(self))
