"""The float64 reference agrees with torchvision.transforms.v2.functional and Pillow, operation by operation.

Where both compute in float64 they differ by rounding alone: 1e-9 bounds a sum of some hundred terms with room.
torchvision's hue works in float32 whatever it is given, so there the bound is 1e-5. Pillow rounds to 8 bits; the test of
each of its operations says how often.
"""

from __future__ import annotations

import math

import images
import numpy as np
import pytest
import reference
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms.v2 import functional as F

from fastssl.transforms.view import (
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Jitter,
    Normalize,
    Posterize,
    QuarterTurn,
    Rotate,
    Solarize,
    View,
)

ROUNDING = 1e-9
SINGLE = 1e-5
KINDS = sorted(images.KINDS)


def unit(kind: str, height: int = 61, width: int = 83) -> np.ndarray:
    return images.KINDS[kind](height, width).astype(np.float64).transpose(2, 0, 1) / 255


def off(got: np.ndarray, want: torch.Tensor) -> float:
    assert got.shape == tuple(want.shape)
    return float(np.abs(got - want.numpy()).max())


@pytest.fixture
def torchvision_luma(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's tensor code weighs red with 0.2989, BT.601 (and Pillow, and torchvision's documents) with 0.299."""
    monkeypatch.setattr(reference, "LUMA", (0.2989, 0.587, 0.114))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "height, width, size",
    [
        (1, 1, 1),
        (1, 1, 9),
        (2, 3, 1),
        (7, 5, 32),
        (61, 83, 61),
        (61, 83, 32),
        (300, 200, 7),
        (1000, 3, 33),
        (97, 97, 96),
    ],
)
def test_resize(height, width, size, interpolation):
    x = unit("noise", height, width)
    want = F.resize(torch.from_numpy(x), [size, size], interpolation=interpolation, antialias=True)
    assert off(reference.resize(x, size, interpolation), want.clamp(0, 1)) < ROUNDING


def test_bicubic_overshoot_is_what_the_clamp_removes():  # else the clamp in test_resize would hide a difference
    x = torch.from_numpy(unit("extremes"))
    want = F.resize(x, [224, 224], interpolation="bicubic", antialias=True)
    assert want.max() > 1.01 and want.min() < -0.01


def test_crop():
    x = unit("noise")
    assert off(reference.crop(x, 5, 11, 20, 30), F.crop(torch.from_numpy(x), 5, 11, 20, 30)) == 0


def test_flips_and_turns():
    x = unit("noise", 40, 40)
    t = torch.from_numpy(x)
    assert off(reference.flip_h(x), F.horizontal_flip(t)) == 0
    assert off(reference.flip_v(x), F.vertical_flip(t)) == 0
    for turns in range(4):
        assert off(reference.quarter_turns(x, turns), F.rotate(t, 90.0 * turns)) == 0


@pytest.mark.usefixtures("torchvision_luma")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.9, 1.0, 1.3, 1.8, 4.0])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_blends(name, factor, kind):
    x = unit(kind)
    want = getattr(F, f"adjust_{name}")(torch.from_numpy(x), factor)
    assert off(getattr(reference, f"adjust_{name}")(x, factor), want) < ROUNDING


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [-0.5, -0.31, -0.2, -0.01, 0.0, 1 / 6, 0.2, 0.5])
def test_hue(shift, kind):
    x = unit(kind)
    assert off(reference.adjust_hue(x, shift), F.adjust_hue(torch.from_numpy(x), shift)) < SINGLE


@pytest.mark.usefixtures("torchvision_luma")
def test_grayscale():
    x = unit("photo")
    assert off(reference.grayscale(x), F.rgb_to_grayscale(torch.from_numpy(x), num_output_channels=3)) < ROUNDING


def test_red_weighs_as_in_bt601():  # the one place where this reference and torchvision's tensor code differ
    assert reference.LUMA == (0.299, 0.587, 0.114)
    x = unit("extremes")
    gap = off(reference.grayscale(x), F.rgb_to_grayscale(torch.from_numpy(x), num_output_channels=3))
    assert 0.99e-4 < gap < 1.01e-4


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0, 3.7])
def test_blur(sigma):
    x = unit("noise")
    side = 2 * max(1, math.ceil(5 * sigma)) + 1
    want = F.gaussian_blur(torch.from_numpy(x), kernel_size=[side, side], sigma=[sigma, sigma])
    assert off(reference.blur(x, sigma), want) < ROUNDING


def test_blur_past_the_far_border_reflects_again():  # torchvision refuses this case; numpy's reflect is periodic
    for n in (1, 2, 3, 5):
        line = np.arange(n, dtype=float)
        radius = 17
        padded = np.pad(line, radius, mode="reflect")
        assert (line[reference.reflect(np.arange(-radius, n + radius), n)] == padded).all()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 128 / 255, 1.0])
def test_solarize(threshold):
    x = unit("photo")
    assert off(reference.solarize(x, threshold), F.solarize(torch.from_numpy(x), threshold)) == 0


def test_normalize():
    x = unit("photo")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    assert off(reference.normalize(x, tuple(mean), tuple(std)), F.normalize(torch.from_numpy(x), mean, std)) < ROUNDING


# --- rotation ---------------------------------------------------------------------------------------------------------

ANGLES = [0.0, 1e-3, 7.5, 30.0, -30.0, 45.0, 89.0, 90.0, -90.0, 133.3, 180.0, 270.0, 359.0, -725.0]


@pytest.mark.parametrize("size", [1, 2, 7, 32, 61])
@pytest.mark.parametrize("angle", ANGLES)
def test_rotation_between_pixels(angle, size):
    x = unit("noise", size, size)
    want = F.rotate(torch.from_numpy(x), angle, interpolation=F.InterpolationMode.BILINEAR)
    assert off(reference.rotate(x, angle, "bilinear"), want) < ROUNDING


@pytest.mark.parametrize("size", [1, 2, 7, 32, 61])
@pytest.mark.parametrize("angle", ANGLES)
def test_rotation_by_the_nearest_pixel(angle, size):
    x = unit("noise", size, size)
    got = reference.rotate(x, angle, "nearest")
    want = F.rotate(torch.from_numpy(x), angle).numpy()
    rows, columns = reference.places_before_rotation(size, angle)
    # At a border between two pixels rounding decides, and torchvision rounds to even where this takes the later one.
    tie = np.minimum(*(np.abs(place - np.round(place)) for place in (rows, columns))) < ROUNDING
    assert (got == want)[:, ~tie].all()
    assert size <= 7 or tie.mean() <= 0.1, "hardly a pixel is compared"


def test_rotation_is_counter_clockwise_and_by_degrees():
    x = unit("noise", 32, 32)
    for interpolation in ("nearest", "bilinear"):
        for turns in range(-4, 5):
            got = reference.rotate(x, 90.0 * turns, interpolation)
            assert np.abs(got - reference.quarter_turns(x, turns)).max() < ROUNDING


def test_rotation_leaves_the_corners_black_and_the_middle_full():
    white = np.ones((1, 64, 64))
    for interpolation in ("nearest", "bilinear"):
        got = reference.rotate(white, 45.0, interpolation)[0]
        assert got[0, 0] == got[0, 63] == got[63, 0] == got[63, 63] == 0
        assert got[24:40, 24:40].min() > 1 - ROUNDING
        assert (
            abs(got.mean() - (2 * math.sqrt(2) - 2)) < 0.01
        )  # the octagon that a square and itself at 45 degrees share


def test_rotation_by_pillow_is_the_same_by_the_nearest_pixel():
    """The same places in Pillow's fixed point of 16 bits, so ties and what lies 1e-3 from them may differ."""
    image = images.noise(61, 61)
    for angle in (7.5, 30.0, -133.3):
        got = reference.rotate(image.transpose(2, 0, 1) / 255, angle, "nearest")
        want = np.asarray(Image.fromarray(image).rotate(angle)).transpose(2, 0, 1) / 255
        assert (np.abs(got - want) > ROUNDING).any(axis=0).mean() < 0.01


