"""What bands.py excuses covers what an error within a band can do, and hides no mistake."""

from __future__ import annotations

import bands
import images
import numpy as np
import pytest
import reference
import torch
from pixels import LARGEST, MEAN, off, row
from sample_views import GAUSSIAN, RECIPES, torchvision_view

from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Blur, Erase, Rotate

KINDS = ["photo", "noise", "extremes"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, arguments",
    [("solarize", (0.5,)), ("solarize", (0.2,)), ("solarize", (1.0,)), *(("posterize", (bits,)) for bits in range(8))],
)
def test_a_jump_is_excused_where_an_error_decides_and_nowhere_else(name, arguments, kind, rng):
    x = images.KINDS[kind](40, 50).transpose(2, 0, 1) / 255 * 0.99 + 0.003
    for slack in (np.zeros_like(x), rng.uniform(0, 0.2, x.shape) * (rng.random(x.shape) < 0.1)):
        here = reference.apply(name, x, arguments)
        excused = bands.JUMPS[name](x, slack, bands.BAND, *arguments)
        largest = np.zeros_like(x)
        for _ in range(30):
            moved = x + (slack + bands.BAND) * rng.uniform(-1, 1, x.shape)
            largest = np.maximum(largest, np.abs(reference.apply(name, moved.clip(0, 1), arguments) - here))
        assert (largest <= excused + bands.BAND).all()
        assert (excused <= largest + slack + 2 * bands.BAND).mean() > 0.9, "more is excused than errors do"


@pytest.mark.parametrize("size", [7, 32, 61])
def test_rotation_by_the_nearest_pixel_is_excused_at_the_borders_of_pixels(size):
    x = images.noise(size, size).transpose(2, 0, 1) / 255
    zero = np.zeros_like(x)
    for angle in (0.0, 45.0, 30.0, 17.3, 90.0):
        excused = bands.rotate(x, zero, bands.BAND, angle, "nearest")
        here = reference.rotate(x, angle, "nearest")
        for moved in (-1e-5, 1e-5):  # degrees; moves no pixel of these by more than 1e-5
            assert (np.abs(reference.rotate(x, angle + moved, "nearest") - here) <= excused).all()
        assert not bands.rotate(x, zero, bands.BAND, angle, "bilinear").any()
    assert (bands.rotate(x, zero, bands.BAND, 17.3, "nearest") > 0).mean() < 0.02


CARRIED = [
    ("crop", (3, 4, 20, 10)),
    ("resize", (9, "bilinear")),
    ("resize", (70, "bicubic")),
    ("flip_h", ()),
    ("flip_v", ()),
    ("quarter_turns", (1,)),
    ("rotate", (33.0, "bilinear")),
    ("adjust_brightness", (1.7,)),
    ("adjust_contrast", (0.3,)),
    ("adjust_contrast", (1.8,)),
    ("adjust_saturation", (0.0,)),
    ("adjust_saturation", (1.8,)),
    *(("adjust_hue", (shift,)) for shift in (-0.5, -0.2, 0.0, 0.1, 1 / 3)),
    ("grayscale", ()),
    ("blur", (1.3,)),
    ("box_blur", (1.3,)),
    ("erase", (3, 4, 5, 6, 0.5)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name, arguments", CARRIED)
def test_an_excuse_is_carried_on_as_the_difference_it_stands_for(name, arguments, kind, rng):
    x = images.KINDS[kind](40, 40).transpose(2, 0, 1) / 255
    here = reference.apply(name, x, arguments)
    for _ in range(20):
        slack = rng.uniform(0, 1, x.shape) * (rng.random(x.shape) < 0.3) * rng.choice([0.01, 0.1, 1])
        moved = (x + slack * rng.choice([-1, 1], x.shape)).clip(0, 1)
        carry = bands.CARRIED.get(name) or (lambda s, *a: bands.JUMPS[name](x, s, bands.BAND, *a))
        carried = carry(slack, *arguments)
        assert (np.abs(reference.apply(name, moved, arguments) - here) <= carried + 1e-12).all()


@pytest.mark.parametrize("size", [7, 32, 96])
@pytest.mark.parametrize("name", GAUSSIAN)
def test_whole_recipes_of_the_reference_agree_with_torchvision(name, size):
    """torchvision in float32, so that its errors are a thousandth of the bounds; red's weight, see test_reference, is more."""
    view = RECIPES[name](size)
    batch = [images.photo(180, 240), images.photo(96, 64), images.noise(41, 57), images.photo(301, 200)]
    plan = Plan.draw((view,), [image.shape[:2] for image in batch], seed=6, epoch=size)
    for i, image in enumerate(batch):
        want, slack = bands.render_with_slack(image, row(plan, i), view)
        largest, mean = off(torchvision_view(image, row(plan, i), view), want, view, slack)
        assert largest <= 0.1 * LARGEST and mean <= MEAN, f"{largest * 255:.3f}/255, mean {mean * 255:.4f}/255"


# --- what a reader of the definitions could take them for -------------------------------------------------------------

NUMBERS = {
    "top": 12,
    "left": 7,
    "height": 70,
    "width": 60,
    "flip_h": 0,
    "flip_v": 0,
    "turns": 1,
    "angle": 25.0,
    "brightness": 1.3,
    "contrast": 1.4,
    "saturation": 0.8,
    "hue": 0.05,
    "grayscale": 0,
    "sigma_px": 1.5,
    "order0": 0,
    "order1": 1,
    "order2": 2,
    "order3": 3,
    "solarize": 0.5,
    "posterize": 3,
    "erase_top": 3,
    "erase_left": 4,
    "erase_height": 15,
    "erase_width": 26,
}
MISREADINGS = {
    "rotated clockwise": ("everything", {"angle": -25.0}, {}),
    "rotated in radians": ("everything", {"angle": 25 * 180 / np.pi}, {}),
    "a quarter turn too much": ("everything", {"turns": 2}, {}),
    "rotated by the nearest pixel": ("everything", {}, {"rotate": Rotate(interpolation="nearest")}),
    "rotated between pixels": ("lightly", {}, {"rotate": Rotate(interpolation="bilinear")}),
    "contrast about the mean of the crop": ("wmse", {}, {"order": ("crop", "jitter", "grayscale")}),
    "blurred by a Gaussian": ("lightly", {}, {"blur": Blur()}),
    "blurred by boxes": ("everything", {}, {"blur": Blur(kind="box")}),
    "sigma in pixels of the view": (
        "backwards",
        {},
        {"order": ("posterize", "solarize", "grayscale", "jitter", "crop", "blur")},
    ),
    "erased before normalization": ("everything", {}, {"erase": Erase(value=(0.3 - 0.485) / 0.229)}),
    "a bit more": ("everything", {"posterize": 4}, {}),
    "solarized after the blur": ("vicreg", {}, {"order": ("jitter", "grayscale", "blur", "solarize")}),
}


@pytest.mark.parametrize("name", sorted(MISREADINGS))
def test_a_misreading_would_be_caught(name):
    recipe, numbers, parts = MISREADINGS[name]
    view = RECIPES[recipe](64)
    image = images.photo(90, 75)
    want, slack = bands.render_with_slack(image, NUMBERS, view)
    wrong = reference.render(image, NUMBERS | numbers, view.with_(**parts))
    largest, mean = off(torch.from_numpy(wrong), want, view, slack)
    assert largest > 3 * LARGEST and mean > 3 * MEAN
