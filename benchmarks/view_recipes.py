"""The recipes that every contender writes in its own library's terms: one list of numbers for all of them."""

from __future__ import annotations

from dataclasses import dataclass

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ASPECT = (3 / 4, 4 / 3)
SIGMA_PX = (0.1, 2.0)
FLIP_P, JITTER_P, GRAY_P = 0.5, 0.8, 0.2
BLUR_TAPS = 13  # for libraries with a fixed kernel: three deviations of the widest blur to either side


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """One view: random resized crop, flip, jitter, grayscale, blur, solarize, normalize, in this order.

    Args:
        size: Side in pixels.
        area: Part of the image's area that the crop keeps.
        jitter: Brightness, contrast, saturation, hue, as torchvision's ColorJitter takes them.
        blur_p, solarize_p: Probabilities; 0 leaves the step out.
        bicubic: Whether the crop is resized by bicubic interpolation; else bilinear.
    """

    size: int
    area: tuple[float, float]
    jitter: tuple[float, float, float, float]
    blur_p: float = 0.0
    solarize_p: float = 0.0
    bicubic: bool = False


@dataclass(frozen=True)
class Recipe:
    name: str
    views: tuple[ViewSpec, ...]

    @property
    def distinct(self) -> tuple[ViewSpec, ...]:
        return tuple(dict.fromkeys(self.views))


def _simclr(size: int, strength: float, blur_p: float) -> tuple[ViewSpec, ...]:
    s = strength
    jitter = (0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)
    return (ViewSpec(size=size, area=(0.08, 1.0), jitter=jitter, blur_p=blur_p),) * 2


def _dino() -> tuple[ViewSpec, ...]:
    jitter = (0.4, 0.4, 0.2, 0.1)
    wide, narrow = (0.4, 1.0), (0.05, 0.4)
    return (
        ViewSpec(size=224, area=wide, jitter=jitter, blur_p=1.0, bicubic=True),
        ViewSpec(size=224, area=wide, jitter=jitter, blur_p=0.1, solarize_p=0.2, bicubic=True),
        *[ViewSpec(size=96, area=narrow, jitter=jitter, blur_p=0.5, bicubic=True)] * 6,
    )


SIMCLR = Recipe("simclr", _simclr(224, 1.0, 0.5))  # Chen et al., arXiv:2002.05709, appendix A
DINO = Recipe("dino", _dino())  # Caron et al., arXiv:2104.14294, as lightly's DINOTransform has it
CIFAR = Recipe("cifar", _simclr(32, 0.5, 0.0))  # Chen et al., appendix B.9
