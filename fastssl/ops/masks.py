"""Operators that draw the masks of masked-image methods; `fastssl.transforms.masks` says what each is for.

All are functions of their arguments alone, the same bits on every device. Those for a CUDA device run as kernels on torch's
current stream and wait for nothing. Where the build has no kernels for a device, as for one that is neither a CPU nor a
CUDA GPU, the CPU draws and the result is copied, which waits for the device if `indices` lies on it.

Arguments that all share:

    indices: Of the samples in their source, (B,), int64; on the device to draw on.
    seed: A whole number of 64 bits, with or without a sign.
    epoch: 0 to 2^32 - 1.
    stream: What stands in the place of a view in Philox's counter, 0 to 0xFFFF.

Raises ValueError for what is out of its range; what the indices hold is not looked at.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastssl._native import _C
from fastssl.ops.threads import get_num_threads

__all__ = ["blocks", "cells", "counts", "inverse_block", "least_set", "multi_block", "partition", "prefix", "tokens"]

Draw = TypeVar("Draw", bound=Callable[..., Any])

MAX_CELLS: int = 2**_C.MASK_CELL_BITS
_LARGEST = 2**31 - 1
_WORTH_THREADS = 2**15  # cells; fewer are drawn sooner than the CPUs are counted


def cells(indices: Tensor, seed: int, epoch: int, stream: int, rows: int, columns: int, side: int, kept: int) -> Tensor:
    """True at all cells but `kept` that are chosen at random.

    Args:
        indices, seed, epoch, stream: See the module.
        rows, columns: Of cells.
        side: Of a cell, in patches.
        kept: Cells that stay False.

    Returns:
        (B, rows * side, columns * side), bool.
    """
    return _call(_cells_op, _cells, indices, _signed(seed), epoch, stream, rows, columns, side, kept)


def tokens(
    indices: Tensor, seed: int, epoch: int, stream: int, rows: int, columns: int, side: int, kept: int, prefix: int
) -> tuple[Tensor, Tensor]:
    """The same choice as `cells` makes, as tokens in random order, of which `prefix` come before the patches.

    Returns:
        Tokens of the prefix and of the cells kept, (B, prefix + kept * side^2), and of the others, int64.
    """
    return _call(_tokens_op, _tokens, indices, _signed(seed), epoch, stream, rows, columns, side, kept, prefix)


def prefix(indices: Tensor, seed: int, epoch: int, stream: int, length: int, low: int, high: int) -> Tensor:
    """True from a place on that is uniform in {low, ..., high}; (B, length), bool."""
    return _call(_prefix_op, _prefix, indices, _signed(seed), epoch, stream, length, low, high)


def inverse_block(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    rows: int,
    columns: int,
    visible: int,
    least_aspect: float,
    most_aspect: float,
    roll: bool,
    inside: bool,
) -> Tensor:
    """`inside` at `visible` cells of a rectangle whose last row is cut short, its contrary elsewhere.

    Args:
        indices, seed, epoch, stream: See the module.
        rows, columns: Of cells.
        visible: Cells of the rectangle.
        least_aspect, most_aspect: Of height over width, above 0; log-uniform between them as far as it fits.
        roll: Whether the rectangle may reach over one edge of the grid and come in at the other.
        inside: What stands there.

    Returns:
        (B, rows, columns), bool.
    """
    arguments = (rows, columns, visible, least_aspect, most_aspect, roll, inside)
    return _call(_inverse_block_op, _inverse_block, indices, _signed(seed), epoch, stream, *arguments)


def counts(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    least: float,
    most: float,
    share: float,
    cells: int,
    exact_share: bool,
) -> Tensor:
    """How many of `cells` cells to mask in each sample.

    Args:
        indices, seed, epoch, stream: See the module.
        least, most: Parts of the cells, in [0, 1]; uniform between them.
        share: Part of the samples to mask at all, in [0, 1].
        cells: How many there are.
        exact_share: False: each sample is masked with probability `share`. True: `int(share * B)` of the batch are, one with a
            part in each of as many equal intervals.

    Returns:
        (B,), int64.
    """
    return _call(_counts_op, _counts, indices, _signed(seed), epoch, stream, least, most, share, cells, exact_share)


def blocks(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    counts: Tensor,
    rows: int,
    columns: int,
    limit: int,
    least: int,
    most: int,
    least_aspect: float,
    most_aspect: float,
    attempts: int,
) -> Tensor:
    """Rectangles until as many cells are True as asked for, or none fits.

    Args:
        indices, seed, epoch, stream: See the module.
        counts: How many cells, (B,), int64, on the same device; at most `rows * columns` each.
        rows, columns: Of cells.
        limit: Rectangles of a sample; `limit * attempts` is below 2^16.
        least, most: Cells of a rectangle.
        least_aspect, most_aspect: Of height over width, above 0; log-uniform.
        attempts: At a rectangle, before the sample stays as it is.

    Returns:
        (B, rows, columns), bool.
    """
    arguments = (counts, rows, columns, limit, least, most, least_aspect, most_aspect, attempts)
    return _call(_blocks_op, _blocks, indices, _signed(seed), epoch, stream, *arguments)


def multi_block(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    grid: tuple[int, int],
    room: tuple[int, int],
    context: tuple[int, int],
    target: tuple[int, int],
    contexts: int,
    targets: int,
    least: int,
    allow_overlap: bool,
) -> tuple[Tensor, Tensor]:
    """Rectangles to predict, and rectangles to predict them from, less what is to be predicted.

    Args:
        indices, seed, epoch, stream: See the module.
        grid: Rows and columns of cells.
        room: Rows and columns, the first of the grid, within which the rectangles lie.
        context, target: Height and width of these.
        contexts, targets: How many.
        least: Cells of a context outside the targets; while no place of 20 leaves as many, one target more is forgotten.
        allow_overlap: Whether targets stay in the contexts.

    Returns:
        Contexts, (B, contexts, H, W), and targets, (B, targets, H, W), bool.
    """
    arguments = (list(grid), list(room), list(context), list(target), contexts, targets, least, allow_overlap)
    return _call(_multi_block_op, _multi_block, indices, _signed(seed), epoch, stream, *arguments)


def partition(mask: Tensor, count: int, prefix: int = 0, rest: bool = True) -> tuple[Tensor, Tensor]:
    """Of each row the places that are True, then those that are False, both in ascending order, cut in two.

    Args:
        mask: (R, N), bool; N up to 2^30.
        count: Where to cut, 0 to N.
        prefix: Tokens that come before, up to 2^30: they are put in front of the first part, and place i is token prefix + i.
        rest: Whether the second part is wanted.

    Returns:
        (R, prefix + count) and (R, N - count), or (R, 0) where it is not wanted; int64.
    """
    return _call(_partition_op, _partition, mask, count, prefix, rest)


def least_set(mask: Tensor) -> int:
    """The least number of True in a row of (R, N), bool; 0 without rows. Waits for a device that is not the CPU."""
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(f"least_set: mask is {tuple(mask.shape)} {mask.dtype}, and must be (R, N) bool.")
    if mask.device.type != "cpu" or type(mask) is not Tensor:
        return int(mask.sum(1).min()) if len(mask) else 0
    mask = mask.contiguous()
    return _C.mask_least_set(mask.data_ptr(), *mask.shape)


# --- how they run -----------------------------------------------------------------------------------------------------


def _call(op: Callable[..., Any], draw: Callable[..., Any], tensor: Tensor, *arguments: Any) -> Any:
    """Through torch's dispatcher only where it is needed, since that takes longer than many a mask."""
    plain = type(tensor) is Tensor and not tensor.is_meta and not torch.compiler.is_compiling()
    return draw(tensor, *arguments) if plain else op(tensor, *arguments)


