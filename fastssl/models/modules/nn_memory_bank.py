"""Nearest neighbours in a ring of the latest embeddings; the similarities with the whole ring are never stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastssl.models.modules.memory_bank import MemoryBankModule

__all__ = ["NNMemoryBankModule", "Neighbours", "nearest_neighbours"]

# Similarities held at a time: on a CPU they stay in the cache, a GPU needs more of them to fill its multiprocessors.
CPU_TILE = 2**19
GPU_TILE = 2**23
QUERIES_AT_ONCE = 1024
ROWS_AT_ONCE = 2**13  # of the bank, however few the queries are: these are copied, divided by their lengths

# The same as torch.nn.functional.normalize: rows shorter than this are divided by this.
NORM_EPS = 1e-12


class Neighbours(NamedTuple):
    """What `nearest_neighbours` found; both tensors are (B, k).

    Args:
        similarity: Cosines, greatest first, float32 (float64 for float64).
        rows: Which rows of the bank, int64.
    """

    similarity: Tensor
    rows: Tensor


def nearest_neighbours(query: Tensor, bank: Tensor, k: int = 1) -> Neighbours:
    """The k rows of a bank that are nearest to each query, by cosine.

    Tile by tile, with a running best: memory is O(B (D + k)), besides 2^23 similarities (2^19 on a CPU) and 8,192 rows of the
    bank at most (k, if that is more), and not O(B M). Nothing is differentiated, and one operator for torch.compile.

    Args:
        query: (B, D), float16, bfloat16, float32 or float64; of any length, normalized here. So is the bank.
        bank: (M, D), on the device of the query.
        k: Neighbours of each, 1 to M.

    Returns:
        Similarities and rows, (B, k) each, nearest first. Of rows that are equally near the first counts where k is 1.

    Raises:
        ValueError: The shapes do not fit together, a dimension is empty, or k is not from 1 to M.
        TypeError: query or bank is not of a floating-point type.

    Max error: similarities are sums of D products in the working type; no rounding to 16 bits.

    >>> bank = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    >>> similarity, rows = nearest_neighbours(torch.tensor([[0.0, 5.0]]), bank, k=2)
    >>> rows, similarity  # itself, and 45 degrees away
    (tensor([[1, 2]]), tensor([[1.0000, 0.7071]]))
    """
    if query.dim() != 2 or bank.dim() != 2 or query.shape[1] != bank.shape[1] or 0 in bank.shape:
        raise ValueError(
            f"nearest_neighbours: query has shape {tuple(query.shape)}, bank {tuple(bank.shape)}; they must be (B, D) and "
            "(M, D) with M and D at least 1, so give embeddings of the same network."
        )
    for name, rows in (("query", query), ("bank", bank)):
        if not rows.is_floating_point():
            raise TypeError(
                f"nearest_neighbours: {name} is of type {rows.dtype} and must be of a floating-point type; write "
                f"{name}.float()."
            )
    _check_neighbours("nearest_neighbours", k, len(bank))
    return Neighbours(*_search(query.detach(), bank.detach(), k))


@torch.library.custom_op("fastssl::nearest_neighbours", mutates_args=())
def _search(query: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    dtype = _working_dtype(query)
    tile = CPU_TILE if query.device.type == "cpu" else GPU_TILE
    similarity = query.new_empty((len(query), k), dtype=dtype)
    index = torch.empty((len(query), k), dtype=torch.int64, device=query.device)
    with torch.autocast(query.device.type, enabled=False):
        for top in range(0, len(query), QUERIES_AT_ONCE):
            rows = slice(top, top + QUERIES_AT_ONCE)
            unit = _unit_rows(query[rows], dtype)
            columns = max(k, min(tile // len(unit), ROWS_AT_ONCE))
            best, places = _best_of(unit, bank[:columns], k)
            for left in range(columns, len(bank), columns):
                values, more = _best_of(unit, bank[left : left + columns], k)
                best, places = _better_of(best, places, values, more.add_(left), k)
            similarity[rows], index[rows] = best, places
    return similarity, index


@_search.register_fake
def _(query: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], k)
    return query.new_empty(shape, dtype=_working_dtype(query)), query.new_empty(shape, dtype=torch.int64)


def _best_of(unit: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The up to k nearest in a part of the bank."""
    similarity = torch.mm(unit, _unit_rows(bank, unit.dtype).t())
    if k == 1:
        return similarity.max(dim=1, keepdim=True)
    return similarity.topk(min(k, len(bank)), dim=1)


