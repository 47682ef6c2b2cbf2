"""Puzzles of images: tiles in an order that is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastssl import ops
from fastssl.ops.shared import empty_batch
from fastssl.transforms.multi_view_transform import draw_plan, render_drawn
from fastssl.transforms.plan import Plan
from fastssl.transforms.torchvision_v2_compatibility import ToTensor
from fastssl.transforms.view import View

__all__ = ["Jigsaw", "render_puzzles", "shuffled_tiles"]


class Jigsaw:
    """Cuts an image into tiles, a random crop out of each cell of a grid, transforms each, and shuffles them.

    An image of another size than img_size is first resized to it, where lightly takes its upper left corner. What is drawn
    follows torch's generator, in lightly numpy's.

    Args:
        n_grid: Rows and columns of the grid.
        img_size: Side of the image, in pixels.
        crop_size: Side of the tiles, at most img_size // n_grid.
        transform: Makes a tensor of a tile, a PIL image.

    >>> Jigsaw(n_grid=2, img_size=8, crop_size=3)(Image.new("RGB", (8, 8))).shape
    torch.Size([4, 3, 3, 3])
    """

    def __init__(
        self,
        n_grid: int = 3,
        img_size: int = 255,
        crop_size: int = 64,
        transform: Callable[[Any], Tensor] = ToTensor(),  # noqa: B008
    ) -> None:
        if not 1 <= crop_size <= img_size // n_grid:
            raise ValueError(
                f"Jigsaw: crop_size={crop_size} must be from 1 to img_size // n_grid = {img_size} // {n_grid} = "
                f"{img_size // n_grid}, the side of a cell."
            )
        self.n_grid, self.img_size, self.crop_size = n_grid, img_size, crop_size
        self.transform = transform

    def __call__(self, img: Any) -> Tensor:
        """The shuffled tiles of an image.

        Args:
            img: As for `ViewTransform`.

        Returns:
            (n_grid * n_grid, C, crop_size, crop_size).
        """
        image = Image.fromarray(np.asarray(ops.to_image(img)))
        if image.size != (self.img_size, self.img_size):
            image = image.resize((self.img_size, self.img_size), Image.Resampling.BILINEAR)
        cell, count = self.img_size // self.n_grid, self.n_grid**2
        aside = torch.randint(cell - self.crop_size + 1, (count, 2)).tolist()
        tiles = []
        for k in torch.randperm(count).tolist():
            top = k // self.n_grid * cell + aside[k][0]
            left = k % self.n_grid * cell + aside[k][1]
            tiles.append(self.transform(image.crop((left, top, left + self.crop_size, top + self.crop_size))))
        return torch.stack(tiles)


def shuffled_tiles(views: Tensor, n_grid: int = 3) -> Tensor:
    """The tiles of each view, in an order of its own that torch's generator draws; the pixels left over are dropped.

    Args:
        views: (B, C, S, S).
        n_grid: Rows and columns of tiles.

    Returns:
        (B, n_grid * n_grid, C, S // n_grid, S // n_grid).

    Raises:
        ValueError: views has another number of dimensions, or fewer pixels than tiles.

    >>> shuffled_tiles(torch.arange(4.0).view(1, 1, 2, 2), 2).flatten().sort().values
    tensor([0., 1., 2., 3.])
    """
    if views.dim() != 4 or not 1 <= n_grid <= min(views.shape[2:]):
        raise ValueError(
            f"shuffled_tiles: views {tuple(views.shape)} must be (B, C, S, S), and n_grid={n_grid} from 1 to S."
        )
    batch, channels, height, width = views.shape
    rows, columns = height // n_grid, width // n_grid
    tiles = views[:, :, : rows * n_grid, : columns * n_grid].reshape(batch, channels, n_grid, rows, n_grid, columns)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(batch, n_grid**2, channels, rows, columns)
    order = torch.rand((batch, n_grid**2), device=views.device).argsort(dim=1)
    return tiles[torch.arange(batch, device=views.device)[:, None], order]


def render_puzzles(
    images: list[Tensor], view: View, tile: View, n_grid: int, *, batch: bool = False, **format: Any
) -> tuple[Tensor, Tensor]:
    """PIRL's views in one render call: a view, and the shuffled tiles of another crop, each tile with colours of its own.

    Args:
        images: (H, W, 3), uint8.
        view: The first view; the crop of the puzzle is drawn like its own.
        tile: What a tile is; of its crop only the size counts.
        n_grid: Rows and columns of tiles.
        batch, format: As for `render_drawn`: dtype and channels_last.

    Returns:
        (B, 3, S, S) and (B, n_grid * n_grid, 3, T, T), T being the size of `tile`.
    """
    count = n_grid**2
    drawn = draw_plan(images, (view, view) + (tile,) * count)
    plan = Plan(torch.cat([drawn.data[:, :1], drawn.data[:, 2:]], dim=1))
    order = torch.rand((len(images), count)).argsort(dim=1)
    whole = Plan(drawn.data[:, 1:2])  # the crop of the puzzle
    height, width = whole.height / n_grid, whole.width / n_grid
    tiles = Plan(plan.data[:, 1:])
    tiles.top = whole.top + order // n_grid * height
    tiles.left = whole.left + order % n_grid * width
    tiles.height = _within(tiles.top, height, whole.source_height)
    tiles.width = _within(tiles.left, width, whole.source_width)
    plain, *rendered = render_drawn(images, (view,) + (tile,) * count, plan=plan, batch=batch, **format)
    shape = (len(images), count, *rendered[0].shape[1:])
    out = empty_batch(shape, plain.dtype) if batch else torch.empty(shape, dtype=plain.dtype)
    return plain, torch.stack(rendered, dim=1, out=out)


def _within(start: Tensor, length: Tensor, extent: Tensor) -> Tensor:
    """The length, float32, cut by a rounding error where start + length would lie beyond the extent."""
    room = extent.double() - start.double()
    exact = torch.minimum(length.double().expand_as(start), room)
    rounded = exact.float()
    return torch.where(rounded.double() > room, torch.nextafter(rounded, torch.zeros(())), rounded)