# --- posterize, Pillow's blur, erasing --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(9))
def test_posterize_of_8_bits_is_torchvisions_and_pillows(bits):
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    got = reference.posterize(reference.unit(image), bits) * 255
    levels = np.round(got).astype(np.uint8)
    assert np.abs(got - levels).max() < ROUNDING
    assert (levels == F.posterize(torch.from_numpy(image), bits).permute(2, 0, 1).numpy()).all()
    if bits:  # Pillow has 1 to 8
        assert (levels == np.asarray(ImageOps.posterize(Image.fromarray(image), bits)).transpose(2, 0, 1)).all()


def test_posterize_rounds_to_8_bits_first():
    x = np.array([[[0.5 / 255 - 1e-6, 0.5 / 255 + 1e-6, 15.49 / 255, 15.51 / 255, 1.0]]])
    assert np.allclose(reference.posterize(x, 8) * 255, [0, 1, 15, 16, 255], atol=ROUNDING)
    assert np.allclose(reference.posterize(x, 4) * 255, [0, 0, 0, 16, 240], atol=ROUNDING)


# Pillow rounds to 8 bits after each of six passes. Each is off by half a level, and the later passes average that, so
# three levels bound it all. 2.94 are found, at a sigma of 0.1, where each pass rounds a change away that is below half a
# level; from 0.5 up its errors are hardly related, and 2.21 at most and 0.73 in the mean are found.
PILLOW_PASSES = 6


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 1.0, 1.37, 2.0, 3.7, 12.0, 100.0])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (2, 3), (7, 5), (61, 83)])
@pytest.mark.parametrize("kind", ["photo", "noise", "extremes"])
def test_box_blur_is_pillows_but_for_its_rounding(kind, height, width, sigma):
    image = images.KINDS[kind](height, width)
    want = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma))).transpose(2, 0, 1)
    error = np.abs(reference.box_blur(image.transpose(2, 0, 1) / 255, sigma) * 255 - want)
    assert error.max() < PILLOW_PASSES / 2
    assert sigma < 0.5 or error.mean() < 0.75


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.0, 2.0, 7.3])
def test_box_blur_has_its_deviation(sigma):
    """The square of sigma is the variance of three boxes; on a line long enough that its ends are not reached."""
    line = np.zeros((1, 1, 129))
    line[0, 0, 64] = 1
    out = reference.box_blur(line, sigma)[0, 0]
    t = np.arange(129) - 64
    assert abs(out.sum() - 1) < ROUNDING and abs((out * t).sum()) < ROUNDING
    assert abs((out * t**2).sum() - sigma**2) < ROUNDING * 100


