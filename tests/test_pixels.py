"""Rendered pixels against the float64 reference and against torchvision's v2 functional.

The bounds are those the project declares: largest error 1/255, mean error 0.1/255, in units of a channel in [0, 1].
Beyond them is only a declared band: pixels that solarize saw within 1e-3 of its threshold, where an error that small
decides between v and 1 - v, may be off by what lies between these two; how many a test excuses so is bounded too.
Hue needs no band: written as value less chroma times a trapezoid, the shift is continuous, gray included.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import images
import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fastssl import ops, recipes
from fastssl.ops.render import encode_recipe
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import (
    IMAGENET,
    Blur,
    CenterCrop,
    Crop,
    Flip,
    Grayscale,
    Jitter,
    Normalize,
    QuarterTurn,
    Solarize,
    View,
)

LARGEST = 1 / 255
MEAN = 0.1 / 255
KINDS = sorted(images.KINDS)

PLAIN = {"normalize": None}
FULL_JITTER = Jitter(p=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)

# One view of each recipe family: what is drawn, in which order, by which filter.
RECIPES = {
    "simclr": lambda size: recipes.simclr(size)[0],
    "byol": lambda size: View(
        crop=Crop(size=size),
        flip=Flip(p=0.5),
        vflip=Flip(p=0.5),
        turn=QuarterTurn(p=0.5),
        jitter=Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.5, sigma_px=(0.1, 2.0)),
        solarize=Solarize(p=0.5),
    ),
    "vicreg": lambda size: View(
        crop=Crop(size=size, area=(0.2, 1.0)),
        jitter=Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.5, sigma_px=(0.1, 2.0)),
        solarize=Solarize(p=0.5),
        order=("jitter", "grayscale", "solarize", "blur"),
    ),
    "dino": lambda size: View(
        crop=Crop(size=size, area=(0.05, 0.4), interpolation="bicubic"),
        flip=Flip(p=0.5),
        jitter=Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.5, sigma_px=(0.1, 2.0)),
        solarize=Solarize(p=0.5),
    ),
}


def plan_for(image: np.ndarray, view: View, **fields: float) -> Plan:
    """The identity on the whole image, save for these fields."""
    height, width = image.shape[:2]
    plain = View(crop=Crop(size=view.crop.size, interpolation=view.crop.interpolation), normalize=None)
    plan = Plan.draw((plain,), [(height, width)], seed=0)
    for name, value in ({"top": 0, "left": 0, "height": height, "width": width} | fields).items():
        getattr(plan, name)[...] = value
    return plan


def row(plan: Plan, i: int = 0, v: int = 0) -> dict[str, float]:
    return dict(zip(Plan.FIELDS, plan.data[i, v].double().tolist(), strict=True))


def render(image: np.ndarray, plan: Plan, view: View, **options: Any) -> Tensor:
    (out,) = ops.render([torch.from_numpy(image)], plan, (view,), **options)
    return out[0]


def off(got: Tensor, want: np.ndarray, view: View, slack: np.ndarray | float = 0.0) -> tuple[float, float]:
    """Largest and mean error in units of a channel in [0, 1], that is before normalization; less what is excused."""
    assert tuple(got.shape) == want.shape
    unit = np.ones((3, 1, 1)) if view.normalize is None else np.reshape(view.normalize.std, (3, 1, 1))
    error = np.maximum(np.abs(got.double().numpy() - want) * unit - slack, 0)
    assert not np.isnan(error).any()
    return float(error.max()), float(error.mean())


def check_pixels(got: Tensor, image: np.ndarray, numbers: dict[str, float], view: View) -> float:
    """Asserts both bounds against the reference; returns the share of pixels excused for more than the mean."""
    want, slack = reference.render_with_slack(image, numbers, view)
    largest, mean = off(got, want, view, slack)
    assert largest <= LARGEST and mean <= MEAN, f"{largest * 255:.3f}/255, mean {mean * 255:.4f}/255: {numbers}"
    return float((slack > MEAN).mean())


def check(image: np.ndarray, plan: Plan, view: View) -> float:
    return check_pixels(render(image, plan, view), image, row(plan), view)


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
        assert excused < 0.02


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


# --- whole recipes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 32, 96, 224])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_over_random_plans(name, size):
    view = RECIPES[name](size)
    count = 12 if size == 224 else 24
    shapes = [(60, 80), (223, 151), (17, 301), (1, 1), (240, 320), (32, 32)]
    batch = [images.KINDS[KINDS[i % len(KINDS)]](*shapes[i % len(shapes)], **seeded(i)) for i in range(count)]
    plan = Plan.draw((view,), [image.shape[:2] for image in batch], seed=11, epoch=size)
    (got,) = ops.render([torch.from_numpy(image) for image in batch], plan, (view,))
    excused = [check_pixels(got[i], image, row(plan, i), view) for i, image in enumerate(batch)]
    assert np.mean(excused) <= 0.05, "more than a band"


def seeded(i: int) -> dict[str, int]:
    return {"seed": i} if KINDS[i % len(KINDS)] in ("photo", "noise", "extremes", "gray") else {}


def torchvision_view(image: np.ndarray, numbers: dict[str, float], view: View) -> Tensor:
    """The same view by torchvision, on float32 images."""
    x = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    box = [int(numbers[name]) for name in ("top", "left", "height", "width")]
    size = [view.crop.size] * 2
    x = F.resized_crop(x, *box, size=size, interpolation=view.crop.interpolation, antialias=True).clamp(0, 1)
    x = F.horizontal_flip(x) if numbers["flip_h"] else x
    x = F.vertical_flip(x) if numbers["flip_v"] else x
    x = F.rotate(x, 90 * numbers["turns"]) if numbers["turns"] else x
    for operation in view.order:
        if operation == "jitter":
            for which in (int(numbers[f"order{i}"]) for i in range(4)):
                name = ("brightness", "contrast", "saturation", "hue")[which]
                x = getattr(F, f"adjust_{name}")(x, numbers[name])
        elif operation == "grayscale" and numbers["grayscale"]:
            x = F.rgb_to_grayscale(x, num_output_channels=3)
        elif operation == "blur" and numbers["sigma_px"]:
            side = min(2 * math.ceil(5 * numbers["sigma_px"]) + 1, 2 * view.crop.size - 1)
            x = F.gaussian_blur(x, kernel_size=[side, side], sigma=[numbers["sigma_px"]] * 2)
        elif operation == "solarize":
            x = F.solarize(x, numbers["solarize"]) if numbers["solarize"] <= 1 else x
    return x if view.normalize is None else F.normalize(x, list(view.normalize.mean), list(view.normalize.std))


@pytest.mark.parametrize("size", [32, 96, 224])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_agree_with_torchvision(name, size):
    view = RECIPES[name](size)
    shapes = [(180, 240), (96, 64), (301, 200), (64, 64)] * (1 if size == 224 else 3)  # torchvision's blur is slow
    batch = [images.photo(*shape, seed=i) for i, shape in enumerate(shapes)]
    plan = Plan.draw((view,), [image.shape[:2] for image in batch], seed=5, epoch=size)
    (got,) = ops.render([torch.from_numpy(image) for image in batch], plan, (view,))
    for i, image in enumerate(batch):
        numbers = row(plan, i)
        want = torchvision_view(image, numbers, view).double().numpy()
        slack = reference.render_with_slack(image, numbers, view)[1]
        largest, mean = off(got[i], want, view, slack)
        assert largest <= LARGEST and mean <= MEAN, f"image {i}: {largest * 255:.3f}/255, mean {mean * 255:.4f}/255"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(1, 48),
    name=st.sampled_from(sorted(RECIPES)),
    kind=st.sampled_from(["photo", "noise", "extremes"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_view_of_any_image(height, width, size, name, kind, seed):
    view = RECIPES[name](size)
    image = images.KINDS[kind](height, width, seed % 1000)
    check(image, Plan.draw((view,), [(height, width)], seed=seed), view)


def test_views_of_one_recipe_may_differ_in_everything():
    recipe = (RECIPES["simclr"](64), RECIPES["dino"](32), RECIPES["vicreg"](48))
    batch = [images.photo(90, 120, seed=i) for i in range(3)]
    plan = Plan.draw(recipe, [(90, 120)] * 3, seed=1)
    views = ops.render([torch.from_numpy(image) for image in batch], plan, recipe)
    assert [tuple(view.shape) for view in views] == [(3, 3, 64, 64), (3, 3, 32, 32), (3, 3, 48, 48)]
    for v, view in enumerate(recipe):
        for i, image in enumerate(batch):
            check_pixels(views[v][i], image, row(plan, i, v), view)


def test_real_photographs(imagenet_sample):
    view = RECIPES["byol"](96)
    batch = [ops.decode(path) for path in imagenet_sample[::60]]
    plan = Plan.draw((view,), [tuple(image.shape[:2]) for image in batch], seed=2)
    (got,) = ops.render(batch, plan, (view,))
    for i, image in enumerate(batch):
        assert check_pixels(got[i], image.numpy(), row(plan, i), view) < 0.05


# --- output -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Tensor], Plan, View]:
    view = RECIPES["simclr"](33)
    batch = [torch.from_numpy(images.photo(70, 90 + i, seed=i)) for i in range(9)]
    return batch, Plan.draw((view,), [tuple(image.shape[:2]) for image in batch], seed=4), view


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_are_the_float32_rounded_once(dtype, drawn):
    batch, plan, view = drawn
    (exact,) = ops.render(batch, plan, (view,))
    (got,) = ops.render(batch, plan, (view,), dtype=dtype)
    assert got.dtype == dtype
    assert torch.equal(got, exact.to(dtype))


def test_uint8_is_the_float32_rounded_once(drawn):
    batch, plan, view = drawn
    view = RECIPES["simclr"](33)
    view = View(crop=view.crop, flip=view.flip, jitter=view.jitter, blur=view.blur, grayscale=view.grayscale, **PLAIN)
    (exact,) = ops.render(batch, plan, (view,))
    (got,) = ops.render(batch, plan, (view,), dtype=torch.uint8)
    assert got.dtype == torch.uint8
    assert (got.double() - exact.double() * 255).abs().max() <= 0.5 + 1e-4  # 1e-4 for values that lie between two


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
def test_channels_last_holds_the_same_values(dtype, drawn):
    batch, plan, view = drawn
    view = View(
        crop=view.crop, jitter=view.jitter, blur=view.blur, normalize=None if dtype == torch.uint8 else IMAGENET
    )
    (plain,) = ops.render(batch, plan, (view,), dtype=dtype)
    (last,) = ops.render(batch, plan, (view,), dtype=dtype, channels_last=True)
    assert plain.is_contiguous()
    assert last.shape == plain.shape and last.stride() == (33 * 33 * 3, 1, 33 * 3, 3)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, plain)


@pytest.mark.parametrize("size", [1, 7])
def test_channels_last_of_small_views(size):
    image = images.photo(20, 20)
    view = View(crop=Crop(size=size))
    plan = plan_for(image, view)
    (plain,) = ops.render([torch.from_numpy(image)] * 2, Plan.cat([plan, plan]), (view,))
    (last,) = ops.render([torch.from_numpy(image)] * 2, Plan.cat([plan, plan]), (view,), channels_last=True)
    assert torch.equal(last, plain)


def test_normalize_is_the_last_step():
    image = images.photo(40, 40)
    mean, std = (0.1, 0.5, 0.7), (0.5, 0.25, 2.0)
    plain = View(crop=Crop(size=24), jitter=FULL_JITTER, **PLAIN)
    scaled = View(crop=Crop(size=24), jitter=FULL_JITTER, normalize=Normalize(mean=mean, std=std))
    plan = Plan.draw((plain,), [(40, 40)], seed=0)
    want = F.normalize(render(image, plan, plain), list(mean), list(std))
    assert (render(image, plan, scaled) - want).abs().max() < 1e-5  # float32 rounding at values up to 3.6


# --- input ------------------------------------------------------------------------------------------------------------


def test_an_image_renders_alike_alone_and_in_a_batch(drawn):
    batch, plan, view = drawn
    (together,) = ops.render(batch, plan, (view,))
    for i, image in enumerate(batch):
        (alone,) = ops.render([image], plan[i : i + 1], (view,))
        assert torch.equal(alone[0], together[i])


def test_images_of_any_strides():
    image = torch.from_numpy(images.photo(80, 60))
    view = View(crop=Crop(size=32), **PLAIN)
    for strided in (image.permute(2, 0, 1).contiguous().permute(1, 2, 0), image[::2, 5:50], image[:, ::3]):
        plan = Plan.draw((view,), [tuple(strided.shape[:2])], seed=0)
        (want,) = ops.render([strided.contiguous()], plan, (view,))
        (got,) = ops.render([strided], plan, (view,))
        assert torch.equal(got, want)


def test_render_leaves_images_and_plan_as_they_are(drawn):
    batch, plan, view = drawn
    before = [image.clone() for image in batch], plan.data.clone()
    ops.render(batch, plan, (view,))
    assert all(torch.equal(a, b) for a, b in zip(batch, before[0], strict=True))
    assert torch.equal(plan.data, before[1])


def test_an_empty_batch_renders_to_empty_views():
    view = View(crop=Crop(size=8))
    (out,) = ops.render([], Plan.draw((view,), [], seed=0), (view,))
    assert out.shape == (0, 3, 8, 8)


def test_render_is_a_well_formed_operator(drawn):
    """Schema, fake tensors and tracing agree with what it does."""
    batch, plan, view = drawn
    arguments = (
        [image.contiguous() for image in batch],
        plan.data,
        encode_recipe((view,)),
        "all",
        torch.float32,
        False,
        1,
    )
    torch.library.opcheck(torch.ops.fastssl.render.default, arguments)


def test_the_error_bound_would_catch_rounding_between_operations():
    """A negative control: 8-bit rounding after each operation, as Pillow has it, breaks the bound."""
    image = images.photo(90, 70)
    view = View(crop=Crop(size=64), jitter=FULL_JITTER, **PLAIN)
    numbers = row(plan_for(image, view, brightness=0.4, contrast=1.8, saturation=1.8, hue=0.1))
    exact = reference.render(image, numbers, view)
    x = reference.resize(image.transpose(2, 0, 1) / 255, 64, "bilinear")
    for operation, factor in [("brightness", 0.4), ("contrast", 1.8), ("saturation", 1.8), ("hue", 0.1)]:
        x = np.round(x * 255) / 255
        x = getattr(reference, f"adjust_{operation}")(x, factor)
    largest, mean = off(torch.from_numpy(x), exact, view)
    assert largest > LARGEST and mean > MEAN


def test_render_compiles_without_a_graph_break():
    image = torch.from_numpy(images.photo(40, 50, seed=0))
    recipe = recipes.simclr(16)
    plan = Plan.draw(recipe, [(40, 50)], seed=0)
    compiled = torch.compile(lambda image, data: ops.render([image], data, recipe), fullgraph=True, backend="aot_eager")
    for ours, eager in zip(compiled(image, plan.data), ops.render([image], plan, recipe), strict=True):
        assert torch.equal(ours, eager)
