"""Recipes without colours: masked prediction, and views of labelled images."""

from __future__ import annotations

from dataclasses import replace

from fastssl.transforms.geometry import CenterCrop, Crop, Interpolation, Resize
from fastssl.transforms.recipes._parts import plain
from fastssl.transforms.view import Recipe, View

__all__ = ["aim", "box_blur", "capi", "evaluation", "ijepa", "mae", "probe", "resize"]


def mae(size: int = 224) -> Recipe:
    """One view as in MAE: a bicubic crop and a flip. SimMIM takes the same, Pixio too, at 256 pixels.

    Args:
        size: Side of the view, in pixels.

    Source: He et al., 2021, arXiv:2111.06377, appendix A.1.

    >>> mae()[0].crop.area, mae()[0].crop.interpolation
    ((0.2, 1.0), 'bicubic')
    """
    return (plain(Crop(size=size, area=(0.2, 1.0), interpolation="bicubic")),)


def aim(size: int = 224) -> Recipe:
    """One view as in AIM: a bicubic crop of at least 40 % of the area, and a flip.

    Args:
        size: Side of the view, in pixels.

    Source: El-Nouby et al., 2024, arXiv:2401.08541; numbers: lightly's.

    >>> aim()[0].crop.area
    (0.4, 1.0)
    """
    return (plain(Crop(size=size, area=(0.4, 1.0), interpolation="bicubic")),)


def capi(size: int = 224) -> Recipe:
    """One view as in CAPI: a bicubic crop of at least 60 % of the area, and a flip.

    Args:
        size: Side of the view, in pixels.

    Source: Darcet et al., 2025, arXiv:2502.08769; numbers: lightly's.

    >>> capi()[0].crop.area
    (0.6, 1.0)
    """
    return (plain(Crop(size=size, area=(0.6, 1.0), interpolation="bicubic")),)


def ijepa(size: int = 224) -> Recipe:
    """One view for I-JEPA: MAE's. Context and targets are masks over its patches.

    Deviation, shared with lightly: the paper's code crops from 30 % of the area up, and does not flip.

    Args:
        size: Side of the view, in pixels.

    Source: Assran et al., 2023, arXiv:2301.08243; numbers: lightly's.

    >>> ijepa() == mae()
    True
    """
    return mae(size)


def probe(size: int = 224) -> Recipe:
    """One view for training on labels, such as a linear probe: a crop and a flip.

    Args:
        size: Side of the view, in pixels.

    Source: the usual one since Szegedy et al., 2015, arXiv:1409.4842; for linear probes He et al., 2019, arXiv:1911.05722.

    >>> probe()[0].crop.area
    (0.08, 1.0)
    """
    return (plain(Crop(size=size, area=(0.08, 1.0))),)


def evaluation(size: int = 224, keep: float = 0.875) -> Recipe:
    """One view that nothing is drawn for: the central square, resized and normalized.

    Args:
        size: Side of the view, in pixels.
        keep: Side of the square over the shorter side; 0.875 is the usual 224 of 256, 1 keeps all of a square image.

    >>> evaluation()[0].crop.keep
    0.875
    """
    return (View(crop=CenterCrop(size=size, keep=keep)),)


def resize(size: int = 224, interpolation: Interpolation = "bilinear") -> Recipe:
    """One view that nothing is drawn for: all of the image, resized to a square and normalized; its aspect is not kept.

    Args:
        size: Side of the view, in pixels.
        interpolation: "bilinear" or "bicubic".

    >>> resize(32)[0].size
    32
    """
    return (View(crop=Resize(size=size, interpolation=interpolation)),)


def box_blur(recipe: Recipe) -> Recipe:
    """The recipe with three box filters in place of each Gaussian: Pillow's blur, and so lightly's.

    For results that must be compared with lightly's; a true Gaussian is what the papers say.

    Args:
        recipe: Any views; those without blur stay as they are.

    >>> from fastssl.recipes import simclr
    >>> box_blur(simclr())[0].blur.kind
    'box'
    """
    return tuple(view if view.blur is None else view.with_(blur=replace(view.blur, kind="box")) for view in recipe)
