"""Plain resize, rotation, posterize, the box blur and erasing, and each step before the crop, against the reference."""

from __future__ import annotations

import images
import numpy as np
import pytest
import reference
import torch
from PIL import Image, ImageFilter
from pixels import FULL_JITTER, KINDS, PLAIN, check, plan_for, render
from torchvision.transforms.v2 import functional as F

from fastssl import ops
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import (
    IMAGENET,
    Blur,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Jitter,
    Posterize,
    Resize,
    Rotate,
    SameCrop,
    Solarize,
    View,
)

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 3), (17, 33), (60, 45)]


# --- all of the image -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [1, 7, 33, 96])
def test_resize_takes_all_of_the_image(size, interpolation):
    view = View(crop=Resize(size=size, interpolation=interpolation), **PLAIN)
    for height, width in [*SHAPES, (5, 400), (225, 223)]:
        image = images.noise(height, width)
        plan = Plan.draw((view,), [(height, width)], seed=1)
        assert plan.crop.tolist() == [[[0, 0, height, width]]]
        check(image, plan, view)


# --- rotation ---------------------------------------------------------------------------------------------------------

ANGLES = [0.0, 0.01, 7.5, -30.0, 45.0, 89.9, 90.0, 133.3, -180.0, 270.0, 725.0]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [1, 2, 7, 32, 97])
@pytest.mark.parametrize("angle", ANGLES)
def test_rotation(angle, size, interpolation):
    view = View(crop=Crop(size=size), rotate=Rotate(interpolation=interpolation), **PLAIN)
    for kind in ("photo", "extremes"):
        image = images.KINDS[kind](size + 9, size + 4)
        excused = check(image, plan_for(image, view, angle=angle, height=size, width=size), view)
        # At multiples of 90 degrees no place lies at a border; at others of 45 all of a line may, half of them in doubt.
        assert excused == 0 or size < 32 or excused < 0.05


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_rotation_by_a_quarter_is_a_quarter_turn(interpolation):
    for size in (1, 2, 31, 32, 224):
        image = images.noise(size, size)
        view = View(crop=Resize(size=size), rotate=Rotate(interpolation=interpolation), **PLAIN)
        for turns in range(-4, 5):
            got = render(image, plan_for(image, view, angle=90 * turns), view)
            want = torch.from_numpy(image).permute(2, 0, 1).rot90(turns, (1, 2)) / 255
            assert (got - want).abs().max() < (1e-5 if interpolation == "nearest" else 1e-3), f"{turns} of {size}"


def test_rotation_by_the_nearest_pixel_moves_pixels_and_changes_none():
    image = images.noise(50, 50)
    view = View(crop=Resize(size=50), rotate=Rotate(), **PLAIN)
    got = render(image, plan_for(image, view, angle=33.0), view, dtype=torch.uint8)
    colours = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()} | {(0, 0, 0)}
    assert {tuple(pixel) for pixel in got.permute(1, 2, 0).reshape(-1, 3).tolist()} <= colours


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_rotation_comes_after_crop_flips_and_turn(interpolation):
    image = images.photo(70, 90)
    parts = {"rotate": Rotate(interpolation=interpolation), "flip": Flip(), "vflip": Flip()}
    for filter in ("bilinear", "bicubic"):
        view = View(crop=Crop(size=33, interpolation=filter), **parts)
        for flip_h, flip_v, turns in [(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1), (1, 0, 1), (0, 0, 3), (1, 0, 2)]:
            box = {"top": 3, "left": 9, "height": 60, "width": 41}
            plan = plan_for(image, view, flip_h=flip_h, flip_v=flip_v, turns=turns, angle=-20.0, **box)
            check(image, plan, view)


def test_rotation_brings_black_before_the_colours_and_the_mean_counts_it():
    """A white image at 45 degrees: contrast sees the black corners, and solarize turns them white."""
    image = images.flat(20, 20, (255, 255, 255))
    view = View(crop=Resize(size=32), rotate=Rotate(), jitter=FULL_JITTER, solarize=Solarize(), **PLAIN)
    plan = plan_for(image, view, angle=45.0, contrast=0.5, solarize=0.0)
    check(image, plan, view)
    assert render(image, plan, view)[:, 0, 0].min() > 0.5


def test_the_same_crop_is_rotated_alike():
    image = images.photo(80, 60)
    recipe = (
        View(crop=Crop(size=32), flip=Flip(p=0.5), rotate=Rotate(p=1.0, degrees=(10, 80)), jitter=FULL_JITTER),
        View(crop=SameCrop(size=48), blur=Blur(p=1.0)),
    )
    plan = Plan.draw(recipe, [(80, 60)] * 4, seed=3)
    views = ops.render([torch.from_numpy(image)] * 4, plan, recipe)
    for v, view in enumerate(recipe):
        for i in range(4):
            alone = render(image, Plan(plan.data[i : i + 1, v : v + 1]), view.with_(crop=Resize(size=view.size)))
            assert torch.equal(views[v][i], alone)
            check(image, Plan(plan.data[i : i + 1, v : v + 1]), view.with_(crop=Resize(size=view.size)))


