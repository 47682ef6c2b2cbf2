"""Native masks: the host, the kernels in the emulator and the kernels on a GPU all draw what tensor arithmetic draws.

What the masks promise is in test_masks.py; here is that all who draw them agree, bit for bit, and that none of it ever changes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import reference_masks as reference
import torch
from conftest import devices
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastssl.models.utils as utils
from fastssl._native import _C
from fastssl.data import IJEPAMaskCollator
from fastssl.ops import masks as ops
from fastssl.transforms import _draw_masks, masks

EMULATED = ["forward", "backward", "shuffled"]  # by the number of the emulator's order
on_gpu = pytest.mark.parametrize("device", devices()[-1:])


@contextmanager
def executor(name: str) -> Iterator[torch.device]:
    """The device on which `name` draws: "host, 3 threads", "emulated, backward", "cuda"."""
    kind, _, detail = name.partition(", ")
    before = ops._executor
    if kind == "host":
        ops._executor = lambda device, work: _C.MaskExecutor.host(int(detail.split()[0]))
    elif kind == "emulated":
        _C.emulator_order(EMULATED.index(detail))
        ops._executor = lambda device, work: _C.MaskExecutor.emulated()
    try:
        yield torch.device("cuda" if kind == "cuda" else "cpu")
    finally:
        ops._executor = before
        _C.emulator_order(0)


EXECUTORS = [
    "host, 1 thread",
    "host, 3 threads",
    *(f"emulated, {order}" for order in EMULATED),
    *(pytest.param(device.values[0], marks=device.marks) for device in devices()[-1:]),
]
executors = pytest.mark.parametrize("name", EXECUTORS)


def parts(result: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [part.cpu() for part in ([result] if isinstance(result, Tensor) else result)]


def agree(name: str, op: Callable[..., Any], arguments: tuple[Any, ...], expected: Tensor | tuple[Tensor, ...]) -> None:
    with executor(name) as device:
        drawn = op(*(a.to(device) if isinstance(a, Tensor) else a for a in arguments))
    for one, other in zip(parts(drawn), parts(expected), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


# --- what tensor arithmetic draws --------------------------------------------------------------------------------------

SIDE = st.integers(1, 64)
ASPECT = st.sampled_from([(0.3, 1 / 0.3), (0.5, 2.0), (1e-4, 1e4), (2.0, 2.0), (0.1, 0.11)])
UNIT_RANGE = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).map(tuple)


@st.composite
def keys(draw: Callable[..., Any], cells: int) -> tuple[Tensor, int, int, int]:
    """Indices, seed, epoch and stream of up to 300 samples, fewer of many cells."""
    count = draw(st.integers(1, max(1, min(300, 4000 // max(cells, 1)))))
    first = draw(st.sampled_from([0, 2**32 - 2, 2**63 - 301]))
    seed, epoch, stream = (
        draw(st.integers(0, 2**64 - 1)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.integers(0, 2**16 - 1)),
    )
    return first + torch.arange(count), seed, epoch, stream


few = settings(max_examples=12, deadline=None, derandomize=True)


@executors
@few
@given(data=st.data(), rows=SIDE, columns=SIDE)
def test_cells_and_tokens(name, data, rows, columns):
    n = rows * columns
    key, kept = data.draw(keys(n)), data.draw(st.integers(0, n))
    side, prefix = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 5))
    order = reference.permutation(reference.Keys(*key), n)
    chosen = reference.chosen(order, kept).view(-1, rows, 1, columns, 1)
    mask = chosen.expand(-1, -1, side, -1, side).reshape(-1, rows * side, columns * side)
    agree(name, ops.cells, (*key, rows, columns, side, kept), mask)
    tokens = reference.cells((rows * side, columns * side), side, order.device)[order] + prefix
    first = torch.arange(prefix).expand(len(order), -1)
    keep = torch.cat([first, tokens[:, :kept].flatten(1)], dim=1)
    agree(name, ops.tokens, (*key, rows, columns, side, kept, prefix), (keep, tokens[:, kept:].flatten(1)))


@executors
@few
@given(data=st.data(), length=st.integers(0, 4096))
def test_prefixes(name, data, length):
    key, high = data.draw(keys(length)), data.draw(st.integers(0, length + 3))
    low = data.draw(st.integers(0, high))
    agree(name, ops.prefix, (*key, length, low, high), reference.prefix(reference.Keys(*key), length, low, high))


@pytest.mark.parametrize("low, high", [(0.3, 1 / 0.3), (0.75, 1.5), (1e-4, 1e4), (2.0, 2.0), (0.1, 0.11), (1e-9, 0.5)])
def test_aspects_to_the_last_bit(low, high):
    words = [0, 2**31, 2**32 - 1, *torch.randint(2**32, (10_000,)).tolist()]
    drawn = torch.tensor(_C.mask_log_uniform(words, low, high), dtype=torch.float64)
    assert torch.equal(drawn, reference.log_uniform(torch.tensor(words), low, high))


@executors
@few
@given(data=st.data(), rows=SIDE, columns=SIDE, aspect=ASPECT, roll=st.booleans())
def test_inverse_blocks(name, data, rows, columns, aspect, roll):
    key, visible = data.draw(keys(rows * columns)), data.draw(st.integers(0, rows * columns))
    expected = reference.inverse_block(reference.Keys(*key), (rows, columns), visible, aspect, roll)
    agree(name, ops.inverse_block, (*key, rows, columns, visible, *aspect, roll, True), expected)
    agree(name, ops.inverse_block, (*key, rows, columns, visible, *aspect, roll, False), ~expected)


@executors
@few
@given(data=st.data(), cells=st.integers(0, 4096), ratio=UNIT_RANGE, share=st.floats(0, 1), exact=st.booleans())
def test_counts(name, data, cells, ratio, share, exact):
    key = data.draw(keys(1))
    expected = reference.how_many(reference.Keys(*key), ratio, share, cells, exact)
    agree(name, ops.counts, (*key, *ratio, share, cells, exact), expected)


@executors
def test_counts_of_samples_that_draw_the_same_follow_their_order(name):
    key = torch.tensor([7, 3, 7, 7, 3, 1] * 20), 5, 0, 9
    expected = reference.how_many(reference.Keys(*key), (0.1, 0.9), 0.6, 1000, True)
    agree(name, ops.counts, (*key, 0.1, 0.9, 0.6, 1000, True), expected)


@executors
@few
@given(data=st.data(), rows=SIDE, columns=SIDE, aspect=ASPECT, ratio=UNIT_RANGE)
def test_blocks(name, data, rows, columns, aspect, ratio):
    key, most = data.draw(keys(rows * columns)), data.draw(st.sampled_from([5, 30, 2**31 - 1]))
    rules = _draw_masks.BlockRules(data.draw(st.integers(1, 5)), most, aspect, data.draw(st.sampled_from([1, 3, 10])))
    limit = data.draw(st.sampled_from([0, 3, 64]))
    counts = reference.how_many(reference.Keys(*key), ratio, 0.8, rows * columns, False)
    expected = reference.blocks(reference.Keys(*key), (rows, columns), counts, limit, rules)
    arguments = (counts, rows, columns, limit, rules.least, rules.most, *aspect, rules.attempts)
    agree(name, ops.blocks, (*key, *arguments), expected)


@executors
@few
@given(data=st.data(), rows=SIDE, columns=SIDE)
def test_multi_blocks(name, data, rows, columns):
    key, grid = data.draw(keys(3 * rows * columns)), (rows, columns)
    room = tuple(data.draw(st.integers(max(1, side - 1), side)) for side in grid)
    context, target = (tuple(data.draw(st.integers(1, side)) for side in room) for _ in range(2))
    rules = _draw_masks.MultiBlockRules(
        *[(0.0, 1.0)] * 3,
        contexts=data.draw(st.integers(1, 3)),
        targets=data.draw(st.integers(1, 6)),
        min_keep=data.draw(st.integers(0, context[0] * context[1] - 1)),
        allow_overlap=data.draw(st.booleans()),
        as_published=room == (rows - 1, columns - 1),
    )
    if not rules.as_published:
        room = grid
    expected = reference.multi_block(reference.Keys(*key), grid, rules, context, target)
    least = rules.min_keep + rules.as_published
    arguments = (grid, room, context, target, rules.contexts, rules.targets, least, rules.allow_overlap)
    agree(name, ops.multi_block, (*key, *arguments), expected)


@executors
@few
@given(data=st.data(), rows=st.integers(0, 40), length=st.integers(0, 700), part=st.floats(0, 1))
def test_partitions(name, data, rows, length, part):
    count, prefix = data.draw(st.integers(0, length)), data.draw(st.integers(0, 3))
    seed = data.draw(st.integers(0, 2**31))
    mask = torch.rand((rows, length), generator=torch.Generator().manual_seed(seed)) < part
    order = reference.positions(mask, length)
    first = torch.cat([torch.arange(prefix).expand(rows, -1), order[:, :count] + prefix], dim=1)
    agree(name, ops.partition, (mask, count, prefix), (first, order[:, count:] + prefix))
    agree(name, ops.partition, (mask, count, prefix, False), (first, order[:, :0]))
    assert ops.least_set(mask) == (int(mask.sum(1).min()) if rows else 0)


@executors
@pytest.mark.parametrize("byte", [2, 16, 128, 255])
@pytest.mark.parametrize("length", [56, 64, 700])
def test_every_byte_but_0_is_true(name, byte, length):
    """A bool tensor holds others than 0 and 1 where it is a view of bytes."""
    drawn = torch.randint(5, (9, length), generator=torch.Generator().manual_seed(byte))
    mask = torch.tensor([0, 0, 1, byte, byte], dtype=torch.uint8)[drawn].view(torch.bool)
    order = reference.positions(drawn >= 2, length)
    for count in (0, 8, length):
        agree(name, ops.partition, (mask, count), (order[:, :count], order[:, count:]))
        agree(name, ops.partition, (mask, count, 0, False), (order[:, :count], order[:, :0]))
    least = int((drawn >= 2).sum(1).min())
    with executor(name) as device:
        assert ops.least_set(mask.to(device)) == least
        assert torch.equal(masks.positions(mask.to(device)).cpu(), order[:, :least])


@executors
def test_grids_beyond_the_memory_of_a_block(name):
    """More than 4096 cells to sort, and more than 32 KiB of bits."""
    key = torch.arange(3), 8, 0, 77
    order = reference.permutation(reference.Keys(*key), 91 * 90)
    agree(name, ops.cells, (*key, 91, 90, 1, 3000), reference.chosen(order, 3000).view(3, 91, 90))
    agree(name, ops.tokens, (*key, 91, 90, 1, 3000, 0), (order[:, :3000], order[:, 3000:]))
    grid, counts, rules = (
        (8200, 3),
        torch.tensor([9000, 0, 20_000]),
        _draw_masks.BlockRules(4, 2**31 - 1, (100.0, 1e4), 5),
    )
    expected = reference.blocks(reference.Keys(*key), grid, counts, 20, rules)
    assert expected[0].any() and not expected[1].any()
    agree(name, ops.blocks, (*key, counts, *grid, 20, 4, 2**31 - 1, 100.0, 1e4, 5), expected)
    many = _draw_masks.MultiBlockRules(*[(0.0, 1.0)] * 3, 2, 3, 500, False, False)
    expected = reference.multi_block(reference.Keys(*key), grid, many, (900, 2), (4000, 1))
    agree(name, ops.multi_block, (*key, grid, grid, (900, 2), (4000, 1), 2, 3, 500, False), expected)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads):
    key = torch.arange(5000), 8, 0, 77
    with executor("host, 1 thread"):
        expected = ops.cells(*key, 14, 14, 1, 49)
    agree(f"host, {threads} threads", ops.cells, (*key, 14, 14, 1, 49), expected)


# --- what a seed has always given --------------------------------------------------------------------------------------

# Of the masks that tensor arithmetic drew before native code did, on x86-64.
MASKS: list[tuple[str, dict[str, Any], str]] = [
    ("random", {}, "aa72d1acfd310360"),
    ("random", {"grid": (64, 64), "ratio": 0.4}, "ceec7003569be381"),
    ("random", {"grid": (80, 70)}, "6b6c3495b0b48dc0"),
    ("grid", {}, "ef912c405e176eda"),
    ("grid", {"grid": (6, 9), "cell": 3, "ratio": 0.5}, "8fb930858a4a817b"),
    ("prefix", {}, "c64614335fe211f7"),
    ("block", {}, "7197ea26445ea88f"),
    ("block", {"exact_share": True}, "a33eb22168e9c86e"),
    ("block", {"grid": (37, 37), "ratio": (0.5, 0.5), "share": 1, "max_block": 30}, "87d45ae8e36c80ba"),
    ("inverse_block", {}, "b59b9c3cbaea4013"),
    ("inverse_block", {"grid": (5, 12), "aspect": (0.1, 8), "roll": False}, "0641cbe443f8edcb"),
    ("multi_block", {}, "21d88c98d4e7fd9e"),
    ("multi_block", {"target_scale": (0.5, 0.6), "targets": 6, "contexts": 2, "min_keep": 40}, "7993a506a00e0f0d"),
    ("multi_block", {"as_published": True, "batch": 1099511627776}, "c48801e8cc1fc056"),
    ("multi_block", {"allow_overlap": True}, "2e377a28a9822cec"),
]
UTILS: list[tuple[str, tuple[Any, ...], str]] = [
    ("random_token_mask", ((9, 197), 0.75), "d970c535ab9a612b"),
    ("random_token_mask", ((9, 50), 0.75, True), "4cff461ee3e198de"),
    ("random_grid_token_mask", ((9, 257),), "49ab7683d979ff42"),
    ("random_inverse_block_mask", ((9, 197),), "fe23e845083b45a1"),
    ("random_prefix_mask", ((9, 196), 195), "20aeedb52dbbb05f"),
    ("random_block_mask", ((9, 14, 14),), "8317daf9b47566ce"),
    ("random_block_mask_image", ((14, 14), 60), "f5e323b185e2da66"),
]


def digest(tensors: list[Tensor]) -> str:
    text = hashlib.sha256()
    for tensor in tensors:
        text.update(str((tuple(tensor.shape), str(tensor.dtype))).encode())
        text.update(tensor.contiguous().numpy().tobytes())
    return text.hexdigest()[:16]


@executors
@pytest.mark.parametrize("maker, options, known", MASKS, ids=range(len(MASKS)))
def test_masks_are_as_ever(name, maker, options, known):
    indices = torch.tensor([*range(20), 2**32 + 5, 2**63 - 1])
    with executor(name) as device:
        drawn = getattr(masks, maker)(indices, seed=2**64 - 3, epoch=2**32 - 2, view=3, device=device, **options)
    assert digest(parts(drawn)) == known


@executors
@pytest.mark.parametrize("maker, arguments, known", UTILS, ids=range(len(UTILS)))
def test_masks_under_lightlys_names_are_as_ever(name, maker, arguments, known):
    torch.manual_seed(5)
    with executor(name) as device:
        drawn = getattr(utils, maker)(*arguments, device=device)
    assert digest(parts(drawn)) == known


def test_collators_are_as_ever():
    torch.manual_seed(5)
    _, seen, predicted = IJEPAMaskCollator(pred_mask_scale=(0.15, 0.2))([torch.zeros(1)] * 9)
    assert digest([*seen, *predicted]) == "73e8685b5e6517ef"


# --- operators --------------------------------------------------------------------------------------------------------

KEY = torch.arange(6), 2**63 + 5, 3, 0xFF00
COUNTS = torch.tensor([0, 5, 9, 12, 3, 1])
OPERATORS: dict[str, tuple[Callable[..., Any], Any, tuple[Any, ...]]] = {
    "cells": (ops.cells, ops._cells_op, (*KEY, 4, 5, 2, 7)),
    "tokens": (ops.tokens, ops._tokens_op, (*KEY, 4, 5, 2, 7, 1)),
    "prefix": (ops.prefix, ops._prefix_op, (*KEY, 20, 0, 19)),
    "inverse_block": (ops.inverse_block, ops._inverse_block_op, (*KEY, 4, 5, 8, 0.5, 2.0, True, False)),
    "counts": (ops.counts, ops._counts_op, (*KEY, 0.1, 0.5, 0.5, 20, False)),
    "counts, exact": (ops.counts, ops._counts_op, (*KEY, 0.1, 0.5, 0.5, 20, True)),
    "blocks": (ops.blocks, ops._blocks_op, (*KEY, COUNTS, 4, 5, 28, 2, 9, 0.3, 3.0, 10)),
    "multi_block": (
        ops.multi_block,
        ops._multi_block_op,
        (*KEY, [8, 9], [8, 9], [6, 6], [3, 2], 2, 4, 5, False),
    ),
    "partition": (ops.partition, ops._partition_op, (torch.eye(5, 9, dtype=torch.bool), 4, 2, True)),
    "partition, first": (ops.partition, ops._partition_op, (torch.eye(5, 9, dtype=torch.bool), 4, 2, False)),
}
operators = pytest.mark.parametrize("function, op, arguments", OPERATORS.values(), ids=OPERATORS)


def for_dispatcher(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a - 2**64 if isinstance(a, int) and a >= 2**63 else a for a in arguments)


@operators
@pytest.mark.parametrize("device", devices())
def test_operators_are_what_torch_asks_of_them(function, op, arguments, device):
    arguments = tuple(a.to(device) if isinstance(a, Tensor) else a for a in for_dispatcher(arguments))
    torch.library.opcheck(op, arguments)


@operators
def test_operators_compile_without_a_break(function, op, arguments):
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    for one, other in zip(parts(compiled(*arguments)), parts(function(*arguments)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("maker", ["random", "grid", "prefix", "block", "inverse_block"])
def test_makers_compile_without_a_break(maker):
    """All but multi_block, whose sizes are drawn in Python."""
    compiled = torch.compile(lambda indices: getattr(masks, maker)(indices, seed=3), fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.arange(8)), getattr(masks, maker)(range(8), seed=3))


@operators
def test_operators_know_shapes_without_drawing(function, op, arguments):
    on_meta = tuple(a.to("meta") if isinstance(a, Tensor) else a for a in arguments)
    drawn = function(*on_meta)
    for one, other in zip([drawn] if isinstance(drawn, Tensor) else drawn, parts(function(*arguments)), strict=True):
        assert one.is_meta and (one.shape, one.dtype) == (other.shape, other.dtype)


@operators
def test_a_device_without_kernels_gets_what_the_host_draws(function, op, arguments, monkeypatch):
    expected = parts(function(*arguments))
    asked: list[torch.device] = []

    def none_has(device: torch.device) -> bool:
        asked.append(device)
        return False

    monkeypatch.setattr(ops, "_has_kernels", none_has)
    for one, other in zip(parts(function(*arguments)), expected, strict=True):
        assert torch.equal(one, other)
    assert asked


def test_indices_need_not_be_contiguous():
    strided = torch.arange(12)[::2]
    assert torch.equal(ops.prefix(strided, 1, 0, 0, 50, 0, 50), ops.prefix(strided.clone(), 1, 0, 0, 50, 0, 50))
    mask = torch.eye(6, dtype=torch.bool)[:, ::2]
    assert ops.least_set(mask) == 0 and torch.equal(ops.partition(mask, 1)[0], ops.partition(mask.contiguous(), 1)[0])


def test_a_mask_draws_no_more_than_a_stream_holds():
    rules = _draw_masks.BlockRules(1, 1, (0.5, 2.0), 256)
    assert _draw_masks.max_blocks(2**17, (512, 512), rules) * 256 < 2**16
    mask = masks.block([0], grid=(64, 64), ratio=(1, 1), share=1, min_block=1, max_block=1, attempts=256, seed=0)
    assert mask.sum() == 255  # one block, of one cell, for each 256 of 65535 attempts


BAD: list[tuple[Callable[..., Any], tuple[Any, ...], str]] = [
    (ops.cells, (torch.arange(3.0), 0, 0, 0, 4, 5, 1, 2), r"mask_cells: indices is \(3,\) torch.float32"),
    (ops.cells, (torch.zeros(2, 2, dtype=torch.int64), 0, 0, 0, 4, 5, 1, 2), r"mask_cells: indices is \(2, 2\)"),
    (ops.cells, (KEY[0], 0, -1, 0, 4, 5, 1, 2), "mask_cells: epoch=-1"),
    (ops.cells, (KEY[0], 0, 0, 2**16, 4, 5, 1, 2), "mask_cells: stream=65536"),
    (ops.cells, (*KEY, 4, 5, 1, 21), "mask_cells: kept=21 must be from 0 to 20"),
    (ops.cells, (*KEY, 4, -5, 1, 0), "mask_cells: 4 rows and -5 columns"),
    (ops.cells, (*KEY, 256, 256, 3, 0), "mask_cells: 768 rows and 768 columns .* at most 262144"),
    (ops.tokens, (*KEY, 4, 5, 0, 2, 0), "mask_tokens: side=0"),
    (ops.tokens, (*KEY, 4, 5, 1, 2, -1), "mask_tokens: prefix=-1"),
    (ops.prefix, (*KEY, 2**18 + 1, 0, 5), "mask_prefix: length=262145"),
    (ops.prefix, (*KEY, 20, 6, 5), "mask_prefix: low=6 must be from 0 to 5"),
    (ops.inverse_block, (*KEY, 4, 5, 21, 0.5, 2.0, True, True), "mask_inverse_block: visible=21"),
    (ops.inverse_block, (*KEY, 4, 5, 2, 2.0, 0.5, True, True), "mask_inverse_block: least_aspect=2.0"),
    (ops.counts, (*KEY, 0.5, 0.1, 0.5, 20, True), "mask_counts: least=0.5 must be from 0 to 0.1"),
    (ops.counts, (*KEY, 0.1, 0.5, 1.5, 20, True), "mask_counts: share=1.5"),
    (ops.blocks, (*KEY, COUNTS[1:], 4, 5, 28, 2, 9, 0.3, 3.0, 10), r"mask_blocks: counts is \(5,\)"),
    (ops.blocks, (*KEY, COUNTS, 4, 5, 6554, 2, 9, 0.3, 3.0, 10), "mask_blocks: limit=6554 must be from 0 to 6553"),
    (ops.blocks, (*KEY, COUNTS, 4, 5, 28, 2, 1, 0.3, 3.0, 10), "mask_blocks: least=2"),
    (ops.blocks, (*KEY, COUNTS, 4, 5, 28, 2, 9, 0.0, 3.0, 10), "mask_blocks: least_aspect=0.0"),
    (ops.multi_block, (*KEY, (8, 9), (8, 10), (6, 6), (3, 2), 2, 4, 5, False), "columns of room=10"),
    (ops.multi_block, (*KEY, (8, 9), (8, 9), (6, 6), (9, 2), 2, 4, 5, False), "rows of target=9"),
    (ops.multi_block, (*KEY, (8, 9), (8, 9), (6, 6), (3, 2), 33, 4, 5, False), "contexts=33"),
    (ops.multi_block, (*KEY, (8, 9), (8, 9), (6, 6), (3, 2), 2, 4, 37, False), "least=37"),
    (ops.multi_block, (*KEY, (8, 9, 1), (8, 9), (6, 6), (3, 2), 2, 4, 5, False), r"grid=\[8, 9, 1\] must be two"),
    (ops.partition, (torch.ones(3, 4), 2), r"mask_partition: mask is \(3, 4\) torch.float32"),
    (ops.partition, (torch.ones(3, 4, dtype=torch.bool), 5), "mask_partition: count=5 must be from 0 to 4"),
    (ops.least_set, (torch.ones(3, 4),), r"least_set: mask is \(3, 4\) torch.float32"),
]


@pytest.mark.parametrize("function, arguments, message", BAD, ids=range(len(BAD)))
def test_bad_arguments_are_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@on_gpu
@operators
def test_kernels_follow_the_current_stream_and_wait_for_nothing(function, op, arguments, device):
    arguments = tuple(a.to(device) if isinstance(a, Tensor) else a for a in arguments)
    expected = parts(function(*arguments))  # what a first call sets up may wait
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(2 * 10**9)  # about a second
        drawn = function(*arguments)
        waits = not stream.query()
    assert waits, "the call returned after what came before it on the stream had ended"
    assert torch.cuda.default_stream().query(), "something ran on another stream"
    stream.synchronize()
    for one, other in zip(parts(drawn), expected, strict=True):
        assert torch.equal(one, other)


@on_gpu
@operators
def test_every_gpu_whichever_is_current(function, op, arguments, device, gpus):
    expected = parts(function(*arguments))
    for current, index in itertools.product(gpus, gpus):
        there = tuple(a.to(f"cuda:{index}") if isinstance(a, Tensor) else a for a in arguments)
        with torch.cuda.device(current):
            drawn = function(*there)
            assert torch.cuda.current_device() == current
        for one, other in zip([drawn] if isinstance(drawn, Tensor) else drawn, expected, strict=True):
            assert one.device.index == index and torch.equal(one.cpu(), other)


@on_gpu
def test_a_graph_replays_the_kernels(device):
    indices = torch.arange(64, device=device)
    masks.block(indices, seed=0, exact_share=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mask = masks.block(indices, seed=0, exact_share=True)
    indices += 64
    graph.replay()
    assert torch.equal(mask.cpu(), masks.block(range(64, 128), seed=0, exact_share=True))


@pytest.mark.skipif(bool(_C.cuda_architectures()), reason="this build has kernels")
def test_a_build_without_kernels_says_so():
    gpu, keys = _C.MaskExecutor.cuda(0, 0), _C.MaskKeys(KEY[0].data_ptr(), 6, 0, 0, 0)
    with pytest.raises(RuntimeError, match="no CUDA"):
        _C.mask_prefix(gpu, keys, 10, 0, 5, torch.empty(6, 10, dtype=torch.bool).data_ptr())
