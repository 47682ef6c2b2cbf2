"""lightly's names for the masks of `fastssl.transforms.masks`; the key comes from torch's generator.

`torch.manual_seed` governs all of them, and the device changes nothing but where the result is. (Two of lightly's use
Python's `random` instead, and others the generator of the device.) On a CUDA device kernels draw, and nothing waits for them;
see `fastssl.transforms.masks`. A ratio outside [0, 1], and any argument that is out of its range, raises a ValueError with
its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastssl.transforms import _draw_masks as draw
from fastssl.transforms._checks import check_number, check_sides, check_whole
from fastssl.transforms.keys import Keys

__all__ = [
    "random_block_mask",
    "random_block_mask_image",
    "random_grid_token_mask",
    "random_inverse_block_mask",
    "random_prefix_mask",
    "random_token_mask",
]

Device = torch.device | str | None


def random_token_mask(
    size: tuple[int, int],
    mask_ratio: float = 0.6,
    mask_class_token: bool = False,
    device: Device = None,
) -> tuple[Tensor, Tensor]:
    """Masks tokens one by one, as MAE does (arXiv:2111.06377).

    Args:
        size: (batch size B, tokens L); the class token comes first.
        mask_ratio: Part of the tokens to mask, in [0, 1].
        mask_class_token: Whether the class token may be masked; if not, it is the first to be kept and is not counted.
        device: Where the indices shall be.

    Returns:
        Tokens to keep, (B, K), and tokens to mask, (B, L - K), int64, each in random order;
        K = int(L * (1 - mask_ratio)), or 1 + int((L - 1) * (1 - mask_ratio)) with a class token that stays.

    >>> keep, masked = random_token_mask((2, 197), mask_ratio=0.75)
    >>> keep.shape, masked.shape, keep[:, 0]
    (torch.Size([2, 50]), torch.Size([2, 147]), tensor([0, 0]))
    """
    who = "random_token_mask"
    batch, length = _sequences(who, size)
    part = 1 - check_number(who, "mask_ratio", mask_ratio)
    kept = 0 if mask_class_token or length == 0 else 1
    keep = int((length - kept) * part)
    return draw.tokens(Keys.from_torch(draw.RANDOM, batch, device), (1, length - kept), 1, keep, kept)


def random_grid_token_mask(
    size: tuple[int, int],
    mask_ratio: float = 0.75,
    grid_size: int = 4,
    num_prefix_tokens: int = 1,
    device: Device = None,
) -> tuple[Tensor, Tensor]:
    """Masks squares of patches on a regular grid, as Pixio does (arXiv:2512.15715).

    Args:
        size: (batch size B, tokens L); behind the prefix, L - P patches of a square image, row by row.
        mask_ratio: Part of the squares to mask, in [0, 1].
        grid_size: Side of a square, in patches; divides the image's.
        num_prefix_tokens: Tokens before the patches (class token, registers), P; they are kept, and come first.
        device: Where the indices shall be.

    Returns:
        Tokens to keep, (B, P + K), and tokens to mask, (B, L - P - K), int64, the squares in random order;
        K = int(squares * (1 - mask_ratio)) * grid_size ** 2.

    >>> keep, masked = random_grid_token_mask((2, 17), mask_ratio=0.75, grid_size=2)
    >>> keep.shape, masked.shape, keep[:, 0]
    (torch.Size([2, 5]), torch.Size([2, 12]), tensor([0, 0]))
    """
    who = "random_grid_token_mask"
    batch, prefix, side = _square(who, size, num_prefix_tokens)
    part = 1 - check_number(who, "mask_ratio", mask_ratio)
    cell = check_whole(who, "grid_size", grid_size, 1)
    if side % cell:
        raise ValueError(f"{who}: grid_size={cell} must divide the side of the image, {side} patches.")
    n = (side // cell) ** 2
    keep = int(n * part)
    keys = Keys.from_torch(draw.GRID, batch, device)
    return draw.tokens(keys, (side // cell, side // cell), cell, keep, prefix)


def random_inverse_block_mask(
    size: tuple[int, int],
    mask_ratio: float = 0.65,
    num_prefix_tokens: int = 1,
    min_aspect: float = 0.5,
    max_aspect: float | None = None,
    roll: bool = True,
    device: Device = None,
) -> tuple[Tensor, Tensor]:
    """Masks all but one rectangle of patches, as CAPI does (arXiv:2502.08769).

    Unlike lightly's, it takes a batch of 0, and bounds of the aspect between which no rectangle fits the image: then it
    draws the nearest that does.

    Args:
        size: (batch size B, tokens L); behind the prefix, L - P patches of a square image, row by row.
        mask_ratio: Part of the patches to mask, in [0, 1].
        num_prefix_tokens: Tokens before the patches (class token, registers), P; they are kept, and come first.
        min_aspect: Least height over width of the rectangle.
        max_aspect: Greatest; None for 1 / min_aspect.
        roll: Whether the rectangle may reach over one edge of the image and come in at the other.
        device: Where the indices shall be.

    Returns:
        Tokens to keep, (B, L - M), and tokens to mask, (B, M), int64, in ascending order; M = int((L - P) * mask_ratio).

    >>> keep, masked = random_inverse_block_mask((2, 197))
    >>> keep.shape, masked.shape, keep[:, 0]
    (torch.Size([2, 70]), torch.Size([2, 127]), tensor([0, 0]))
    """
    who = "random_inverse_block_mask"
    batch, prefix, side = _square(who, size, num_prefix_tokens)
    masked = int(side * side * check_number(who, "mask_ratio", mask_ratio))
    aspect = _aspect(who, "min_aspect", min_aspect, "max_aspect", max_aspect)
    keys = Keys.from_torch(draw.INVERSE_BLOCK, batch, device)
    visible = draw.inverse_block(keys, (side, side), side * side - masked, aspect, bool(roll), inside=True)
    return draw.split(visible.flatten(1), side * side - masked, prefix)


def random_prefix_mask(size: tuple[int, int], max_prefix_length: int, device: Device = None) -> Tensor:
    """Masks all but a prefix of random length, as AIM does (arXiv:2401.08541).

    The length is uniform in {0, ..., max_prefix_length}, as lightly's documentation has it; lightly's code never draws
    max_prefix_length itself, and fails where it is 0.

    Args:
        size: (batch size B, tokens L).
        max_prefix_length: Greatest length of the prefix, in tokens; nothing is masked in a sequence where it is drawn and
            not below L.
        device: Where the mask shall be.

    Returns:
        (B, L), bool, True where masked.

    >>> random_prefix_mask((1, 3), max_prefix_length=0)
    tensor([[True, True, True]])
    """
    who = "random_prefix_mask"
    batch, length = _sequences(who, size)
    longest = check_whole(who, "max_prefix_length", max_prefix_length, 0, 2**31 - 2)
    return draw.prefix(Keys.from_torch(draw.PREFIX, batch, device), length, 0, longest)


def random_block_mask(
    size: tuple[int, int, int],
    batch_mask_ratio: float = 0.5,
    min_image_mask_ratio: float = 0.1,
    max_image_mask_ratio: float = 0.5,
    min_num_masks_per_block: int = 4,
    max_num_masks_per_block: int | None = None,
    min_block_aspect_ratio: float = 0.3,
    max_block_aspect_ratio: float | None = None,
    max_attempts_per_block: int = 10,
    device: Device = None,
) -> Tensor:
    """Masks rectangles of patches in a part of the images, as iBOT (arXiv:2111.07832) and DINOv2 (arXiv:2304.07193) do.

    See `fastssl.transforms.masks.block` for what is drawn. Unlike lightly's, it never fails by chance: lightly's raises an error
    when an image happens to get fewer patches to mask than `min_num_masks_per_block`. A batch of 0 is no error either.

    Args:
        size: (batch size B, rows H, columns W) of patches.
        batch_mask_ratio: Part of the images to mask; exactly int(B * batch_mask_ratio) are, at random places.
        min_image_mask_ratio: Least part of the patches to mask in such an image; fewer may be where blocks do not fit.
        max_image_mask_ratio: Greatest.
        min_num_masks_per_block: Least area of a block to draw, in patches.
        max_num_masks_per_block: Greatest area of a block, in patches; None for any.
        min_block_aspect_ratio: Least height over width of a block.
        max_block_aspect_ratio: Greatest; None for 1 / min_block_aspect_ratio.
        max_attempts_per_block: How often a block is tried before the image stays as it is.
        device: Where the mask shall be.

    Returns:
        (B, H, W), bool, True where masked.

    >>> _ = torch.manual_seed(0)
    >>> mask = random_block_mask((4, 14, 14), batch_mask_ratio=0.5)
    >>> mask.shape, mask.any((1, 2)).sum()
    (torch.Size([4, 14, 14]), tensor(2))
    """
    who = "random_block_mask"
    batch, *grid = check_sides(who, "size", size, (0, 1, 1), "(batch size, rows, columns)")
    share = check_number(who, "batch_mask_ratio", batch_mask_ratio)
    least = check_number(who, "min_image_mask_ratio", min_image_mask_ratio)
    most = check_number(who, "max_image_mask_ratio", max_image_mask_ratio)
    if most < least:
        raise ValueError(f"{who}: max_image_mask_ratio={most} must be at least min_image_mask_ratio={least}.")
    rules = _block_rules(
        who,
        min_num_masks_per_block,
        max_num_masks_per_block,
        min_block_aspect_ratio,
        max_block_aspect_ratio,
        max_attempts_per_block,
    )
    n = _cells(who, grid)
    keys = Keys.from_torch(draw.BLOCK, batch, device)
    counts = draw.how_many(keys, (least, most), share, n, exact_share=True)
    return draw.blocks(keys, (grid[0], grid[1]), counts, int(most * n), rules)


def random_block_mask_image(
    size: tuple[int, int],
    num_masks: int,
    min_num_masks_per_block: int = 4,
    max_num_masks_per_block: int | None = None,
    min_block_aspect_ratio: float = 0.3,
    max_block_aspect_ratio: float | None = None,
    max_attempts_per_block: int = 10,
    device: Device = None,
) -> Tensor:
    """Masks rectangles of patches in one image until `num_masks` patches are masked, or no further block fits.

    `random_block_mask` does the same for a whole batch at once. `num_masks` may be below `min_num_masks_per_block`, even 0,
    which lightly's refuses.

    Args:
        size: (rows H, columns W) of patches.
        num_masks: How many patches to mask.
        min_num_masks_per_block, max_num_masks_per_block, min_block_aspect_ratio, max_block_aspect_ratio,
            max_attempts_per_block, device: See `random_block_mask`.

    Returns:
        (H, W), bool, True where masked.

    >>> _ = torch.manual_seed(0)
    >>> 30 <= random_block_mask_image((14, 14), num_masks=40).sum().item() <= 40
    True
    """
    who = "random_block_mask_image"
    grid = check_sides(who, "size", size, (1, 1), "(rows, columns)")
    rules = _block_rules(
        who,
        min_num_masks_per_block,
        max_num_masks_per_block,
        min_block_aspect_ratio,
        max_block_aspect_ratio,
        max_attempts_per_block,
    )
    most = check_whole(who, "num_masks", num_masks, 0, _cells(who, grid))
    keys = Keys.from_torch(draw.BLOCK, 1, device)
    counts = torch.full((1,), most, dtype=torch.int64, device=keys.device)
    return draw.blocks(keys, (grid[0], grid[1]), counts, most, rules)[0]


def _sequences(who: str, size: Any) -> tuple[int, int]:
    batch, length = check_sides(who, "size", size, (0, 0), "(batch size, tokens)")
    check_whole(who, "tokens of size", length, 0, 2**draw.CELLS_BITS)
    return batch, length


def _square(who: str, size: Any, num_prefix_tokens: Any) -> tuple[int, int, int]:
    """Batch size, prefix, and the side of the square that the other tokens fill."""
    batch, length = _sequences(who, size)
    prefix = check_whole(who, "num_prefix_tokens", num_prefix_tokens, 0)
    side = round((length - prefix) ** 0.5) if length > prefix else 0
    if side == 0 or side * side != length - prefix:
        raise ValueError(
            f"{who}: size={(batch, length)} less num_prefix_tokens={prefix} leaves {length - prefix} patches, and must leave "
            "those of a square image: 196 for 14 x 14."
        )
    return batch, prefix, side


def _cells(who: str, grid: Sequence[int]) -> int:
    return check_whole(who, "rows times columns of size", grid[0] * grid[1], 1, 2**draw.CELLS_BITS)


def _aspect(who: str, least_name: str, least: Any, most_name: str, most: Any) -> tuple[float, float]:
    low = check_number(who, least_name, least, 0, draw.MAX_ASPECT, open_low=True)
    high = 1 / low if most is None else check_number(who, most_name, most, 0, draw.MAX_ASPECT, open_low=True)
    if high < low:
        raise ValueError(
            f"{who}: {most_name}={high:g} must be at least {least_name}={low:g}; None is 1 / {least_name}."
        )
    return low, high


def _block_rules(
    who: str, min_block: Any, max_block: Any, min_aspect: Any, max_aspect: Any, attempts: Any
) -> draw.BlockRules:
    least = check_whole(who, "min_num_masks_per_block", min_block, 1)
    most = draw.NO_LIMIT if max_block is None else check_whole(who, "max_num_masks_per_block", max_block, least)
    aspect = _aspect(who, "min_block_aspect_ratio", min_aspect, "max_block_aspect_ratio", max_aspect)
    return draw.BlockRules(
        least, most, aspect, check_whole(who, "max_attempts_per_block", attempts, 1, draw.MAX_ATTEMPTS)
    )
