"""Where views lie in their images: coordinates of cells, as dense methods need, and masks that follow a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fastssl.transforms._checks import number
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Recipe

__all__ = ["crop_grids", "warp_masks"]


def crop_grids(plan: Plan, rows: int, columns: int, *, spacing: Literal["cells", "lightly"] = "cells") -> Tensor:
    """The place in the image of the centre of each cell of each view, for matching features of views by where they are.

    Mirrored with the view: entry [b, v, i, j] belongs to what row i and column j of the view's feature map show.

    Args:
        plan: What was drawn, for B images and V views; `batch.params`.
        rows, columns: Of the feature map: 7 and 7 for a ResNet on 224 pixels.
        spacing: "cells": the centres of equal cells that fill the crop, as in VICRegL's own code. "lightly": what lightly's
            `RandomResizedCropAndFlip` gives, of which the last row and column lie outside of the crop.

    Returns:
        (B, V, rows, columns, 2), float32: x and y in pixels of the source, from its left and upper edge.

    Raises:
        ValueError: rows or columns is no count, the spacing is unknown, or a view is rotated, where cells are no grid.

    Source: Bardes et al., VICRegL, 2022, arXiv:2210.01571, section 3.

    >>> from fastssl.recipes import evaluation
    >>> crop_grids(Plan.draw(evaluation(32, keep=1.0), [(40, 60)], seed=0), 2, 1).flatten(0, 3)
    tensor([[30., 10.],
            [30., 30.]])
    """
    for name, count in (("rows", rows), ("columns", columns)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"crop_grids: {name}={count!r} must be a whole number of cells, from 1 up.")
    if spacing not in ("cells", "lightly"):
        raise ValueError(f'crop_grids: spacing={spacing!r} must be "cells" or "lightly".')
    if bool((plan.angle != 0).any()):
        raise ValueError("crop_grids: a view of the plan is rotated by a free angle; leave Rotate out of the recipe.")
    turns = plan.turns.long() % 4
    if rows != columns and bool((turns % 2 != 0).any()):
        raise ValueError(f"crop_grids: a view is turned, so rows={rows} and columns={columns} must be equal.")
    x = _centres(plan.left, plan.width, columns, spacing)  # (B, V, columns)
    y = _centres(plan.top, plan.height, rows, spacing)
    x = torch.where(plan.flip_h[..., None] != 0, x.flip(-1), x)
    y = torch.where(plan.flip_v[..., None] != 0, y.flip(-1), y)
    shape = (*x.shape[:2], rows, columns)
    grid = torch.stack([x[:, :, None, :].expand(shape), y[:, :, :, None].expand(shape)], dim=-1)
    for quarter in range(1, 4):
        which = turns == quarter
        if which.any():
            grid[which] = grid[which].rot90(quarter, (1, 2))
    return grid


def _centres(start: Tensor, length: Tensor, count: int, spacing: str) -> Tensor:
    """(B, V, count) from (B, V)."""
    step = torch.arange(count, dtype=torch.float32)
    if spacing == "cells":
        part = (step + 0.5) / count
    else:
        part = step / max(count - 1, 1) + 0.5 / count
    return start[..., None] + length[..., None] * part


def warp_masks(masks: Sequence[Tensor] | Tensor, plan: Plan, recipe: Recipe, *, fill: float = 0) -> list[Tensor]:
    """Masks and label maps, cropped, resized, mirrored, turned and rotated as a plan says, to lie upon the views.

    Each pixel of a view takes the value at the pixel of the mask in which its centre lies, so that labels stay labels. (The
    "nearest" of torchvision's masks takes the value at its upper left corner, up to half a pixel of the view aside.)

    Args:
        masks: B masks of the images' sizes, (H, W) or (C, H, W), any type, all of one number of channels.
        plan: What was drawn, for B images and V views; `batch.params`.
        recipe: The V views.
        fill: What a rotation brings in from outside.

    Returns:
        V tensors (B, S, S) or (B, C, S, S), of the masks' type, S being the view's size.

    Raises:
        ValueError: Numbers or sizes of masks, plan and recipe do not go together.
        TypeError: A mask is no tensor.

    >>> from fastssl.recipes import evaluation
    >>> mask = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    >>> recipe = evaluation(2, keep=1.0)
    >>> warp_masks([mask], Plan.draw(recipe, [(2, 4)], seed=0), recipe)[0]
    tensor([[[2, 3],
             [6, 7]]])
    """
    images, views = plan.data.shape[:2]
    if len(masks) != images or len(recipe) != views:
        raise ValueError(
            f"warp_masks: got {len(masks)} masks and {len(recipe)} views; the plan is for {images} images and {views} views."
        )
    _check_masks(masks, plan)
    if not number(fill):
        raise ValueError(f"warp_masks: fill={fill!r} must be a number.")
    rows = plan.data.double()
    out = []
    for v, view in enumerate(recipe):
        warped = [_warp(mask, Plan.FIELDS, rows[b, v], view.size, fill) for b, mask in enumerate(masks)]
        channels = masks[0].shape[:-2] if len(masks) else ()
        out.append(torch.stack(warped) if warped else torch.empty((0, *channels, view.size, view.size)))
    return out


def _check_masks(masks: Sequence[Tensor] | Tensor, plan: Plan) -> None:
    for b, mask in enumerate(masks):
        if not isinstance(mask, Tensor):
            raise TypeError(
                f"warp_masks: mask {b} is a {type(mask).__name__}, and must be a tensor; torch.as_tensor makes one."
            )
        size = (int(plan.source_height[b, 0]), int(plan.source_width[b, 0]))
        if mask.dim() not in (2, 3) or tuple(mask.shape[-2:]) != size:
            raise ValueError(
                f"warp_masks: mask {b} is {tuple(mask.shape)}, and its image was {size}; a mask is (H, W) or (C, H, W) of "
                "that size."
            )
        if mask.shape[:-2] != masks[0].shape[:-2] or mask.dtype != masks[0].dtype:
            raise ValueError(
                f"warp_masks: mask {b} is {tuple(mask.shape)} {mask.dtype}, and mask 0 {tuple(masks[0].shape)} "
                f"{masks[0].dtype}; masks need one number of channels and one type."
            )


def _warp(mask: Tensor, fields: tuple[str, ...], row: Tensor, size: int, fill: float) -> Tensor:
    """One mask as one view shows it: back from each pixel of the view to the pixel of the mask."""
    drawn: dict[str, Any] = dict(zip(fields, row.tolist(), strict=True))
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    outside = None
    if drawn["angle"]:
        angle = torch.deg2rad(torch.tensor(drawn["angle"], dtype=torch.float64))
        middle = (size - 1) / 2
        down, right = y.double() - middle, x.double() - middle
        # Counter-clockwise with y down; back is clockwise.
        x = (right * angle.cos() - down * angle.sin() + middle).round().long()
        y = (right * angle.sin() + down * angle.cos() + middle).round().long()
        outside = (x < 0) | (x >= size) | (y < 0) | (y >= size)
        x, y = x.clamp(0, size - 1), y.clamp(0, size - 1)
    for _ in range(int(drawn["turns"]) % 4):
        y, x = x, size - 1 - y
    if drawn["flip_v"]:
        y = size - 1 - y
    if drawn["flip_h"]:
        x = size - 1 - x
    at_y = _source(y, drawn["top"], drawn["height"], size, mask.shape[-2])
    at_x = _source(x, drawn["left"], drawn["width"], size, mask.shape[-1])
    warped = mask[..., at_y, at_x]
    return warped if outside is None else warped.masked_fill(outside, fill)


def _source(place: Tensor, start: float, length: float, size: int, limit: int) -> Tensor:
    """The pixel of the source under the middle of each pixel of the crop."""
    return (start + (place.double() + 0.5) * length / size).floor().long().clamp(0, limit - 1)
