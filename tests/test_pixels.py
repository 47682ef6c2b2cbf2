"""Crop, resize, flips, colours and the Gaussian blur, each alone, against the float64 reference."""

from __future__ import annotations

import itertools
import math

import images
import numpy as np
import pytest
import torch
from pixels import FULL_JITTER, KINDS, PLAIN, check, plan_for, render
from torch import Tensor

from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Blur, CenterCrop, Crop, Grayscale, Solarize, View

# --- crop and resize --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [1, 7, 32, 96, 224])
@pytest.mark.parametrize(
    "height, width",
    [(1, 1), (1, 9), (9, 1), (2, 3), (5, 400), (400, 5), (33, 17), (96, 96), (225, 223), (257, 129), (600, 400)],
)
def test_resize_of_any_size_to_any_size(height, width, size, interpolation):
    view = View(crop=Crop(size=size, interpolation=interpolation), **PLAIN)
    for kind in ("photo", "noise"):
        image = images.KINDS[kind](height, width)
        check(image, plan_for(image, view), view)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("kind", KINDS)
def test_crop_keeps_to_its_own_pixels(kind, interpolation):
    image = images.KINDS[kind](130, 170)
    for size, box in [
        (32, (0, 0, 130, 170)),
        (32, (1, 2, 127, 167)),
        (64, (129, 169, 1, 1)),
        (33, (40, 0, 1, 170)),
        (50, (0, 80, 130, 1)),
        (96, (17, 23, 50, 40)),
        (224, (60, 90, 70, 80)),
    ]:
        view = View(crop=Crop(size=size, interpolation=interpolation), **PLAIN)
        top, left, height, width = box
        plan = plan_for(image, view, top=top, left=left, height=height, width=width)
        check(image, plan, view)
        other = images.noise(130, 170, seed=7)  # what lies outside the crop must not matter
        other[top : top + height, left : left + width] = image[top : top + height, left : left + width]
        assert torch.equal(render(image, plan, view), render(other, plan, view))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_same_size_is_the_image_itself(interpolation):
    image = images.noise(61, 61)
    view = View(crop=Crop(size=61, interpolation=interpolation), **PLAIN)
    got = render(image, plan_for(image, view), view, dtype=torch.uint8)
    assert torch.equal(got, torch.from_numpy(image).permute(2, 0, 1))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_long_strip(interpolation):
    image = images.noise(10, 20_000)
    view = View(crop=Crop(size=32, interpolation=interpolation), **PLAIN)
    check(image, plan_for(image, view), view)
    check(image, plan_for(image, view, left=19_990, width=10), view)
    check(image.transpose(1, 0, 2).copy(), plan_for(image.transpose(1, 0, 2), view), view)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_black_and_white_stay_exactly_black_and_white(interpolation):
    for value in (0, 255):
        image = images.flat(123, 77, (value,) * 3)
        for size in (7, 96, 224):
            view = View(crop=Crop(size=size, interpolation=interpolation), **PLAIN)
            got = render(image, plan_for(image, view), view)
            assert got.min() >= 0 and got.max() <= 1
            assert (got - value / 255).abs().max() < 1e-6


@pytest.mark.parametrize("size", [1, 33, 224])
def test_center_crop(size):
    for height, width in [(1, 1), (10, 300), (231, 180), (301, 299)]:
        image = images.photo(height, width)
        view = View(crop=CenterCrop(size=size, keep=0.875))
        plan = Plan.draw((view,), [(height, width)], seed=3)
        check(image, plan, view)


# --- flips and turns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 32, 97])
def test_flips_and_turns_move_pixels_and_change_none(size):
    image = images.photo(60, 90)
    view = View(crop=Crop(size=size), **PLAIN)
    plain = render(image, plan_for(image, view), view)

    def moved(**fields: float) -> Tensor:
        return render(image, plan_for(image, view, **fields), view)

    assert torch.equal(moved(flip_h=1), plain.flip(2))
    assert torch.equal(moved(flip_v=1), plain.flip(1))
    assert torch.equal(moved(turns=1), plain.rot90(1, (1, 2)))  # counter-clockwise
    assert torch.equal(moved(flip_h=1, flip_v=1), plain.flip(1, 2))
    assert torch.equal(moved(flip_h=1, turns=1), plain.flip(2).rot90(1, (1, 2)))  # flips first, then the turn
    assert torch.equal(moved(flip_v=1, turns=1), plain.flip(1).rot90(1, (1, 2)))
    assert torch.equal(moved(flip_h=1, flip_v=1, turns=1), plain.flip(1, 2).rot90(1, (1, 2)))


# --- colour -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.9, 1.0, 1.3, 1.8])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_jitter_by_one_factor(name, factor, kind):
    image = images.KINDS[kind](70, 50)
    view = View(crop=Crop(size=64), jitter=FULL_JITTER, **PLAIN)
    check(image, plan_for(image, view, **{name: factor}), view)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [-0.5, -0.31, -0.2, -1 / 6, -1e-4, 1e-4, 0.1, 1 / 3, 0.5])
