"""Recipes with a step of their own: frequencies, and puzzles."""

from __future__ import annotations

from fastssl.transforms.frequency import FrequencySteps
from fastssl.transforms.geometry import Crop
from fastssl.transforms.recipes._parts import BYOL_COLOURS, coloured
from fastssl.transforms.view import Recipe, Step, View

__all__ = ["FREQUENCIES_FIRST", "fda", "pirl"]

FREQUENCIES_FIRST: tuple[Step, ...] = ("crop", "custom", "jitter", "grayscale", "blur", "solarize")


def fda(size: int = 224, strength: float = 1.0) -> Recipe:
    """Two views as in FDA: BYOL's colours after changes to the spectrum, whose Gaussian holes the first view alone has.

    Deviations: the flip belongs to the crop and so comes before the spectrum, in lightly after it; and values that leave
    [0, 1] are clamped, where lightly lets them wrap around at 8 bits.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter.

    Source: arXiv:2312.02205; numbers: lightly's.

    >>> [view.custom.holes_p for view in fda()]
    [0.2, 0.0]
    """
    crop = Crop(size=size, area=(0.08, 1.0))
    first = coloured("fda", crop, BYOL_COLOURS, strength=strength, blur=1.0)
    second = coloured("fda", crop, BYOL_COLOURS, strength=strength, blur=0.1)
    return (
        first.with_(custom=FrequencySteps(holes_p=0.2), order=FREQUENCIES_FIRST),
        second.with_(custom=FrequencySteps(holes_p=0.0), order=FREQUENCIES_FIRST),
    )


def pirl(size: int = 64, strength: float = 1.0) -> Recipe:
    """An image and the image of a puzzle, as in PIRL: a plain crop, and one with colours.

    `fastssl.transforms.jigsaw.shuffled_tiles` makes the puzzle of the second view. `PIRLTransform` and
    `PIRLCollateFunction`, which have only one image or one batch at a time to look after, draw colours for each tile anew.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter, at most 1.25.

    Source: Misra and van der Maaten, 2019, arXiv:1912.01991; numbers: lightly's.

    >>> plain, puzzle = pirl()
    >>> plain.flip is plain.jitter is None, puzzle.jitter.hue
    (True, 0.4)
    """
    crop = Crop(size=size, area=(0.08, 1.0))
    return (View(crop=crop), coloured("pirl", crop, (0.4, 0.4, 0.4, 0.4), strength=strength, blur=0.0))