# --- posterize --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(9))
def test_posterize_of_every_level_is_torchvisions(bits):
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1).reshape(16, 16, 3)
    view = View(crop=Resize(size=16), posterize=Posterize(bits=4), **PLAIN)
    plan = plan_for(levels, view, posterize=bits)  # the plan decides, not the view
    want = F.posterize(torch.from_numpy(levels).permute(2, 0, 1), bits)
    assert torch.equal(render(levels, plan, view, dtype=torch.uint8), want)
    assert (render(levels, plan, view) - want / 255).abs().max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", range(8))
def test_posterize(bits, kind):
    image = images.KINDS[kind](70, 50)
    view = View(crop=Crop(size=64, interpolation="bicubic"), posterize=Posterize(), **PLAIN)
    excused = check(image, plan_for(image, view, posterize=bits), view)
    # 2^bits thresholds of a band of 2e-3 each, of a jump of 2^-bits each, were the values spread evenly.
    assert kind in ("flat", "gray", "extremes") or excused < 5e-3


def test_posterize_to_eight_bits_is_no_posterize():
    image = images.photo(40, 40)
    view = View(crop=Crop(size=30), posterize=Posterize(), **PLAIN)
    plan = plan_for(image, view)
    assert plan.posterize.item() == 8
    assert torch.equal(render(image, plan, view), render(image, plan, view.with_(posterize=None)))


# --- the blur of three boxes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 32, 96])
@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.3, 0.5, 1.0, 1.37, 2.0, 3.5, 40.0])
def test_box_blur(sigma, size):
    view = View(crop=Crop(size=size), blur=Blur(p=1.0, kind="box"), **PLAIN)
    for kind in ("photo", "extremes"):
        image = images.KINDS[kind](size + 2, size + 5)
        box = {"height": size, "width": size}  # no resize: the extremes stay, and nothing hides the blur's own error
        check(image, plan_for(image, view, sigma_px=sigma, **box), view)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_box_blur_is_pillows_but_for_its_rounding(sigma):
    image = images.photo(96, 96)
    view = View(crop=Resize(size=96), blur=Blur(p=1.0, kind="box"), **PLAIN)
    got = render(image, plan_for(image, view, sigma_px=sigma), view) * 255
    want = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma))).transpose(2, 0, 1)
    assert np.abs(got.numpy() - want).max() < 3.1  # test_reference says why 3; 0.1 is ours


def test_a_box_blur_keeps_a_flat_image():
    image = images.flat(40, 30)
    view = View(crop=Resize(size=32), blur=Blur(p=1.0, kind="box"), **PLAIN)
    for sigma in (0.1, 1.0, 7.7, 300.0):
        got = render(image, plan_for(image, view, sigma_px=sigma), view, dtype=torch.uint8)
        assert torch.equal(got, torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None].expand(3, 32, 32))


# --- erasing ----------------------------------------------------------------------------------------------------------

RECTANGLES = [(0, 0, 33, 33), (0, 0, 1, 1), (32, 32, 1, 1), (5, 7, 11, 3), (0, 30, 33, 3), (31, 0, 2, 33)]


def erased(rectangle: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(("erase_top", "erase_left", "erase_height", "erase_width"), rectangle, strict=True))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("rectangle", RECTANGLES, ids=str)
def test_erasing_writes_its_value_and_touches_nothing_else(rectangle, dtype, channels_last):
    image = images.photo(50, 40)
    normalize = None if dtype == torch.uint8 else IMAGENET
    view = View(crop=Crop(size=33), erase=Erase(value=0.2), jitter=FULL_JITTER, normalize=normalize)
    options = {"dtype": dtype, "channels_last": channels_last}
    want = render(image, plan_for(image, view, hue=0.1), view.with_(erase=None), **options).clone()
    top, left, height, width = rectangle
    value = 51 if dtype == torch.uint8 else 0.2  # after normalization; on the scale of [0, 1] where there is none
    want[:, top : top + height, left : left + width] = torch.tensor(value, dtype=dtype)
    assert torch.equal(render(image, plan_for(image, view, hue=0.1, **erased(rectangle)), view, **options), want)


@pytest.mark.parametrize("value", [0.0, -1.5, 3.0])
def test_erasing_is_after_normalization_and_last_of_all(value):
    image = images.photo(50, 40)
    parts = {"blur": Blur(), "solarize": Solarize(), "rotate": Rotate(), "normalize": IMAGENET}
    view = View(crop=Crop(size=33), erase=Erase(value=value), **parts)
    plan = plan_for(image, view, sigma_px=1.5, solarize=0.5, angle=10.0, **erased((5, 7, 11, 13)))
    check(image, plan, view)
    assert (render(image, plan, view)[:, 5:16, 7:20] == value).all()


@pytest.mark.parametrize("height, width", [(0, 9), (0, 0)])
def test_a_rectangle_of_no_height_erases_nothing(height, width):
    """So that `plan.erase_height = 0` turns erasing off."""
    image = images.photo(50, 40)
    view = View(crop=Crop(size=33), erase=Erase(value=0.2))
    got = render(image, plan_for(image, view, **erased((3, 4, height, width))), view)
    assert torch.equal(got, render(image, plan_for(image, view), view))