def _better_of(best: Tensor, places: Tensor, values: Tensor, more: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if k == 1:  # the first of equals
        later = values > best
        return torch.where(later, values, best), torch.where(later, more, places)
    best, kept = torch.cat([best, values], dim=1).topk(k, dim=1)
    return best, torch.cat([places, more], dim=1).gather(1, kept)


def _working_dtype(query: Tensor) -> torch.dtype:
    return torch.float64 if query.dtype == torch.float64 else torch.float32


def _unit_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows over their length, which is summed in float64, so that rows as long as 1e30 keep their direction."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64).clamp_(min=NORM_EPS)
    return x.to(dtype) / norm.to(dtype)


class NNMemoryBankModule(MemoryBankModule):
    """Replaces embeddings by their nearest neighbours in a ring of the latest ones (NNCLR).

    Args:
        size: (rows, columns) of the bank, such as (65536, 256).
        k: Neighbours of each embedding.
        gather_distributed: Whether an update takes the batches of all processes, in the order of their ranks.

    Raises:
        ValueError: size is not two whole numbers >= 1, or k is not from 1 to size[0].

    Differs from lightly's: the similarities are never stored whole, the bank is copied in parts alone, the ring is a true
    one (see MemoryBankModule), k and gather_distributed are ours, and size=0, which fails in lightly's first call,
    is an error at once.
    Source: Dwibedi et al., NNCLR, 2021, arXiv:2104.14548, section 3.2.

    >>> bank = NNMemoryBankModule(size=(2, 2))
    >>> _ = bank(torch.eye(2), update=True)
    >>> bank(torch.tensor([[3.0, 1.0]]))
    tensor([[1., 0.]])
    """

    def __init__(self, size: int | Sequence[int], *, k: int = 1, gather_distributed: bool = False) -> None:
        super().__init__(size, gather_distributed=gather_distributed, feature_dim_first=False)
        if self.size[0] == 0:
            raise ValueError(
                f"NNMemoryBankModule: size={size} holds no row, and so no neighbour; write (65536, 256) for 65536 "
                "embeddings of 256 numbers."
            )
        _check_neighbours("NNMemoryBankModule", k, self.size[0])
        self.k = k

    def forward(self, output: Tensor, update: bool = False) -> Tensor:  # type: ignore[override]  # as lightly's
        """The neighbours in the bank as it was before this call, without gradient, in the type of the output.

        Args:
            output: Embeddings, (B, columns), of any length.
            update: Whether the output then replaces the oldest rows.

        Returns:
            The rows of the bank as they are, not normalized: (B, columns), or (B, k, columns) where k > 1.

        Raises:
            ValueError: output has another number of columns than the bank.
            TypeError: output is not of a floating-point type.
        """
        self.check_columns(output)
        bank = self.bank.to(output.device)
        rows = nearest_neighbours(output, bank, self.k).rows
        neighbours = bank[rows.squeeze(1) if self.k == 1 else rows].to(output.dtype)
        if update:
            self.enqueue(output)
        return neighbours


def _check_neighbours(who: str, k: int, rows: int) -> None:
    if not isinstance(k, int) or not 1 <= k <= rows:
        raise ValueError(f"{who}: k={k} must be a whole number from 1 to {rows}, the rows of the bank; write k=1.")