def _has_kernels(device: torch.device) -> bool:
    return device.type == "cpu" or (device.type == "cuda" and bool(_C.cuda_architectures()))


def _anywhere(draw: Draw) -> Draw:
    """The CPU draws for a device that has no kernels; a GPU is the current one while its kernels are launched."""

    @functools.wraps(draw)
    def wrapper(tensor: Tensor, *arguments: Any) -> Any:
        if _has_kernels(tensor.device):
            if tensor.device.type == "cpu" or tensor.device.index == torch.cuda.current_device():
                return draw(tensor, *arguments)
            with torch.cuda.device(tensor.device):
                return draw(tensor, *arguments)
        drawn = draw(*(a.cpu() if isinstance(a, Tensor) else a for a in (tensor, *arguments)))
        if isinstance(drawn, tuple):
            return tuple(part.to(tensor.device) for part in drawn)
        return drawn.to(tensor.device)

    return wrapper  # type: ignore[return-value]


def _executor(device: torch.device, work: float) -> _C.MaskExecutor:
    """Who draws `work` cells on a device that has kernels."""
    if device.type == "cuda":
        return _C.MaskExecutor.cuda(device.index, torch.cuda.current_stream(device).cuda_stream)
    return _C.MaskExecutor.host(get_num_threads() if work > _WORTH_THREADS else 1)


