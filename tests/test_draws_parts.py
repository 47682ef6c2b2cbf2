"""Angles, rectangles to erase, crops within crops and the same crop again; and that new parts leave old draws alone.

As in test_draws.py, a test fails with probability ALPHA for a random seed, and seeds are fixed.
"""

from __future__ import annotations

import copy
import hashlib
import pickle

import numpy as np
import pytest
import torch
from drawing import ALPHA, JITTER_NAMES, N, crop_p_values, draw, full_view, same, share, torchvision_crops, uniform
from scipy import stats
from torchvision.transforms import RandomErasing

from fastssl import ops
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import (
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Jitter,
    Posterize,
    QuarterTurn,
    Resize,
    Rotate,
    SameCrop,
    Solarize,
    View,
)

GEOMETRY = ("top", "left", "height", "width", "flip_h", "flip_v", "turns", "angle")
COLOURS = (*JITTER_NAMES, "order0", "order1", "order2", "order3", "grayscale", "sigma_px", "solarize")
RECTANGLE = ("erase_top", "erase_left", "erase_height", "erase_width")


def column(plan: Plan, name: str, view: int = 0) -> np.ndarray:
    return getattr(plan, name)[:, view].double().numpy()


# --- rotation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees, low, high", [(30, -30, 30), ((10.0, 50.0), 10, 50), ((-180, 180), -180, 180)])
def test_the_angle_is_uniform(degrees, low, high):
    angle = column(draw(full_view(rotate=Rotate(p=1.0, degrees=degrees))), "angle")
    assert low <= angle.min() and angle.max() <= high
    assert uniform(angle, low, high) > ALPHA
    assert uniform(angle, low, high + 0.03 * (high - low)) < ALPHA, "a range 3 % too wide would pass"
    assert uniform(np.abs(angle - (low + high) / 2), 0, (high - low) / 2) > ALPHA


def test_a_narrow_range_is_its_one_angle():
    assert (draw(full_view(rotate=Rotate(p=1.0, degrees=(33.0, 33.0))), 100).angle == 33).all()
    assert (draw(full_view(rotate=Rotate(p=1.0, degrees=0)), 100).angle == 0).all()


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_how_often_a_view_is_rotated_posterized_and_erased(p):
    plan = draw(full_view(rotate=Rotate(p=p), posterize=Posterize(p=p, bits=3), erase=Erase(p=p)))
    happened = {"angle": plan.angle != 0, "posterize": plan.posterize != 8, "erase": plan.erase_height > 0}
    for name, flags in happened.items():
        count = int(flags.sum())
        if p in (0.0, 1.0):
            assert count == p * N, name
        else:
            assert share(count, N, p) > ALPHA, f"{name}: {count} of {N}"
            assert share(count, N, p * 1.15) < ALPHA, f"{name}: a probability 15 % too high would pass"
    assert set(plan.posterize.unique().tolist()) <= {3.0, 8.0}


def test_parts_are_drawn_apart():
    view = full_view(rotate=Rotate(p=0.5), posterize=Posterize(p=0.4), erase=Erase(p=0.3))
    plan = draw(view)
    flags = {
        "flip": plan.flip_h != 0,
        "vflip": plan.flip_v != 0,
        "turn": plan.turns != 0,
        "rotate": plan.angle != 0,
        "jitter": plan.brightness != 1,
        "grayscale": plan.grayscale != 0,
        "blur": plan.sigma_px != 0,
        "solarize": plan.solarize < 2,
        "posterize": plan.posterize != 8,
        "erase": plan.erase_height > 0,
    }
    new = ("rotate", "posterize", "erase")
    pairs = [(a, b) for a in new for b in flags if a != b and not (b in new and b < a)]
    for a, b in pairs:
        x, y = flags[a][:, 0].numpy(), flags[b][:, 0].numpy()
        table = [[int((x & y).sum()), int((x & ~y).sum())], [int((~x & y).sum()), int((~x & ~y).sum())]]
        assert stats.chi2_contingency(table).pvalue > ALPHA / len(pairs), f"{a} depends on {b}"


def test_angle_and_rectangle_are_unrelated_to_all_else():
    view = full_view(
        rotate=Rotate(p=1.0), erase=Erase(p=1.0), blur=Blur(p=1.0), jitter=Jitter(p=1.0, brightness=0.5, hue=0.2)
    )
    plan = draw(view)
    old = [plan.height, plan.width, plan.top, plan.left, plan.brightness, plan.hue, plan.sigma_px, plan.flip_h]
    new = [plan.angle, plan.erase_height * plan.erase_width, plan.erase_height / plan.erase_width, plan.erase_top]
    for x in new:
        for y in old:
            assert stats.spearmanr(x[:, 0], y[:, 0]).pvalue > ALPHA / (len(old) * len(new))
    for y in new[1:]:
        assert stats.spearmanr(plan.angle[:, 0], y[:, 0]).pvalue > ALPHA / 3


