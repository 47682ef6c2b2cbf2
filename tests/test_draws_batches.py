"""A batch is drawn and compiled at once: each view as if it were alone, whatever form the sizes have."""

from __future__ import annotations

import hashlib
import re

import pytest
import torch
from drawing import full_view

from fastssl._native import _C
from fastssl.ops.render import encode_recipe, native_views
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import (
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Jitter,
    Posterize,
    Recipe,
    Resize,
    Rotate,
    SameCrop,
    View,
)

EVERY_PART: Recipe = (
    full_view(rotate=Rotate(p=0.5, degrees=(-40, 170)), posterize=Posterize(p=0.4, bits=3), erase=Erase(p=0.3)),
    View(crop=SameCrop(size=16, of=0), jitter=Jitter(p=1.0, brightness=0.1)),
    View(crop=Crop(size=8, area=(0.05, 0.4), inside=0), flip=Flip(p=0.5)),
    View(crop=CenterCrop(size=8), erase=Erase(p=1.0)),
    View(crop=Resize(size=9), vflip=Flip(p=1.0), blur=Blur(p=1.0, sigma_px=(0.1, 0.5))),
)
# Of 80 x 400 many need a second attempt, or a tenth, or the central crop, which 30 x 900 always needs.
SIZES = [(375, 500), (30, 900), (1, 1), (64, 64), (900, 700), (80, 400)] * 40
KEY = {"seed": 2**50 + 3, "epoch": 7}


def test_a_batch_is_drawn_as_its_images_alone():
    indices = [(i * 7919) % 2**40 for i in range(len(SIZES))]
    whole = Plan.draw(EVERY_PART, SIZES, indices=indices, **KEY)
    alone = [Plan.draw(EVERY_PART, [size], indices=[i], **KEY) for size, i in zip(SIZES, indices, strict=True)]
    assert torch.equal(whole.data, Plan.cat(alone).data)
    central = (whole.height[5::6, 0] == 80) & (whole.width[5::6, 0] == 107)  # of 80 x 400, at most 4/3 wide
    assert 0 < central.sum() < 40, "no strip, or every strip, needed more than ten attempts"


def test_stored_seeds_give_the_views_they_gave_of_every_part():
    plan = Plan.draw(EVERY_PART, SIZES, indices=range(2**33, 2**33 + len(SIZES)), **KEY)
    assert (
        hashlib.sha256(plan.data.numpy().tobytes()).hexdigest()
        == "1b5cb95377190f4383bc984e713cc981f8c732260496f7a6b5fdd2cb57acee18"
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_tensors_of_sizes_and_indices_are_as_good_as_lists(dtype):
    indices = [5, 2**31 - 1, 0] * 80
    listed = Plan.draw(EVERY_PART, SIZES, indices=indices, **KEY)
    sizes, numbers = torch.tensor(SIZES, dtype=dtype), torch.tensor(indices, dtype=dtype)
    strided = sizes.t().contiguous().t(), torch.stack([numbers, numbers], 1)[:, 0]
    for given in [
        (sizes, numbers),
        strided,
        (sizes, indices),
        (SIZES, numbers),
        ([list(s) for s in SIZES], tuple(indices)),
    ]:
        assert torch.equal(Plan.draw(EVERY_PART, given[0], indices=given[1], **KEY).data, listed.data)


@pytest.mark.parametrize(
    "sizes, indices, words",
    [
        (torch.tensor([[8, 8], [8, 0]]), None, r"sizes holds \(8, 0\)"),
        (torch.tensor([[8, 2**24]]), None, r"sizes holds \(8, 16777216\)"),
        (torch.tensor([[8.0, 8.0]]), None, r"sizes is torch.float32, \(1, 2\).*whole numbers, \(images, 2\)"),
        (torch.tensor([8, 8]), None, r"sizes is torch.int64, \(2,\)"),
        (torch.tensor([[8, 8, 3]]), None, r"sizes is torch.int64, \(1, 3\)"),
        ([(8, 8), (8, 2**70)], None, r"sizes holds \(8, 1180591620717411303424\)"),
        ([(8, 8, 8)], None, r"sizes holds \(8, 8, 8\)"),
        (["88"], None, r"sizes holds '88'"),
        ([(8, 8)] * 2, torch.tensor([0, -1]), r"indices must be from 0 to 2\^63 - 1; number 1 is not"),
        ([(8, 8)] * 2, [2**63, 0], r"indices .* number 0 is not"),
        ([(8, 8)] * 2, torch.tensor([0.0, 1.0]), r"indices is torch.float32, \(2,\).*whole numbers, \(images,\)"),
        ([(8, 8)] * 2, torch.tensor([0, 1, 2]), r"2 sizes need as many indices, got 3"),
    ],
)
def test_sizes_and_indices_that_cannot_be(sizes, indices, words):
    with pytest.raises(ValueError, match=r"^Plan\.draw: " + words):
        Plan.draw((full_view(),), sizes, seed=0, indices=indices)


def test_no_image_is_no_plan():
    assert Plan.draw(EVERY_PART, [], seed=0).data.shape == (0, 5, len(Plan.FIELDS))
    assert len(Plan.draw(EVERY_PART, torch.empty((0, 2), dtype=torch.int64), seed=0)) == 0


def test_what_is_drawn_compiles_to_what_changes_the_view():
    plan = Plan.draw(EVERY_PART, SIZES, **KEY)
    jitter = sum((getattr(plan, name) != 1).int() for name in ("brightness", "contrast", "saturation"))
    blurred = (
        plan.sigma_px > (0.5 / torch.log(torch.tensor(4094.0))) ** 0.5
    )  # 2 w / (1 + 2 w) > 2^-11, w beside the middle
    steps = jitter + (plan.hue != 0) + plan.grayscale + blurred + plan.solarize.isfinite() + (plan.posterize < 8)
    assert (plan.sigma_px[blurred.logical_not()] > 0).any(), "no blur was too small"
    views = native_views(encode_recipe(EVERY_PART))
    assert _C.compile(views, len(plan), plan.data.data_ptr(), 3) == int(steps.sum())


@pytest.mark.parametrize(
    "field, wrong", [("flip_h", 0.5), ("grayscale", -1), ("turns", 4), ("order2", 2.5), ("order0", -1)]
)
@pytest.mark.parametrize("value", ["wrong", "nan"])
def test_what_is_no_whole_number_does_not_compile(field, wrong, value):
    plan = Plan.draw(EVERY_PART, SIZES[:1], **KEY)
    setattr(plan, field, wrong if value == "wrong" else float("nan"))
    with pytest.raises(ValueError, match=re.escape(field.rstrip("0123456789"))):
        _C.compile(native_views(encode_recipe(EVERY_PART)), 1, plan.data.data_ptr(), 3)
