"""The masks under lightly's names: its signatures, its structure, its distributions, and not its faults.

Every statistical test fails with probability ALPHA for a random seed if the distributions are the same; the seeds are
fixed. Negative controls show that the same tests, at the same size, tell distributions apart that differ a little.
"""

from __future__ import annotations

import inspect
import math
import random
from typing import Any

import dropin
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.utils.data import DataLoader

import fastssl.models.utils as ours
from fastssl.data import IJEPAMaskCollator
from fastssl.transforms import masks

ALPHA = 1e-3
NAMES = ours.__all__


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Masks are small: more threads would only wait for each other. `isolated_state` puts the number back."""
    torch.set_num_threads(1)


def theirs() -> Any:
    dropin.lightly()
    import lightly.models.utils

    return lightly.models.utils


def seeded(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)


def same_counts(a: Tensor, b: Tensor) -> float:
    """p-value: could two samples of whole numbers be of one distribution? Rare numbers count as one."""
    values, which = torch.cat([a.flatten(), b.flatten()]).unique(return_inverse=True)
    table = np.stack([np.bincount(part, minlength=len(values)) for part in which.split([a.numel(), b.numel()])])
    rare = table.sum(0) < 20
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], axis=1)
    table = table[:, table.sum(0) > 0]
    return 1.0 if table.shape[1] == 1 else float(stats.chi2_contingency(table).pvalue)


def same_cells(a: Tensor, b: Tensor) -> float:
    """p-value: is each cell as often True in (N, H, W) `a` as in `b`? The least of all cells, times their number."""
    n, m = len(a), len(b)
    p, q = a.flatten(1).double().mean(0), b.flatten(1).double().mean(0)
    pooled = (p * n + q * m) / (n + m)
    z = (p - q).abs() / (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt().clamp(min=1e-12)
    return min(1.0, float(2 * stats.norm.sf(z.max().item()) * len(p)))


def edges(mask: Tensor) -> Tensor:
    """How often neighbours differ, each mask of (N, H, W): the length of its outline."""
    return mask.diff(dim=1).sum((1, 2)) + mask.diff(dim=2).sum((1, 2))


def p_values(a: Tensor, b: Tensor) -> dict[str, float]:
    """Of each quantity that describes a mask: could (N, H, W) `a` and `b` be of one distribution?"""
    return {
        "cells": same_cells(a, b),
        "count": same_counts(a.sum((1, 2)), b.sum((1, 2))),
        "rows": same_counts(a.any(2).sum(1), b.any(2).sum(1)),
        "columns": same_counts(a.any(1).sum(1), b.any(1).sum(1)),
        "outline": same_counts(edges(a), edges(b)),
    }


def agree(a: Tensor, b: Tensor) -> None:
    for name, p in p_values(a, b).items():
        assert p > ALPHA, f"{name}: p = {p:.1e}"


def differ(a: Tensor, b: Tensor, name: str) -> None:
    assert p_values(a, b)[name] < ALPHA, f"{name}: not told apart"


def as_mask(indices: Tensor, length: int) -> Tensor:
    return torch.zeros((len(indices), length), dtype=torch.bool).scatter_(1, indices, True)


# --- structure --------------------------------------------------------------------------------------------------------

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("random_token_mask", ((4, 197),), {}),
    ("random_token_mask", ((4, 196), 0.75, True), {}),
    ("random_token_mask", ((3, 50),), {"mask_ratio": 0.0}),
    ("random_token_mask", ((3, 50),), {"mask_ratio": 1.0}),
    ("random_token_mask", ((3, 50), 1.0, True), {}),
    ("random_token_mask", ((3, 11), 0.9), {}),
    ("random_token_mask", ((2, 1),), {}),
    ("random_token_mask", ((0, 10),), {}),
    ("random_token_mask", ((2, 0),), {}),
    ("random_grid_token_mask", ((4, 257),), {}),
    ("random_grid_token_mask", ((4, 148), 0.5, 3, 4), {}),
    ("random_grid_token_mask", ((1, 16), 0.0, 4, 0), {}),
    ("random_inverse_block_mask", ((4, 197),), {}),
    ("random_inverse_block_mask", ((4, 53), 0.29, 4, 0.3, 2.0, False), {}),
    ("random_inverse_block_mask", ((4, 17), 0.0), {}),
    ("random_inverse_block_mask", ((4, 17), 1.0), {}),
    ("random_inverse_block_mask", ((1, 2),), {}),
    ("random_prefix_mask", ((4, 20), 19), {}),
    ("random_prefix_mask", ((0, 20), 3), {}),
    ("random_block_mask", ((6, 14, 14),), {}),
    ("random_block_mask", ((5, 37, 20), 0.9, 0.3, 0.4, 4, 60, 0.2, 3.0, 5), {}),
    ("random_block_mask", ((1, 14, 14),), {}),
    ("random_block_mask_image", ((14, 14), 50), {}),
    ("random_block_mask_image", ((1, 7), 5), {}),
]


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_those_of_lightly(name):
    mine, its = (inspect.signature(getattr(module, name)).parameters for module in (ours, theirs()))
    assert [(p.name, p.default, p.kind) for p in mine.values()] == [(p.name, p.default, p.kind) for p in its.values()]


@pytest.mark.parametrize("name, arguments, options", CALLS, ids=range(len(CALLS)))
def test_structure_is_that_of_lightly(name, arguments, options):
    results = [getattr(module, name)(*arguments, **options) for module in (ours, theirs())]
    mine, its = ([result] if isinstance(result, Tensor) else list(result) for result in results)
    assert type(results[0]) is type(results[1])
    assert [(x.shape, x.dtype, x.device) for x in mine] == [(x.shape, x.dtype, x.device) for x in its]
    if len(mine) == 2 and len(mine[0]):
        keep, masked = mine
        every = torch.cat([keep, masked], dim=1).sort(dim=1).values
        assert torch.equal(every, torch.arange(every.shape[1]).expand_as(every))
        prefix = {"random_token_mask": int(not (len(arguments) > 2 and arguments[2]))}.get(name, 1)
        if len(arguments) > 3:
            prefix = arguments[3] if name == "random_grid_token_mask" else arguments[2]
        assert torch.equal(keep[:, :prefix], torch.arange(prefix).expand(len(keep), -1)[:, : keep.shape[1]])


@pytest.mark.parametrize("name, arguments, options", CALLS, ids=range(len(CALLS)))
def test_torchs_seed_governs_them_and_no_other(name, arguments, options):
    def drawn() -> list[Tensor]:
        result = getattr(ours, name)(*arguments, **options)
        return [result] if isinstance(result, Tensor) else list(result)

    torch.manual_seed(3)
    first, after = drawn(), torch.get_rng_state()
    torch.manual_seed(3)
    random.seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(), strict=True))
    torch.manual_seed(3)
    torch.randint(2**63 - 1, ())
    assert torch.equal(after, torch.get_rng_state()), "more than one number was taken from the generator"


def test_calls_follow_each_other_with_other_masks():
    for name, arguments in (("random_token_mask", ((4, 197),)), ("random_inverse_block_mask", ((4, 197),))):
        a, b = (getattr(ours, name)(*arguments)[1].sort().values for _ in range(2))
        assert not torch.equal(a, b)


# --- distributions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_token", [True, False])
def test_tokens_are_masked_as_in_lightly(class_token):
    def mask(module: Any, seed: int, n: int = 20_000) -> Tensor:
        seeded(seed)
        return as_mask(module.random_token_mask((n, 17), 0.6, class_token)[1], 17)[:, None]

    drawn = mask(ours, 0)
    assert same_cells(drawn, mask(theirs(), 1)) > ALPHA
    # pairs of tokens, which a mask that moves as a whole would give away
    first = (drawn[:, 0, 5:9] * torch.tensor([1, 2, 4, 8])).sum(1)
    other = (mask(theirs(), 2)[:, 0, 5:9] * torch.tensor([1, 2, 4, 8])).sum(1)
    assert same_counts(first, other) > ALPHA
    shifted = as_mask((torch.randint(17, (20_000, 1)) + torch.arange(10)) % 17, 17)
    assert same_counts((shifted[:, 5:9] * torch.tensor([1, 2, 4, 8])).sum(1), other) < ALPHA


def test_orders_are_uniform():
    keep, masked = ours.random_token_mask((24_000, 4), 0.5, True)
    order = torch.cat([keep, masked], dim=1)
    counts = (order * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > ALPHA


def test_squares_are_masked_as_in_lightly():
    def mask(module: Any, seed: int, ratio: float) -> Tensor:
        seeded(seed)
        return as_mask(module.random_grid_token_mask((10_000, 37), ratio, 2)[1] - 1, 36).view(-1, 6, 6)

    agree(mask(ours, 0, 0.7), mask(theirs(), 1, 0.7))
    differ(mask(ours, 0, 0.6), mask(theirs(), 1, 0.7), "cells")


@pytest.mark.parametrize("longest", [1, 9, 19])
def test_prefix_lengths_are_uniform_up_to_the_longest(longest):
    seeded(1)
    lengths = (~ours.random_prefix_mask((20_000, 20), longest)).sum(1)
    assert lengths.min() == 0 and lengths.max() == longest
    seeded(0)
    its = (~theirs().random_prefix_mask((20_000, 20), longest + 1)).sum(1)  # to which it never comes
    assert its.max() == longest and same_counts(lengths, its) > ALPHA
    assert same_counts(lengths, (~theirs().random_prefix_mask((20_000, 20), longest)).sum(1)) < ALPHA


@pytest.mark.parametrize("roll", [True, False])
def test_inverse_blocks_are_as_in_lightly(roll):
    def seen(module: Any, seed: int, n: int, **options: Any) -> Tensor:
        seeded(seed)
        keep, _ = module.random_inverse_block_mask((n, 145), roll=roll, num_prefix_tokens=1, **options)
        return as_mask(keep[:, 1:] - 1, 144).view(-1, 12, 12)

    other = seen(theirs(), 1, 3000)
    agree(seen(ours, 0, 10_000), other)
    differ(seen(ours, 0, 10_000, min_aspect=0.6), other, "outline")


@pytest.mark.parametrize(
    "options, wrong, told_by",
    [
        ({}, {"min_block_aspect_ratio": 0.5}, "outline"),
        ({"num_masks": 30, "min_num_masks_per_block": 16}, {"num_masks": 30, "min_num_masks_per_block": 10}, "outline"),
        ({"max_num_masks_per_block": 12}, {"max_num_masks_per_block": 14}, "outline"),
        ({"num_masks": 100, "max_attempts_per_block": 2}, {"num_masks": 100, "max_attempts_per_block": 3}, "count"),
    ],
)
def test_blocks_are_as_in_lightly(options, wrong, told_by):
    def drawn(module: Any, seed: int, n: int, changes: dict[str, Any]) -> Tensor:
        options = {"size": (12, 10), "num_masks": 50, **changes}
        seeded(seed)
        if module is not ours:
            return torch.stack([module.random_block_mask_image(**options) for _ in range(n)])
        count = options["num_masks"] + 0.5  # whose whole part is what is asked for
        return masks.block(
            range(n),
            grid=(12, 10),
            ratio=(count / 120, count / 120),
            share=1,
            min_block=options.get("min_num_masks_per_block", 4),
            max_block=options.get("max_num_masks_per_block"),
            aspect=(options.get("min_block_aspect_ratio", 0.3), 1 / options.get("min_block_aspect_ratio", 0.3)),
            attempts=options.get("max_attempts_per_block", 10),
            seed=seed,
        )

    other = drawn(theirs(), 1, 1500, options)
    agree(drawn(ours, 0, 6000, options), other)
    differ(drawn(ours, 0, 6000, wrong), other, told_by)


def test_images_are_masked_by_block_masks_as_in_lightly():
    """The functions themselves: one image at a time, and batches with their share and their ratios."""

    def batches(module: Any, seed: int, n: int, **options: Any) -> Tensor:
        seeded(seed)
        return torch.cat([module.random_block_mask((10, 9, 9), **options) for _ in range(n)])

    options = {"batch_mask_ratio": 0.7, "min_image_mask_ratio": 0.2, "max_image_mask_ratio": 0.6}
    drawn, other = batches(ours, 0, 150, **options), batches(theirs(), 1, 150, **options)
    agree(drawn, other)
    assert (drawn.view(-1, 10, 81).any(2).sum(1) == 7).all()
    assert same_cells(drawn.any(2).any(1).view(-1, 1, 10), other.any(2).any(1).view(-1, 1, 10)) > ALPHA  # which of them
    differ(batches(ours, 0, 150, **(options | {"max_image_mask_ratio": 0.5})), other, "count")

    def singles(module: Any, seed: int) -> Tensor:
        seeded(seed)
        return torch.stack([module.random_block_mask_image((9, 9), 30) for _ in range(500)])

    agree(singles(ours, 0), singles(theirs(), 1))


def test_multi_blocks_as_published_are_as_in_lightly():
    dropin.lightly()
    from lightly.data import IJEPAMaskCollator as Theirs

    # Small contexts and large targets, so that some targets are forgotten; targets above min_keep, or lightly's hangs.
    scale, target_scale, aspect, batch = (0.25, 0.5), (0.2, 0.4), (0.75, 1.5), 2
    collate = Theirs(144, 16, scale, target_scale, aspect, nenc=1, npred=3, min_keep=10)
    seeded(0)
    seen, predicted = [], []
    for _ in range(600):
        _, (context,), targets = collate([0] * batch)
        seen.append(as_mask(context, 81).view(-1, 9, 9))
        predicted.append(torch.stack([as_mask(target, 81).view(-1, 9, 9) for target in targets], dim=1))

    def drawn(**changes: Any) -> tuple[Tensor, Tensor]:
        rules = {
            "grid": (9, 9),
            "context_scale": scale,
            "target_scale": target_scale,
            "target_aspect": aspect,
            "targets": 3,
            "min_keep": 10,
            "as_published": True,
        }
        contexts, targets = [], []
        for number in range(600):
            indices = range(number * batch, (number + 1) * batch)
            context, target = masks.multi_block(indices, batch=number, seed=1, **(rules | changes))
            contexts.append(as_mask(masks.positions(context.flatten(0, 1)), 81).view(-1, 9, 9))  # cut as lightly cuts
            targets.append(target)
        return torch.cat(contexts), torch.cat(targets)

    # Batches share sizes, so only places are independent between images, and sizes between batches.
    def places(targets: Tensor) -> Tensor:
        return targets[:, 0].any(2).long().argmax(1) * 9 + targets[:, 0].any(1).long().argmax(1)

    def sizes(targets: Tensor) -> Tensor:
        return (targets[::batch, 0].any(2).sum(1) * 9 + targets[::batch, 0].any(1).sum(1)).flatten()

    context, target = drawn()
    its_context, its_target = torch.cat(seen), torch.cat(predicted)
    assert same_counts(sizes(target), sizes(its_target)) > ALPHA
    assert same_counts(places(target)[::batch], places(its_target)[::batch]) > ALPHA
    for mine, its in ((context, its_context), (target[:, 0], its_target[:, 0]), (target[:, 2], its_target[:, 2])):
        agree(mine[::batch], its[::batch])
    wrong_context, wrong_target = drawn(as_published=False)
    assert same_counts(sizes(wrong_target), sizes(its_target)) < ALPHA
    assert same_counts(places(wrong_target)[::batch], places(its_target)[::batch]) < ALPHA
    differ(wrong_context[::batch], its_context[::batch], "cells")


# --- the collator -----------------------------------------------------------------------------------------------------


def theirs_collator() -> Any:
    dropin.lightly()
    from lightly.data import IJEPAMaskCollator as Theirs

    return Theirs


def test_collator_has_lightlys_signature():
    mine, its = (inspect.signature(c.__init__).parameters for c in (IJEPAMaskCollator, theirs_collator()))
    assert [(p.name, p.default) for p in mine.values()] == [(p.name, p.default) for p in its.values()]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nenc": 3, "npred": 4, "pred_mask_scale": (0.15, 0.2)},
        {"input_size": (64, 96), "patch_size": 8, "allow_overlap": True},
    ],
)
def test_collator_gives_what_lightlys_gives(options):
    batch = [(torch.zeros(3, 8, 8), i, f"{i}.png") for i in range(5)]
    mine, its = (collator(**options)(batch) for collator in (IJEPAMaskCollator, theirs_collator()))
    assert type(mine) is type(its) and len(mine) == len(its) == 3
    assert dropin.structure(mine[0]) == dropin.structure(its[0])
    for part in (1, 2):
        assert type(mine[part]) is type(its[part]) is list and len(mine[part]) == len(its[part])
        for a, b in zip(mine[part], its[part], strict=True):
            assert a.dim() == b.dim() == 2 and a.dtype == b.dtype and len(a) == len(b) == 5
        assert len({a.shape for a in mine[part]}) == 1
        for rows in mine[part]:
            assert (rows.diff(dim=1) > 0).all() and rows.min() >= 0  # ascending, none twice
    if not options.get("allow_overlap"):
        for i in range(5):
            predicted = set(torch.cat([rows[i] for rows in mine[2]]).tolist())
            for rows in mine[1]:
                assert len(rows[i]) >= 4 and not predicted & set(rows[i].tolist())


@pytest.mark.parametrize("batch_size", [1, 7])
def test_collator_takes_any_batch(batch_size):
    collate = IJEPAMaskCollator(pred_mask_scale=(0.15, 0.2), npred=4)
    _, seen, predicted = collate([torch.zeros(1)] * batch_size)
    assert [len(rows) for rows in seen + predicted] == [batch_size] * 5
    with pytest.raises(ValueError, match="batch is empty"):
        collate([])


def test_collator_follows_torchs_seed_and_a_counter():
    def drawn(seed: int, steps: int) -> list[Tensor]:
        collate = IJEPAMaskCollator(pred_mask_scale=(0.15, 0.2))
        for _ in range(steps):
            collate.step()
        torch.manual_seed(seed)
        _, seen, predicted = collate([torch.zeros(1)] * 4)
        return seen + predicted

    first = drawn(0, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(0, 0), strict=True))
    other = drawn(1, 0)
    assert not torch.equal(first[1], other[1]) and first[1].shape == other[1].shape  # places, not sizes
    assert len({drawn(0, steps)[1].shape for steps in range(12)}) > 2


def test_workers_share_the_counter_and_draw_places_of_their_own():
    def shapes(workers: int) -> list[tuple[int, ...]]:
        collate = IJEPAMaskCollator(pred_mask_scale=(0.1, 0.6))
        torch.manual_seed(0)
        loader = DataLoader(list(range(48)), batch_size=4, num_workers=workers, collate_fn=collate)
        batches = list(loader)
        assert len({tuple(predicted[0].flatten().tolist()) for _, _, predicted in batches}) == 12
        assert collate.step() == 12
        return sorted(predicted[0].shape for _, _, predicted in batches)

    assert shapes(0) == shapes(2)  # each number is given to one worker, whichever


def test_collator_returns_where_lightlys_hangs():
    collate = IJEPAMaskCollator(input_size=32, patch_size=16, enc_mask_scale=(1.0, 1.0), pred_mask_scale=(0.1, 0.3))
    _, (seen,), predicted = collate([torch.zeros(1)] * 3)
    assert (
        torch.equal(seen, torch.arange(4).expand(3, 4)) and len(predicted) == 2
    )  # all is seen: 4 patches are the least
    one = IJEPAMaskCollator(input_size=16, patch_size=16, enc_mask_scale=(1.0, 1.0), min_keep=1)
    assert one([0, 0])[1][0].tolist() == one([0, 0])[2][0].tolist() == [[0], [0]]


# --- faults of lightly's, and bad input -------------------------------------------------------------------------------


def test_no_call_fails_by_chance():
    seeded(0)
    few = {"size": (8, 6, 6), "min_image_mask_ratio": 0.1, "max_image_mask_ratio": 0.11}  # 3.96 patches: fewer than 4
    with pytest.raises(ValueError, match="max_num_masks_per_block"):
        theirs().random_block_mask(**few)
    assert 1 <= ours.random_block_mask(**few).any(2).any(1).sum() <= 4
    assert not ours.random_block_mask_image((6, 6), 0).any()
    assert ours.random_block_mask_image((6, 6), 2).sum() <= 2
    assert ours.random_block_mask((0, 6, 6)).shape == (0, 6, 6)


def test_aspects_that_fit_nowhere_give_the_nearest():
    keep, _ = ours.random_inverse_block_mask((50, 17), 0.25, min_aspect=3, max_aspect=4, roll=False)
    seen = as_mask(keep[:, 1:] - 1, 16).view(-1, 4, 4)
    assert (seen.any(2).sum(1) == 4).all() and (seen.any(1).sum(1) == 3).all()  # 12 patches: 4 high, 3 wide
    keep, masked = ours.random_inverse_block_mask((0, 17))
    assert keep.shape == (0, 7) and masked.shape == (0, 10)
    keep, masked = ours.random_grid_token_mask((0, 17))
    assert keep.shape == (0, 1) and masked.shape == (0, 16)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("random_token_mask", {"size": (2, 10), "mask_ratio": 1.5}, "mask_ratio=1.5"),
    ("random_token_mask", {"size": (2, 10), "mask_ratio": -0.5}, "mask_ratio=-0.5"),
    ("random_token_mask", {"size": (2, 10, 3)}, r"size=\(2, 10, 3\) must be \(batch size, tokens\)"),
    ("random_token_mask", {"size": (2.0, 10)}, "size=2.0"),
    ("random_token_mask", {"size": (2, -1)}, "size=-1"),
    ("random_token_mask", {"size": (2, 2**18 + 1)}, "tokens of size=262145"),
    ("random_grid_token_mask", {"size": (2, 17), "grid_size": 0}, "grid_size=0"),
    ("random_grid_token_mask", {"size": (2, 17), "grid_size": 3}, "grid_size=3 must divide"),
    ("random_grid_token_mask", {"size": (2, 16)}, r"size=\(2, 16\) less num_prefix_tokens=1 leaves 15 patches"),
    ("random_grid_token_mask", {"size": (2, 17), "mask_ratio": math.nan}, "mask_ratio=nan"),
    ("random_inverse_block_mask", {"size": (2, 17), "num_prefix_tokens": 17}, "leaves 0 patches"),
    ("random_inverse_block_mask", {"size": (2, 17), "mask_ratio": 2}, "mask_ratio=2"),
    ("random_inverse_block_mask", {"size": (2, 17), "min_aspect": 0}, "min_aspect=0"),
    ("random_inverse_block_mask", {"size": (2, 17), "min_aspect": 2}, "max_aspect=0.5 must be at least min_aspect=2"),
    ("random_prefix_mask", {"size": (2, 17), "max_prefix_length": -1}, "max_prefix_length=-1"),
    ("random_prefix_mask", {"size": (2, 17), "max_prefix_length": 2.5}, "max_prefix_length=2.5"),
    ("random_block_mask", {"size": (2, 0, 3)}, "size=0"),
    ("random_block_mask", {"size": (2, 3, 3), "batch_mask_ratio": 1.1}, "batch_mask_ratio=1.1"),
    (
        "random_block_mask",
        {"size": (2, 3, 3), "min_image_mask_ratio": 0.6},
        "max_image_mask_ratio=0.5 must be at least",
    ),
    ("random_block_mask", {"size": (2, 3, 3), "max_num_masks_per_block": 3}, "max_num_masks_per_block=3"),
    ("random_block_mask", {"size": (2, 3, 3), "min_num_masks_per_block": 0}, "min_num_masks_per_block=0"),
    ("random_block_mask", {"size": (2, 3, 3), "max_block_aspect_ratio": 0.1}, "max_block_aspect_ratio=0.1 must be"),
    ("random_block_mask", {"size": (2, 3, 3), "max_attempts_per_block": 0}, "max_attempts_per_block=0"),
    ("random_block_mask_image", {"size": (3, 3), "num_masks": 10}, "num_masks=10 must be a whole number, from 0 to 9"),
    ("IJEPAMaskCollator", {"input_size": 8}, "input_size=8 must be a whole number, at least 16"),
    ("IJEPAMaskCollator", {"patch_size": 0}, "patch_size=0"),
    ("IJEPAMaskCollator", {"enc_mask_scale": (0.8, 0.2)}, "enc_mask_scale=.* must hold the least first"),
    ("IJEPAMaskCollator", {"pred_mask_scale": 0.2}, "pred_mask_scale=0.2 must be two numbers"),
    ("IJEPAMaskCollator", {"aspect_ratio": (0, 1)}, "aspect_ratio=0"),
    ("IJEPAMaskCollator", {"npred": 0}, "npred=0"),
    ("IJEPAMaskCollator", {"nenc": 1.5}, "nenc=1.5"),
    ("IJEPAMaskCollator", {"min_keep": 50}, "min_keep=50 needs larger contexts than enc_mask_scale"),
]


@pytest.mark.parametrize("name, arguments, message", BAD, ids=range(len(BAD)))
def test_bad_arguments_are_named(name, arguments, message):
    function = IJEPAMaskCollator if name == "IJEPAMaskCollator" else getattr(ours, name)
    with pytest.raises(ValueError, match=message) as caught:
        function(**arguments)
    assert str(caught.value).startswith(f"{name}: ")