# --- erasing ----------------------------------------------------------------------------------------------------------

ERASURES = {
    "usual": (224, (0.02, 0.33), (0.3, 10 / 3)),
    "small": (32, (0.02, 0.33), (0.3, 10 / 3)),
    "large and long": (96, (0.3, 0.9), (0.2, 5.0)),  # many tries do not fit
    "of 7 pixels": (7, (0.02, 0.33), (0.3, 10 / 3)),
}


def torchvision_rectangles(size: int, area, aspect, n: int = N, seed: int = 0) -> np.ndarray:
    """Those of n that erase anything."""
    torch.manual_seed(seed)
    image = torch.empty(3, size, size)
    boxes = [RandomErasing.get_params(image, area, aspect, value=[0.0])[:4] for _ in range(n)]
    return np.array([box for box in boxes if box != (0, 0, size, size)], dtype=float)


def rectangles(size: int, area, aspect, n: int = N) -> np.ndarray:
    plan = draw(View(crop=Crop(size=size), erase=Erase(p=1.0, area=area, aspect=aspect)), n)
    boxes = np.stack([column(plan, name) for name in RECTANGLE], axis=1)
    return boxes[boxes[:, 2] > 0]


def rectangle_p_values(boxes: np.ndarray, others: np.ndarray, size: int) -> dict[str, float]:
    """The aspect of crop_p_values is width over height, as for crops; that turns no distance of two samples."""
    p = crop_p_values(boxes, others, (size, size))
    counts = [[len(boxes), N - len(boxes)], [len(others), N - len(others)]]
    p["how often"] = 1.0 if counts[0][1] == counts[1][1] == 0 else float(stats.chi2_contingency(counts).pvalue)
    return p


@pytest.mark.parametrize("case", sorted(ERASURES))
def test_rectangles_are_distributed_as_in_torchvision(case):
    size, area, aspect = ERASURES[case]
    boxes, others = rectangles(size, area, aspect), torchvision_rectangles(size, area, aspect)
    for name, p in rectangle_p_values(boxes, others, size).items():
        assert p > ALPHA, f"{name}: p = {p:.1e}"


def test_the_long_case_exercises_tries_that_do_not_fit():
    size, area, aspect = ERASURES["large and long"]
    assert N - len(torchvision_rectangles(size, area, aspect)) > 0.001 * N


@pytest.mark.parametrize(
    "wrong, caught",
    [
        ({"area": (0.03, 0.33)}, "area"),
        ({"area": (0.02, 0.3)}, "area"),
        ({"aspect": (0.4, 10 / 3)}, "aspect"),
        ({"aspect": (0.3, 2.5)}, "aspect"),
        ({"aspect": (0.2, 10 / 3)}, "width"),
    ],
)
def test_a_wrong_rectangle_would_be_caught(wrong, caught):
    size, area, aspect = ERASURES["usual"]
    boxes = rectangles(size, **({"area": area, "aspect": aspect} | wrong))
    assert rectangle_p_values(boxes, torchvision_rectangles(size, area, aspect), size)[caught] < ALPHA


def test_aspect_is_height_over_width():
    """Lying and standing are told apart where the range is not symmetric."""
    boxes = rectangles(224, (0.05, 0.1), (2.0, 3.0))
    assert (boxes[:, 2] > 1.8 * boxes[:, 3]).all()
    others = torchvision_rectangles(224, (0.05, 0.1), (2.0, 3.0))
    assert min(rectangle_p_values(boxes, others, 224).values()) > ALPHA
    swapped = others[:, [1, 0, 3, 2]]
    assert rectangle_p_values(boxes, swapped, 224)["aspect"] < ALPHA


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 33])
def test_rectangles_lie_inside_the_view(size):
    view = View(crop=Crop(size=size), erase=Erase(p=1.0, area=(0.01, 1.0), aspect=(0.1, 10.0)))
    plan = draw(view, 3000, (60, 40))
    top, left, height, width = (getattr(plan, name) for name in RECTANGLE)
    for values in (top, left, height, width):
        assert torch.equal(values, values.round()) and (values >= 0).all()
    assert (top + height <= size).all() and (left + width <= size).all()
    assert torch.equal(height > 0, width > 0)
    assert (height > 0).any() or size == 1  # a rectangle is smaller than the view in both directions, as in torchvision


