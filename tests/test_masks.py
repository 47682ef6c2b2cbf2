"""Masks: the same for any batch, order and device; what they promise; and a slow twin of each that says the same by loops.

The twins are the methods' definitions, one sample at a time in plain Python, on the same random words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_masks
import torch
from conftest import devices, nothing_waits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastssl import _native
from fastssl.ops import masks as ops
from fastssl.transforms import _draw_masks, masks
from fastssl.transforms.keys import Keys

ROOT = Path(__file__).resolve().parents[1]
MASK_STREAM = _native._C.MASK_STREAM
WORD = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Masks are small: more threads would only wait for each other. `isolated_state` puts the number back."""
    torch.set_num_threads(1)


def both(result: tuple[Tensor, Tensor]) -> Tensor:
    """The contexts and targets of multi_block as one tensor."""
    return torch.cat(result, dim=1)


# A maker and arguments: what it gives is (B, ...), bool.
MAKERS: dict[str, Callable[..., Tensor]] = {
    "random": masks.random,
    "random, odd grid": lambda i, **key: masks.random(i, grid=(1, 7), ratio=0.4, **key),
    "random, large": lambda i, **key: masks.random(i, grid=(37, 37), **key),
    "grid": masks.grid,
    "grid, oblong": lambda i, **key: masks.grid(i, grid=(6, 9), cell=3, ratio=0.5, **key),
    "prefix": masks.prefix,
    "block": masks.block,
    "block, of one size": lambda i, **key: masks.block(
        i, grid=(37, 37), ratio=(0.5, 0.5), share=1, min_block=4, max_block=30, **key
    ),
    "block, all": lambda i, **key: masks.block(i, grid=(9, 14), ratio=(0.9, 1.0), share=1, attempts=3, **key),
    "inverse block": masks.inverse_block,
    "inverse block, oblong": lambda i, **key: masks.inverse_block(i, grid=(5, 12), aspect=(0.1, 8), roll=False, **key),
    "multi-block": lambda i, **key: both(masks.multi_block(i, **key)),
    "multi-block, crowded": lambda i, **key: both(
        masks.multi_block(i, target_scale=(0.5, 0.6), targets=6, contexts=2, min_keep=40, **key)
    ),
    "multi-block, as published": lambda i, **key: both(masks.multi_block(i, as_published=True, **key)),
}
makers = pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)


# --- the generator ----------------------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("device", devices())
def test_philox_of_tensors_matches_the_published_answers(counter, key, answer, device):  # Random123, kat_vectors
    words = reference_masks.philox4x32(*(torch.tensor([word], device=device) for word in counter), *key)
    assert tuple(word.item() for word in words) == answer
    assert tuple(int(word[0]) for word in reference_masks.philox4x32(*np.array([counter]).T, *key)) == answer
    assert reference_masks.philox4x32(*counter, *key) == answer


@settings(deadline=None)
@given(counter=st.tuples(WORD, WORD, WORD, WORD), key=st.tuples(WORD, WORD))
def test_philox_of_tensors_is_the_native_one(counter, key):
    words = reference_masks.philox4x32(*(torch.tensor([word]) for word in counter), *key)
    assert tuple(word.item() for word in words) == tuple(_native.philox(counter, key))


def test_words_are_those_of_the_documented_counter():
    seed, epoch, stream = 2**64 - 3, 2**32 - 2, 0xFFFE
    indices = [0, 7, 2**32 + 5, 2**63 - 1]
    words = reference_masks.Keys(torch.tensor(indices), seed, epoch, stream).words(10, first=2**16 - 3)
    for row, index in zip(words.tolist(), indices, strict=True):
        expected = [
            word
            for draw in range(2**16 - 3, 2**16)
            for word in _native.philox(
                (draw | stream << 16, epoch, index & 0xFFFFFFFF, index >> 32), (seed & 0xFFFFFFFF, seed >> 32)
            )
        ]
        assert row == expected[:10]


