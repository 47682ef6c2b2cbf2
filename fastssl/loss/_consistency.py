"""How differently a query and its key see the same rows: the symmetrized divergence of CO2, no similarity stored.

Query q and key k of an image make logits over the same classes, and their softmaxes are P and Q. The classes are the
pair itself, with the logit s = b q . k in both, and rows m of a bank, with a_m = b q . m and b_m = b k . m, b the
inverse temperature; or the other images j of the batch, with a_j = b q . k_j and b_j = b k . q_j.

Note [The divergence without logarithms]
    With d = a - b, which is 0 for the pair itself, (KL(P, Q) + KL(Q, P)) / 2 = sum (P - Q)(log P - log Q) / 2 =
    sum (P - Q) d / 2, because the logarithms of the two denominators meet sum (P - Q) = 0. So J = (E_P d - E_Q d) / 2:
    the expected differences are small where q and k are alike, and no large logarithms cancel.

Note [The gradient of the divergence]
    dJ/da = ((P - Q) + P (d - E_P d)) / 2 and dJ/db = -((P - Q) + Q (d - E_Q d)) / 2; the pair's own logit is in both,
    which leaves (Q_0 E_Q d - P_0 E_P d) / 2. Of a bank the gradients in q and k then are means of its rows: with
    x_P = sum P_m m and y_P = sum P_m d_m m, dJ/dq = b ((x_P - x_Q) + (y_P - E_P x_P)) / 2 + b k dJ/ds. These four means
    are made in the forward pass, row by row with a running maximum, so that backward needs (B, D) numbers and not the
    bank, which may change meanwhile.

Note [The divergence over a batch]
    There b_ij = a_ji: the second softmax runs down the columns of A = b Q K^T, and the denominators are the sums over
    rows and columns of A. An entry ij is a logit of the P of row i and of the Q of row j; with the entry ji, which is
    the other logit of both, it gives T_ij = g_i (P_ij (1 + a_ij - a_ji - E_P,i d) - Q_ij) / 2 + g_j (Q_ji (1 + a_ij - a_ji
    - E_Q,j (-d)) - P_ji) / 2, with g the gradient in J, and dQ = b T K, dK = b T^T Q. Two products make the entries of a
    tile, two more its gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastssl.loss import _tiles
from fastssl.loss._operators import contrastive_sums, refuse_forward_mode, refuse_second_derivative
from fastssl.loss._rows import unit_rows, unit_rows_backward, working_dtype
from fastssl.loss._tiles import LN_2, LOG2_E, product

__all__ = ["divergences"]


def divergences(query: Tensor, key: Tensor, bank: Tensor | None, scale: float) -> Tensor:
    """(KL(P, Q) + KL(Q, P)) / 2 of every pair, (B,), in the working dtype; differentiable once, in query and key.

    Args:
        query, key: (B, D), normalized here; rows i are a pair.
        bank: The other classes, (M, D), taken as they are, without gradient and not kept; None: the other keys for the
            query, the other queries for the key.
        scale: 1 / temperature.
    """
    refuse_forward_mode(query, key, bank)
    if bank is None:
        return _over_batch(query, key, scale)[0]
    wanted = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    return _over_bank(query, key, bank, scale, wanted)[0]


# A bank


@torch.library.custom_op("fastssl::consistency_over_bank", mutates_args=())
def _over_bank(
    query: Tensor, key: Tensor, bank: Tensor, scale: float, with_gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The divergences, and their gradients in the unit rows, (B, D) each, or (0, D)."""
    with torch.autocast(query.device.type, enabled=False):
        dtype = working_dtype(query.dtype)
        q, k = unit_rows(query, dtype)[0], unit_rows(key, dtype)[0]
        pair = (q * k).sum(dim=1) * scale
        height, width = _tile_shape(q)
        values, of_query, of_key = [], [], []
        for top in range(0, len(q), height):
            rows = slice(top, top + height)
            p_side, q_side = _Softmax(pair[rows], q.shape[1]), _Softmax(pair[rows], q.shape[1])
            for left in range(0, len(bank), width):
                chunk = bank[left : left + width].to(dtype)
                a, b = product(q[rows] * (scale * LOG2_E), chunk), product(k[rows] * (scale * LOG2_E), chunk)
                difference = (a - b).mul_(LN_2)
                p_side.add(a, difference, chunk if with_gradients else None)
                q_side.add(b, difference, chunk if with_gradients else None)
            values.append((p_side.difference() - q_side.difference()) / 2)
            if with_gradients:
                along = (q_side.pair() * q_side.difference() - p_side.pair() * p_side.difference())[:, None] / 2
                apart = (p_side.mean() - q_side.mean()) / 2
                of_query.append(scale * (apart + p_side.tilt() / 2 + along * k[rows]))
                of_key.append(scale * (along * q[rows] - apart - q_side.tilt() / 2))
        none = q.new_empty(0, q.shape[1])
        return torch.cat(values), torch.cat(of_query or [none]), torch.cat(of_key or [none])


