"""What is drawn has torchvision's distributions, and is a pure function of (seed, epoch, index, view).

Every statistical test here fails with probability ALPHA = 1e-3 for a random seed if the distributions are right; the
seeds are fixed, so a test that passes once passes always. Negative controls show that the same tests, at the same
sample size, reject distributions that are wrong in ways one could plausibly get wrong.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from drawing import (
    ALPHA,
    IDENTITY,
    JITTER_NAMES,
    N,
    crop_p_values,
    draw,
    full_view,
    same,
    share,
    torchvision_crops,
    uniform,
)
from scipy import stats
from torchvision.transforms import ColorJitter

from fastssl import _native
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Blur, CenterCrop, Crop, Flip, Grayscale, Jitter, QuarterTurn, Solarize, View

# --- Philox -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counter, key, answer",
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_matches_the_published_answers(counter, key, answer):  # Random123, kat_vectors, philox4x32 10
    assert tuple(_native.philox(counter, key)) == answer


# --- crops ------------------------------------------------------------------------------------------------------------

CROPS = {
    "usual": ((375, 500), (0.08, 1.0), (3 / 4, 4 / 3)),
    "tall": ((640, 360), (0.2, 0.9), (3 / 4, 4 / 3)),
    "local": ((375, 500), (0.05, 0.4), (0.5, 2.0)),
    "strip": ((80, 900), (0.5, 1.0), (3 / 4, 4 / 3)),  # hardly a try fits: the central fallback carries the weight
}


@pytest.mark.parametrize("case", sorted(CROPS))
def test_crops_are_distributed_as_in_torchvision(case):
    size, area, aspect = CROPS[case]
    boxes = draw(View(crop=Crop(size=32, area=area, aspect=aspect)), size=size).crop[:, 0].double().numpy()
    for name, p in crop_p_values(boxes, torchvision_crops(size, area, aspect), size).items():
        assert p > ALPHA, f"{name}: p = {p:.1e}"


def test_fallback_is_as_frequent_as_in_torchvision():
    size, area, aspect = CROPS["strip"]
    boxes = draw(View(crop=Crop(size=32, area=area, aspect=aspect)), size=size).crop[:, 0].double().numpy()
    others = torchvision_crops(size, area, aspect)
    central = (0, (900 - 107) // 2, 80, 107)  # height kept, width = round(80 * 4/3), in the middle
    ours, theirs = ((box == central).all(axis=1).sum() for box in (boxes, others))
    assert theirs > 0.2 * N, "the case does not exercise the fallback"
    table = [[ours, N - ours], [theirs, N - theirs]]
    assert N == ours == theirs or stats.chi2_contingency(table).pvalue > ALPHA


@pytest.mark.parametrize(
    "wrong, caught",
    [
        ({"area": (0.1, 1.0)}, "area"),
        ({"area": (0.08, 0.8)}, "area"),
        ({"aspect": (4 / 5, 5 / 4)}, "aspect"),
        ({"aspect": (3 / 4, 1.25)}, "aspect"),
    ],
)
def test_a_wrong_crop_would_be_caught(wrong, caught):
    size, area, aspect = CROPS["usual"]
    boxes = draw(View(crop=Crop(**({"size": 32, "area": area, "aspect": aspect} | wrong)))).crop[:, 0].double().numpy()
    assert crop_p_values(boxes, torchvision_crops(size, area, aspect), size)[caught] < ALPHA


def test_wrong_laws_would_be_caught():
    """Aspect uniform and not log-uniform, side and not area uniform, and corners that are never reached."""
    rng = np.random.default_rng(0)
    size, area, aspect = CROPS["usual"]
    others = torchvision_crops(size, area, aspect)
    p = crop_p_values(others, torchvision_crops(size, area, aspect, seed=1), size)
    assert min(p.values()) > ALPHA  # torchvision against itself

    def boxes(areas: np.ndarray, aspects: np.ndarray, reach: float = 1.0) -> np.ndarray:
        height, width = (np.sqrt(areas * size[0] * size[1] * f).round() for f in (1 / aspects, aspects))
        fits = (height <= size[0]) & (width <= size[1])
        height, width = height[fits], width[fits]
        top = np.floor(rng.random(len(height)) * (size[0] - height + 1) * reach)
        left = np.floor(rng.random(len(height)) * (size[1] - width + 1) * reach)
        return np.stack([top, left, height, width], axis=1)

    areas = rng.uniform(*area, N)
    aspects = np.exp(rng.uniform(*np.log(aspect), N))
    assert crop_p_values(boxes(areas, rng.uniform(*aspect, N)), others, size)["aspect"] < ALPHA
    assert crop_p_values(boxes(rng.uniform(0.08**0.5, 1, N) ** 2, aspects), others, size)["area"] < ALPHA
    assert crop_p_values(boxes(areas, aspects, reach=0.95), others, size)["place in x"] < ALPHA


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 2), (1, 20_000), (20_000, 10), (7, 5)])
def test_crops_lie_inside_the_image(size):
    boxes = draw(View(crop=Crop(size=8)), 2000, size).crop[:, 0]
    assert torch.equal(boxes, boxes.round()), "not whole pixels"
    top, left, height, width = boxes.unbind(-1)
    assert (height >= 1).all() and (width >= 1).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + height <= size[0]).all() and (left + width <= size[1]).all()


@pytest.mark.parametrize("size, keep", [((375, 500), 0.875), ((500, 333), 1.0), ((1, 1), 0.5), ((64, 64), 0.875)])
def test_center_crop_is_the_middle_square(size, keep):
    plan = draw(View(crop=CenterCrop(size=32, keep=keep)), 3, size)
    top, left, height, width = plan.crop[0, 0].tolist()
    assert height == width == max(1, round(keep * min(size)))
    assert abs(top + height / 2 - size[0] / 2) <= 0.5 and abs(left + width / 2 - size[1] / 2) <= 0.5
    assert torch.equal(plan.crop, plan.crop[:1].expand(3, 1, 4))


def test_the_plan_records_the_source_size():
    plan = Plan.draw((full_view(),) * 2, [(10, 20), (30, 40)], seed=0)
    assert plan.source_height.tolist() == [[10, 10], [30, 30]] and plan.source_width.tolist() == [[20, 20], [40, 40]]


# --- colour and the rest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.3, 1.0, 1.5])  # at 1.5 brightness reaches below 0 and is cut there
def test_jitter_factors_are_distributed_as_in_torchvision(strength):
    widths = {
        "brightness": 0.8 * strength,
        "contrast": 0.8 * strength,
        "saturation": 0.5 * strength,
        "hue": 0.2 * strength,
    }
    plan = draw(full_view(jitter=Jitter(p=1.0, **widths)))
    theirs = ColorJitter(**widths)
    torch.manual_seed(0)
    ranges = theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue
    drawn = [ColorJitter.get_params(*ranges)[1:] for _ in range(N)]
    for name, other, (low, high) in zip(JITTER_NAMES, np.array(drawn).T, ranges, strict=True):
        ours = getattr(plan, name)[:, 0].double().numpy()
        assert same(ours, other) > ALPHA, name
        assert uniform(ours, low, high) > ALPHA, name
        assert uniform(ours, low, high + 0.03 * (high - low)) < ALPHA, f"{name}: a range 3 % too wide would pass"
        assert low <= ours.min() and ours.max() <= high + 1e-6


def test_jitter_order_is_uniform_over_24_permutations():
    plan = draw(full_view(jitter=Jitter(p=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)))
    drawn = [tuple(order) for order in plan.jitter_order[:, 0].int().tolist()]
    counts = [drawn.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == N, "something drawn is no permutation"
    assert stats.chisquare(counts).pvalue > ALPHA

    # A plausible mistake: swapping every position with any other, not with a later one, favours some orders.
    rng = np.random.default_rng(0)
    wrong = []
    for _ in range(N):
        order = [0, 1, 2, 3]
        for i in range(4):
            j = rng.integers(4)
            order[i], order[j] = order[j], order[i]
        wrong.append(tuple(order))
    assert stats.chisquare([wrong.count(order) for order in itertools.permutations(range(4))]).pvalue < ALPHA


def test_probabilities():
    view = full_view()
    plan = draw(view)
    jittered = torch.stack([getattr(plan, name) != IDENTITY[name] for name in JITTER_NAMES])
    assert (jittered == jittered[0]).all(), "the four parts of a jitter go together"
    happened = {
        "flip": (plan.flip_h, 0.5),
        "vflip": (plan.flip_v, 0.3),
        "turn": (plan.turns, 0.4),
        "jitter": (jittered[0], 0.8),
        "grayscale": (plan.grayscale, 0.2),
        "blur": (plan.sigma_px, 0.5),
        "solarize": (plan.solarize < math.inf, 0.1),
    }
    for name, (field, p) in happened.items():
        count = int((field != 0).sum())
        assert share(count, N, p) > ALPHA, f"{name}: {count} of {N}"
        assert share(count, N, p * 1.15) < ALPHA, f"{name}: a probability 15 % too high would pass"
    flags = {name: (field != 0)[:, 0].numpy() for name, (field, _) in happened.items()}
    for (a, x), (b, y) in itertools.combinations(flags.items(), 2):
        table = [[int((x & y).sum()), int((x & ~y).sum())], [int((~x & y).sum()), int((~x & ~y).sum())]]
        assert stats.chi2_contingency(table).pvalue > ALPHA / 21, f"{a} depends on {b}"  # 21 pairs


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certain_and_impossible(p):
    view = full_view(
        flip=Flip(p=p),
        vflip=Flip(p=p),
        turn=QuarterTurn(p=p),
        grayscale=Grayscale(p=p),
        blur=Blur(p=p, sigma_px=(0.5, 2.0)),
        solarize=Solarize(p=p, threshold=100),
    )
    plan = draw(view, 2000)
    for name in ("flip_h", "flip_v", "turns", "grayscale"):
        assert (getattr(plan, name) == p).all(), name
    assert ((plan.sigma_px >= 0.5) & (plan.sigma_px <= 2.0)).all() if p else (plan.sigma_px == 0).all()
    assert torch.allclose(plan.solarize, torch.tensor(100 / 255 if p else math.inf))


def test_blur_sigma_is_uniform():
    sigma = draw(full_view(blur=Blur(p=1.0, sigma_px=(0.1, 2.0)))).sigma_px[:, 0].double().numpy()
    assert sigma.min() >= 0.1 and sigma.max() <= 2.0 + 1e-6
    assert uniform(sigma, 0.1, 2.0) > ALPHA
    assert uniform(sigma, 0.15, 2.0) < ALPHA, "a lower end of 0.15 would pass"
    assert uniform(sigma**2, 0.01, 4.0) < ALPHA, "a uniform variance would pass"


def test_what_a_view_does_not_name_stays_the_identity():
    plan = draw(View(crop=Crop(size=8)), 100)
    for name in ("flip_h", "flip_v", "turns", "hue", "grayscale", "sigma_px"):
        assert (getattr(plan, name) == 0).all(), name
    for name in ("brightness", "contrast", "saturation"):
        assert (getattr(plan, name) == 1).all(), name
    assert (plan.solarize == math.inf).all()
    assert torch.equal(plan.jitter_order.sort(-1).values, torch.arange(4.0).expand(100, 1, 4))


def test_a_jitter_that_is_not_drawn_is_the_identity():
    plan = draw(full_view(jitter=Jitter(p=0.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)), 100)
    assert all((getattr(plan, name) == IDENTITY[name]).all() for name in JITTER_NAMES)


# --- a pure function of (seed, epoch, index, view) --------------------------------------------------------------------

SIZES = [(100 + 3 * i, 140 - 2 * i) for i in range(40)]
TWO = (full_view(), full_view())


def test_draws_do_not_depend_on_the_batch():
    whole = Plan.draw(TWO, SIZES, seed=5, epoch=2)
    assert torch.equal(Plan.draw(TWO, SIZES, seed=5, epoch=2).data, whole.data)
    assert torch.equal(Plan.draw(TWO, SIZES, seed=5, epoch=2, indices=range(40)).data, whole.data)
    some = [7, 3, 31, 3]
    assert torch.equal(Plan.draw(TWO, [SIZES[i] for i in some], seed=5, epoch=2, indices=some).data, whole.data[some])
    halves = [Plan.draw(TWO, SIZES[a:b], seed=5, epoch=2, indices=range(a, b)) for a, b in ((0, 13), (13, 40))]
    assert torch.equal(Plan.cat(halves).data, whole.data)


def test_a_further_view_changes_no_other():
    third = (*TWO, View(crop=Crop(size=96, area=(0.05, 0.4))))
    assert torch.equal(Plan.draw(third, SIZES, seed=5).data[:, :2], Plan.draw(TWO, SIZES, seed=5).data)


def test_colours_do_not_depend_on_the_size_of_the_image():
    a = Plan.draw(TWO, SIZES, seed=5)
    b = Plan.draw(TWO, [(900, 100)] * 40, seed=5)  # more tries until a crop fits
    for name in ("flip_h", "flip_v", "turns", *JITTER_NAMES, "grayscale", "sigma_px", "solarize"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(a.jitter_order, b.jitter_order)


def test_an_operation_changes_the_draws_of_no_other():
    a, b = draw(full_view(), 200), draw(full_view(grayscale=None, flip=None), 200)
    for name in ("top", "left", "height", "width", "flip_v", "turns", *JITTER_NAMES, "sigma_px", "solarize"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


KEYS = {
    "seed": {"seed": 6},
    "a seed beyond 32 bits": {"seed": 5 + 2**32},
    "the largest seed": {"seed": 2**63 - 1},
    "epoch": {"epoch": 3},
    "a late epoch": {"epoch": 2 + 2**16},
    "index": {"indices": range(1, 2001)},
    "indices beyond 32 bits": {"indices": range(2**32, 2**32 + 2000)},
}


@pytest.mark.parametrize("name", sorted(KEYS))
def test_another_key_gives_unrelated_draws(name):
    base = {"seed": 5, "epoch": 2}
    view = (full_view(jitter=Jitter(p=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)),)
    a = Plan.draw(view, [(375, 500)] * 2000, **base)
    b = Plan.draw(view, [(375, 500)] * 2000, **(base | KEYS[name]))
    assert (a.data[:, 0] != b.data[:, 0]).any(dim=1).all(), "a sample repeats itself"
    assert unrelated(a, b) > ALPHA / 5


def unrelated(a: Plan, b: Plan) -> float:
    """The least p-value of a rank correlation between what two plans drew, of five quantities."""
    return min(
        float(stats.spearmanr(getattr(a, name).flatten(), getattr(b, name).flatten()).pvalue)
        for name in ("height", "left", "brightness", "hue", "saturation")
    )


def test_views_of_an_image_are_unrelated():
    jitter = Jitter(p=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    plan = Plan.draw((full_view(jitter=jitter),) * 3, [(375, 500)] * N, seed=3)
    for v, w in itertools.combinations(range(3), 2):
        one, other = Plan(plan.data[:, v : v + 1]), Plan(plan.data[:, w : w + 1])
        assert unrelated(one, other) > ALPHA / 5, f"views {v} and {w}"


def test_draws_within_a_view_are_unrelated():
    jitter = Jitter(p=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    plan = draw(full_view(jitter=jitter, blur=Blur(p=1.0)))
    area = plan.height * plan.width
    columns = [area, plan.width / plan.height, *(getattr(plan, name) for name in JITTER_NAMES), plan.sigma_px]
    ranks = stats.spearmanr(torch.cat(columns, dim=1).numpy())
    # The area is bounded by how an aspect fits, so these two are related in torchvision also: leave that pair out.
    pairs = [(i, j) for i, j in itertools.combinations(range(len(columns)), 2) if (i, j) != (0, 1)]
    assert min(ranks.pvalue[i, j] for i, j in pairs) > ALPHA / len(pairs)


def test_a_correlation_would_be_caught():
    rng = np.random.default_rng(0)
    x = rng.random(N)
    y = 0.05 * x + 0.95 * rng.random(N)
    assert stats.spearmanr(x, y).pvalue < ALPHA / 5


# --- the plan as a container ------------------------------------------------------------------------------------------


def test_fields_are_views_of_the_data():
    plan = Plan.draw(TWO, SIZES, seed=0)
    assert plan.data.dtype == torch.float32 and plan.data.shape == (40, 2, len(Plan.FIELDS))
    for f, name in enumerate(Plan.FIELDS):
        assert torch.equal(getattr(plan, name), plan.data[..., f])
    plan.brightness[3, 1] = 7
    assert plan.data[3, 1, Plan.FIELDS.index("brightness")] == 7
    assert torch.equal(plan.crop, torch.stack([plan.top, plan.left, plan.height, plan.width], dim=-1))


def test_slices_and_cat_are_inverse():
    plan = Plan.draw(TWO, SIZES, seed=0)
    assert len(plan) == 40 and len(plan[3:10]) == 7
    assert torch.equal(Plan.cat([plan[:5], plan[5:6], plan[6:]]).data, plan.data)
    assert torch.equal(plan[5].data.reshape(2, -1), plan.data[5])