def test_hue(shift, kind):
    image = images.KINDS[kind](70, 50)
    view = View(crop=Crop(size=64), jitter=FULL_JITTER, **PLAIN)
    check(image, plan_for(image, view, hue=shift), view)


@pytest.mark.parametrize("shift", [-0.4, -0.05, 0.05, 0.25])
def test_hue_of_every_step_of_the_colour_circle(shift):  # every sector, each of its ends, at three chromas
    full = np.array([(255, b, 0) for b in range(256)] + [(a, 255, 0) for a in range(256)])
    circle = np.concatenate([full, full[:, [2, 0, 1]], full[:, [1, 2, 0]], full[:, [0, 2, 1]]])
    image = np.stack([circle, circle // 2 + 60, circle // 16 + 100]).astype(np.uint8)
    image = np.resize(image.reshape(-1, 3), (78, 78, 3))
    view = View(crop=Crop(size=78), jitter=FULL_JITTER, **PLAIN)
    check(image, plan_for(image, view, hue=shift), view)


@pytest.mark.parametrize("index", range(24))
def test_jitter_in_every_order(index):
    order = list(itertools.permutations(range(4)))[index]
    image = images.photo(50, 70, seed=index)
    view = View(crop=Crop(size=48), jitter=FULL_JITTER)
    fields = {f"order{i}": operation for i, operation in enumerate(order)}
    for factors in [(1.7, 1.6, 1.5, 0.18), (0.3, 1.8, 1.8, -0.2)]:
        values = dict(zip(("brightness", "contrast", "saturation", "hue"), factors, strict=True))
        check(image, plan_for(image, view, **values, **fields), view)


@pytest.mark.parametrize("kind", KINDS)
def test_grayscale(kind):
    image = images.KINDS[kind](70, 50)
    view = View(crop=Crop(size=64), grayscale=Grayscale(p=1.0), **PLAIN)
    plan = plan_for(image, view, grayscale=1)
    check(image, plan, view)
    out = render(image, plan, view)
    assert torch.equal(out[0], out[1]) and torch.equal(out[0], out[2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [0.0, 1 / 255, 0.3, 128 / 255, 1.0, math.inf])
def test_solarize(threshold, kind):
    image = images.KINDS[kind](70, 50)
    view = View(crop=Crop(size=64), solarize=Solarize(p=1.0), **PLAIN)
    plan = plan_for(image, view, solarize=threshold)
    excused = check(image, plan, view)
    if kind in ("photo", "noise") and 0 < threshold < 1:  # black, white and flat images can lie wholly in a band
        assert excused < 0.01


def test_solarize_inverts_the_threshold_itself():  # v >= threshold, as Pillow; the crop is the image, so v is exact
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1).reshape(16, 16, 3)
    view = View(crop=Crop(size=16), solarize=Solarize(p=1.0, threshold=128), **PLAIN)
    plan = Plan.draw((view,), [(16, 16)], seed=0)
    for name, value in {"top": 0, "left": 0, "height": 16, "width": 16}.items():
        getattr(plan, name)[...] = value
    got = render(levels, plan, view, dtype=torch.uint8)[0].flatten().tolist()
    assert got == [v if v < 128 else 255 - v for v in range(256)]


# --- blur -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 32, 96])
@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 1.0, 1.37, 2.0, 3.5])
def test_blur(sigma, size):
    view = View(crop=Crop(size=size), blur=Blur(p=1.0, sigma_px=(0.1, 4.0)), **PLAIN)
    for kind in ("photo", "extremes"):
        image = images.KINDS[kind](size + 2, size + 5)
        box = {"height": size, "width": size}  # no resize: the extremes stay, and nothing hides the blur's own error
        check(image, plan_for(image, view, sigma_px=sigma, **box), view)


@pytest.mark.parametrize("sigma", [6.0, 30.0, 200.0])
def test_blur_wider_than_the_view_reflects_again_and_again(sigma):
    view = View(crop=Crop(size=9), blur=Blur(p=1.0, sigma_px=(0.1, 200.0)), **PLAIN)
    for image in (images.noise(9, 9), images.extremes(9, 9)):
        check(image, plan_for(image, view, sigma_px=sigma), view)


def test_blur_of_a_single_point_is_a_gaussian():
    image = np.zeros((65, 65, 3), dtype=np.uint8)
    image[32, 32] = 255
    view = View(crop=Crop(size=65), blur=Blur(p=1.0), **PLAIN)
    out = render(image, plan_for(image, view, sigma_px=2.0), view)[0].double()
    t = torch.arange(65).double() - 32
    moment = (out.sum(0) * t**2).sum() / out.sum()
    assert abs(out.sum() - 1) < 1e-3  # nothing is lost
    assert abs(moment.sqrt() - 2.0) < 0.04  # its deviation is sigma; 2 % covers a kernel that ends at 3 sigma
    assert torch.equal(out, out.flip(0)) and torch.equal(out, out.flip(1)), "not symmetric"
