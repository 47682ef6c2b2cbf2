"""Views with the grids that tell where they lie, under lightly's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from fastssl import ops
from fastssl.transforms.grids import crop_grids
from fastssl.transforms.multi_view_transform import draw_plan
from fastssl.transforms.plan import Plan
from fastssl.transforms.random_crop_and_flip_with_grid import RandomResizedCropAndFlip
from fastssl.transforms.uncropped import UncroppedTransform
from fastssl.transforms.view import View

__all__ = ["ImageGridTransform", "grid_view", "grids_of"]

Pair = tuple[Callable[[Any], tuple[Any, Tensor]], Callable[[Any], Any]]


class ImageGridTransform:
    """Views of an image and their grids, in one list: first all views, then all grids.

    Pairs of a `RandomResizedCropAndFlip` and a `VICRegLViewTransform` are rendered together, in one call; any other callables
    are called one after the other.

    Args:
        transforms: For each view a transform that makes a crop and its grid, and one that makes the view of the crop.

    >>> import torch
    >>> from fastssl.transforms import VICRegLViewTransform
    >>> pair = (RandomResizedCropAndFlip(grid_size=3, crop_size=16), VICRegLViewTransform())
    >>> view, grid = ImageGridTransform([pair])(torch.zeros(3, 60, 40, dtype=torch.uint8))
    >>> view.shape, grid.shape
    (torch.Size([3, 16, 16]), torch.Size([3, 3, 2]))
    """

    def __init__(self, transforms: Sequence[Pair]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> list[Any]:
        """The views of the image, and then the grid of each.

        Args:
            image: What the transforms take; see `ViewTransform`.

        Returns:
            For fastssl's own: V tensors (3, S, S), then V tensors (N, N, 2), both float32.
        """
        views = [grid_view(*pair) for pair in self.transforms]
        recipe = tuple(view for view in views if view is not None)
        if not recipe or len(recipe) < len(views):
            pairs = [(self_grid(image), view) for self_grid, view in self.transforms]
            return [view(crop) for (crop, _), view in pairs] + [grid for (_, grid), _ in pairs]
        pixels = [ops.to_image(image)]
        plan = draw_plan(pixels, recipe)
        rendered = ops.render(pixels, plan, recipe)
        grids = grids_of(plan, [pair[0].grid_size for pair in self.transforms])  # type: ignore[attr-defined]
        return [view[0] for view in rendered] + [grid[0] for grid in grids]


def grid_view(crop: object, after: object) -> View | None:
    """The view that a pair of transforms makes, or None where it is not of fastssl's own."""
    ours = (
        type(crop).forward is RandomResizedCropAndFlip.forward if isinstance(crop, RandomResizedCropAndFlip) else False
    )
    if not ours or not isinstance(after, UncroppedTransform) or type(after).__call__ is not UncroppedTransform.__call__:
        return None
    base = crop.view  # type: ignore[attr-defined]
    return after.cropped(base.crop, base.flip, base.vflip)


def grids_of(plan: Plan, cells: Sequence[int]) -> list[Tensor]:
    """The grid of each view, (B, N, N, 2), with lightly's spacing."""
    return [crop_grids(Plan(plan.data[:, v : v + 1]), n, n, spacing="lightly")[:, 0] for v, n in enumerate(cells)]
