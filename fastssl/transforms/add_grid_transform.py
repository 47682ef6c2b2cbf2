"""Masks and boxes of a regular grid, under lightly's name."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Mask

__all__ = ["AddGridTransform", "grid_mask"]


class AddGridTransform(v2.Transform):
    """Puts a regular grid in the place of masks, as labels of its cells, and of boxes, as one box a cell.

    Args:
        num_rows, num_cols: Of the grid.

    Source: the regions of DetCon's simplest variant: Hénaff et al., 2021, arXiv:2103.10957.

    >>> AddGridTransform(num_rows=1, num_cols=2)(Mask(torch.zeros(2, 4, dtype=torch.int64))).tolist()
    [[[0, 0, 1, 1], [0, 0, 1, 1]]]
    """

    def __init__(self, num_rows: int, num_cols: int) -> None:
        super().__init__()
        for name, count in (("num_rows", num_rows), ("num_cols", num_cols)):
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ValueError(f"AddGridTransform: {name}={count!r} must be a whole number, from 1 up.")
        self.num_rows, self.num_cols = num_rows, num_cols

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """A grid for a mask or for boxes; anything else as it is. torchvision calls it."""
        if isinstance(inpt, BoundingBoxes):
            return self._boxes(inpt)
        if isinstance(inpt, Mask):
            if inpt.dim() < 2:
                raise ValueError(f"AddGridTransform: a mask has {inpt.dim()} dimensions, and must have (..., H, W).")
            labels = grid_mask(self.num_rows, self.num_cols, (inpt.shape[-2], inpt.shape[-1]))
            return Mask(labels[None].to(inpt.dtype).to(inpt.device))
        return inpt

    def _boxes(self, like: BoundingBoxes) -> Any:
        height, width = like.canvas_size
        x, y = torch.linspace(0, width, self.num_cols + 1), torch.linspace(0, height, self.num_rows + 1)
        left, top = torch.meshgrid(x[:-1], y[:-1], indexing="ij")
        right, bottom = torch.meshgrid(x[1:], y[1:], indexing="ij")
        corners = torch.stack([left, top, right, bottom], dim=-1).view(-1, 4)
        boxes = BoundingBoxes(corners.to(like.dtype).to(like.device), format="XYXY", canvas_size=like.canvas_size)
        return v2.ConvertBoundingBoxFormat(like.format)(boxes)


def grid_mask(num_rows: int, num_cols: int, size: tuple[int, int]) -> Tensor:
    """(H, W), int64: the cell of each pixel, counted along the rows.

    Cells have the size that the largest need; where they do not fill the image, those at its border are cut alike on both sides.
    """
    labels = []
    for length, count in zip(size, (num_rows, num_cols), strict=True):
        cell = ceil(length / count)
        skipped = round((cell * count - length) / 2.0)
        labels.append((torch.arange(length) + skipped) // cell)
    return labels[0][:, None] * num_cols + labels[1]