def test_box_blur_would_not_pass_for_the_other():  # a negative control
    x = unit("extremes")
    assert np.abs(reference.box_blur(x, 2.0) - reference.blur(x, 2.0))[:, 20:-20, 20:-20].max() > 1 / 255


def test_erase():
    x = unit("photo")
    want = F.erase(torch.from_numpy(x), 5, 11, 20, 30, torch.tensor([0.25])[:, None, None])
    assert off(reference.erase(x, 5, 11, 20, 30, 0.25), want) == 0


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_normalize_of_any_number_of_channels(channels):
    x = np.random.default_rng(channels).random((channels, 9, 7))
    mean, std = [0.1 + 0.05 * c for c in range(channels)], [0.2 + 0.1 * c for c in range(channels)]
    assert off(reference.normalize(x, tuple(mean), tuple(std)), F.normalize(torch.from_numpy(x), mean, std)) < ROUNDING


def test_a_unit_is_the_largest_number_of_the_type():
    assert reference.unit(np.array([[[0], [255]]], dtype=np.uint8)).tolist() == [[[0, 1]]]
    assert reference.unit(np.array([[[0], [13107], [65535]]], dtype=np.uint16)).tolist() == [[[0, 0.2, 1]]]


# --- the order of the steps -------------------------------------------------------------------------------------------

NUMBERS = {
    "top": 10,
    "left": 20,
    "height": 40,
    "width": 30,
    "flip_h": 1,
    "flip_v": 1,
    "turns": 1,
    "angle": 20.0,
    "brightness": 1.6,
    "contrast": 1.5,
    "saturation": 0.4,
    "hue": -0.15,
    "grayscale": 1,
    "sigma_px": 1.5,
    "order0": 0,
    "order1": 1,
    "order2": 2,
    "order3": 3,
    "solarize": 0.5,
    "posterize": 3,
    "erase_top": 3,
    "erase_left": 4,
    "erase_height": 5,
    "erase_width": 6,
}


