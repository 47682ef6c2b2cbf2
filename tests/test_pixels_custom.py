"""A step of the user's own: what it gets, what becomes of what it gives, and what is said when it gives something else."""

from __future__ import annotations

import images
import numpy as np
import pytest
import torch
from pixels import FULL_JITTER, PLAIN, check_pixels, row
from torch import Tensor

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
    Normalize,
    Posterize,
    Rotate,
    Solarize,
    View,
)

SHAPES = [(1, 1), (40, 50), (33, 21), (90, 120)]


def negative(batch: Tensor) -> Tensor:
    return 1 - batch


def swapped(batch: Tensor) -> Tensor:
    """Red for blue, and upside down; not contiguous."""
    return batch.flip(1).transpose(2, 3)


def drawn(view: View, seed: int = 3) -> tuple[list[np.ndarray], Plan]:
    return [images.photo(*shape) for shape in SHAPES], Plan.draw((view,), SHAPES, seed=seed)


def rendered(batch: list[np.ndarray], plan: Plan, view: View, **options: object) -> Tensor:
    (out,) = ops.render([torch.from_numpy(image) for image in batch], plan, (view,), **options)
    return out


PARTS = {
    "flip": Flip(),
    "rotate": Rotate(p=0.5, interpolation="bilinear"),
    "jitter": Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
    "grayscale": Grayscale(p=0.2),
    "blur": Blur(p=0.5),
    "erase": Erase(p=0.5, value=0.3),
}
ORDERS = [
    ("crop", "custom", "jitter", "grayscale", "blur"),
    ("crop", "jitter", "custom", "grayscale", "blur"),
    ("crop", "blur", "jitter", "grayscale", "custom"),
    ("jitter", "crop", "custom", "blur", "grayscale"),
    ("blur", "jitter", "grayscale", "crop", "custom"),
]


@pytest.mark.parametrize("function", [negative, swapped])
@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_custom_has_its_place_in_the_order(order, function):
    for size in (1, 7, 32):
        view = View(crop=Crop(size=size), custom=function, order=order, **PARTS)
        batch, plan = drawn(view)
        got = rendered(batch, plan, view)
        for i, image in enumerate(batch):
            check_pixels(got[i], image, row(plan, i), view)


def test_jumps_after_custom():
    order = ("crop", "jitter", "custom", "solarize", "posterize", "blur")
    parts = {
        "solarize": Solarize(p=0.5),
        "posterize": Posterize(p=0.5, bits=3),
        "blur": Blur(p=0.5),
        "jitter": FULL_JITTER,
    }
    view = View(crop=Crop(size=32), custom=negative, order=order, **parts)
    batch, plan = drawn(view)
    got = rendered(batch, plan, view)
    for i, image in enumerate(batch):
        assert check_pixels(got[i], image, row(plan, i), view) < 0.05


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_custom_gets_the_whole_batch_once_in_float32_from_0_to_1(order):
    seen: list[Tensor] = []

    def look(batch: Tensor) -> Tensor:
        seen.append(batch.clone())
        return batch

    view = View(crop=Crop(size=16, interpolation="bicubic"), custom=look, order=order, **PARTS)
    batch, plan = drawn(view)
    got = rendered(batch, plan, view)
    assert [tuple(b.shape) for b in seen] == [(len(SHAPES), 3, 16, 16)]
    assert seen[0].dtype == torch.float32 and seen[0].min() >= 0 and seen[0].max() <= 1
    # What it saw is the view up to there; and having changed nothing, it leaves the whole as it is without it.
    before = order[: order.index("custom")]
    parts = {name: part for name, part in PARTS.items() if name in (*before, "flip", "rotate")}
    whole = Plan(plan.data.clone())
    for field in ("erase_top", "erase_left", "erase_height", "erase_width"):
        setattr(whole, field, 0)
    assert torch.equal(seen[0], rendered(batch, whole, View(crop=view.crop, order=before, **parts, **PLAIN)))
    # float32 may be stored between the parts, where one pass need not
    assert (got - rendered(batch, plan, view.with_(custom=None))).abs().max() < 1e-4


