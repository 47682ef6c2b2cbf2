"""From keys to masks: what `masks` and lightly's names for it in `fastssl.models.utils` share, without their checks.

No loop goes over samples. On a device other than the CPU nothing here waits for the device: no shape and no branch
depends on what was drawn. On the CPU, where looking costs nothing, loops end once every sample is done.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastssl._native import philox
from fastssl.transforms.philox import Keys, below, log_uniform, on_host, uniform

RANDOM, GRID, PREFIX, BLOCK, INVERSE_BLOCK, MULTI_BLOCK = range(6)  # makers; the streams of Keys.of_masks depend on it
CELLS_BITS = 18  # a stream has words for so many cells: 2^18
_TRIES = 20  # places for a context before a target is forgotten, as in I-JEPA's code
_CONTEXT_FIRST = 32  # draws before this place the targets, two to a draw
_CONTEXT_DRAWS = 640  # of one context: 64 times _TRIES places, two to a draw
_BLOCKS_AT_ONCE = 4
_SIZE_DRAW = 2**16 - 1  # the last of the stream

NO_LIMIT = 2**31 - 1
MAX_ASPECT = 1e4
MAX_ATTEMPTS = 256
MAX_TARGETS = 63
MAX_CONTEXTS = 32


def sort_rows(keys: Tensor) -> Tensor:
    """Each row of (R, N) int64 in ascending order; overwrites its argument on the CPU."""
    if on_host(keys.device):
        keys = keys.contiguous()
        keys.numpy().sort(axis=1)  # vectorized, unlike torch's
        return keys
    return torch.sort(keys, dim=1).values


def _places(ranks: Tensor) -> Tensor:
    """Where the ranks of each row stand, from the least to the greatest; of equal ones, the first comes first."""
    n = ranks.shape[1]
    return sort_rows((ranks << CELLS_BITS) | torch.arange(n, device=ranks.device)) & (2**CELLS_BITS - 1)


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


class BlockRules(NamedTuple):
    """How blocks are drawn: sizes in cells, height over width, and how often one is tried."""

    least: int
    most: int
    aspect: tuple[float, float]
    attempts: int


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


def max_blocks(most: int, grid: tuple[int, int], rules: BlockRules) -> int:
    """How many blocks a sample may have that is to mask `most` cells; see `masks.block`.

    Without a bound only a device's answer could end the loop. Fewer than one sample in 10^6 needs more blocks than this.
    """
    per_block = max(1, min(rules.most, most))
    usual = 28 if 2 * most <= grid[0] * grid[1] else 64
    return min(most, usual + 4 * -(-most // per_block))


def blocks(keys: Keys, grid: tuple[int, int], counts: Tensor, most: int, rules: BlockRules) -> Tensor:
    """Blocks until `counts` cells, (B,), none above `most`, are masked, or one fits nowhere; (B, H, W), bool."""
    host = on_host(keys.device)
    extent = _extent(grid, keys.device)
    mask = torch.zeros((len(keys), *grid), dtype=torch.bool, device=keys.device)
    left = counts.clone()
    limit = max_blocks(most, grid, rules)
    stride = _BLOCKS_AT_ONCE if host else max(1, limit)
    for start in range(0, limit, stride):
        rows = left.nonzero()[:, 0] if host else slice(None)
        if host and len(left[rows]) == 0:
            break
        mask_here, left_here = mask[rows], left[rows]
        drawn = _draw_attempts(keys.take(rows), start, min(stride, limit - start), rules)
        for attempts in zip(*(part.unbind(1) for part in drawn), strict=True):
            gained, block = _one_block(attempts, mask_here, left_here, extent, rules)
            mask_here |= block
            left_here = torch.where(gained > 0, left_here - gained, 0)
        mask[rows], left[rows] = mask_here, left_here
    return mask


def _draw_attempts(keys: Keys, first: int, blocks: int, rules: BlockRules) -> tuple[Tensor, Tensor, Tensor]:
    """Where between its bounds the area lies, (B, blocks, attempts); aspect and its inverse, words for the place, each with 2."""
    words = keys.words(4 * blocks * rules.attempts, first=1 + first * rules.attempts)
    words = words.reshape(len(keys), blocks, rules.attempts, 4)
    ratio = log_uniform(words[..., 1], *rules.aspect)
    return uniform(words[..., 0]), torch.stack([ratio, 1 / ratio], dim=3), words[..., 2:]


def _one_block(
    attempts: tuple[Tensor, ...], mask: Tensor, left: Tensor, extent: Tensor, rules: BlockRules
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


class MultiBlockRules(NamedTuple):
    """How targets and contexts are drawn: parts of the grid, height over width, and how many."""

    context_scale: tuple[float, float]
    target_scale: tuple[float, float]
    target_aspect: tuple[float, float]
    contexts: int
    targets: int
    min_keep: int
    allow_overlap: bool
    as_published: bool

    def block(self, grid: tuple[int, int], scale: float, aspect: float) -> tuple[int, int]:
        """Height and width of a block that covers about `scale` of the grid."""
        cells = int(grid[0] * grid[1] * scale)
        sides = round(math.sqrt(cells * aspect)), round(math.sqrt(cells / aspect))
        largest = [side - self.as_published for side in grid]
        return min(max(sides[0], 1), largest[0]), min(max(sides[1], 1), largest[1])

    def check(self, who: str, min_keep: str, scale: str, grid: tuple[int, int]) -> None:
        """Raises ValueError where even a context without targets would be too small, naming two arguments."""
        smallest = math.prod(self.block(grid, self.context_scale[0], 1.0))
        if smallest < self.min_keep + self.as_published:
            raise ValueError(
                f"{who}: {min_keep}={self.min_keep} needs larger contexts than {scale}={self.context_scale} may give, which on a "
                f"grid of {grid[0]} x {grid[1]} patches have {smallest} at the least; raise {scale} or lower {min_keep}."
            )

    def sizes(
        self, seed: int, epoch: int, stream: int, batch: int, grid: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of all contexts, and of all targets, of a batch."""
        counter = (_SIZE_DRAW | stream << 16, epoch, batch & 0xFFFFFFFF, batch >> 32)
        words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
        u, v, w = ((word + 0.5) * 2.0**-32 for word in words[:3])
        if self.as_published:
            v = u
        (a, b), (c, d), (e, f) = self.target_scale, self.target_aspect, self.context_scale
        return self.block(grid, e + (f - e) * w, 1.0), self.block(grid, a + (b - a) * u, c + (d - c) * v)


def multi_block(
    keys: Keys,
    grid: tuple[int, int],
    rules: MultiBlockRules,
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
    rules: MultiBlockRules,
    number: int,
) -> Tensor:
    """A block without the cells of targets; where none of its places leaves enough, the last target is forgotten, and so on."""
    context = torch.zeros((len(keys), *grid), dtype=torch.bool, device=keys.device)
    done = torch.zeros((len(keys), 1), dtype=torch.bool, device=keys.device)
    for forgotten in range(rules.targets if rules.allow_overlap else 0, rules.targets + 1):
        if on_host(keys.device) and bool(done.all()):
            break
        free = ~targets[:, : rules.targets - forgotten].any(1)
        first = _CONTEXT_FIRST + number * _CONTEXT_DRAWS + forgotten * (_TRIES // 2)
        boxes = Boxes.drawn(keys.words(2 * _TRIES, first).reshape(len(keys), _TRIES, 2), sides, room)
        which, found = _first(boxes.holds(free) >= rules.min_keep + rules.as_published)
        new = (boxes.at(which).cover(grid)[:, 0] & free) & (found & ~done)[:, :, None]
        context, done = context | new, done | found
    return context
