"""Masks by whole-batch tensor arithmetic: what native code draws, said a second time, in torch.

These lines drew the masks before native code did, so what they give is what a seed has always given. They share nothing with
csrc/ but the published generator; `rules` are those of `fastssl.transforms._draw_masks`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

CELLS_BITS = 18
DRAWS = 2**16  # of one stream, four words each
_TRIES = 20  # places for a context before a target is forgotten
_CONTEXT_FIRST = 32  # draws before this place the targets, two to a draw
_CONTEXT_DRAWS = 640  # of one context: 64 times _TRIES places, two to a draw

_LOW = 0xFFFFFFFF
# The multipliers less 2^32: negative, so that their product with a word stays within an int64. The high half of the
# true product is the high half of this one, plus the word.
_M0, _M1 = 0xD2511F53 - 2**32, 0xCD9E8D57 - 2**32
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


def philox4x32(c0: Any, c1: Any, c2: Any, c3: Any, k0: int, k1: int) -> tuple[Any, Any, Any, Any]:
    """Four random words of each counter (Salmon et al., SC 2011).

    Args:
        c0, c1, c2, c3: The counter: int64 tensors or arrays that broadcast, or ints; each in [0, 2^32).
        k0, k1: The key, each in [0, 2^32).

    Returns:
        Four of what the counters broadcast to, each in [0, 2^32).

    >>> [hex(word) for word in philox4x32(0, 0, 0, 0, 0, 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        n0 = ((p1 >> 32) + c2) ^ c1 ^ k0
        n2 = ((p0 >> 32) + c0) ^ c3 ^ k1
        c0, c1, c2, c3 = n0, p1 & _LOW, n2, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@dataclass(frozen=True, eq=False)
class Keys:
    """What identifies the random numbers of B samples: `fastssl.transforms.keys.Keys`, as tensors see it."""

    indices: Tensor
    seed: int
    epoch: int
    stream: int

    @property
    def device(self) -> torch.device:
        return self.indices.device

    def __len__(self) -> int:
        return self.indices.shape[0]

    def words(self, count: int, first: int = 0) -> Tensor:
        """`count` random words of each sample, from draw number `first` on, four a draw; (B, count), int64, in [0, 2^32)."""
        draws = -(-count // 4)
        assert first + draws <= DRAWS
        counter = torch.arange(first, first + draws, device=self.device).add_(self.stream << 16)
        index = self.indices[:, None]
        k0, k1 = self.seed & _LOW, self.seed >> 32
        words = torch.stack(philox4x32(counter, self.epoch, index & _LOW, (index >> 32) & _LOW, k0, k1), dim=2)
        return words.reshape(len(self), 4 * draws)[:, :count]


def uniform(words: Tensor) -> Tensor:
    """Uniform in (0, 1) from each word; float64."""
    return (words.double() + 0.5) * 2.0**-32


def below(words: Tensor, n: Tensor | int) -> Tensor:
    """Uniform in {0, ..., n - 1} from each word by Lemire's multiply, n below 2^31; the bias is at most n / 2^32."""
    return (words * n) >> 32


def log_uniform(words: Tensor, low: float, high: float) -> Tensor:
    """Uniform in the logarithm, from low to high, both above 0; float64, relative error below 1e-10.

    The exponential is a polynomial and squarings, whose every step is rounded alike on all devices.

    >>> log_uniform(torch.tensor([0, 2**31, 2**32 - 1]), 0.25, 4.0)
    tensor([0.2500, 1.0000, 4.0000], dtype=torch.float64)
    """
    width = math.log(high) - math.log(low)
    squarings = max(0, math.ceil(math.log2(width))) if width > 0 else 0  # then |x| <= 1 / 2
    x = (uniform(words) - 0.5) * (width / 2**squarings)
    result = torch.full_like(x, 1 / math.factorial(10))
    for k in range(9, -1, -1):
        result.mul_(x).add_(1 / math.factorial(k))
    for _ in range(squarings):
        result.mul_(result)
    return result.mul_(math.exp((math.log(low) + math.log(high)) / 2)).clamp_(low, high)


def _sorted_rows(keys: Tensor) -> Tensor:
    return torch.sort(keys, dim=1).values


def _places(ranks: Tensor) -> Tensor:
    """Where the ranks of each row stand, from the least to the greatest; of equal ones, the first comes first."""
    n = ranks.shape[1]
    return _sorted_rows((ranks << CELLS_BITS) | torch.arange(n, device=ranks.device)) & (2**CELLS_BITS - 1)


def permutation(keys: Keys, n: int) -> Tensor:
    """A uniform permutation of {0, ..., n - 1} for each sample, (B, n), int64."""
    return _places(keys.words(n))


def chosen(order: Tensor, first: int) -> Tensor:
    """True at all places but those that each row of `order` names before `first`; (B, N), bool."""
    mask = torch.zeros(order.shape, dtype=torch.bool, device=order.device)
    return mask.scatter_(1, order[:, first:], True)


def positions(mask: Tensor, count: int) -> Tensor:
    """Where the first `count` cells that are True stand in each row of (R, N), in ascending order; (R, count), int64."""
    return _places((~mask).long())[:, :count]


def cells(sides: tuple[int, int], cell: int, device: torch.device) -> Tensor:
    """Which tokens each cell of a coarse grid covers, row by row; (cells, cell * cell), int64."""
    height, width = sides
    tokens = torch.arange(height * width, device=device)
    tokens = tokens.view(height // cell, cell, width // cell, cell).transpose(1, 2)
    return tokens.reshape(-1, cell * cell)


def prefix(keys: Keys, length: int, low: int, high: int) -> Tensor:
    """True from a place on that is uniform in {low, ..., high}; (B, length), bool."""
    start = below(keys.words(1), high - low + 1) + low
    return torch.arange(length, device=keys.device) >= start


class Boxes(NamedTuple):
    """Rectangles of cells: the least row and column, and height and width; both (B, A, 2), int64."""

    corner: Tensor
    sides: Tensor

    @staticmethod
    def drawn(words: Tensor, sides: Tensor, grid: Tensor) -> Boxes:
        """Of given sides, uniform over the places in a grid (2,); from words (B, A, 2)."""
        return Boxes(below(words, grid - sides + 1), sides)

    def at(self, which: Tensor) -> Boxes:
        """Of each row, the rectangle at `which`, (B, 1)."""
        which = which[:, :, None].expand(-1, -1, 2)
        return Boxes(self.corner.gather(1, which), self.sides.expand_as(self.corner).gather(1, which))

    def cover(self, grid: tuple[int, int]) -> Tensor:
        """Which cells of the grid lie inside; (B, A, H, W), bool."""
        y, x = (
            torch.arange(side, device=self.corner.device) - self.corner[:, :, axis : axis + 1]
            for axis, side in enumerate(grid)
        )
        inside_y, inside_x = (y >= 0) & (y < self.sides[:, :, :1]), (x >= 0) & (x < self.sides[:, :, 1:])
        return inside_y[:, :, :, None] & inside_x[:, :, None, :]

    def holds(self, mask: Tensor) -> Tensor:
        """How many cells inside are True in `mask`, (B, H, W), by a summed-area table; (B, A), int32."""
        batch, height, width = mask.shape
        table = torch.zeros((batch, height + 1, width + 1), dtype=torch.int32, device=mask.device)
        table[:, 1:, 1:] = mask.cumsum(1, dtype=torch.int32).cumsum_(2)
        (top, left), (h, w) = self.corner.unbind(2), self.sides.unbind(2)
        above = top * (width + 1) + left
        under = above + h * (width + 1)
        corners = torch.cat([above, above + w, under, under + w], dim=1)
        a, b, c, d = table.flatten(1).gather(1, corners).chunk(4, dim=1)
        return d - c - b + a


def _extent(grid: tuple[int, int], device: torch.device) -> Tensor:
    """The grid's sides on the device, (2,), int64; filled in there, since a copy from the host would wait."""
    return torch.stack([torch.full((), side, dtype=torch.int64, device=device) for side in grid])


def _first(good: Tensor) -> tuple[Tensor, Tensor]:
    """The first place in each row of (B, A) that is True, (B, 1), and whether there is one, (B, 1)."""
    a = good.shape[1]
    best, place = (good * torch.arange(a, 0, -1, device=good.device)).max(dim=1, keepdim=True)
    return place, best > 0


def inverse_block(keys: Keys, sides: tuple[int, int], visible: int, aspect: tuple[float, float], roll: bool) -> Tensor:
    """A rectangle of `visible` cells, its last row cut short, on a torus if rolled; (B, H, W), bool, True inside."""
    height, width = sides
    if visible in (0, height * width):
        return torch.full((len(keys), height, width), visible > 0, device=keys.device)
    words = keys.words(5)[:, :, None]
    low, high = (min(max(ratio, visible / width**2), height**2 / visible) for ratio in aspect)
    ratio = log_uniform(words[:, 0], low, high)
    # Whatever the rounding, the rectangle must hold as many cells and lie inside: hence the bounds in whole numbers.
    h = (visible * ratio).sqrt_().ceil_().long().clamp_(-(-visible // width), height)
    w = (visible / ratio).sqrt_().ceil_().long().clamp_(max=width)
    w = torch.maximum(w, (visible + h - 1) // h)
    top, left = below(words[:, 1], height - h + 1), below(words[:, 2], width - w + 1)
    y, x = torch.arange(height, device=keys.device), torch.arange(width, device=keys.device)
    if roll:
        y, x = (y - below(words[:, 3], height)) % height, (x - below(words[:, 4], width)) % width
    y, x = (y - top)[:, :, None], (x - left)[:, None, :]
    inside = (y >= 0) & (x >= 0) & (x < w[:, :, None])
    return inside & (y * w[:, :, None] + x < visible)


def how_many(keys: Keys, ratio: tuple[float, float], share: float, cells: int, exact_share: bool) -> Tensor:
    """How many cells to mask in each sample, (B,), int64; see `masks.block`."""
    words = keys.words(4)
    u = uniform(words[:, 2])
    if exact_share:
        batch = len(keys)
        masked = int(batch * share)
        # 49 bits decide the order, and samples that agree in all of them keep theirs
        order = torch.sort((words[:, 0] << 17) | (words[:, 1] >> 15), stable=True).indices
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(batch, device=keys.device))
        u = (rank + u) / max(masked, 1)
        some = rank < masked
    else:
        some = uniform(words[:, 0]) < share
    return ((u * (ratio[1] - ratio[0]) + ratio[0]) * cells).long() * some


def blocks(keys: Keys, grid: tuple[int, int], counts: Tensor, limit: int, rules: Any) -> Tensor:
    """At most `limit` blocks, until `counts` cells, (B,), are masked, or one fits nowhere; (B, H, W), bool."""
    extent = _extent(grid, keys.device)
    mask = torch.zeros((len(keys), *grid), dtype=torch.bool, device=keys.device)
    left = counts.clone()
    for block in range(limit):
        if not bool((left > 0).any()):
            break
        attempts = [part[:, 0] for part in _draw_attempts(keys, block, 1, rules)]
        gained, new = _one_block(tuple(attempts), mask, left, extent, rules)
        mask |= new
        left = torch.where(gained > 0, left - gained, 0)
    return mask


def _draw_attempts(keys: Keys, first: int, blocks: int, rules: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Where between its bounds the area lies, (B, blocks, attempts); aspect and its inverse, words for the place, each with 2."""
    words = keys.words(4 * blocks * rules.attempts, first=1 + first * rules.attempts)
    words = words.reshape(len(keys), blocks, rules.attempts, 4)
    ratio = log_uniform(words[..., 1], *rules.aspect)
    return uniform(words[..., 0]), torch.stack([ratio, 1 / ratio], dim=3), words[..., 2:]


def _one_block(
    attempts: tuple[Tensor, ...], mask: Tensor, left: Tensor, extent: Tensor, rules: Any
) -> tuple[Tensor, Tensor]:
    """The first attempt that masks something new and not too much: how much, (B,), and its block, (B, H, W)."""
    u, stretch, words = attempts
    room = left.clamp(max=rules.most)[:, None]
    area = u * (room - rules.least) + rules.least
    sides = (area[:, :, None] * stretch).sqrt_().round_().long()
    boxes = Boxes.drawn(words, torch.minimum(sides, extent), extent)
    new = boxes.sides.prod(2) - boxes.holds(mask)
    good = (sides < extent).all(2) & (new > 0) & (new <= room)
    which, found = _first(good)
    block = boxes.at(which).cover((mask.shape[1], mask.shape[2]))[:, 0] & found[:, :, None]
    return (new.gather(1, which) * found)[:, 0], block


def multi_block(
    keys: Keys,
    grid: tuple[int, int],
    rules: Any,
    context_size: tuple[int, int],
    target_size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """What the encoder sees, (B, contexts, H, W), and what is predicted, (B, targets, H, W), bool; see `masks.multi_block`."""
    device = keys.device
    context, target = (_extent(sides, device)[None, None] for sides in (context_size, target_size))
    room = _extent(grid, device) - int(rules.as_published)  # the published code leaves out the last row and column
    words = keys.words(2 * rules.targets).reshape(len(keys), rules.targets, 2)
    targets = Boxes.drawn(words, target, room).cover(grid)
    contexts = [_context(keys, targets, context, room, grid, rules, number) for number in range(rules.contexts)]
    return torch.stack(contexts, dim=1), targets


def _context(
    keys: Keys,
    targets: Tensor,
    sides: Tensor,
    room: Tensor,
    grid: tuple[int, int],
    rules: Any,
    number: int,
) -> Tensor:
    """A block without the cells of targets; where none of its places leaves enough, the last target is forgotten, and so on."""
    context = torch.zeros((len(keys), *grid), dtype=torch.bool, device=keys.device)
    done = torch.zeros((len(keys), 1), dtype=torch.bool, device=keys.device)
    for forgotten in range(rules.targets if rules.allow_overlap else 0, rules.targets + 1):
        free = ~targets[:, : rules.targets - forgotten].any(1)
        first = _CONTEXT_FIRST + number * _CONTEXT_DRAWS + forgotten * (_TRIES // 2)
        boxes = Boxes.drawn(keys.words(2 * _TRIES, first).reshape(len(keys), _TRIES, 2), sides, room)
        which, found = _first(boxes.holds(free) >= rules.min_keep + rules.as_published)
        new = (boxes.at(which).cover(grid)[:, 0] & free) & (found & ~done)[:, :, None]
        context, done = context | new, done | found
    return context
