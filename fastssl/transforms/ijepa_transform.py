"""I-JEPA's view under lightly's name and arguments."""

from __future__ import annotations

from dataclasses import dataclass

from fastssl.transforms._arguments import NORMALIZE, Normalization, lightly_view
from fastssl.transforms.multi_view_transform import ViewTransform

__all__ = ["IJEPATransform"]


@dataclass(eq=False, repr=False)
class IJEPATransform(ViewTransform):
    """One view of an image for I-JEPA (arXiv:2301.08243), a tensor and no list, as in lightly; arguments as for `MAETransform`.

    >>> import torch
    >>> IJEPATransform(32)(torch.zeros(3, 60, 40, dtype=torch.uint8)).shape
    torch.Size([3, 32, 32])
    """

    input_size: int | tuple[int, int] = 224
    min_scale: float = 0.2
    normalize: Normalization = NORMALIZE

    def __post_init__(self) -> None:
        super().__init__(lightly_view(self, {"hf_prob": 0.5}, interpolation="bicubic"))