@_over_bank.register_fake
def _(query: Tensor, key: Tensor, bank: Tensor, scale: float, with_gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    dtype = working_dtype(query.dtype)
    count, width = query.shape
    of_query, of_key = (query.new_empty((count if with_gradients else 0, width), dtype=dtype) for _ in range(2))
    return query.new_empty(count, dtype=dtype), of_query, of_key


class _Softmax:
    """A softmax over the pair and the rows of a bank, and means under it; given the logits in base 2, tile by tile."""

    def __init__(self, pair: Tensor, width: int) -> None:
        self._shift = pair * LOG2_E
        self._first = self._shift.clone()
        self._sum = torch.ones_like(pair)
        self._difference = torch.zeros_like(pair)
        self._mean = pair.new_zeros(len(pair), width)
        self._tilted = torch.zeros_like(self._mean)

    def add(self, tile: Tensor, difference: Tensor, rows: Tensor | None) -> None:
        """Takes logits, overwriting them, differences, and the rows where their means are wanted."""
        highest = torch.maximum(tile.amax(dim=1), self._shift)
        rescale = torch.exp2(self._shift - highest)
        powers = tile.sub_(highest[:, None]).exp2_()
        self._sum = self._sum * rescale + powers.sum(dim=1)
        if rows is not None:
            self._mean.mul_(rescale[:, None]).add_(product(powers, rows.t()))
        weighted = powers.mul_(difference)
        self._difference = self._difference * rescale + weighted.sum(dim=1)
        if rows is not None:
            self._tilted.mul_(rescale[:, None]).add_(product(weighted, rows.t()))
        self._shift = highest

    def pair(self) -> Tensor:
        """The part of the pair itself."""
        return torch.exp2(self._first - self._shift) / self._sum

    def difference(self) -> Tensor:
        """E d."""
        return self._difference / self._sum

    def mean(self) -> Tensor:
        """x."""
        return self._mean / self._sum[:, None]

    def tilt(self) -> Tensor:
        """y - E d x."""
        return self._tilted / self._sum[:, None] - self.difference()[:, None] * self.mean()


@torch.library.custom_op("fastssl::consistency_over_bank_backward", mutates_args=())
def _over_bank_backward(
    grad: Tensor, query: Tensor, key: Tensor, of_query: Tensor, of_key: Tensor
) -> tuple[Tensor, Tensor]:
    return _in_inputs(grad[:, None] * of_query, query), _in_inputs(grad[:, None] * of_key, key)


@_over_bank_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, of_query: Tensor, of_key: Tensor) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)


def _in_inputs(grad: Tensor, rows: Tensor) -> Tensor:
    unit, norm = unit_rows(rows, grad.dtype)
    return unit_rows_backward(grad, unit, norm, rows.dtype)


# The batch