NAMED: dict[str, dict[str, float]] = {
    "jitter": {"brightness": 0.5, "contrast": 1.5, "saturation": 0.2, "hue": 0.2},
    "grayscale": {"grayscale": 1},
    "blur": {"sigma_px": 1.5},
    "solarize": {"solarize": 0.4},
    "posterize": {"posterize": 2},
    "erase": erased((5, 7, 11, 3)),
}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_what_a_view_does_not_have_does_not_happen_whatever_the_plan_says(name):
    image = images.photo(50, 40)
    view = View(crop=Crop(size=33), **PLAIN)
    got = render(image, plan_for(image, view, **NAMED[name]), view)
    assert torch.equal(got, render(image, plan_for(image, view), view))


# --- before the crop --------------------------------------------------------------------------------------------------

BEFORE = {
    "brightness": ("jitter", {"brightness": 1.5}),
    "contrast": ("jitter", {"contrast": 1.6}),
    "little contrast": ("jitter", {"contrast": 0.3}),
    "saturation": ("jitter", {"saturation": 1.8}),
    "hue": ("jitter", {"hue": 0.15}),
    "jitter": (
        "jitter",
        {"brightness": 0.7, "contrast": 1.4, "saturation": 1.3, "hue": -0.1, "order0": 3, "order3": 0},
    ),
    "grayscale": ("grayscale", {"grayscale": 1}),
    "blur": ("blur", {"sigma_px": 1.7}),
    "solarize": ("solarize", {"solarize": 0.5}),
    "posterize": ("posterize", {"posterize": 2}),
}
PARTS = {
    "jitter": Jitter(),
    "grayscale": Grayscale(),
    "blur": Blur(),
    "solarize": Solarize(),
    "posterize": Posterize(),
}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", sorted(BEFORE))
def test_a_step_before_the_crop(name, interpolation):
    step, fields = BEFORE[name]
    view = View(crop=Crop(size=25, interpolation=interpolation), order=(step, "crop"), **{step: PARTS[step]}, **PLAIN)
    for height, width in [(1, 1), (1, 12), (2, 3), (61, 47), (90, 150)]:
        for kind in ("photo", "extremes"):
            image = images.KINDS[kind](height, width)
            check(image, plan_for(image, view, **fields), view)
            box = {"top": height // 3, "left": width // 3, "height": (height + 1) // 2, "width": (width + 2) // 3}
            check(image, plan_for(image, view, **fields, **box, flip_h=1, turns=1), view)


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (30, 41)])
def test_a_box_blur_before_the_crop(height, width):
    view = View(crop=Crop(size=25), blur=Blur(kind="box"), order=("blur", "crop"), **PLAIN)
    for sigma in (0.3, 2.0, 11.0):
        image = images.noise(height, width)
        check(image, plan_for(image, view, sigma_px=sigma, height=(height + 1) // 2, width=(width + 1) // 2), view)


def test_contrast_before_the_crop_is_about_the_mean_of_all_of_the_image():
    image = np.concatenate([images.flat(40, 30, (0, 0, 0)), images.flat(40, 10, (200, 200, 200))], axis=1)
    box = {"left": 30, "width": 10}
    before = View(crop=Crop(size=8), jitter=FULL_JITTER, order=("jitter", "crop"), **PLAIN)
    after = before.with_(order=("crop", "jitter"))
    mean = 200 / 255 / 4
    got = render(image, plan_for(image, before, contrast=0.5, **box), before)
    assert (got - (0.5 * 200 / 255 + 0.5 * mean)).abs().max() < 1e-4
    got = render(image, plan_for(image, after, contrast=0.5, **box), after)
    assert (got - 200 / 255).abs().max() < 1e-4


def test_blur_before_the_crop_sees_beyond_it_and_reflects_at_the_image():
    image = images.extremes(40, 40)
    view = View(crop=Crop(size=20), blur=Blur(), order=("blur", "crop"), **PLAIN)
    box = {"top": 20, "left": 0, "height": 20, "width": 20}
    plan = plan_for(image, view, sigma_px=2.0, **box)
    check(image, plan, view)
    darker = image.copy()
    darker[:20] = 0  # outside of the crop, but within reach of the blur
    assert (render(image, plan, view) - render(darker, plan, view)).abs().max() > 0.05


def test_nothing_is_rounded_between_a_step_and_the_crop():
    """Brightness of 1/64 leaves four levels of 8 bits, which 65535 or floats keep apart; a factor of 64 shows them."""
    image = images.gradient(32, 32)
    view = View(crop=Resize(size=16), jitter=FULL_JITTER, order=("jitter", "crop"), **PLAIN)
    got = render(image, plan_for(image, view, brightness=1 / 64), view) * 64
    want = reference.resize(reference.unit(image), 16, "bilinear")
    assert np.abs(got.double().numpy() - want).max() < 1 / 255