def _keys(who: str, indices: Tensor, seed: int, epoch: int, stream: int) -> tuple[Tensor, _C.MaskKeys]:
    """The indices, contiguous, to be kept until all is launched, and what native code sees of the keys."""
    if indices.dim() != 1 or indices.dtype != torch.int64:
        raise ValueError(f"{who}: indices is {tuple(indices.shape)} {indices.dtype}, and must be (B,) int64.")
    _check(who, "seed", seed, -(2**63), 2**64 - 1)
    _check(who, "epoch", epoch, 0, 2**32 - 1)
    _check(who, "stream", stream, 0, 0xFFFF)
    indices = indices.contiguous()
    return indices, _C.MaskKeys(indices.data_ptr(), len(indices), seed & (2**64 - 1), epoch, stream)


def _signed(seed: int) -> int:
    """The same 64 bits as an operator's int."""
    return seed - 2**64 if seed >= 2**63 else seed


def _scratch(executor: _C.MaskExecutor, samples: int, bytes_each: int, device: torch.device) -> Tensor | None:
    """Memory for kernels, where a sample's cells do not fit into that of a block."""
    if not executor.scratch or bytes_each == 0:
        return None
    return torch.empty(samples * bytes_each, dtype=torch.uint8, device=device)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


# --- checks -----------------------------------------------------------------------------------------------------------


