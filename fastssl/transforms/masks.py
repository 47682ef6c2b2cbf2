"""Which patches of an image a model does not see: the masks of masked-image methods, drawn for whole batches at once.

A mask is a pure function of `(seed, epoch, index of the sample, view)` and of the arguments that describe it, as a
`Plan` is; it does not depend on the batch the sample is in, on the size of that batch, nor on the device. Where a
method's definition ties the images of a batch together, the function says so.

On a CUDA device, kernels draw the masks on torch's current stream, and nothing waits for it but `positions` without a
count. Where the build has no kernels (`fastssl._native.build_info`), and on devices of other kinds, the CPU draws and the result
is copied.

All makers return booleans on the grid of patches, True where a patch is masked (`multi_block` says what else);
`positions` turns them into the indices with which tokens are gathered. lightly's names for the same masks are in
`fastssl.models.utils`.

Arguments that all makers share:

    indices: Of the samples in their source, (B,): a list or a tensor of whole numbers, at least 0.
    seed: 0 to 2^64 - 1.
    epoch: 0 to 2^32 - 1.
    view: Which of several masks of a sample, 0 to 15.
    device: Where the masks shall be; None for where `indices` is, or the CPU for a list.

All raise ValueError, which names the argument, for what is out of its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastssl.ops.masks import least_set
from fastssl.transforms import _draw_masks as _draw
from fastssl.transforms._checks import check_number, check_range, check_sides, check_whole
from fastssl.transforms.keys import Keys

__all__ = ["block", "grid", "inverse_block", "multi_block", "positions", "prefix", "random"]

Indices = Sequence[int] | Tensor
Device = torch.device | str | None
Grid = tuple[int, int]


def random(
    indices: Indices,
    *,
    grid: Grid = (14, 14),
    ratio: float = 0.75,
    seed: int,
    epoch: int = 0,
    view: int = 0,
    device: Device = None,
) -> Tensor:
    """Masks patches one by one, every choice of as many equally likely.

    Args:
        grid: Rows and columns of patches.
        ratio: Part of the patches to mask, in [0, 1]; exactly `round(ratio * H * W)` are.
        indices, seed, epoch, view, device: See the module.

    Returns:
        (B, H, W), bool, True where masked.

    Source: He et al., MAE, 2021, arXiv:2111.06377, section 3.

    >>> random([0, 1], grid=(4, 4), ratio=0.75, seed=0).sum((1, 2))
    tensor([12, 12])
    """
    sides = _check_grid("masks.random", grid)
    n = sides[0] * sides[1]
    masked = round(check_number("masks.random", "ratio", ratio) * n)
    keys = Keys.of_masks("masks.random", _draw.RANDOM, indices, seed, epoch, view, device)
    return _draw.cells(keys, sides, 1, n - masked)


def grid(
    indices: Indices,
    *,
    grid: Grid = (16, 16),
    cell: int = 4,
    ratio: float = 0.75,
    seed: int,
    epoch: int = 0,
    view: int = 0,
    device: Device = None,
) -> Tensor:
    """Masks cells of a coarse grid, each a square of patches, every choice of as many equally likely.

    Args:
        grid: Rows and columns of patches, multiples of `cell`.
        cell: Side of a cell, in patches.
        ratio: Part of the cells to mask, in [0, 1]; exactly `round(ratio * cells)` are.
        indices, seed, epoch, view, device: See the module.

    Returns:
        (B, H, W), bool, True where masked.

    Source: Pixio, "In Pursuit of Pixel Supervision for Visual Pre-training", 2025, arXiv:2512.15715.

    >>> grid_mask = grid([0], grid=(4, 4), cell=2, ratio=0.75, seed=0)[0]
    >>> sorted(grid_mask[y : y + 2, x : x + 2].sum().item() for y in (0, 2) for x in (0, 2))
    [0, 4, 4, 4]
    """
    height, width = _check_grid("masks.grid", grid)
    side = check_whole("masks.grid", "cell", cell, 1)
    if height % side or width % side:
        raise ValueError(f"masks.grid: cell={cell} must divide both sides of grid={(height, width)}.")
    coarse = height // side, width // side
    n = coarse[0] * coarse[1]
    masked = round(check_number("masks.grid", "ratio", ratio) * n)
    keys = Keys.of_masks("masks.grid", _draw.GRID, indices, seed, epoch, view, device)
    return _draw.cells(keys, coarse, side, n - masked)


def prefix(
    indices: Indices,
    *,
    length: int = 256,
    low: int = 1,
    high: int | None = None,
    seed: int,
    epoch: int = 0,
    view: int = 0,
    device: Device = None,
) -> Tensor:
    """Masks all but the first S tokens of a sequence, S uniform in {low, ..., high}.

    Args:
        length: Of the sequence, in tokens.
        low: The shortest prefix that stays, at least 0.
        high: The longest, up to `length`; None for `length - 1`, so that something is masked.
        indices, seed, epoch, view, device: See the module.

    Returns:
        (B, length), bool, True where masked.

    Source: El-Nouby et al., AIM, 2024, arXiv:2401.08541, section 3: S uniform in {1, ..., K - 1}, K the length.

    >>> prefix([5], length=4, low=1, high=1, seed=0)
    tensor([[False,  True,  True,  True]])
    """
    length = check_whole("masks.prefix", "length", length, 1, 2**_draw.CELLS_BITS)
    low = check_whole("masks.prefix", "low", low, 0, length)
    high = max(low, length - 1) if high is None else check_whole("masks.prefix", "high", high, low, length)
    keys = Keys.of_masks("masks.prefix", _draw.PREFIX, indices, seed, epoch, view, device)
    return _draw.prefix(keys, length, low, high)


def block(
    indices: Indices,
    *,
    grid: Grid = (14, 14),
    ratio: tuple[float, float] = (0.1, 0.5),
    share: float = 0.5,
    exact_share: bool = False,
    min_block: int = 4,
    max_block: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    attempts: int = 10,
    seed: int,
    epoch: int = 0,
    view: int = 0,
    device: Device = None,
) -> Tensor:
    """Masks rectangles of patches, one after the other, until enough are masked.

    A block's area is uniform between `min_block` and what is left to mask, its aspect log-uniform, its place uniform.
    It is taken if it is smaller than the grid on both sides, masks something new, and no more than what is left; when
    `attempts` in a row are not, the image stays as it is. So slightly fewer patches than asked for may be masked, and
    none in a grid of one row or column. An image has at most 28 blocks (64 where more than half of the grid shall be masked)
    and 4 more for each time that `max_block` goes into what is to be masked: fewer than one image in 10^6 would have more. Nor
    has it more than 65535 attempts in all.

    Args:
        grid: Rows and columns of patches.
        ratio: Least and greatest part of an image's patches to mask, in [0, 1]; uniform between them.
        share: Part of the images to mask at all, in [0, 1].
        exact_share: False: each image is masked with probability `share`, and depends on no other. True, as in iBOT and
            DINOv2: exactly `int(share * B)` images of this batch are, one with a ratio in each of as many equal parts of the
            range; then a mask depends on which other samples are in the batch, though not on their order.
        min_block: Least area of a block to draw, in patches.
        max_block: Greatest area of a block, in patches; None for any.
        aspect: Least and greatest height over width of a block.
        attempts: How often a block is tried, 1 to 256.
        indices, seed, epoch, view, device: See the module.

    Returns:
        (B, H, W), bool, True where masked.

    Sources: Bao et al., BEiT, 2021, arXiv:2106.08254, algorithm 1 (`ratio=(0.4, 0.4), share=1, min_block=16`); Zhou et al.,
    iBOT, 2021, arXiv:2111.07832; Oquab et al., DINOv2, 2023, arXiv:2304.07193, whose arguments are the defaults.

    >>> masked = block(range(100), ratio=(0.4, 0.4), share=1, seed=0).sum((1, 2))
    >>> masked.max().item() <= 78, masked.float().mean().item() > 70  # 78 = int(0.4 * 14 * 14)
    (True, True)
    """
    who = "masks.block"
    sides = _check_grid(who, grid)
    least, most = check_range(who, "ratio", ratio)
    share = check_number(who, "share", share)
    min_block = check_whole(who, "min_block", min_block, 1)
    rules = _draw.BlockRules(
        min_block,
        _draw.NO_LIMIT if max_block is None else check_whole(who, "max_block", max_block, min_block),
        check_range(who, "aspect", aspect, 0, _draw.MAX_ASPECT, open_low=True),
        check_whole(who, "attempts", attempts, 1, _draw.MAX_ATTEMPTS),
    )
    n = sides[0] * sides[1]
    keys = Keys.of_masks(who, _draw.BLOCK, indices, seed, epoch, view, device)
    counts = _draw.how_many(keys, (least, most), share, n, bool(exact_share))
    return _draw.blocks(keys, sides, counts, int(most * n), rules)


def inverse_block(
    indices: Indices,
    *,
    grid: Grid = (14, 14),
    ratio: float = 0.65,
    aspect: tuple[float, float] = (0.5, 2.0),
    roll: bool = True,
    seed: int,
    epoch: int = 0,
    view: int = 0,
    device: Device = None,
) -> Tensor:
    """Masks all but one rectangle of patches, whose last row is cut short so that the count is exact.

    Args:
        grid: Rows and columns of patches.
        ratio: Part of the patches to mask, in [0, 1]; exactly `round(ratio * H * W)` are.
        aspect: Least and greatest height over width of the rectangle, log-uniform between them as far as it fits.
        roll: Whether the rectangle may reach over one edge of the grid and come in at the other, every shift alike.
        indices, seed, epoch, view, device: See the module.

    Returns:
        (B, H, W), bool, True where masked.

    Source: Darcet et al., CAPI, 2025, arXiv:2502.08769, section 3.

    >>> inverse_block([0], grid=(2, 3), ratio=0.5, aspect=(1 / 3, 1 / 3), roll=False, seed=3).sum().item()
    3
    """
    who = "masks.inverse_block"
    sides = _check_grid(who, grid)
    n = sides[0] * sides[1]
    visible = n - round(check_number(who, "ratio", ratio) * n)
    ratios = check_range(who, "aspect", aspect, 0, _draw.MAX_ASPECT, open_low=True)
    keys = Keys.of_masks(who, _draw.INVERSE_BLOCK, indices, seed, epoch, view, device)
    return _draw.inverse_block(keys, sides, visible, ratios, bool(roll), inside=False)


def multi_block(
    indices: Indices,
    *,
    grid: Grid = (14, 14),
    context_scale: tuple[float, float] = (0.85, 1.0),
    target_scale: tuple[float, float] = (0.15, 0.2),
    target_aspect: tuple[float, float] = (0.75, 1.5),
    contexts: int = 1,
    targets: int = 4,
    min_keep: int = 10,
    allow_overlap: bool = False,
    as_published: bool = False,
    seed: int,
    epoch: int = 0,
    batch: int = 0,
    view: int = 0,
    device: Device = None,
) -> tuple[Tensor, Tensor]:
    """Blocks to predict, and blocks to predict them from, less what is to be predicted.

    The size of a block is drawn once for a batch, as the method has it, from `(seed, epoch, batch)`; its place is the
    sample's own. A context of which, at 20 places, fewer than `min_keep` patches lie outside the targets, is tried at 20
    more with the last target forgotten, and so on. `positions` cuts masks to a common length, as the method does.

    Args:
        grid: Rows and columns of patches.
        context_scale: Least and greatest part of the grid that a context covers before the targets are taken out of it,
            in [0, 1]; contexts are square.
        target_scale: The same of a target.
        target_aspect: Least and greatest height over width of a target.
        contexts: How many, 1 to 32.
        targets: How many, 1 to 63; they may overlap each other.
        min_keep: Least number of patches in a context.
        allow_overlap: Whether targets stay in the contexts.
        as_published: Draw as I-JEPA's published code does, and lightly's with it, slips included: one number decides both
            the scale and the aspect of the targets; no block reaches the last row or column, which are thus never seen
            nor predicted; more than `min_keep` patches are kept, not as many.
        batch: Number of the batch, 0 to 2^64 - 1: those who give the same (all ranks of one step) draw the same sizes.
        indices, seed, epoch, view, device: See the module.

    Returns:
        Contexts, (B, contexts, H, W), bool, True where the encoder sees; targets, (B, targets, H, W), bool, True where
        the predictor predicts.

    Source: Assran et al., I-JEPA, 2023, arXiv:2301.08243, section 3 and appendix A.

    >>> context, target = multi_block([0, 1], seed=0)
    >>> context.shape, target.shape, (context & target.any(1, keepdim=True)).any().item()
    (torch.Size([2, 1, 14, 14]), torch.Size([2, 4, 14, 14]), False)
    """
    who = "masks.multi_block"
    sides = _check_grid(who, grid)
    rules = _draw.MultiBlockRules(
        context_scale=check_range(who, "context_scale", context_scale),
        target_scale=check_range(who, "target_scale", target_scale),
        target_aspect=check_range(who, "target_aspect", target_aspect, 0, _draw.MAX_ASPECT, open_low=True),
        contexts=check_whole(who, "contexts", contexts, 1, _draw.MAX_CONTEXTS),
        targets=check_whole(who, "targets", targets, 1, _draw.MAX_TARGETS),
        min_keep=check_whole(who, "min_keep", min_keep, 0),
        allow_overlap=bool(allow_overlap),
        as_published=bool(as_published),
    )
    rules.check(who, "min_keep", "context_scale", sides)
    batch = check_whole(who, "batch", batch, 0, 2**64 - 1)
    keys = Keys.of_masks(who, _draw.MULTI_BLOCK, indices, seed, epoch, view, device)
    return _draw.multi_block(keys, sides, rules, *rules.sizes(seed, epoch, keys.stream, batch, sides))


def positions(mask: Tensor, count: int | None = None) -> Tensor:
    """Where a mask is True, as indices of tokens, row by row and in ascending order.

    Args:
        mask: (B, ...), bool: a mask, or its inverse, as `positions(~mask)` gives the tokens that stay.
        count: How many of each sample; from samples with more the last are left out, which is how I-JEPA brings the masks of a
            batch to one length. None for the least that any sample has: a shape that depends on what was drawn, so the host
            waits for a GPU here, and only here.

    Returns:
        (B, count), int64.

    Raises:
        ValueError: mask is no such tensor.

    >>> positions(torch.tensor([[[False, True], [True, True]], [[True, False], [False, True]]]))
    tensor([[1, 2],
            [0, 3]])
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() < 2:
        got = f"{tuple(mask.shape)} {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"masks.positions: mask is {got}, and must be a bool tensor (B, ...).")
    rows = mask.flatten(1)
    if rows.shape[1] > 2**_draw.CELLS_BITS:
        raise ValueError(
            f"masks.positions: mask is {tuple(mask.shape)}, and may have at most 2^{_draw.CELLS_BITS} tokens."
        )
    if count is None:
        count = least_set(rows)
    return _draw.positions(rows, check_whole("masks.positions", "count", count, 0, rows.shape[1]))


def _check_grid(who: str, grid: Any) -> Grid:
    height, width = check_sides(who, "grid", grid, (1, 1), "(rows, columns) of patches, whole numbers of at least 1")
    if height * width > 2**_draw.CELLS_BITS:
        raise ValueError(
            f"{who}: grid={(height, width)} has {height * width} patches; at most 2^{_draw.CELLS_BITS} may be."
        )
    return height, width
