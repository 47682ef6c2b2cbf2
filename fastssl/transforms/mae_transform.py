"""MAE's view under lightly's name and arguments."""

from __future__ import annotations

from dataclasses import dataclass

from fastssl.transforms._arguments import NORMALIZE, Normalization, lightly_view
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform

__all__ = ["MAETransform"]


@dataclass(eq=False, repr=False)
class MAETransform(MultiViewTransform):
    """One view of an image as in MAE (arXiv:2111.06377), in a list: a bicubic crop and a flip.

    Args:
        input_size: Side of the view, in pixels.
        min_scale: Smallest part of the image's area that a crop keeps, in (0, 1].
        normalize: {"mean": [r, g, b], "std": [r, g, b]} for values in [0, 1]; None leaves them there.

    >>> import torch
    >>> len(MAETransform(32)(torch.zeros(3, 60, 40, dtype=torch.uint8)))
    1
    """

    input_size: int | tuple[int, int] = 224
    min_scale: float = 0.2
    normalize: Normalization = NORMALIZE

    def __post_init__(self) -> None:
        super().__init__([ViewTransform(lightly_view(self, {"hf_prob": 0.5}, interpolation="bicubic"))])