def test_the_streams_are_the_ones_that_csrc_reserves():
    header = (ROOT / "csrc" / "core" / "philox.h").read_text()
    found = dict(re.findall(r"constexpr uint32_t (kMaskStream) = (\w+);", header))
    assert int(found["kMaskStream"], 16) == MASK_STREAM >= _native._C.FIRST_RESERVED_VIEW
    last = Keys.of_masks("", _draw_masks.MULTI_BLOCK, [0], 0, 0, 15, None).stream
    assert last < MASK_STREAM + _native._C.MASK_STREAMS


def test_makers_views_epochs_and_seeds_draw_from_streams_of_their_own():
    cases = [{"maker": maker, "view": view} for maker in range(6) for view in range(16)]
    keys = [Keys.of_masks("", case["maker"], [3], 1, 0, case["view"], None) for case in cases]
    keys += [Keys.of_masks("", 0, [3], seed, epoch, 0, None) for seed, epoch in ((2, 0), (1, 1), (1 + 2**32, 0))]
    assert len({tuple(reference_masks.Keys(*key.parts).words(4)[0].tolist()) for key in keys}) == len(keys)


@pytest.mark.parametrize("low, high", [(0.3, 1 / 0.3), (0.5, 2.0), (1.0, 1.0), (2.0, 2.0), (1e-4, 1e4), (0.99, 1.0)])
def test_log_uniform_is_the_exponential(low, high):
    words = torch.cat([torch.tensor([0, 2**31, 2**32 - 1]), torch.randint(2**32, (10_000,))])
    exact = np.exp(np.log(low) + (np.log(high) - np.log(low)) * (words.double().numpy() + 0.5) / 2**32)
    drawn = reference_masks.log_uniform(words, low, high).numpy()
    assert np.abs(drawn / exact - 1).max() < 1e-10
    assert low <= drawn.min() and drawn.max() <= high


# --- what they depend on ----------------------------------------------------------------------------------------------


@makers
def test_a_mask_is_a_function_of_the_sample_alone(maker):
    key = {"seed": 11, "epoch": 4}
    indices = [*range(40), 2**40 + 1, 2**63 - 1]
    whole = maker(indices, **key)
    order = torch.randperm(len(indices)).tolist()
    assert torch.equal(maker([indices[i] for i in order], **key), whole[order])
    assert torch.equal(torch.cat([maker([i], **key) for i in indices]), whole)
    assert torch.equal(maker(torch.tensor(indices[:5] * 2), **key), torch.cat([whole[:5]] * 2))
    assert torch.equal(maker(np.array(indices), **key), whole)
    for other in ({"seed": 12, "epoch": 4}, {"seed": 11, "epoch": 5}, {**key, "view": 1}):
        assert not torch.equal(maker(indices, **other), whole)