# --- the same crop again ----------------------------------------------------------------------------------------------

FIRST = full_view(rotate=Rotate(p=0.5), erase=Erase(p=0.5))
JITTERED = Jitter(p=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
SIZES = [(100 + 3 * i, 140 - 2 * i) for i in range(40)] * 50


def test_the_same_crop_has_the_geometry_of_the_other_view_and_draws_the_rest_anew():
    recipe = (
        FIRST,
        full_view(jitter=JITTERED),
        View(crop=SameCrop(size=48, of=1), jitter=JITTERED, erase=Erase(p=0.5)),
        View(crop=SameCrop(size=96), jitter=JITTERED),
        View(crop=SameCrop(size=8, of=2)),
    )
    plan = Plan.draw(recipe, SIZES, seed=7)
    for name in (*GEOMETRY, "source_height", "source_width"):
        field = getattr(plan, name)
        assert torch.equal(field[:, 2], field[:, 1]) and torch.equal(field[:, 4], field[:, 1]), name
        assert torch.equal(field[:, 3], field[:, 0]), name
    assert (plan.top[:, 0] != plan.top[:, 1]).any() and (plan.angle[:, 3] != 0).any()
    for name in JITTER_NAMES:
        assert (getattr(plan, name)[:, 1] != getattr(plan, name)[:, 2]).all(), name
        assert stats.spearmanr(column(plan, name, 1), column(plan, name, 2)).pvalue > ALPHA / 4
    assert uniform(column(plan, "brightness", 2), 0.2, 1.8) > ALPHA
    assert share(int((plan.erase_height[:, 2] > 0).sum()), len(SIZES), 0.5) > ALPHA
    assert (plan.erase_height[:, 3:] == 0).all()


def test_the_same_crop_of_other_kinds_of_crop():
    for crop in (CenterCrop(size=8), Resize(size=8), Crop(size=8, inside=0)):
        recipe = (FIRST, View(crop=crop, flip=Flip()), View(crop=SameCrop(size=30, of=1)))
        plan = Plan.draw(recipe, SIZES[:40], seed=1)
        for name in GEOMETRY:
            assert torch.equal(getattr(plan, name)[:, 2], getattr(plan, name)[:, 1]), name


# --- a crop within a crop ---------------------------------------------------------------------------------------------

INSIDE = (0.05, 0.4), (3 / 4, 4 / 3)


def test_a_crop_inside_another_lies_inside_it():
    recipe = (
        FIRST,
        full_view(crop=Crop(size=32, area=(0.001, 0.01))),
        View(crop=Crop(size=16, inside=0, area=(0.05, 1.0))),
        View(crop=Crop(size=16, inside=1)),
        View(crop=Crop(size=16, inside=2, aspect=(0.2, 5.0))),
    )
    plan = Plan.draw(recipe, [*SIZES, (1, 1), (1, 9), (9, 1), (2, 3)], seed=9)
    for inner, outer in [(2, 0), (3, 1), (4, 2)]:
        top, left, height, width = plan.crop[:, inner].unbind(-1)
        other_top, other_left, other_height, other_width = plan.crop[:, outer].unbind(-1)
        assert (height >= 1).all() and (width >= 1).all()
        assert (top >= other_top).all() and (left >= other_left).all()
        assert (top + height <= other_top + other_height).all() and (left + width <= other_left + other_width).all()
        assert torch.equal(plan.crop[:, inner], plan.crop[:, inner].round())
    assert (plan.source_height[:, 2] == plan.source_height[:, 0]).all(), "the source is the image still"
    assert (plan.angle[:, 2:] == 0).all() and (plan.flip_h[:, 2:] == 0).all(), "only the box is taken over"


def test_a_crop_inside_a_box_is_drawn_as_in_an_image_of_that_size():
    area, aspect = INSIDE
    recipe = (View(crop=CenterCrop(size=32, keep=0.5)), View(crop=Crop(size=16, inside=0, area=area, aspect=aspect)))
    plan = Plan.draw(recipe, [(375, 500)] * N, seed=1)
    box = plan.crop[0, 0].tolist()
    assert box[2:] == [188, 188]
    within = plan.crop[:, 1].double().numpy() - np.array([box[0], box[1], 0, 0])
    others = torchvision_crops((188, 188), area, aspect)
    for name, p in crop_p_values(within, others, (188, 188)).items():
        assert p > ALPHA, f"{name}: p = {p:.1e}"
    ours = plan.crop[:, 1].double().numpy()
    assert crop_p_values(ours, others, (188, 188))["top"] < ALPHA, "a box that forgets the other's place would pass"


def test_a_crop_inside_a_random_box_keeps_its_share_of_that_box():
    area, aspect = INSIDE
    recipe = (View(crop=Crop(size=32)), View(crop=Crop(size=16, inside=0, area=area, aspect=aspect)))
    n = 4000
    plan = Plan.draw(recipe, [(375, 500)] * n, seed=2)
    outer, inner = (plan.crop[:, v].double().numpy() for v in range(2))
    others = np.concatenate(
        [torchvision_crops((int(box[2]), int(box[3])), area, aspect, n=1, seed=i) for i, box in enumerate(outer)]
    )
    boxes = outer[:, 2] * outer[:, 3]
    assert same(inner[:, 2] * inner[:, 3] / boxes, others[:, 2] * others[:, 3] / boxes) > ALPHA
    assert same(np.log(inner[:, 3] / inner[:, 2]), np.log(others[:, 3] / others[:, 2])) > ALPHA
    assert same((inner[:, 0] - outer[:, 0]) / outer[:, 2], others[:, 0] / outer[:, 2]) > ALPHA
    assert same((inner[:, 1] - outer[:, 1]) / outer[:, 3], others[:, 1] / outer[:, 3]) > ALPHA
    assert same(inner[:, 2] * inner[:, 3] / (375 * 500), others[:, 2] * others[:, 3] / boxes) < ALPHA


@pytest.mark.parametrize(
    "crop", [SameCrop(size=8, of=1), SameCrop(size=8, of=7), Crop(size=8, inside=1), Crop(size=8, inside=5)], ids=repr
)
def test_the_other_view_is_an_earlier_one(crop):
    which = crop.of if isinstance(crop, SameCrop) else crop.inside
    recipe = (FIRST, View(crop=crop))
    with pytest.raises(ValueError, match=rf"view 1 .*view {which}.*before it"):
        Plan.draw(recipe, [(8, 8)], seed=0)
    plan = Plan.draw((FIRST, FIRST), [(8, 8)], seed=0)
    with pytest.raises(ValueError, match=rf"view 1 .*view {which}.*before it"):
        ops.render([torch.zeros((8, 8, 3), dtype=torch.uint8)], plan, recipe)


def test_a_view_that_takes_from_another_does_not_depend_on_the_batch():
    recipe = (FIRST, View(crop=SameCrop(size=8), jitter=JITTERED), View(crop=Crop(size=8, inside=1)))
    whole = Plan.draw(recipe, SIZES[:40], seed=5, epoch=2)
    some = [7, 3, 31, 3]
    assert torch.equal(
        Plan.draw(recipe, [SIZES[i] for i in some], seed=5, epoch=2, indices=some).data, whole.data[some]
    )


# --- what was drawn before --------------------------------------------------------------------------------------------


def test_stored_seeds_give_the_views_they_gave():
    """The draws of release 0.1, before rotation, posterize, erasing and crops of other views."""
    recipe = (full_view(), View(crop=Crop(size=96, area=(0.05, 0.4))), View(crop=CenterCrop(size=8)))
    sizes = [(375, 500), (37, 900), (1, 1), (64, 64)] * 50
    plan = Plan.draw(recipe, sizes, seed=2**40 + 7, epoch=3, indices=range(2**33, 2**33 + 200))
    names = ("top", "left", "height", "width", "flip_h", "flip_v", "turns", *COLOURS, "source_height", "source_width")
    old = torch.stack([getattr(plan, name) for name in names], dim=-1)
    third = [20, 18, 43, 39, 0, 1, 1, 0.895032, 0.989038, 1.282708, 0.174593, 2, 1, 0, 3, 0, 0.73376, np.inf, 64, 64]
    assert np.allclose(old[3, 0].numpy(), third, rtol=1e-6, atol=1e-6)
    digest = hashlib.sha256(old.contiguous().numpy().tobytes()).hexdigest()
    assert digest == "c7a2abc5c4f765b654838a1192ed5aed22ac790b18fdeabf5d262538dce7b29f"


NEW_PARTS = {
    "rotate": {"rotate": Rotate(p=0.7)},
    "posterize": {"posterize": Posterize(p=0.6)},
    "erase": {"erase": Erase(p=0.8)},
    "box blur": {"blur": Blur(p=0.5, sigma_px=(0.1, 2.0), kind="box")},
    "order": {"order": ("solarize", "blur", "jitter", "grayscale", "crop")},
    "custom": {"custom": torch.sigmoid},
    "bicubic": {"crop": Crop(size=64, interpolation="bicubic")},
}


@pytest.mark.parametrize("name", sorted(NEW_PARTS))
def test_a_new_part_changes_the_draws_of_no_other(name):
    plain = draw(full_view(), 2000)
    plan = draw(full_view(**NEW_PARTS[name]), 2000)
    own = {"rotate": ("angle",), "posterize": ("posterize",), "erase": RECTANGLE}.get(name, ())
    for field in Plan.FIELDS:
        if field in own:
            assert not torch.equal(getattr(plan, field), getattr(plain, field)), field
        else:
            assert torch.equal(getattr(plan, field), getattr(plain, field)), field


def test_a_view_that_takes_from_another_draws_its_colours_as_ever():
    recipe = (full_view(), full_view())
    plan = Plan.draw(recipe, SIZES, seed=4)
    parts = {name: getattr(recipe[1], name) for name in ("jitter", "grayscale", "blur", "solarize")}
    for crop in (SameCrop(size=32), Crop(size=32, inside=0), Resize(size=32)):
        other = Plan.draw((recipe[0], View(crop=crop, **parts)), SIZES, seed=4)
        assert torch.equal(other.data[:, 0], plan.data[:, 0])
        for name in COLOURS:
            assert torch.equal(getattr(other, name)[:, 1], getattr(plan, name)[:, 1]), name


def test_new_fields_are_the_identity_where_a_view_does_not_name_them():
    plan = draw(full_view(), 500)
    assert (plan.angle == 0).all() and (plan.posterize == 8).all()
    assert all((getattr(plan, name) == 0).all() for name in RECTANGLE)


# --- the plan with all its fields -------------------------------------------------------------------------------------

EVERYTHING = (
    full_view(
        rotate=Rotate(p=1.0, interpolation="bilinear"),
        posterize=Posterize(p=0.5, bits=3),
        erase=Erase(p=1.0),
        blur=Blur(p=1.0, kind="box"),
        order=("jitter", "grayscale", "crop", "solarize", "blur", "posterize"),
    ),
    View(crop=SameCrop(size=48), jitter=JITTERED),
    View(crop=Crop(size=16, inside=0), turn=QuarterTurn(), solarize=Solarize(p=1.0)),
)


def test_a_plan_survives_storing_slicing_and_pickling():
    plan = Plan.draw(EVERYTHING, SIZES[:40], seed=0)
    for other in (
        pickle.loads(pickle.dumps(plan)),
        copy.deepcopy(plan),
        Plan(plan.data.clone()),
        Plan.cat([plan[:7], plan[7], plan[8:]]),
    ):
        assert other == plan
    for name in ("angle", "posterize", *RECTANGLE):
        assert torch.equal(getattr(plan, name), plan.data[..., Plan.FIELDS.index(name)])
    setattr(plan, "angle", 12.5)  # noqa: B010
    assert (plan.data[..., Plan.FIELDS.index("angle")] == 12.5).all()


def test_a_stored_plan_gives_the_same_pixels_again():
    batch = [torch.from_numpy(np.random.default_rng(i).integers(0, 256, (60, 50, 3), dtype=np.uint8)) for i in range(3)]
    plan = Plan.draw(EVERYTHING, [(60, 50)] * 3, seed=0)
    views = ops.render(batch, plan, EVERYTHING)
    again = ops.render(batch, pickle.loads(pickle.dumps(plan)), EVERYTHING)
    for i in range(3):
        alone = ops.render([batch[i]], plan[i], EVERYTHING)
        for v in range(3):
            assert torch.equal(views[v], again[v]) and torch.equal(views[v][i], alone[v][0])


def test_of_several_quarter_turns_each_is_as_likely():
    turns = draw(full_view(turn=QuarterTurn(p=0.8, turns=(0, 1, 2, 3)))).turns[:, 0].numpy()
    counts = np.bincount(turns.astype(int), minlength=4)
    assert stats.chisquare(counts, N * np.array([0.2 + 0.8 / 4, 0.2, 0.2, 0.2])).pvalue > ALPHA
    assert stats.chisquare(counts, N * np.array([0.25] * 4)).pvalue < ALPHA
    assert set(draw(full_view(turn=QuarterTurn(p=1, turns=2))).turns[:, 0].tolist()) == {2}
    one, either = (draw(full_view(turn=QuarterTurn(p=0.4, turns=t))).turns[:, 0] for t in (1, (1, 3)))
    assert ((one > 0) == (either > 0)).all()  # whether it happens does not depend on how far
