"""The contrastive engine over the rows of all processes of the default group, exact under DistributedDataParallel.

Every process owns the losses of its rows and the gradients in its rows. The forward pass gathers the rows as they are,
the backward pass a few numbers a row (logarithm of the sum, its gradient): with them a process computes what the
other processes' losses contribute to its own rows, so gradients are never exchanged (the usual way, a reduce-scatter
of the gradient in all rows, moves D numbers a row). Rows are gathered in their own type and normalized where they
arrive: as many bytes as normalized rows of that type, and no rounding.

The mean over the processes, of value and gradient alike, is that of the whole batch; a process's own value is weighted
by its share where processes hold unlike numbers of rows.

Collectives are in the bodies of operators, so torch.compile sees no graph break.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from fastssl.loss._classes import Classes
from fastssl.loss._operators import backend_of, refuse_second_derivative
from fastssl.loss._rows import number, unit_rows, unit_rows_backward
from fastssl.models._gather import gather_counts, gather_rows, world_size

__all__ = ["GatheredSums", "gather", "gathered_sums", "own_part", "towers"]


class GatheredSums(NamedTuple):
    """What `gathered_sums` returns, for the rows of this process."""

    rows: Tensor  # (N,), logarithm of the sum over the allowed keys of all processes
    columns: Tensor  # (N,), logarithm of the sum over the allowed queries of all processes; (0,) without
    products: Tensor  # (N,), sum of the products with all other unit rows of the same label; (0,) without
    share: float  # rows of a process, on average: what to divide the sum of this process's losses by


def gathered_sums(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor | float,
    *,
    repeats: int = 1,
    columns: bool = False,
    labels: Tensor | None = None,
) -> GatheredSums:
    """The sums that `contrastive_sums` has, of this process's rows over the rows of all processes.

    Args:
        query: This process's queries, (N, D).
        key: This process's keys, (N, D), row i the positive of query i; None: the queries.
        scale: As for `contrastive_sums`. Its gradient is exact in the mean over the processes.
        repeats: Rows i and i + N / repeats of a process are of one image, whose entries are left out.
        columns: Whether to sum over columns, too.
        labels: With key=None, one number a row of all processes, in their order, (T,).

    Every process must call this. Raises ValueError where a process has no row, or rows of another width or type.
    """
    scale = number(scale, query)
    both = query if key is None else torch.cat([query, key], dim=1)
    everyone, counts = gather(both)
    rows, column_values, products = _sums(query, key, scale, everyone, counts, labels, repeats, columns)
    return GatheredSums(rows, column_values, products, everyone.shape[0] / world_size())


def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of all processes in their order, (T, D), without gradient, and how many each has, (processes,)."""
    return _gather(rows.detach())


@torch.library.custom_op("fastssl::gather_rows", mutates_args=())
def _gather(rows: Tensor) -> tuple[Tensor, Tensor]:
    counts = gather_counts(rows)
    return torch.cat(gather_rows(rows, counts)), torch.tensor(counts)


