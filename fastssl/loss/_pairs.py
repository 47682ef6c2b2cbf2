"""The entries of a matrix whose row and column have the same id, found without looking at every entry."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["EqualIds"]

# Entries a row, on average, beyond which a comparison of the whole tile costs less than a list of them.
MOST_LISTED = 16

# Entries of the whole matrix up to which that is so whatever the ids.
SMALL_MATRIX = 2**17


class EqualIds:
    """Entries of an (N, M) matrix whose ids are equal.

    On a CPU they are listed once, sorted by the block that they lie in, so that a tile without any costs nothing, as
    long as they are few in a large matrix; else, and on other devices, which the length of a list would make the host
    wait for, every tile is compared.

    Args:
        query_ids: Of the rows, (N,).
        key_ids: Of the columns, (M,).
        side: Rows and columns of a block.
    """

    def __init__(self, query_ids: Tensor, key_ids: Tensor, side: int) -> None:
        self._query_ids, self._key_ids, self._side = query_ids, key_ids, side
        self._blocks: Tensor | None = None
        if query_ids.device.type != "cpu" or len(query_ids) * len(key_ids) <= SMALL_MATRIX:
            return
        ordered, order = key_ids.sort()
        first = torch.searchsorted(ordered, query_ids)
        counts = torch.searchsorted(ordered, query_ids, right=True) - first
        total = int(counts.sum())
        if total > MOST_LISTED * len(query_ids):
            return
        starts = counts.cumsum(0) - counts
        row = torch.repeat_interleave(torch.arange(len(query_ids)), counts)
        column = order[torch.arange(total) + (first - starts)[row]]
        self._across = -(-len(key_ids) // side)
        blocks, by_block = ((row // side) * self._across + column // side).sort()
        self._blocks, self._row, self._column = blocks, row[by_block], column[by_block]

    def fill(self, tile: Tensor, rows: slice, columns: slice, value: float) -> None:
        """Writes value to the entries of a tile, one block high, whose ids are equal."""
        if self._blocks is None:
            tile.masked_fill_(self._query_ids[rows, None] == self._key_ids[columns], value)
            return
        line = rows.start // self._side * self._across
        ends = torch.tensor([line + columns.start // self._side, line + (columns.stop - 1) // self._side + 1])
        begin, end = torch.searchsorted(self._blocks, ends).tolist()
        if begin < end:
            row, column = self._row[begin:end] - rows.start, self._column[begin:end] - columns.start
            tile.view(-1).index_fill_(0, row * tile.shape[1] + column, value)