@makers
def test_a_mask_leaves_torchs_generator_alone(maker):
    before = torch.get_rng_state()
    maker([1, 2], seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@makers
def test_kernels_draw_what_the_host_does(maker, monkeypatch):
    """The kernels' own source, run by the emulator on the CPU."""
    indices = list(range(40))
    expected = maker(indices, seed=5)
    monkeypatch.setattr(ops, "_executor", lambda device, work: _native._C.MaskExecutor.emulated())
    assert torch.equal(maker(indices, seed=5), expected)


@makers
def test_nothing_waits_for_a_device(maker):
    """A tensor of the device "meta" has no values: whoever looks at one gets an error."""
    with pytest.raises(RuntimeError):
        bool(torch.ones(1, device="meta"))
    mask = maker([1, 2, 3], seed=0, device="meta")
    assert mask.device.type == "meta" and mask.shape == maker([1, 2, 3], seed=0).shape


@pytest.mark.parametrize("device", devices())
@makers
def test_the_device_changes_no_bit(maker, device):
    indices = list(range(100))
    expected = maker(indices, seed=9)
    here = torch.tensor(indices, device=device)
    maker(here, seed=9)  # what a first call sets up may wait
    with nothing_waits(device):
        drawn = maker(here, seed=9)
    assert drawn.device.type == device and torch.equal(drawn.cpu(), expected)


@makers
@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(maker, batch):
    mask = maker(list(range(batch)), seed=0)
    assert mask.shape[0] == batch and mask.dtype == torch.bool
    assert mask.shape[1:] == maker([0, 1, 2], seed=0).shape[1:]


@pytest.mark.parametrize("indices", [[4, 1, 9, 300], range(50), range(1)])
def test_an_exact_share_depends_on_the_batch_but_not_on_its_order(indices):
    indices = list(indices)
    key = {"seed": 3, "exact_share": True, "share": 0.5, "ratio": (0.2, 0.6)}
    mask = masks.block(indices, **key)
    assert mask.any(2).any(1).sum() == len(indices) // 2
    order = torch.randperm(len(indices)).tolist()
    assert torch.equal(masks.block([indices[i] for i in order], **key), mask[order])


def test_an_exact_share_has_one_image_in_each_part_of_the_range():
    keys = Keys(torch.arange(1000), 5, 0, 77)
    counts = _draw_masks.how_many(keys, (0.1, 0.5), 0.25, 10**6, exact_share=True)
    drawn = counts[counts > 0].sort().values
    edges = torch.linspace(0.1, 0.5, 251, dtype=torch.float64) * 10**6
    assert len(drawn) == 250 and (drawn >= edges[:-1] - 1).all() and (drawn <= edges[1:]).all()


# --- what they promise ------------------------------------------------------------------------------------------------

GRIDS = [(1, 1), (1, 7), (7, 1), (2, 3), (14, 14), (37, 37), (8, 21)]
RATIOS = [0, 0.1, 0.5, 0.75, 1]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("grid", GRIDS)
def test_counts_are_exact(grid, ratio):
    expected = round(ratio * grid[0] * grid[1])
    for mask in (
        masks.random(range(50), grid=grid, ratio=ratio, seed=0),
        masks.grid(range(50), grid=grid, cell=1, ratio=ratio, seed=0),
        masks.inverse_block(range(50), grid=grid, ratio=ratio, seed=0),
        masks.inverse_block(range(50), grid=grid, ratio=ratio, roll=False, aspect=(0.01, 0.02), seed=0),
        masks.inverse_block(range(50), grid=grid, ratio=ratio, roll=False, aspect=(30, 90.0), seed=0),
    ):
        assert mask.shape == (50, *grid)
        assert (mask.sum((1, 2)) == expected).all()


@pytest.mark.parametrize("grid, cell", [((16, 16), 4), ((6, 9), 3), ((5, 5), 5), ((2, 2), 1)])
def test_cells_are_masked_as_one(grid, cell):
    mask = masks.grid(range(200), grid=grid, cell=cell, ratio=0.5, seed=1)
    parts = mask.view(-1, grid[0] // cell, cell, grid[1] // cell, cell).transpose(2, 3).flatten(3)
    assert torch.equal(parts.all(3), parts.any(3))
    n = grid[0] * grid[1] // cell**2
    assert (parts.all(3).sum((1, 2)) == round(n / 2)).all()


@pytest.mark.parametrize("length, low, high", [(1, 1, None), (5, 1, None), (5, 0, 5), (7, 3, 3)])
def test_prefixes_stay_and_have_every_length(length, low, high):
    mask = masks.prefix(range(2000), length=length, low=low, high=high, seed=0)
    kept = (~mask).sum(1)
    assert torch.equal(mask, torch.arange(length) >= kept[:, None])
    top = max(low, length - 1) if high is None else high
    assert kept.unique().tolist() == list(range(low, top + 1))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("ratio", [(0.1, 0.5), (0.75, 1.0), (0, 0)])
def test_blocks_mask_no_more_than_asked_and_little_less(grid, ratio):
    n = grid[0] * grid[1]
    keys = Keys.of_masks("", _draw_masks.BLOCK, range(500), 0, 0, 0, None)
    asked = _draw_masks.how_many(keys, ratio, 1.0, n, exact_share=False)
    masked = masks.block(range(500), grid=grid, ratio=ratio, share=1, seed=0).sum((1, 2))
    assert (masked <= asked).all() and (asked >= int(n * ratio[0])).all() and (asked <= n * ratio[1]).all()
    if min(grid) == 1:
        assert (masked == 0).all()  # a block is smaller than the grid on both sides
    elif n > 100 and ratio == (0.1, 0.5):  # beyond, many a block that covers something new covers too much of it
        assert (masked > 0).all()
        assert (asked - masked).double().mean() < 0.02 * n


def test_a_share_of_the_images_is_masked():
    masked = masks.block(range(4000), share=0.3, seed=2).any(2).any(1).sum().item()
    assert abs(masked - 1200) < 4 * math.sqrt(4000 * 0.3 * 0.7)
    assert masks.block(range(100), share=1, seed=2).any(2).any(1).all()
    assert not masks.block(range(100), share=0, seed=2).any()


def test_the_bound_on_blocks_cuts_no_mask_short(monkeypatch):
    cases = [
        {},
        {"ratio": (0.5, 0.5)},
        {"ratio": (1.0, 1.0)},
        {"ratio": (0.5, 0.5), "max_block": 8},
        {"ratio": (0.5, 0.5), "max_block": 3, "min_block": 1},
        {"ratio": (1.0, 1.0), "attempts": 50, "min_block": 1},
    ]
    expected = [masks.block(range(400), share=1, seed=0, **case) for case in cases]
    monkeypatch.setattr(_draw_masks, "max_blocks", lambda most, grid, rules: most)
    for case, mask in zip(cases, expected, strict=True):
        assert torch.equal(masks.block(range(400), share=1, seed=0, **case), mask), case


@pytest.mark.parametrize("grid", [(14, 14), (37, 37), (8, 21), (3, 3)])
@pytest.mark.parametrize("targets, contexts", [(4, 1), (1, 3)])
def test_contexts_and_targets(grid, targets, contexts):
    rules = {"grid": grid, "targets": targets, "contexts": contexts, "min_keep": 4}
    for batch in range(10):
        context, target = masks.multi_block(range(100), seed=0, batch=batch, **rules)
        assert context.shape == (100, contexts, *grid) and target.shape == (100, targets, *grid)
        sizes = target.sum((2, 3))
        assert (sizes == sizes[0, 0]).all()  # one size for the batch
        assert (context.sum((2, 3)) >= 4).all()
        if grid != (3, 3):  # there, targets may leave too little
            assert not (context & target.any(1, keepdim=True)).any()
        with_overlap, same = masks.multi_block(range(100), seed=0, batch=batch, allow_overlap=True, **rules)
        assert torch.equal(same, target)
        assert len(with_overlap.sum((2, 3)).unique()) == 1  # whole blocks


def test_every_cell_is_seen_and_predicted_unless_as_published():
    context, target = masks.multi_block(range(2000), seed=0, context_scale=(0.85, 0.85))
    assert context.any(0).all() and target.flatten(0, 1).any(0).all()
    context, target = masks.multi_block(range(2000), seed=0, context_scale=(0.85, 0.85), as_published=True)
    seen, predicted = context.flatten(0, 1).any(0), target.flatten(0, 1).any(0)
    for part in (seen, predicted):
        assert part[:-1, :-1].all() and not part[-1].any() and not part[:, -1].any()


def test_sizes_are_of_the_batch_and_places_of_the_sample():
    sizes = {masks.multi_block([0], seed=0, batch=batch)[1][0, 0].sum().item() for batch in range(100)}
    possible = {h * w for h in range(5, 8) for w in range(4, 8)}  # of area 29 to 39 before rounding, aspect 0.75 to 1.5
    assert sizes <= possible and len(sizes) > 3
    assert torch.equal(masks.multi_block([3, 8], seed=0, batch=7)[0][1:], masks.multi_block([8], seed=0, batch=7)[0])


def test_positions_are_those_that_nonzero_gives(rng):
    mask = torch.from_numpy(rng.random((20, 6, 7)) < 0.5)
    least = mask.sum((1, 2)).min().item()
    expected = [row.flatten().nonzero()[:, 0] for row in mask]
    assert torch.equal(masks.positions(mask), torch.stack([row[:least] for row in expected]))
    assert torch.equal(masks.positions(mask, 2), torch.stack([row[:2] for row in expected]))
    assert masks.positions(mask[:0]).shape == (0, 0) and masks.positions(mask[:0], 3).shape == (0, 3)
    exact = masks.random(range(5), grid=(4, 4), ratio=0.75, seed=0)
    together = torch.cat([masks.positions(exact, 12), masks.positions(~exact, 4)], dim=1)
    assert torch.equal(together.sort().values, torch.arange(16).expand(5, 16))


# --- twins ------------------------------------------------------------------------------------------------------------


class Words:
    """The words of one sample, by number of the draw."""

    def __init__(self, maker: int, index: int, seed: int) -> None:
        self.stream, self.index, self.seed = MASK_STREAM + 16 * maker, index, seed

    def draw(self, number: int) -> tuple[int, ...]:
        return tuple(_native.philox((number | self.stream << 16, 0, self.index, 0), (self.seed, 0)))


def u(word: int) -> float:
    return (word + 0.5) / 2**32


def aspect_of(word: int, low: float, high: float) -> float:
    return reference_masks.log_uniform(torch.tensor([word]), low, high).item()  # itself tested above


def twin_block(index: int, seed: int, grid, ratio, least: int, most: int, aspect, attempts: int) -> Tensor:
    words, (height, width) = Words(_draw_masks.BLOCK, index, seed), grid
    mask = torch.zeros(grid, dtype=torch.bool)
    left = int((u(words.draw(0)[2]) * (ratio[1] - ratio[0]) + ratio[0]) * height * width)
    number = 0
    while left > 0:
        for attempt in range(attempts):
            a, b, c, d = words.draw(1 + number * attempts + attempt)
            room = min(left, most)
            area, shape = least + (room - least) * u(a), aspect_of(b, *aspect)
            h, w = round(math.sqrt(area * shape)), round(math.sqrt(area * (1 / shape)))
            if h >= height or w >= width:
                continue
            top, start = c * (height - h + 1) >> 32, d * (width - w + 1) >> 32
            new = h * w - mask[top : top + h, start : start + w].sum().item()
            if 0 < new <= room:
                mask[top : top + h, start : start + w] = True
                left -= new
                break
        else:
            break
        number += 1
    return mask


@pytest.mark.parametrize(
    "grid, ratio, least, most, aspect, attempts",
    [
        ((14, 14), (0.1, 0.5), 4, None, (0.3, 1 / 0.3), 10),
        ((7, 12), (0.5, 1.0), 16, 40, (0.5, 1.0), 3),
        ((37, 37), (0.4, 0.4), 1, 9, (0.1, 10.0), 1),
    ],
)
def test_block_says_what_its_twin_says(grid, ratio, least, most, aspect, attempts):
    n = 60
    mask = masks.block(
        range(n),
        grid=grid,
        ratio=ratio,
        share=1,
        min_block=least,
        max_block=most,
        aspect=aspect,
        attempts=attempts,
        seed=6,
    )
    assert mask.any()
    for index in range(n):
        twin = twin_block(index, 6, grid, ratio, least, most or 10**9, aspect, attempts)
        assert torch.equal(mask[index], twin), index


def twin_inverse_block(index: int, seed: int, grid, masked: int, aspect, roll: bool) -> Tensor:
    words, (height, width) = Words(_draw_masks.INVERSE_BLOCK, index, seed), grid
    visible = height * width - masked
    (a, b, c, d), (e, *_) = words.draw(0), words.draw(1)
    low, high = max(aspect[0], visible / width**2), min(aspect[1], height**2 / visible)
    shape = aspect_of(a, low, high)
    h, w = math.ceil(math.sqrt(visible * shape)), math.ceil(math.sqrt(visible / shape))
    top, left = b * (height - h + 1) >> 32, c * (width - w + 1) >> 32
    seen = torch.zeros(grid, dtype=torch.bool)
    cells = [(y, x) for y in range(top, top + h) for x in range(left, left + w)]
    for y, x in cells[:visible]:
        seen[y, x] = True
    return ~(seen.roll((d * height >> 32, e * width >> 32), (0, 1)) if roll else seen)


@pytest.mark.parametrize("roll", [True, False])
@pytest.mark.parametrize("grid, ratio", [((14, 14), 0.65), ((5, 12), 0.5), ((9, 4), 0.1)])
def test_inverse_block_says_what_its_twin_says(grid, ratio, roll):
    mask = masks.inverse_block(range(100), grid=grid, ratio=ratio, roll=roll, seed=8)
    masked = round(ratio * grid[0] * grid[1])
    for index in range(100):
        assert torch.equal(mask[index], twin_inverse_block(index, 8, grid, masked, (0.5, 2.0), roll)), index


def twin_multi_block(index: int, seed: int, grid, targets: int, contexts: int, sizes, min_keep: int) -> Tensor:
    words, (height, width) = Words(_draw_masks.MULTI_BLOCK, index, seed), grid
    (ch, cw), (th, tw) = sizes

    def place(first: int, number: int, h: int, w: int) -> Tensor:
        a, b = words.draw(first + number // 2)[2 * (number % 2) :][:2]
        top, left = a * (height - h + 1) >> 32, b * (width - w + 1) >> 32
        block = torch.zeros(grid, dtype=torch.bool)
        block[top : top + h, left : left + w] = True
        return block

    predicted = [place(0, number, th, tw) for number in range(targets)]
    seen = []
    for number in range(contexts):
        tries = ((forgotten, k) for forgotten in range(targets + 1) for k in range(20))
        for forgotten, k in tries:
            block = place(32 + 640 * number + 10 * forgotten, k, ch, cw)
            for target in predicted[: targets - forgotten]:
                block &= ~target
            if block.sum() >= min_keep:
                seen.append(block)
                break
    return torch.stack(seen + predicted)


@pytest.mark.parametrize(
    "grid, target_scale, targets, contexts, min_keep",
    [((14, 14), (0.15, 0.2), 4, 1, 10), ((8, 11), (0.4, 0.6), 5, 2, 30), ((5, 5), (0.5, 0.9), 3, 1, 16)],
)
def test_multi_block_says_what_its_twin_says(grid, target_scale, targets, contexts, min_keep):
    rules = {"grid": grid, "target_scale": target_scale, "targets": targets, "contexts": contexts, "min_keep": min_keep}
    drawn = both(masks.multi_block(range(60), seed=4, batch=2, **rules))
    (a, b, c, _) = _native.philox((0xFFFF | (MASK_STREAM + 16 * _draw_masks.MULTI_BLOCK) << 16, 0, 2, 0), (4, 0))

    def sides(scale: float, aspect: float) -> tuple[int, int]:
        area = int(grid[0] * grid[1] * scale)
        return min(round(math.sqrt(area * aspect)), grid[0]), min(round(math.sqrt(area / aspect)), grid[1])

    target = sides(target_scale[0] + (target_scale[1] - target_scale[0]) * u(a), 0.75 + 0.75 * u(b))
    sizes = sides(0.85 + (1.0 - 0.85) * u(c), 1.0), target
    for index in range(60):
        assert torch.equal(drawn[index], twin_multi_block(index, 4, grid, targets, contexts, sizes, min_keep)), index


# --- bad input --------------------------------------------------------------------------------------------------------

BAD: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (masks.random, {"ratio": 1.1}, "ratio=1.1"),
    (masks.random, {"ratio": -0.1}, "ratio=-0.1"),
    (masks.random, {"ratio": math.nan}, "ratio=nan"),
    (masks.random, {"ratio": True}, "ratio=True"),
    (masks.random, {"ratio": "0.5"}, "ratio='0.5'"),
    (masks.random, {"grid": (0, 3)}, "grid=0 must be a whole number, at least 1"),
    (masks.random, {"grid": (3, 2.5)}, "grid=2.5"),
    (masks.random, {"grid": 14}, r"grid=14 must be \(rows, columns\)"),
    (masks.random, {"grid": (1024, 1024)}, r"at most 2\^18"),
    (masks.random, {"seed": -1}, "seed=-1"),
    (masks.random, {"epoch": 2**32}, "epoch=4294967296"),
    (masks.random, {"view": 16}, "view=16"),
    (masks.random, {"indices": [-1]}, r"indices=\[-1\]"),
    (masks.random, {"indices": [0.5]}, r"indices=\[0.5\]"),
    (masks.random, {"indices": 3}, "indices=3"),
    (masks.random, {"indices": torch.tensor([-1])}, r"indices=\[-1\]"),
    (masks.random, {"indices": torch.tensor([0.5])}, "indices is .*float32"),
    (masks.random, {"indices": torch.tensor(3)}, r"indices is \(\)"),
    (masks.grid, {"cell": 0}, "cell=0"),
    (masks.grid, {"cell": 5}, "cell=5 must divide"),
    (masks.grid, {"ratio": 2}, "ratio=2"),
    (masks.prefix, {"length": 0}, "length=0"),
    (masks.prefix, {"length": 4, "high": 5}, "high=5 must be a whole number, from 1 to 4"),
    (masks.prefix, {"low": -1}, "low=-1"),
    (masks.block, {"ratio": (0.5, 0.1)}, "ratio=.* must hold the least first"),
    (masks.block, {"ratio": 0.5}, "ratio=0.5 must be two numbers"),
    (masks.block, {"ratio": (0.5, 1.5)}, "ratio=1.5"),
    (masks.block, {"share": 1.5}, "share=1.5"),
    (masks.block, {"min_block": 0}, "min_block=0"),
    (masks.block, {"min_block": 5, "max_block": 4}, "max_block=4"),
    (masks.block, {"aspect": (0, 1)}, "aspect=0 must be a number, above 0"),
    (masks.block, {"attempts": 0}, "attempts=0"),
    (masks.inverse_block, {"ratio": 1.5}, "ratio=1.5"),
    (masks.inverse_block, {"aspect": (2, 1)}, "aspect=.* must hold the least first"),
    (masks.multi_block, {"targets": 0}, "targets=0"),
    (masks.multi_block, {"contexts": 33}, "contexts=33"),
    (masks.multi_block, {"context_scale": (0.9, 1.2)}, "context_scale=1.2"),
    (masks.multi_block, {"min_keep": 170}, "min_keep=170 needs larger contexts .* have 169 at the least"),
    (masks.multi_block, {"as_published": True, "grid": (1, 9), "min_keep": 0}, "min_keep=0 needs larger contexts"),
    (masks.multi_block, {"batch": -1}, "batch=-1"),
]


@pytest.mark.parametrize("maker, arguments, message", BAD, ids=range(len(BAD)))
def test_bad_arguments_are_named(maker, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        maker(**({"indices": [0], "seed": 0} | arguments))
    assert str(caught.value).startswith(f"masks.{maker.__name__}: ")


@pytest.mark.parametrize("mask", [torch.zeros(3, dtype=torch.bool), torch.zeros(2, 3), [True]])
def test_positions_takes_masks_only(mask):
    with pytest.raises(ValueError, match="must be a bool tensor"):
        masks.positions(mask)