@_gather.register_fake
def _(rows: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size()
    return rows.new_empty(total, rows.shape[1]), torch.empty(world_size(), dtype=torch.int64)


@torch.library.custom_op("fastssl::contrastive_of_processes", mutates_args=())
def _sums(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    everyone: Tensor,
    counts: Tensor,
    labels: Tensor | None,
    repeats: int,
    columns: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        all_queries, all_keys = (everyone, everyone) if key is None else towers(everyone)
        own_ids, all_ids = _ids(counts, repeats, query.device)

        def row_sums(own: Tensor, others: Tensor) -> Tensor:
            ids = (own_ids, all_ids, None)
            return backend_of(own).forward(own, others, scale, *ids, False, True, True)[0]

        rows = row_sums(query, all_keys)
        column_values = row_sums(key, all_queries) if columns and key is not None else rows.new_empty(0)
        products = rows.new_empty(0)
        if labels is not None:
            own, classes = own_part(counts), Classes(labels)
            unit, _ = unit_rows(everyone, scale.dtype)
            products = (unit[own] * (classes.sums(unit)[own] - unit[own])).sum(dim=1)
        return rows, column_values, products


@_sums.register_fake
def _(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    everyone: Tensor,
    counts: Tensor,
    labels: Tensor | None,
    repeats: int,
    columns: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    count = query.shape[0]
    return (
        scale.new_empty(count),
        scale.new_empty(count if columns and key is not None else 0),
        scale.new_empty(0 if labels is None else count),
    )


@torch.library.custom_op("fastssl::contrastive_of_processes_backward", mutates_args=())
def _backward(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    everyone: Tensor,
    counts: Tensor,
    labels: Tensor | None,
    repeats: int,
    rows: Tensor,
    columns: Tensor,
    grad_rows: Tensor,
    grad_columns: Tensor,
    grad_products: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        all_queries, all_keys = (everyone, everyone) if key is None else towers(everyone)
        own_ids, all_ids = _ids(counts, repeats, query.device)
        stats = [s for s in (rows, grad_rows, columns, grad_columns, grad_products) if len(s)]
        of_all = iter(torch.cat(gather_rows(torch.stack(stats, dim=1), counts.tolist())).t().contiguous())
        all_rows, all_grad_rows = next(of_all), next(of_all)

        def gradient(
            own: Tensor, others: Tensor, row_stats: tuple[Tensor, Tensor], column_stats: tuple[Tensor, Tensor] | None
        ) -> tuple[Tensor, Tensor]:
            sums, grads = row_stats
            column_sums, column_grads = column_stats or (sums.new_empty(0), sums.new_empty(0))
            options = (own_ids, all_ids, None, column_stats is not None, True, True)
            values = (sums, column_sums, grads, sums.new_empty(0), column_grads)
            grad_own, _, grad_scale = backend_of(own).backward(own, others, scale, *options, *values, True, False)
            return grad_own, grad_scale

        if key is None:
            grad_query, grad_scale = gradient(query, everyone, (rows, grad_rows), (all_rows, all_grad_rows))
            grad_scale = grad_scale / 2  # every entry counts for its row and, elsewhere, for its column
            if labels is not None:
                added = _products_backward(everyone, own_part(counts), Classes(labels), next(of_all), scale.dtype)
                grad_query = (grad_query.to(scale.dtype) + added).to(query.dtype)
            return grad_query, query.new_empty(0, query.shape[1]), grad_scale
        has_columns = len(columns) > 0
        column_stats = (next(of_all), next(of_all)) if has_columns else None
        own_columns = (columns, grad_columns) if has_columns else (torch.zeros_like(rows), torch.zeros_like(rows))
        grad_query, grad_scale = gradient(query, all_keys, (rows, grad_rows), column_stats)
        grad_key, _ = gradient(key, all_queries, own_columns, (all_rows, all_grad_rows))
        return grad_query, grad_key, grad_scale


@_backward.register_fake
def _(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    everyone: Tensor,
    counts: Tensor,
    labels: Tensor | None,
    repeats: int,
    rows: Tensor,
    columns: Tensor,
    grad_rows: Tensor,
    grad_columns: Tensor,
    grad_products: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    of_key = query.new_empty(0, query.shape[1]) if key is None else key.new_empty(key.shape)
    return query.new_empty(query.shape), of_key, scale.new_empty(())


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    query, key, scale, everyone, counts, labels, ctx.repeats, _ = inputs
    rows, columns, _ = output
    ctx.save_for_backward(query, key, scale, everyone, counts, labels, rows, columns)


def _differentiate(
    ctx: Any, grad_rows: Tensor, grad_columns: Tensor, grad_products: Tensor
) -> tuple[Tensor | None, ...]:
    query, key, scale, everyone, counts, labels, rows, columns = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    grads = _backward(
        query, key, scale, everyone, counts, labels, ctx.repeats, rows, columns, grad_rows, grad_columns, grad_products
    )
    return *(grad if needed else None for grad, needed in zip(grads, needs, strict=True)), *(None,) * 5


_sums.register_autograd(_differentiate, setup_context=_keep)
_backward.register_autograd(refuse_second_derivative)


def towers(everyone: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of all processes, of (T, 2 D)."""
    queries, keys = everyone.chunk(2, dim=1)
    return queries.contiguous(), keys.contiguous()


def own_part(counts: Tensor) -> slice:
    """This process's part of the rows of all."""
    rank = torch.distributed.get_rank()
    start = int(counts[:rank].sum())
    return slice(start, start + int(counts[rank]))


def _ids(counts: Tensor, repeats: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids of this process's rows and of all rows: rows i and i + count / repeats of a process have the same."""
    first, ids = 0, []
    for count in counts.tolist():
        images = count // repeats
        ids.append(first + torch.arange(count, device=device) % images)
        first += images
    return ids[torch.distributed.get_rank()], torch.cat(ids)


def _products_backward(everyone: Tensor, own: slice, classes: Classes, grads: Tensor, dtype: torch.dtype) -> Tensor:
    """Gradient in this process's rows of the sum over all processes of grads, (T,), times products."""
    unit, norm = unit_rows(everyone, dtype)
    by_row = grads[own, None] * (classes.sums(unit)[own] - unit[own])
    by_column = classes.sums(unit * grads[:, None])[own] - unit[own] * grads[own, None]
    return unit_rows_backward(by_row + by_column, unit[own], norm[own], dtype)
