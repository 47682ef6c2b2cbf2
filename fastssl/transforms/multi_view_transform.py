"""Transforms of one image, as lightly and torchvision use them inside a dataset: thin names for views and recipes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastssl import ops
from fastssl.ops.shared import empty_batch
from fastssl.transforms.keys import seed_from_torch
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import View

__all__ = ["MultiViewTransform", "ViewTransform", "draw_plan", "render_drawn", "takes_encoded", "view_of"]


class ViewTransform:
    """Turns an image into one view.

    A `View` as something to call: for the `transform` of a dataset, for `MultiViewTransform`, or inside
    `torchvision.transforms.Compose`. What is drawn follows torch's generator, and so `torch.manual_seed` and the seeds
    of DataLoader workers.

    Args:
        view: What to draw and do.

    Raises:
        TypeError: view is not a View.

    >>> from fastssl.transforms.view import Crop, View
    >>> transform = ViewTransform(View(crop=Crop(size=8), normalize=None))
    >>> transform(torch.full((3, 20, 30), 255, dtype=torch.uint8)).shape
    torch.Size([3, 8, 8])
    """

    def __init__(self, view: View) -> None:
        if not isinstance(view, View):
            raise TypeError(
                f"ViewTransform: view is a {type(view).__name__}, and must be a View; write for example "
                "View(crop=Crop(size=224)), or take one out of a recipe: fastssl.recipes.simclr(224)[0]."
            )
        self.view = view

    def __call__(self, image: Any) -> Tensor:
        """One view of the image.

        Args:
            image: A PIL image, a uint8 array (H, W, 3) or (H, W), a uint8 tensor (C, H, W), an encoded image as bytes,
                or a path.

        Returns:
            The view, (3, S, S), float32.

        Raises:
            DecodeError: the bytes or the file hold no image that can be read.
        """
        return render_drawn([ops.to_image(image)], (self.view,))[0][0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.view!r})"


class MultiViewTransform:
    """Turns an image into several views, one for each transform.

    Views of fastssl's own (`ViewTransform` and what derives from it) are rendered together, in one call and from one
    decoded image; any other callables are called one after the other, as in lightly.

    Args:
        transforms: What makes each view: any callables that take an image.

    Raises:
        TypeError: transforms is not a sequence of callables.

    >>> from fastssl import recipes
    >>> two = MultiViewTransform([ViewTransform(view) for view in recipes.simclr(size=8)])
    >>> [view.shape for view in two(torch.zeros(3, 20, 30, dtype=torch.uint8))]
    [torch.Size([3, 8, 8]), torch.Size([3, 8, 8])]
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        if not isinstance(transforms, Sequence) or not all(callable(transform) for transform in transforms):
            raise TypeError(
                f"{type(self).__name__}: transforms={transforms!r} must be a sequence of callables, one for each view; "
                "for one view write [transform]."
            )
        self.transforms = transforms

    def __call__(self, image: Any) -> list[Any]:
        """The views of the image, in the order of the transforms.

        Args:
            image: What the transforms take; see `ViewTransform`.

        Returns:
            A list of what each transform gives: for fastssl's own, float32 tensors (3, S, S).
        """
        views = [view_of(transform) for transform in self.transforms]
        recipe = tuple(view for view in views if view is not None)
        if not recipe or len(recipe) < len(views):
            return [transform(image) for transform in self.transforms]
        return [view[0] for view in render_drawn([ops.to_image(image)], recipe)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.transforms)!r})"


def draw_plan(images: Sequence[Tensor], recipe: tuple[View, ...]) -> Plan:
    """Draws a plan for images (H, W, 3) with a key from torch's default generator."""
    return Plan.draw(recipe, [(image.shape[0], image.shape[1]) for image in images], seed=seed_from_torch())


def render_drawn(
    images: Sequence[Tensor],
    recipe: tuple[View, ...],
    *,
    plan: Plan | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    batch: bool = False,
) -> list[Tensor]:
    """Draws a plan and renders all views of all images in one call.

    Args:
        images: (H, W, 3) uint8 each, of any sizes.
        recipe: The V views.
        plan: What was drawn; None for `draw_plan`.
        dtype: Of the views.
        channels_last: Whether the views are stored channels last.
        batch: Whether the result leaves a DataLoader's worker as it is, so that it had better be in shared memory.

    Returns:
        V tensors (B, 3, S, S), B the number of images.
    """
    plan = draw_plan(images, recipe) if plan is None else plan
    out = None
    count, channels = len(images), images[0].shape[2] if images else 3
    if batch and channels_last:
        out = [empty_batch((count, v.size, v.size, channels), dtype).permute(0, 3, 1, 2) for v in recipe]
    elif batch:
        out = [empty_batch((count, channels, v.size, v.size), dtype) for v in recipe]
    return ops.render(images, plan, recipe, dtype=dtype, channels_last=channels_last, out=out)


def view_of(transform: object) -> View | None:
    """The view that calling `transform` renders, or None where it does anything else.

    A subclass that overrides `__call__` does something else, even if it calls its parent in the end.
    """
    if isinstance(transform, ViewTransform) and type(transform).__call__ is ViewTransform.__call__:
        return transform.view
    return None


def takes_encoded(transform: object) -> bool:
    """Whether `transform` takes a path or encoded bytes as well as an image, so that a dataset need not decode."""
    if isinstance(transform, MultiViewTransform) and type(transform).__call__ is MultiViewTransform.__call__:
        return len(transform.transforms) > 0 and all(takes_encoded(part) for part in transform.transforms)
    return view_of(transform) is not None
