"""Crops that tell where they lie, under lightly's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from fastssl import ops
from fastssl.transforms.geometry import Crop, Flip
from fastssl.transforms.grids import crop_grids
from fastssl.transforms.multi_view_transform import draw_plan
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import View

__all__ = [
    "Location",
    "RandomHorizontalFlipWithLocation",
    "RandomResizedCropAndFlip",
    "RandomResizedCropWithLocation",
    "RandomVerticalFlipWithLocation",
]


@dataclass
class Location:
    """Where a crop lies, in pixels of its image, and whether it was mirrored."""

    top: float
    left: float
    height: float
    width: float
    image_height: float
    image_width: float
    horizontal_flip: bool = False
    vertical_flip: bool = False


class RandomResizedCropWithLocation(v2.RandomResizedCrop):
    """torchvision's RandomResizedCrop, which tells the `Location` too."""

    def forward(self, img: Any) -> tuple[Any, Location]:
        """The crop of the image, and its location."""
        width, height = functional.get_size(img)[::-1]
        box = self.make_params([img])
        location = Location(box["top"], box["left"], box["height"], box["width"], height, width)
        return self.transform(img, box), location


class RandomHorizontalFlipWithLocation(v2.RandomHorizontalFlip):
    """torchvision's RandomHorizontalFlip, which notes in the `Location` that it happened."""

    def forward(self, img: Any, location: Location) -> tuple[Any, Location]:
        """The image, mirrored or not, and its location, changed in place."""
        if torch.rand(1) < self.p:
            img, location.horizontal_flip = functional.horizontal_flip(img), True
        return img, location


class RandomVerticalFlipWithLocation(v2.RandomVerticalFlip):
    """torchvision's RandomVerticalFlip, which notes in the `Location` that it happened."""

    def forward(self, img: Any, location: Location) -> tuple[Any, Location]:
        """The image, mirrored or not, and its location, changed in place."""
        if torch.rand(1) < self.p:
            img, location.vertical_flip = functional.vertical_flip(img), True
        return img, location


class RandomResizedCropAndFlip(nn.Module):
    """A random resized crop with flips, and the grid of where its cells lie.

    Args:
        grid_size: Rows and columns of the grid.
        crop_size: Side of the crop, in pixels.
        crop_min_scale, crop_max_scale: Smallest and largest part of the image's area that the crop keeps.
        hf_prob, vf_prob: Probabilities of the flips.

    >>> crop, grid = RandomResizedCropAndFlip(grid_size=3, crop_size=16)(Image.new("RGB", (60, 40)))
    >>> crop.size, grid.shape
    ((16, 16), torch.Size([3, 3, 2]))
    """

    def __init__(
        self,
        grid_size: int = 7,
        crop_size: int = 224,
        crop_min_scale: float = 0.05,
        crop_max_scale: float = 0.2,
        hf_prob: float = 0.5,
        vf_prob: float = 0.5,
    ) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.crop_size = crop_size
        self.crop_min_scale, self.crop_max_scale = crop_min_scale, crop_max_scale
        self.hf_prob, self.vf_prob = hf_prob, vf_prob
        self.view = View(
            crop=Crop(size=crop_size, area=(crop_min_scale, crop_max_scale)),
            flip=Flip(p=hf_prob) if hf_prob else None,
            vflip=Flip(p=vf_prob) if vf_prob else None,
            normalize=None,
        )

    def forward(self, img: Any) -> tuple[Image.Image, Tensor]:
        """The crop, a PIL image, and its grid.

        Args:
            img: As for `ViewTransform`.

        Returns:
            The crop and (grid_size, grid_size, 2), float32: x and y in pixels of the image, mirrored with the crop, with
            lightly's spacing; see `crop_grids`.
        """
        pixels = [ops.to_image(img)]
        plan = draw_plan(pixels, (self.view,))
        crop = ops.render(pixels, plan, (self.view,), dtype=torch.uint8, channels_last=True)[0][0]
        grid = crop_grids(plan, self.grid_size, self.grid_size, spacing="lightly")[0, 0]
        return Image.fromarray(crop.permute(1, 2, 0).numpy()), grid

    def location_to_NxN_grid(self, location: Location) -> Tensor:
        """The grid of a location, (grid_size, grid_size, 2), with lightly's spacing."""
        plan = Plan(torch.zeros((1, 1, len(Plan.FIELDS)), dtype=torch.float32))
        plan.top, plan.left = location.top, location.left
        plan.height, plan.width = location.height, location.width
        plan.flip_h, plan.flip_v = float(location.horizontal_flip), float(location.vertical_flip)
        return crop_grids(plan, self.grid_size, self.grid_size, spacing="lightly")[0, 0]