def by_torchvision(operation: str, x: torch.Tensor, row: dict[str, float]) -> torch.Tensor:
    if operation == "crop":
        box = [int(row[name]) for name in ("top", "left", "height", "width")]
        x = F.resized_crop(x, *box, size=[24, 24], interpolation=F.InterpolationMode.BICUBIC, antialias=True)
        x = F.rotate(F.vertical_flip(F.horizontal_flip(x.clamp(0, 1))), 90.0 * row["turns"])
        return F.rotate(x, row["angle"], interpolation=F.InterpolationMode.BILINEAR)
    if operation == "jitter":
        for which in (int(row[f"order{i}"]) for i in range(4)):
            name = ("brightness", "contrast", "saturation", "hue")[which]
            x = getattr(F, f"adjust_{name}")(x, row[name])
        return x
    if operation == "grayscale":
        return F.rgb_to_grayscale(x, num_output_channels=3)
    if operation == "blur":
        return F.gaussian_blur(x, kernel_size=[17, 17], sigma=[row["sigma_px"]] * 2)
    if operation == "solarize":
        return F.solarize(x, row["solarize"])
    levels = torch.floor(x * 255 + 0.5).to(torch.uint8)  # torchvision's posterize of floats is another
    return F.posterize(levels, int(row["posterize"])).double() / 255


@pytest.mark.usefixtures("torchvision_luma")
@pytest.mark.parametrize(
    "order",
    [
        ("crop", "jitter", "grayscale", "blur"),
        ("jitter", "crop"),
        ("jitter", "grayscale", "crop", "blur"),
        ("blur", "jitter", "crop"),
        ("blur", "crop", "jitter"),
        ("crop", "solarize", "blur"),
        ("crop", "blur", "solarize"),
        ("solarize", "crop"),
        ("posterize", "crop"),
        ("crop", "posterize", "blur"),
        ("crop", "grayscale", "posterize"),
    ],
)
def test_steps_happen_in_their_order(order):
    parts = {
        "jitter": Jitter(),
        "grayscale": Grayscale(),
        "blur": Blur(),
        "solarize": Solarize(),
        "posterize": Posterize(),
    }
    parts = {name: part for name, part in parts.items() if name in order}
    normalize = Normalize(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    view = View(
        crop=Crop(size=24, interpolation="bicubic"),
        flip=Flip(),
        vflip=Flip(),
        turn=QuarterTurn(),
        rotate=Rotate(interpolation="bilinear"),
        normalize=normalize,
        erase=Erase(value=0.5),
        order=order,
        **parts,
    )
    image = images.photo(61, 83)
    x = torch.from_numpy(reference.unit(image))
    for operation in order:
        x = by_torchvision(operation, x, NUMBERS)
    x = F.normalize(x, list(normalize.mean), list(normalize.std))
    x = F.erase(x, 3, 4, 5, 6, torch.tensor([0.5])[:, None, None])
    got = reference.render(image, NUMBERS, view)
    # Behind a jump, solarize or posterize, a pixel that the float32 of torchvision's hue decides another way would show.
    assert off(got, x) < 12 * SINGLE  # 6 bounds the stretch by contrast and brightness; one over the deviation is 2


def test_what_is_not_drawn_or_not_named_does_not_happen():
    image = images.photo(20, 30)
    nothing = {**NUMBERS, "flip_h": 0, "flip_v": 0, "turns": 0, "angle": 0, "sigma_px": 0, "solarize": math.inf}
    nothing |= {"grayscale": 0, "posterize": 8, "erase_height": 0, "top": 0, "left": 5, "height": 20, "width": 20}
    view = View(crop=CenterCrop(size=20), blur=Blur(), solarize=Solarize(), posterize=Posterize(), normalize=None)
    want = reference.unit(image)[:, :, 5:25]
    assert np.abs(reference.render(image, nothing, view) - want).max() < ROUNDING
    plain = View(crop=CenterCrop(size=20), normalize=None)
    assert np.abs(reference.render(image, nothing | {"hue": 0.3, "sigma_px": 2.0}, plain) - want).max() < ROUNDING


@pytest.mark.usefixtures("torchvision_luma")
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]])
def test_jitter_in_drawn_order(order):
    x = unit("photo")
    t = torch.from_numpy(x)
    for operation in order:
        if operation == reference.BRIGHTNESS:
            t = F.adjust_brightness(t, 1.6)
        elif operation == reference.CONTRAST:
            t = F.adjust_contrast(t, 1.5)
        elif operation == reference.SATURATION:
            t = F.adjust_saturation(t, 0.4)
        else:
            t = F.adjust_hue(t, -0.15)
    # 6 bounds how far contrast and brightness stretch the float32 error of the hue.
    row = NUMBERS | {f"order{i}": operation for i, operation in enumerate(order)}
    for name, arguments in reference.jitter_step(row, None):
        x = reference.apply(name, x, arguments)
    assert off(x, t) < 6 * SINGLE
