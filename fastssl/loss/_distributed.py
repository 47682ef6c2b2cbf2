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

import math
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from fastssl.loss._classes import Classes
from fastssl.loss._operators import backend_of, refuse_forward_mode, refuse_second_derivative
from fastssl.loss._rows import unit_rows, unit_rows_backward, working_dtype
from fastssl.models._gather import gather, gather_rows, world_size

__all__ = ["GatheredSums", "alike", "gathered_sums", "own_part", "softmax_of_all", "towers"]


class GatheredSums(NamedTuple):
    """What `gathered_sums` returns, for the rows of this process."""

    rows: Tensor  # (N,), logarithm of the sum over the allowed keys of all processes
    columns: Tensor  # (N,), logarithm of the sum over the allowed queries of all processes; (0,) without
    products: Tensor  # (N,), cosine with the positive, or sum of the cosines with all positives; (0,) where none is
    share: float  # rows of a process, on average: what to divide the sum of this process's losses by
    labels: Tensor  # (T,), of the rows of all processes; (0,) without


def gathered_sums(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    *,
    views: int = 1,
    columns: bool = False,
    labels: Tensor | None = None,
    ids: Tensor | None = None,
) -> GatheredSums:
    """The sums that `contrastive_sums` has, of this process's rows over the rows of all processes.

    Every process must call this. What is positive, and what is left out of the sums:

        key given: key i is the positive of query i, and left out.
        views=V: rows i, i + N / V, ... of a process are each other's positives; of two views the positive is left out,
            of more the row itself alone, as the positives stand in each other's denominators.
        labels given: rows of one label are each other's positives; the row itself is left out.
        ids given: no row is; rows and keys of this process with the same id are left out.

    Args:
        query: This process's queries, (N, D).
        key: This process's keys, (N, D); None: the queries.
        scale: As for `contrastive_sums`. Its gradient is exact in the mean over the processes.
        views: See above.
        columns: Whether to sum over columns, too.
        labels: Of this process's rows, (N,), int64.
        ids: Of this process's rows, and of its keys, (N,), int64, at least 0.

    Raises:
        ValueError: A process has no row, or rows of another width or type than the others.
    """
    if key is not None:
        query, key = alike(query, key)
    refuse_forward_mode(query, key, scale)
    everyone, counts = gather(query if key is None else torch.cat([query, key], dim=1))
    all_labels = None if labels is None else _gather_labels(labels, everyone, counts)
    rows, column_values, products = _sums(query, key, scale, everyone, counts, all_labels, ids, views, columns)
    share = everyone.shape[0] / world_size()
    return GatheredSums(rows, column_values, products, share, counts[:0] if all_labels is None else all_labels)


