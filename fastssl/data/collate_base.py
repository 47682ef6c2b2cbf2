"""What collate functions that make the views have in common: a batch of images goes in, a batch of views comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastssl import ops
from fastssl._native import DecodeError
from fastssl.data.multi_view_collate import label, split_samples, stack
from fastssl.transforms.multi_view_transform import render_drawn, view_of
from fastssl.transforms.view import Recipe

__all__ = ["BaseCollateFunction", "CollateFunction", "MultiViewCollateFunction"]


class CollateFunction(nn.Module):
    """Makes views of every image of a batch; what is asked of them, and the reading of samples.

    What is drawn follows torch's generator: one key is drawn for each batch, so `torch.manual_seed` governs it, and in
    DataLoader workers the seed of the worker.

    Args:
        views: What normalizes is checked against dtype.
        dtype: Of the views: float32, float16, bfloat16, or uint8, which needs views that are not normalized. None: float32 from
            views of fastssl's own, and from any other transform what it returns.
        channels_last: Whether the views are stored channels last.
    """

    def __init__(self, views: Recipe, dtype: torch.dtype | None, channels_last: bool) -> None:
        super().__init__()
        who = type(self).__name__
        if dtype not in (None, torch.float32, torch.float16, torch.bfloat16, torch.uint8):
            raise ValueError(f"{who}: dtype={dtype} must be float32, float16, bfloat16 or uint8.")
        if dtype == torch.uint8 and any(view.normalize is not None for view in views):
            raise ValueError(
                f"{who}: dtype=torch.uint8 cannot hold normalized values; write normalize=None, and normalize on the device."
            )
        self.dtype = dtype
        self.channels_last = channels_last

    def split(self, batch: Sequence[Any]) -> tuple[list[Any], Tensor, list[str]]:
        """The images, targets and filenames of a batch."""
        who = type(self).__name__
        if len(batch) == 0:
            raise ValueError(f"{who}: the batch is empty, and needs at least one sample (image, target, filename).")
        return split_samples(who, batch)

    def pixels(self, images: Sequence[Any], filenames: list[str]) -> list[Tensor]:
        """Each image as (H, W, 3) uint8; errors name the sample."""
        return [_pixels(type(self).__name__, image, i, filenames) for i, image in enumerate(images)]

    @property
    def format(self) -> dict[str, Any]:
        """How views are rendered, as `render_drawn` takes it."""
        dtype = torch.float32 if self.dtype is None else self.dtype
        return {"dtype": dtype, "channels_last": self.channels_last, "batch": True}

    def make(self, transforms: Sequence[Any], images: list[Any], filenames: list[str]) -> list[Tensor]:
        """A batch of views for each transform: in one render call where all are of fastssl's own, else one view at a time."""
        views = [view_of(transform) for transform in transforms]
        recipe = tuple(view for view in views if view is not None)
        if recipe and len(recipe) == len(views):
            return render_drawn(self.pixels(images, filenames), recipe, **self.format)
        return [self._call(transform, images, filenames) for transform in transforms]

    def _call(self, transform: Callable[[Any], Any], images: list[Any], filenames: list[str]) -> Tensor:
        who = type(self).__name__
        views = [transform(image) for image in images]
        for i, view in enumerate(views):
            if not isinstance(view, Tensor):
                raise TypeError(
                    f"{who}: the transform made a {type(view).__name__} of sample {label(i, filenames)}, and must make "
                    "a tensor; end it with torchvision.transforms.ToTensor()."
                )
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        return stack(views, f"{who}: the view", filenames).to(dtype=self.dtype, memory_format=layout)


class BaseCollateFunction(CollateFunction):
    """Makes two views of every image of a batch with one transform.

    Args:
        transform: Makes a view of an image. A `ViewTransform`, such as `SimCLRViewTransform()`, is rendered for the
            whole batch in one call; any other callable that returns a tensor is called for every view.
        dtype, channels_last: As for `CollateFunction`.

    Raises:
        TypeError: transform is not callable.
        ValueError: dtype is none of these, or uint8 with a normalization.
    """

    def __init__(
        self, transform: Callable[[Any], Any], dtype: torch.dtype | None = None, channels_last: bool = False
    ) -> None:
        if not callable(transform):
            raise TypeError(
                f"{type(self).__name__}: transform={transform!r} must be callable; write for example "
                "SimCLRViewTransform(input_size=224)."
            )
        view = view_of(transform)
        super().__init__(() if view is None else (view,), dtype, channels_last)
        self.transform = transform

    def forward(self, batch: Sequence[Any]) -> tuple[tuple[Tensor, Tensor], Tensor, list[str]]:
        """Renders a batch.

        Args:
            batch: B samples `(image, target, filename)` or `(image, target)`. An image is a PIL image, a uint8 array
                (H, W, 3) or (H, W), a uint8 tensor (C, H, W), an encoded image as bytes, or a path; sizes may differ.

        Returns:
            The two views, each (B, 3, S, S); targets (B,) int64; filenames, [] for samples without.

        Raises:
            DecodeError: an image cannot be read.
            TypeError, ValueError: a sample or its image or target is not as above, or the batch is empty. All name the
                sample.
        """
        images, targets, filenames = self.split(batch)
        x0, x1 = self.make([self.transform, self.transform], images, filenames)
        return (x0, x1), targets, filenames


class MultiViewCollateFunction(CollateFunction):
    """Makes several views of every image of a batch, one with each transform; all in one call where they are fastssl's own.

    Args:
        transforms: Make a view of an image each, such as `SimCLRViewTransform()`, or any callables that return tensors.
        dtype, channels_last: As for `CollateFunction`.

    Raises:
        TypeError: transforms is not a sequence of callables.

    >>> import numpy as np
    >>> from fastssl.transforms import SimCLRViewTransform
    >>> collate = MultiViewCollateFunction([SimCLRViewTransform(32), SimCLRViewTransform(16)])
    >>> views, targets, filenames = collate([(np.zeros((40, 60, 3), np.uint8), 7, "a.jpg")])
    >>> [view.shape[-1] for view in views], targets, filenames
    ([32, 16], tensor([7]), ['a.jpg'])
    """

    def __init__(
        self,
        transforms: Sequence[Callable[[Any], Any]],
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
    ) -> None:
        if not isinstance(transforms, Sequence) or not transforms or not all(callable(part) for part in transforms):
            raise TypeError(
                f"{type(self).__name__}: transforms={transforms!r} must be a list of callables, one for each view."
            )
        views = [view_of(transform) for transform in transforms]
        super().__init__(tuple(view for view in views if view is not None), dtype, channels_last)
        self.transforms = transforms

    def forward(self, batch: Sequence[Any]) -> tuple[Any, Tensor, list[str]]:
        """Renders a batch, as `BaseCollateFunction.forward`, to a list of one (B, 3, S, S) for each transform."""
        images, targets, filenames = self.split(batch)
        return self.make(self.transforms, images, filenames), targets, filenames


def _pixels(who: str, image: Any, i: int, filenames: list[str]) -> Tensor:
    """The image as (H, W, 3) uint8; an error that names the sample where that fails."""
    try:
        return ops.to_image(image)
    except DecodeError as error:
        raise DecodeError(f"{who}: sample {label(i, filenames)}: {error}") from error
    except TypeError as error:
        raise TypeError(f"{who}: sample {label(i, filenames)}: {error}") from error
