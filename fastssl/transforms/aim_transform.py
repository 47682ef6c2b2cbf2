"""AIM's view under lightly's name and arguments."""

from __future__ import annotations

from dataclasses import dataclass

from fastssl.transforms.mae_transform import MAETransform

__all__ = ["AIMTransform"]


@dataclass(eq=False, repr=False)
class AIMTransform(MAETransform):
    """One view of an image as in AIM (arXiv:2401.08541), in a list; arguments as for `MAETransform`.

    >>> AIMTransform().transforms[0].view.crop.area
    (0.4, 1.0)
    """

    min_scale: float = 0.4