def alike(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """The two in one type, to travel beside each other: where theirs differ, that in which one process computes."""
    if query.dtype == key.dtype:
        return query, key
    dtype = working_dtype(query.dtype)
    return query.to(dtype), key.to(dtype)


@torch.library.custom_op("fastssl::gather_labels", mutates_args=())
def _gather_labels(labels: Tensor, everyone: Tensor, counts: Tensor) -> Tensor:
    """Labels of the rows of all processes, (T,)."""
    return gather_rows(labels[:, None], counts.tolist()).flatten()


@_gather_labels.register_fake
def _(labels: Tensor, everyone: Tensor, counts: Tensor) -> Tensor:
    return labels.new_empty(everyone.shape[0])


@torch.library.custom_op("fastssl::contrastive_of_processes", mutates_args=())
def _sums(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    everyone: Tensor,
    counts: Tensor,
    labels: Tensor | None,
    ids: Tensor | None,
    views: int,
    columns: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        all_queries, all_keys = (everyone, everyone) if key is None else towers(everyone)
        own_ids, all_ids = _ids(counts, 2 if views == 2 else 1, query.device) if ids is None else _among(ids, counts)

        def row_sums(own: Tensor, others: Tensor) -> Tensor:
            options = (own_ids, all_ids, None, False, True, True)
            return backend_of(own, others).forward(own, others, scale, *options)[0]

        rows = row_sums(query, all_keys)
        column_values = row_sums(key, all_queries) if columns and key is not None else rows.new_empty(0)
        if ids is not None:
            return rows, column_values, rows.new_empty(0)
        return rows, column_values, _Positives(query, key, everyone, counts, labels, views).products()


@_sums.register_fake
def _(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    everyone: Tensor,
    counts: Tensor,
    labels: Tensor | None,
    ids: Tensor | None,
    views: int,
    columns: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    count = query.shape[0]
    return (
        scale.new_empty(count),
        scale.new_empty(count if columns and key is not None else 0),
        scale.new_empty(count if ids is None else 0),
    )


@torch.library.custom_op("fastssl::contrastive_of_processes_backward", mutates_args=())
def _backward(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    everyone: Tensor,
    counts: Tensor,
    labels: Tensor | None,
    ids: Tensor | None,
    views: int,
    rows: Tensor,
    columns: Tensor,
    grad_rows: Tensor,
    grad_columns: Tensor,
    grad_products: Tensor,
    needs_query: bool,
    needs_key: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        all_queries, all_keys = (everyone, everyone) if key is None else towers(everyone)
        own_ids, all_ids = _ids(counts, 2 if views == 2 else 1, query.device) if ids is None else _among(ids, counts)
        positives = None if ids is not None else _Positives(query, key, everyone, counts, labels, views)
        stats = [rows, grad_rows]
        if len(columns):
            stats += [columns, grad_columns]
        if labels is not None:
            stats.append(grad_products)
        of_all = iter(gather_rows(torch.stack(stats, dim=1), counts.tolist()).t().contiguous())
        all_rows, all_grad_rows = next(of_all), next(of_all)

        def gradient(
            own: Tensor, others: Tensor, row_stats: tuple[Tensor, Tensor], column_stats: tuple[Tensor, Tensor] | None
        ) -> tuple[Tensor, Tensor]:
            sums, grads = row_stats
            column_sums, column_grads = column_stats or (sums.new_empty(0), sums.new_empty(0))
            options = (own_ids, all_ids, None, column_stats is not None, True, True)
            values = (sums, column_sums, grads, sums.new_empty(0), column_grads)
            grad_own, _, grad_scale = backend_of(own, others).backward(
                own, others, scale, *options, *values, True, False
            )
            return grad_own, grad_scale

        if key is None:
            grad_query, grad_scale = gradient(query, everyone, (rows, grad_rows), (all_rows, all_grad_rows))
            grad_scale = grad_scale / 2  # every entry counts for its row and, elsewhere, for its column
            if positives is not None:
                (added,) = positives.backward(grad_products if labels is None else next(of_all))
                grad_query = _sum(grad_query, added)
            return grad_query, query.new_empty(0, query.shape[1]), grad_scale
        has_columns = len(columns) > 0
        column_stats = (next(of_all), next(of_all)) if has_columns else None
        # A sum of nothing has no gradient.
        own_columns = (columns, grad_columns) if has_columns else (torch.full_like(rows, -math.inf), grad_rows)
        to_query, to_key = (None, None) if positives is None else positives.backward(grad_products)
        grad_query, grad_key = query.new_empty(0, query.shape[1]), key.new_empty(0, key.shape[1])
        # Over all processes, either side makes the whole gradient in the scale.
        if needs_key:
            grad_key, grad_scale = gradient(key, all_queries, own_columns, (all_rows, all_grad_rows))
            grad_key = grad_key if to_key is None else _sum(grad_key, to_key)
        if needs_query or not needs_key:
            grad_query, grad_scale = gradient(query, all_keys, (rows, grad_rows), column_stats)
            grad_query = grad_query if to_query is None else _sum(grad_query, to_query)
        return grad_query, grad_key, grad_scale


@_backward.register_fake
def _(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    everyone: Tensor,
    counts: Tensor,
    labels: Tensor | None,
    ids: Tensor | None,
    views: int,
    rows: Tensor,
    columns: Tensor,
    grad_rows: Tensor,
    grad_columns: Tensor,
    grad_products: Tensor,
    needs_query: bool,
    needs_key: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    none = (0, query.shape[1])
    if key is None:
        return query.new_empty(query.shape), query.new_empty(none), scale.new_empty(())
    of_query = query.new_empty(query.shape if needs_query or not needs_key else none)
    return of_query, key.new_empty(key.shape if needs_key else none), scale.new_empty(())


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    query, key, scale, everyone, counts, labels, ids, ctx.views, _ = inputs
    rows, columns, _ = output
    ctx.save_for_backward(query, key, scale, everyone, counts, labels, ids, rows, columns)


def _differentiate(
    ctx: Any, grad_rows: Tensor, grad_columns: Tensor, grad_products: Tensor
) -> tuple[Tensor | None, ...]:
    query, key, scale, everyone, counts, labels, ids, rows, columns = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    sums = (rows, columns, grad_rows, grad_columns, grad_products)
    grads = _backward(query, key, scale, everyone, counts, labels, ids, ctx.views, *sums, *needs[:2])
    return *(grad if needed else None for grad, needed in zip(grads, needs, strict=True)), *(None,) * 6


_sums.register_autograd(_differentiate, setup_context=_keep)
_backward.register_autograd(refuse_second_derivative)


def softmax_of_all(x: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax over the numbers of all processes, of this process's, (N,), and how many all have, (); without gradient.

    Every process must call this. Two numbers of each process travel.
    """
    return _softmax(x.detach())


@torch.library.custom_op("fastssl::softmax_of_processes", mutates_args=())
def _softmax(x: Tensor) -> tuple[Tensor, Tensor]:
    exact = x.double()
    own = torch.stack([exact.logsumexp(0), torch.full_like(exact[:1].sum(), len(x))])
    sums, counts = gather_rows(own[None], [1] * world_size()).unbind(1)
    return (exact - sums.logsumexp(0)).exp().to(x.dtype), counts.sum().to(x.dtype)


@_softmax.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(())


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
    """Ids of this process's rows and of all rows; rows i and i + count / repeats of a process have the same."""
    images = [count // repeats for count in counts.tolist()]
    ids = torch.arange(sum(images), device=device)
    if repeats > 1 and len(set(images)) == 1:
        ids = ids.view(len(images), 1, -1).expand(-1, repeats, -1).reshape(-1)
    elif repeats > 1:
        ids = torch.cat([part.repeat(repeats) for part in ids.split(images)])
    return ids[own_part(counts)], ids


def _among(ids: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """These ids, and those of the rows of all processes: of others' rows one that no row here has."""
    everyone = ids.new_full((int(counts.sum()),), -1)
    everyone[own_part(counts)] = ids
    return ids, everyone


def _sum(rounded: Tensor, exact: Tensor) -> Tensor:
    """Sum of two gradients, in the type of the first."""
    return (rounded.to(exact.dtype) + exact).to(rounded.dtype)


class _Positives:
    """Sum of the products of each row of this process with its positives, and what a gradient in it is in the rows."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor | None,
        everyone: Tensor,
        counts: Tensor,
        labels: Tensor | None,
        views: int,
    ) -> None:
        self._dtype, self._within, self._views = working_dtype(query.dtype), query.dtype, views
        self._own = slice(None) if labels is None else own_part(counts)
        self._classes = None if labels is None else Classes(labels)
        self._unit, self._norm = unit_rows(query if labels is None else everyone, self._dtype)
        self._key = None if key is None else unit_rows(key, self._dtype)

    def products(self) -> Tensor:
        own = self._unit[self._own]
        others = self._groups(self._unit) - own if self._key is None else self._key[0]
        return (own * others).sum(dim=1)

    def backward(self, grads: Tensor) -> list[Tensor]:
        """Gradients in this process's rows, queries and keys, given those in the products.

        With labels, a row is a positive of other processes' rows, too: grads are then those of all processes, (T,).
        """
        own, pull = self._unit[self._own], grads[:, None]
        if self._key is not None:
            key, norm = self._key
            return [
                unit_rows_backward(pull * key, own, self._norm, self._dtype, self._within),
                unit_rows_backward(pull * own, key, norm, self._dtype, self._within),
            ]
        as_anchor = pull[self._own] * (self._groups(self._unit) - own)
        as_positive = self._groups(pull * self._unit) - pull[self._own] * own
        norm = self._norm[self._own]
        return [unit_rows_backward(as_anchor + as_positive, own, norm, self._dtype, self._within)]

    def _groups(self, rows: Tensor) -> Tensor:
        """For each row of this process the sum of all rows that are its positives, and of itself."""
        if self._classes is not None:
            return self._classes.sums(rows)[self._own]
        return rows.view(self._views, -1, rows.shape[1]).sum(dim=0).repeat(self._views, 1)
