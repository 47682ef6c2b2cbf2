"""CAPI's view under lightly's name and arguments."""

from __future__ import annotations

from dataclasses import dataclass

from fastssl.transforms.mae_transform import MAETransform

__all__ = ["CAPITransform"]


@dataclass(eq=False, repr=False)
class CAPITransform(MAETransform):
    """One view of an image as in CAPI (arXiv:2502.08769), in a list; arguments as for `MAETransform`.

    >>> CAPITransform().transforms[0].view.crop.area
    (0.6, 1.0)
    """

    min_scale: float = 0.6