@torch.library.custom_op("fastssl::consistency_over_batch", mutates_args=())
def _over_batch(query: Tensor, key: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The divergences, (B,), and what their gradients need, (6, B): for P and Q the shifts, factors, E_P d and E_Q -d.

    The shift is the logarithm of the sum; the factor, near 1, is what it takes after rounding to make a softmax.
    """
    with torch.autocast(query.device.type, enabled=False):
        dtype = working_dtype(query.dtype)
        q, k = unit_rows(query, dtype)[0], unit_rows(key, dtype)[0]
        sums = contrastive_sums(q, k, scale, columns=True, normalize_query=False, normalize_key=False)
        shifts = torch.stack([sums.rows, sums.columns]) * LOG2_E
        totals, expected = torch.zeros_like(shifts), torch.zeros_like(shifts)
        for rows, _, a, b in _tiles_of_both(q, k, scale):
            difference = (a - b).mul_(LN_2)
            for side, tile in enumerate((a, b)):
                tile.sub_(shifts[side, rows, None]).exp2_()
                totals[side, rows] += tile.sum(dim=1)
                expected[side, rows] += tile.mul_(difference).sum(dim=1)
        expected /= totals
        expected[1].neg_()
        return expected.sum(dim=0) / 2, torch.cat([shifts, 1 / totals, expected])


@_over_batch.register_fake
def _(query: Tensor, key: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    dtype = working_dtype(query.dtype)
    return query.new_empty(query.shape[0], dtype=dtype), query.new_empty((6, query.shape[0]), dtype=dtype)


@torch.library.custom_op("fastssl::consistency_over_batch_backward", mutates_args=())
def _over_batch_backward(
    grad: Tensor, query: Tensor, key: Tensor, stats: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        q, k = unit_rows(query, stats.dtype)[0], unit_rows(key, stats.dtype)[0]
        of_query, of_key = torch.zeros_like(q), torch.zeros_like(k)
        half = grad * (scale / 2)
        of_columns = stats.view(3, 2, -1).flip(1).view_as(stats)
        for rows, columns, a, b in _tiles_of_both(q, k, scale):
            entries = _in_entries(a, b, stats[:, rows, None], half[rows, None])
            entries.add_(_in_entries(a, b, of_columns[:, None, columns], half[columns]))
            of_query[rows] += product(entries, k[columns].t())
            of_key[columns] += product(entries.t().contiguous(), q[rows].t())
        return _in_inputs(of_query, query), _in_inputs(of_key, key)


@_over_batch_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, stats: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)


def _in_entries(a: Tensor, b: Tensor, stats: Tensor, half: Tensor) -> Tensor:
    """The gradient in entries a that divergences have where a are logits of P, times the scale; b are those of Q there.

    By symmetry, with the stats of P and Q exchanged, where a are logits of Q and b those of P. The entries are in base
    2, (rows, columns), stats and half of shapes that broadcast.
    """
    p_shift, q_shift, p_factor, q_factor, expected, _ = stats
    p = torch.exp2(a - p_shift).mul_(p_factor * half)
    q = torch.exp2(b - q_shift).mul_(q_factor * half)
    return p.mul_((a - b).mul_(LN_2).sub_(expected - 1)).sub_(q)


def _tiles_of_both(q: Tensor, k: Tensor, scale: float) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Rows, columns, and the entries of A and of its transpose, in base 2, tile by tile."""
    height, width = _tile_shape(q)
    for top in range(0, len(q), height):
        rows = slice(top, min(top + height, len(q)))
        scaled_q, scaled_k = q[rows] * (scale * LOG2_E), k[rows] * (scale * LOG2_E)
        for left in range(0, len(q), width):
            columns = slice(left, min(left + width, len(q)))
            yield rows, columns, product(scaled_q, k[columns]), product(scaled_k, q[columns])


def _tile_shape(rows: Tensor) -> tuple[int, int]:
    return _tiles.CPU_TILE if rows.device.type == "cpu" else _tiles.GPU_TILE


# Autograd


def _keep_bank(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    query, key, *_ = inputs
    _, of_query, of_key = output
    ctx.save_for_backward(query, key, of_query, of_key)


def _differentiate_bank(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return *_over_bank_backward(grad, *ctx.saved_tensors), None, None, None


def _keep_batch(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    query, key, ctx.scale = inputs
    ctx.save_for_backward(query, key, output[1])


def _differentiate_batch(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_over_batch_backward(grad, *ctx.saved_tensors, ctx.scale), None


_over_bank.register_autograd(_differentiate_bank, setup_context=_keep_bank)
_over_batch.register_autograd(_differentiate_batch, setup_context=_keep_batch)
_over_bank_backward.register_autograd(refuse_second_derivative)
_over_batch_backward.register_autograd(refuse_second_derivative)