def test_custom_may_mix_the_images_of_a_batch():
    view = View(crop=Crop(size=16), custom=lambda batch: (batch + batch.flip(0)) / 2, **PLAIN)
    batch, plan = drawn(view)
    alone = rendered(batch, plan, view.with_(custom=None))
    assert (rendered(batch, plan, view) - (alone + alone.flip(0)) / 2).abs().max() < 1e-6


def test_custom_comes_before_normalization_and_erasing():
    normalize = Normalize(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    view = View(crop=Crop(size=16), custom=torch.zeros_like, normalize=normalize, erase=Erase(p=1.0, value=7.0))
    batch, plan = drawn(view)
    got = rendered(batch, plan, view)
    assert (plan.erase_height > 0).all()
    for i in range(len(batch)):
        top, left, height, width = (
            int(getattr(plan, f"erase_{name}")[i, 0]) for name in ("top", "left", "height", "width")
        )
        want = torch.tensor([-0.2, -0.8, -0.15])[:, None, None].repeat(1, 16, 16)
        want[:, top : top + height, left : left + width] = 7
        assert (got[i] - want).abs().max() < 1e-6


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
def test_types_layouts_and_out(dtype, channels_last):
    normalize = None if dtype == torch.uint8 else IMAGENET
    view = View(
        crop=Crop(size=17), custom=negative, blur=Blur(p=0.5), normalize=normalize, order=("crop", "custom", "blur")
    )
    batch, plan = drawn(view)
    exact = rendered(batch, plan, view)
    got = rendered(batch, plan, view, dtype=dtype, channels_last=channels_last)
    assert got.dtype == dtype
    assert got.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    if dtype == torch.uint8:
        assert (got.double() - exact.double() * 255).abs().max() <= 0.5 + 1e-4
    else:
        assert torch.equal(got, exact.to(dtype))
    out = torch.empty_like(got)
    assert rendered(batch, plan, view, dtype=dtype, channels_last=channels_last, out=[out]) is out
    assert torch.equal(out, got)


def test_views_with_and_without_custom_in_one_recipe():
    plain = View(crop=Crop(size=16), **PARTS)
    recipe = (plain, plain.with_(custom=negative), plain.with_(crop=Crop(size=24), custom=swapped))
    batch = [images.photo(*shape) for shape in SHAPES]
    plan = Plan.draw(recipe, SHAPES, seed=1)
    views = ops.render([torch.from_numpy(image) for image in batch], plan, recipe)
    for v, view in enumerate(recipe):
        for i, image in enumerate(batch):
            check_pixels(views[v][i], image, row(plan, i, v), view)


@pytest.mark.parametrize("channels", [1, 5])
def test_custom_of_other_channels_and_16_bits(channels):
    rng = np.random.default_rng(channels)
    batch = [rng.integers(0, 65536, (*shape, channels)).astype(np.uint16) for shape in SHAPES]
    view = View(crop=Crop(size=16), custom=negative, blur=Blur(p=1.0), order=("crop", "custom", "blur"), **PLAIN)
    plan = Plan.draw((view,), SHAPES, seed=1)
    got = rendered(batch, plan, view)
    for i, image in enumerate(batch):
        check_pixels(got[i], image, row(plan, i), view)


@pytest.mark.parametrize(
    "function",
    [
        lambda batch: None,
        lambda batch: batch[:1],
        lambda batch: batch[:, :, :8],
        lambda batch: batch.double(),
        lambda batch: batch.numpy(),
        lambda batch: [batch],
    ],
    ids=["nothing", "one image", "smaller", "float64", "array", "list"],
)
def test_another_shape_or_type_is_refused(function):
    view = View(crop=Crop(size=16), custom=function)
    batch, plan = drawn(view)
    with pytest.raises((ValueError, TypeError), match="custom"):
        rendered(batch, plan, view)


def test_an_error_in_custom_is_the_users_own():
    def broken(batch: Tensor) -> Tensor:
        raise KeyError("mine")

    view = View(crop=Crop(size=16), custom=broken)
    batch, plan = drawn(view)
    with pytest.raises(KeyError, match="mine"):
        rendered(batch, plan, view)


def test_custom_before_the_crop_is_refused():
    with pytest.raises(ValueError, match=r"(?s)order=.*custom before the crop"):
        View(crop=Crop(size=16), custom=negative, order=("custom", "crop"))
