"""Where views lie in their images: grids of cells, and masks that follow a plan."""

from __future__ import annotations

import dropin
import images
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from fastssl import ops, recipes
from fastssl.transforms import (
    CenterCrop,
    Crop,
    Flip,
    Plan,
    QuarterTurn,
    Resize,
    Rotate,
    SameCrop,
    View,
    crop_grids,
    warp_masks,
)

FLIPS = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]


def plan_of(view: View, sizes: list[tuple[int, int]], seed: int = 0) -> Plan:
    return Plan.draw((view,), sizes, seed=seed)


# Grids


@pytest.mark.parametrize("flip_h, flip_v", FLIPS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_grids_are_lightlys_for_the_same_crop_and_flips(flip_h, flip_v, size):
    dropin.lightly()
    from lightly.transforms.random_crop_and_flip_with_grid import Location, RandomResizedCropAndFlip

    view = View(crop=Crop(size=16), flip=Flip(p=flip_h), vflip=Flip(p=flip_v))
    plan = plan_of(view, [(40 + i, 90 - i) for i in range(20)])
    grids = crop_grids(plan, size, size, spacing="lightly")
    assert grids.shape == (20, 1, size, size, 2)
    transform = RandomResizedCropAndFlip(grid_size=size)
    for b in range(20):
        top, left, height, width = plan.crop[b, 0].tolist()
        location = Location(top, left, height, width, 40 + b, 90 - b, bool(flip_h), bool(flip_v))
        expected = transform.location_to_NxN_grid(location)
        # Two roundings of float32 at coordinates of up to 2 * 90 pixels.
        assert (grids[b, 0] - expected).abs().max() <= 2 * 180 * torch.finfo(torch.float32).eps


def test_a_crops_own_class_gives_lightlys_grid():
    dropin.lightly()
    from lightly.transforms.random_crop_and_flip_with_grid import RandomResizedCropAndFlip as Theirs

    from fastssl.transforms.random_crop_and_flip_with_grid import Location, RandomResizedCropAndFlip

    location = Location(3, 5, 20, 30, 60, 80, horizontal_flip=True)
    ours = RandomResizedCropAndFlip(grid_size=4).location_to_NxN_grid(location)
    torch.testing.assert_close(ours, Theirs(grid_size=4).location_to_NxN_grid(location))


def coordinates(height: int, width: int) -> torch.Tensor:
    """An image whose red is x and whose green is y, both in sixteenths of a level."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)[None, :] * 2
    pixels[..., 1] = np.arange(height)[:, None] * 2
    return torch.from_numpy(pixels)


@pytest.mark.parametrize(
    "parts",
    [{}, {"flip": Flip(p=1.0)}, {"vflip": Flip(p=1.0)}, {"turn": QuarterTurn(p=1.0)},
     {"flip": Flip(p=1.0), "vflip": Flip(p=0.5), "turn": QuarterTurn(p=0.5)}],
    ids=["plain", "flip", "vflip", "turn", "all"],
)  # fmt: skip
def test_cells_have_the_coordinates_that_the_view_shows(parts):
    view = View(crop=Crop(size=32, area=(0.3, 1.0)), normalize=None, **parts)
    pixels = [coordinates(80, 100)] * 12
    plan = plan_of(view, [(80, 100)] * 12)
    shown = ops.render(pixels, plan, (view,))[0][:, :2] * 255 / 2 + 0.5  # a pixel's middle is half a pixel in
    cells = shown.unfold(2, 8, 8).unfold(3, 8, 8).mean(dim=(4, 5)).permute(0, 2, 3, 1)
    # A view is antialiased, and at the border its filter is cut off: half a pixel of up to 3 of the source, halved by the mean.
    assert (crop_grids(plan, 4, 4)[:, 0] - cells).abs().max() <= 0.75


def test_grids_may_have_more_columns_than_rows():
    plan = plan_of(View(crop=Resize(size=8)), [(30, 80)])
    grid = crop_grids(plan, 3, 4)[0, 0]
    assert grid[:, 0, 1].tolist() == [5.0, 15.0, 25.0]
    assert grid[0, :, 0].tolist() == [10.0, 30.0, 50.0, 70.0]


def test_cells_of_views_that_share_a_crop_are_the_same():
    recipe = (View(crop=Crop(size=16), flip=Flip()), View(crop=SameCrop(size=8, of=0)))
    grids = crop_grids(Plan.draw(recipe, [(50, 70)] * 9, seed=1), 5, 5)
    assert torch.equal(grids[:, 0], grids[:, 1])


def test_wrong_arguments_of_grids_are_named():
    plan = plan_of(View(crop=Crop(size=8), turn=QuarterTurn(p=1.0)), [(30, 30)])
    with pytest.raises(ValueError, match="rows=0"):
        crop_grids(plan, 0, 3)
    with pytest.raises(ValueError, match=r"columns=2\.5"):
        crop_grids(plan, 3, 2.5)
    with pytest.raises(ValueError, match="spacing='even'"):
        crop_grids(plan, 3, 3, spacing="even")
    with pytest.raises(ValueError, match="must be equal"):
        crop_grids(plan, 3, 4)
    with pytest.raises(ValueError, match="free angle"):
        crop_grids(plan_of(View(crop=Crop(size=8), rotate=Rotate(p=1.0, degrees=(5, 9))), [(30, 30)]), 3, 3)


# Masks


def warped_by_torchvision(mask: torch.Tensor, plan: Plan, b: int, size: int) -> torch.Tensor:
    """The same with torchvision, one operation after the other."""
    top, left, height, width = (int(v) for v in plan.crop[b, 0])
    cropped = functional.crop(mask, top, left, height, width)[None].float()
    out = torch.nn.functional.interpolate(cropped, (size, size), mode="nearest-exact")[0]
    if plan.flip_h[b, 0]:
        out = out.flip(2)
    if plan.flip_v[b, 0]:
        out = out.flip(1)
    return out.rot90(int(plan.turns[b, 0]), (1, 2)).to(mask.dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_masks_are_what_torchvision_makes_of_them(dtype):
    view = View(crop=Crop(size=24), flip=Flip(), vflip=Flip(), turn=QuarterTurn())
    masks = [torch.randint(0, 9, (2, 40 + i, 60 - i)).to(dtype) for i in range(16)]
    plan = plan_of(view, [tuple(mask.shape[1:]) for mask in masks])
    (out,) = warp_masks(masks, plan, (view,))
    assert (out.shape, out.dtype) == ((16, 2, 24, 24), dtype)
    for b, mask in enumerate(masks):
        # Where a middle falls between two pixels, float32 there and float64 here may part: at most one row and column.
        assert (out[b] == warped_by_torchvision(mask, plan, b, 24)).float().mean() >= 1 - 2 / 24


@pytest.mark.parametrize("degrees", [(30.0, 30.0), (-75.0, -75.0), (180.0, 180.0)])
def test_masks_rotate_with_their_images(degrees):
    # A mask that is the image, and a rotation to the nearest pixel: the view shows what the mask holds, zero outside.
    view = View(crop=Resize(size=40), rotate=Rotate(p=1.0, degrees=degrees), normalize=None)
    image = torch.from_numpy(images.photo(40, 40))
    plan = plan_of(view, [(40, 40)])
    shown = ops.render([image], plan, (view,), dtype=torch.uint8)[0][0]
    (mask,) = warp_masks([image.permute(2, 0, 1)], plan, (view,))
    # A middle between two pixels may go either way: along the axes at 180 degrees none, at other angles a few.
    assert (mask[0] == shown).float().mean() >= 0.99
    (filled,) = warp_masks([image[..., 0].long()], plan, (view,), fill=-1)
    assert (filled[0] == -1).any() == (degrees[0] != 180)


def test_masks_lie_upon_views_of_several_sizes():
    recipe = (
        View(crop=Crop(size=32), flip=Flip(), normalize=None),
        View(crop=SameCrop(size=16, of=0), normalize=None),
        View(crop=CenterCrop(size=8), normalize=None),
    )
    image = torch.zeros(60, 90, 3, dtype=torch.uint8)
    image[20:50, 30:80] = 255
    plan = Plan.draw(recipe, [(60, 90)] * 5, seed=2)
    masks = warp_masks([image[..., 0] // 255] * 5, plan, recipe)
    for view, mask in zip(ops.render([image] * 5, plan, recipe), masks, strict=True):
        assert mask.shape == (5, *view.shape[2:])
        sure = (view[:, 0] < 0.02) | (view[:, 0] > 0.98)  # not on an edge
        assert torch.equal((view[:, 0] > 0.5)[sure], (mask == 1)[sure])


def test_wrong_masks_are_named():
    recipe = recipes.evaluation(8)
    plan = Plan.draw(recipe, [(20, 30), (20, 30)], seed=0)
    good = torch.zeros(20, 30)
    for masks, kind, message in (
        ([good], ValueError, "got 1 masks and 1 views"),
        ([good, good.numpy()], TypeError, "mask 1 is a ndarray"),
        ([good, torch.zeros(30, 20)], ValueError, r"mask 1 is \(30, 20\), and its image was \(20, 30\)"),
        ([good, torch.zeros(2, 20, 30)], ValueError, "one number of channels"),
        ([good, good.long()], ValueError, "one type"),
    ):
        with pytest.raises(kind, match=message):
            warp_masks(masks, plan, recipe)
    with pytest.raises(ValueError, match="fill='0'"):
        warp_masks([good, good], plan, recipe, fill="0")
