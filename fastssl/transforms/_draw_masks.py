"""From keys to masks: what `masks` and lightly's names for it in `fastssl.models.utils` share, without their checks."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from fastssl._native import _C, philox
from fastssl.ops import masks as ops
from fastssl.transforms.keys import Keys

RANDOM, GRID, PREFIX, BLOCK, INVERSE_BLOCK, MULTI_BLOCK = range(6)  # makers; the streams of Keys.of_masks depend on it
CELLS_BITS: int = _C.MASK_CELL_BITS  # a stream has words for so many cells: 2^18
_SIZE_DRAW = _C.MASK_DRAWS - 1  # the last of the stream

NO_LIMIT = 2**31 - 1
MAX_ASPECT = 1e4
MAX_ATTEMPTS = 256
MAX_TARGETS: int = _C.MASK_TARGETS
MAX_CONTEXTS: int = _C.MASK_CONTEXTS


def cells(keys: Keys, sides: tuple[int, int], cell: int, kept: int) -> Tensor:
    """True at all but `kept` cells of (rows, columns) of them, each a square of patches; (B, H, W), bool."""
    return ops.cells(*keys.parts, *sides, cell, kept)


def tokens(keys: Keys, sides: tuple[int, int], cell: int, kept: int, prefix: int) -> tuple[Tensor, Tensor]:
    """Tokens to keep, behind `prefix` others, and tokens to mask, in random order; (B, K) and (B, M), int64."""
    return ops.tokens(*keys.parts, *sides, cell, kept, prefix)


def positions(mask: Tensor, count: int) -> Tensor:
    """Where the first `count` cells that are True stand in each row of (R, N), in ascending order; (R, count), int64."""
    return ops.partition(mask, count, rest=False)[0]


def split(mask: Tensor, count: int, prefix: int) -> tuple[Tensor, Tensor]:
    """Of (R, N) with `count` True in each row, the tokens that are, behind `prefix` others, and those that are not."""
    return ops.partition(mask, count, prefix)


def prefix(keys: Keys, length: int, low: int, high: int) -> Tensor:
    """True from a place on that is uniform in {low, ..., high}; (B, length), bool."""
    return ops.prefix(*keys.parts, length, low, high)


def inverse_block(
    keys: Keys, sides: tuple[int, int], visible: int, aspect: tuple[float, float], roll: bool, inside: bool
) -> Tensor:
    """A rectangle of `visible` cells, its last row cut short, on a torus if rolled; (B, H, W), bool, `inside` there."""
    return ops.inverse_block(*keys.parts, *sides, visible, *aspect, roll, inside)


class BlockRules(NamedTuple):
    """How blocks are drawn: sizes in cells, height over width, and how often one is tried."""

    least: int
    most: int
    aspect: tuple[float, float]
    attempts: int


def how_many(keys: Keys, ratio: tuple[float, float], share: float, cells: int, exact_share: bool) -> Tensor:
    """How many cells to mask in each sample, (B,), int64; see `masks.block`."""
    return ops.counts(*keys.parts, *ratio, share, cells, exact_share)


def max_blocks(most: int, grid: tuple[int, int], rules: BlockRules) -> int:
    """How many blocks a sample may have that is to mask `most` cells; see `masks.block`.

    It was set when masks were drawn by steps that went over whole batches, and stays, as it decides which masks a seed gives.
    Fewer than one sample in 10^6 needs more. Nor does a stream hold more attempts.
    """
    per_block = max(1, min(rules.most, most))
    usual = 28 if 2 * most <= grid[0] * grid[1] else 64
    return min(most, usual + 4 * -(-most // per_block), (_C.MASK_DRAWS - 1) // rules.attempts)


def blocks(keys: Keys, grid: tuple[int, int], counts: Tensor, most: int, rules: BlockRules) -> Tensor:
    """Blocks until `counts` cells, (B,), none above `most`, are masked, or one fits nowhere; (B, H, W), bool."""
    limit = max_blocks(most, grid, rules)
    return ops.blocks(*keys.parts, counts, *grid, limit, rules.least, rules.most, *rules.aspect, rules.attempts)


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
    room = grid[0] - rules.as_published, grid[1] - rules.as_published  # the published code leaves out the last of both
    return ops.multi_block(
        *keys.parts,
        grid,
        room,
        context_size,
        target_size,
        rules.contexts,
        rules.targets,
        rules.min_keep + rules.as_published,
        rules.allow_overlap,
    )