def _check(who: str, name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{who}: {name}={value} must be from {low} to {high}.")


def _check_grid(who: str, rows: int, columns: int, least: int = 1) -> None:
    if rows < least or columns < least or rows * columns > MAX_CELLS:
        raise ValueError(
            f"{who}: {rows} rows and {columns} columns must be at least {least} each, and at most {MAX_CELLS} cells."
        )


def _check_aspect(who: str, least: float, most: float) -> None:
    if not 0 < least <= most < float("inf"):
        raise ValueError(f"{who}: least_aspect={least} and most_aspect={most} must be above 0, the least first.")


def _check_cells(who: str, rows: int, columns: int, side: int, kept: int) -> None:
    _check_grid(who, rows, columns, least=0)
    _check(who, "side", side, 1, 2**9)
    _check_grid(who, rows * side, columns * side, least=0)
    _check(who, "kept", kept, 0, rows * columns)


# --- operators --------------------------------------------------------------------------------------------------------


@_anywhere
def _cells(
    indices: Tensor, seed: int, epoch: int, stream: int, rows: int, columns: int, side: int, kept: int
) -> Tensor:
    _check_cells("mask_cells", rows, columns, side, kept)
    indices, keys = _keys("mask_cells", indices, seed, epoch, stream)
    out = indices.new_empty((len(indices), rows * side, columns * side), dtype=torch.bool)
    executor = _executor(indices.device, out.numel())
    scratch = _scratch(executor, len(indices), _C.mask_rank_scratch(rows * columns), indices.device)
    _C.mask_cells(executor, keys, _C.CellGrid(rows, columns, side), kept, out.data_ptr(), _address(scratch))
    return out


_cells_op = torch.library.custom_op("fastssl::mask_cells", _cells, mutates_args=())


@_cells_op.register_fake
def _(indices: Tensor, seed: int, epoch: int, stream: int, rows: int, columns: int, side: int, kept: int) -> Tensor:
    return indices.new_empty((indices.shape[0], rows * side, columns * side), dtype=torch.bool)


@_anywhere
def _tokens(
    indices: Tensor, seed: int, epoch: int, stream: int, rows: int, columns: int, side: int, kept: int, prefix: int
) -> tuple[Tensor, Tensor]:
    _check_cells("mask_tokens", rows, columns, side, kept)
    _check("mask_tokens", "prefix", prefix, 0, _LARGEST - MAX_CELLS)
    indices, keys = _keys("mask_tokens", indices, seed, epoch, stream)
    keep = indices.new_empty((len(indices), prefix + kept * side**2))
    masked = indices.new_empty((len(indices), (rows * columns - kept) * side**2))
    executor = _executor(indices.device, keep.numel() + masked.numel())
    scratch = _scratch(executor, len(indices), _C.mask_rank_scratch(rows * columns), indices.device)
    grid = _C.CellGrid(rows, columns, side)
    _C.mask_tokens(executor, keys, grid, kept, prefix, keep.data_ptr(), masked.data_ptr(), _address(scratch))
    return keep, masked


_tokens_op = torch.library.custom_op("fastssl::mask_tokens", _tokens, mutates_args=())


@_tokens_op.register_fake
def _(
    indices: Tensor, seed: int, epoch: int, stream: int, rows: int, columns: int, side: int, kept: int, prefix: int
) -> tuple[Tensor, Tensor]:
    batch = indices.shape[0]
    return (
        indices.new_empty((batch, prefix + kept * side**2)),
        indices.new_empty((batch, (rows * columns - kept) * side**2)),
    )


@_anywhere
def _prefix(indices: Tensor, seed: int, epoch: int, stream: int, length: int, low: int, high: int) -> Tensor:
    _check("mask_prefix", "length", length, 0, MAX_CELLS)
    _check("mask_prefix", "high", high, 0, _LARGEST - 1)
    _check("mask_prefix", "low", low, 0, high)
    indices, keys = _keys("mask_prefix", indices, seed, epoch, stream)
    out = indices.new_empty((len(indices), length), dtype=torch.bool)
    _C.mask_prefix(_executor(indices.device, out.numel() / 16), keys, length, low, high, out.data_ptr())
    return out


_prefix_op = torch.library.custom_op("fastssl::mask_prefix", _prefix, mutates_args=())


@_prefix_op.register_fake
def _(indices: Tensor, seed: int, epoch: int, stream: int, length: int, low: int, high: int) -> Tensor:
    return indices.new_empty((indices.shape[0], length), dtype=torch.bool)


@_anywhere
def _inverse_block(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    rows: int,
    columns: int,
    visible: int,
    least_aspect: float,
    most_aspect: float,
    roll: bool,
    inside: bool,
) -> Tensor:
    who = "mask_inverse_block"
    _check_grid(who, rows, columns)
    _check(who, "visible", visible, 0, rows * columns)
    _check_aspect(who, least_aspect, most_aspect)
    indices, keys = _keys(who, indices, seed, epoch, stream)
    out = indices.new_empty((len(indices), rows, columns), dtype=torch.bool)
    executor = _executor(indices.device, out.numel() / 4)
    aspect = least_aspect, most_aspect
    _C.mask_inverse_block(executor, keys, rows, columns, visible, aspect, roll, inside, out.data_ptr())
    return out


_inverse_block_op = torch.library.custom_op("fastssl::mask_inverse_block", _inverse_block, mutates_args=())


@_inverse_block_op.register_fake
def _(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    rows: int,
    columns: int,
    visible: int,
    least_aspect: float,
    most_aspect: float,
    roll: bool,
    inside: bool,
) -> Tensor:
    return indices.new_empty((indices.shape[0], rows, columns), dtype=torch.bool)


@_anywhere
def _counts(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    least: float,
    most: float,
    share: float,
    cells: int,
    exact_share: bool,
) -> Tensor:
    who = "mask_counts"
    _check(who, "most", most, 0, 1)
    _check(who, "least", least, 0, most)
    _check(who, "share", share, 0, 1)
    _check(who, "cells", cells, 0, _LARGEST)
    indices, keys = _keys(who, indices, seed, epoch, stream)
    out = indices.new_empty(len(indices))
    order = indices.new_empty(len(indices)) if exact_share else None
    executor = _executor(indices.device, len(indices))
    _C.mask_counts(executor, keys, (least, most), share, cells, exact_share, out.data_ptr(), _address(order))
    return out


_counts_op = torch.library.custom_op("fastssl::mask_counts", _counts, mutates_args=())


@_counts_op.register_fake
def _(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    least: float,
    most: float,
    share: float,
    cells: int,
    exact_share: bool,
) -> Tensor:
    return indices.new_empty(indices.shape[0])


@_anywhere
def _blocks(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    counts: Tensor,
    rows: int,
    columns: int,
    limit: int,
    least: int,
    most: int,
    least_aspect: float,
    most_aspect: float,
    attempts: int,
) -> Tensor:
    who = "mask_blocks"
    _check_grid(who, rows, columns)
    _check(who, "attempts", attempts, 1, _C.MASK_DRAWS - 1)
    _check(who, "limit", limit, 0, (_C.MASK_DRAWS - 1) // attempts)
    _check(who, "most", most, 1, _LARGEST)
    _check(who, "least", least, 1, most)
    _check_aspect(who, least_aspect, most_aspect)
    if counts.shape != indices.shape or counts.dtype != torch.int64 or counts.device != indices.device:
        raise ValueError(
            f"{who}: counts is {tuple(counts.shape)} {counts.dtype} on {counts.device}, and must be {tuple(indices.shape)} int64 "
            f"on {indices.device}."
        )
    indices, keys = _keys(who, indices, seed, epoch, stream)
    counts = counts.contiguous()
    out = indices.new_empty((len(indices), rows, columns), dtype=torch.bool)
    executor = _executor(indices.device, 16 * out.numel())
    scratch = _scratch(executor, len(indices), _C.mask_bits_scratch(rows, columns), indices.device)
    aspect = least_aspect, most_aspect
    _C.mask_blocks(
        executor,
        keys,
        rows,
        columns,
        limit,
        least,
        most,
        aspect,
        attempts,
        counts.data_ptr(),
        out.data_ptr(),
        _address(scratch),
    )
    return out


_blocks_op = torch.library.custom_op("fastssl::mask_blocks", _blocks, mutates_args=())


@_blocks_op.register_fake
def _(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    counts: Tensor,
    rows: int,
    columns: int,
    limit: int,
    least: int,
    most: int,
    least_aspect: float,
    most_aspect: float,
    attempts: int,
) -> Tensor:
    return indices.new_empty((indices.shape[0], rows, columns), dtype=torch.bool)


@_anywhere
def _multi_block(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    grid: list[int],
    room: list[int],
    context: list[int],
    target: list[int],
    contexts: int,
    targets: int,
    least: int,
    allow_overlap: bool,
) -> tuple[Tensor, Tensor]:
    who = "mask_multi_block"
    for name, sides in (("grid", grid), ("room", room), ("context", context), ("target", target)):
        if len(sides) != 2:
            raise ValueError(f"{who}: {name}={sides} must be two numbers, of rows and columns.")
    _check_grid(who, *grid)
    for axis, name in enumerate(("rows", "columns")):
        _check(who, f"{name} of room", room[axis], 1, grid[axis])
        _check(who, f"{name} of context", context[axis], 1, room[axis])
        _check(who, f"{name} of target", target[axis], 1, room[axis])
    _check(who, "contexts", contexts, 1, _C.MASK_CONTEXTS)
    _check(who, "targets", targets, 1, _C.MASK_TARGETS)
    _check(who, "least", least, 0, context[0] * context[1])
    indices, keys = _keys(who, indices, seed, epoch, stream)
    batch, (rows, columns) = len(indices), grid
    seen = indices.new_empty((batch, contexts, rows, columns), dtype=torch.bool)
    predicted = indices.new_empty((batch, targets, rows, columns), dtype=torch.bool)
    executor = _executor(indices.device, seen.numel() + predicted.numel())
    scratch = _scratch(executor, batch, _C.mask_bits_scratch(rows, columns), indices.device)
    _C.mask_multi_block(
        executor,
        keys,
        (rows, columns),
        (room[0], room[1]),
        (context[0], context[1]),
        (target[0], target[1]),
        contexts,
        targets,
        least,
        allow_overlap,
        seen.data_ptr(),
        predicted.data_ptr(),
        _address(scratch),
    )
    return seen, predicted


_multi_block_op = torch.library.custom_op("fastssl::mask_multi_block", _multi_block, mutates_args=())


@_multi_block_op.register_fake
def _(
    indices: Tensor,
    seed: int,
    epoch: int,
    stream: int,
    grid: list[int],
    room: list[int],
    context: list[int],
    target: list[int],
    contexts: int,
    targets: int,
    least: int,
    allow_overlap: bool,
) -> tuple[Tensor, Tensor]:
    batch = indices.shape[0]
    return (
        indices.new_empty((batch, contexts, *grid), dtype=torch.bool),
        indices.new_empty((batch, targets, *grid), dtype=torch.bool),
    )


@_anywhere
def _partition(mask: Tensor, count: int, prefix: int, rest: bool) -> tuple[Tensor, Tensor]:
    who = "mask_partition"
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(f"{who}: mask is {tuple(mask.shape)} {mask.dtype}, and must be (R, N) bool.")
    rows, length = mask.shape
    _check(who, "prefix", prefix, 0, 2**30)
    _check(who, "N", length, 0, 2**30)
    _check(who, "count", count, 0, length)
    mask = mask.contiguous()
    first = mask.new_empty((rows, prefix + count), dtype=torch.int64)
    second = mask.new_empty((rows, length - count if rest else 0), dtype=torch.int64)
    executor = _executor(mask.device, mask.numel() / 4)
    addresses = first.data_ptr(), second.data_ptr() if rest else 0
    _C.mask_partition(executor, mask.data_ptr(), rows, length, count, prefix, *addresses)
    return first, second


_partition_op = torch.library.custom_op("fastssl::mask_partition", _partition, mutates_args=())


@_partition_op.register_fake
def _(mask: Tensor, count: int, prefix: int, rest: bool) -> tuple[Tensor, Tensor]:
    rows, length = mask.shape
    return (
        mask.new_empty((rows, prefix + count), dtype=torch.int64),
        mask.new_empty((rows, length - count if rest else 0), dtype=torch.int64),
    )
