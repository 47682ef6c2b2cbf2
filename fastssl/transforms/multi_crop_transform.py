"""Crops of several sizes before any transform, under lightly's name and arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torchvision.transforms import v2

from fastssl.transforms._arguments import check_lengths
from fastssl.transforms.geometry import Crop
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.uncropped import UncroppedTransform

__all__ = ["MultiCropTranform", "MultiCropTransform"]


class MultiCropTransform(MultiViewTransform):
    """Views of an image of several sizes: a random resized crop of each, then one transform.

    Args:
        crop_sizes: Sides of each kind of view, in pixels.
        crop_counts: Number of views of each kind.
        crop_min_scales, crop_max_scales: Smallest and largest part of the image's area that a crop of each kind keeps.
        transforms: What happens to the crops. With `SwaVViewTransform` or `VICRegLViewTransform` all is rendered in one call;
            any other callable gets the crops of torchvision, one after the other.

    Raises:
        ValueError: The lists differ in length, or an area is out of its range.

    >>> from fastssl.transforms import SwaVViewTransform
    >>> len(MultiCropTransform((32, 16), (2, 3), (0.5, 0.1), (1.0, 0.5), SwaVViewTransform()).transforms)
    5
    """

    def __init__(
        self,
        crop_sizes: Sequence[int],
        crop_counts: Sequence[int],
        crop_min_scales: Sequence[float],
        crop_max_scales: Sequence[float],
        transforms: Callable[[Any], Any],
    ) -> None:
        who = type(self).__name__
        check_lengths(
            who,
            len(crop_sizes),
            crop_counts=crop_counts,
            crop_min_scales=crop_min_scales,
            crop_max_scales=crop_max_scales,
        )
        views: list[Callable[[Any], Any]] = []
        for size, count, low, high in zip(crop_sizes, crop_counts, crop_min_scales, crop_max_scales, strict=True):
            if isinstance(transforms, UncroppedTransform):
                views += [ViewTransform(transforms.cropped(Crop(size=size, area=(low, high))))] * count
            else:
                views += [v2.Compose([v2.RandomResizedCrop(size, scale=(low, high)), transforms])] * count
        super().__init__(views)


# lightly's spelling.
MultiCropTranform = MultiCropTransform
