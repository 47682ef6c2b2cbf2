"""The contrastive engine as torch.library operators: opaque to torch.compile, differentiable once.

All contrastive losses here are plain torch on top of one function, `contrastive_sums`. What computes it is a backend:
a module with `forward` and `backward` on plain tensors, chosen by `backend_of`. In eager mode (`nothing_looks`) the bodies of
the operators are called past torch.library, in an autograd function that keeps and differentiates as the operators do.

Bodies run under no autocast: the logits are float32 at least, whatever the type of the embeddings.

Note [Sixteen bits]
    Where tiles are products of torch's (_tiles.py), float16 and bfloat16 embeddings are converted: sums and gradients are as
    exact as those of float32. The kernels (_cuda.py) leave such queries 16 bits for the matrix units, and the keys that they
    meet: rows as they enter the products, of length 1 or as they are, are rounded to float16, each number by 2^-11 of
    itself at most. A logit is then off by 2^-10 of its largest size at most, |scale| for unit rows, and so is a
    logarithm of a sum; a gradient by as much of the largest that there can be, and by the rounding of the
    weights, 2^-11. Plain torch in float16 rounds unit rows as well, and then logits; in bfloat16, both to eight bits.
    Keys keep their own type until then: a float32 bank is not rounded to the queries' bfloat16 first.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from fastssl.loss import _cuda, _tiles
from fastssl.loss._checks import FLOATS
from fastssl.loss._eager import nothing_looks, without_autocast
from fastssl.loss._rows import number, unit_rows, unit_rows_backward, working_dtype

__all__ = [
    "Sums",
    "backend_of",
    "contrastive_sums",
    "refuse_forward_mode",
    "refuse_second_derivative",
    "softplus",
    "unit",
]


class Sums(NamedTuple):
    """What `contrastive_sums` returns, float32, or float64 where the queries are."""

    rows: Tensor  # (N,), logarithm of the sum over the allowed keys; -inf where none is allowed
    positives: Tensor  # (N,), the logit of the positive; (0,) without
    columns: Tensor  # (M,), logarithm of the sum over the allowed queries; (0,) without


def contrastive_sums(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor | float,
    *,
    query_ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    positive: int | None = None,
    columns: bool = False,
    normalize_query: bool = True,
    normalize_key: bool = True,
) -> Sums:
    """Logarithms of the sums of exp(S) over rows and columns of S = scale * query @ key^T, which is never stored.

    Differentiable once, in query, key and scale, from all three outputs. Memory is O((N + M) D).

    Args:
        query: (N, D), float16, bfloat16, float32 or float64; N and D at least 1.
        key: (M, D), of any of these types; None: the queries themselves, for half of the work.
        scale: 1 / temperature; a tensor of no dimension may require a gradient, and the host does not wait for it.
        query_ids: (N,), int64. Entries of S whose two ids are equal are left out of the sums.
        key_ids: (M,), int64; with key=None they are query_ids.
        positive: If given, key (i + positive) mod M is the positive of query i; M >= N.
        columns: Whether to sum over columns, too; not with key=None, where they would be the rows.
        normalize_query: Whether rows are divided by their length first, as by torch.nn.functional.normalize.
        normalize_key: The same for the keys.

    Where only the sums over rows are asked for and the keys require no gradient, the backward pass does not look at the
    keys, which may then change before it, as a memory bank does.

    Max error: twice that of plain torch in float32 (float64 for float64), and on a GPU, of rows that keep their length, float32's
    rounding of the largest logit that the lengths allow; see Note [Sixteen bits] for the others.

    Raises:
        ValueError: Shapes that do not fit together, ids on one side only, or columns=True with key=None.
        TypeError: Embeddings that are not of a floating-point type, ids that are not int64.
        NotImplementedError: Second derivatives, or derivatives in forward mode.

    >>> rows, positives, _ = contrastive_sums(torch.eye(2), None, 1.0, positive=1)
    >>> rows.exp()  # e + 1
    tensor([3.7183, 3.7183])
    >>> positives
    tensor([0., 0.])
    """
    _check(query, key, scale, query_ids, key_ids, positive, columns)
    scale = number(scale, query)
    refuse_forward_mode(query, key, scale)
    if key is not None and key.dtype == torch.float64 and query.device.type != "cpu":
        key = key.to(scale.dtype)  # which no kernel takes
    wanted = torch.is_grad_enabled() and (query.requires_grad or scale.requires_grad)
    keep = wanted and positive is None and not columns and key is not None and not key.requires_grad
    arguments = (query, key, scale, query_ids, key_ids, positive, columns, normalize_query, normalize_key, keep)
    call = _Contrastive.apply if nothing_looks(query, key, scale) else _contrastive
    rows, positives, column_values, _ = call(*arguments)
    return Sums(rows, positives, column_values)


def backend_of(query: Tensor, key: Tensor | None) -> ModuleType:
    """What computes the sums of these rows: a module with the functions `forward` and `backward` of _tiles.py.

    Asked of fake tensors, too: looks at no number of theirs.
    """
    return _cuda if _cuda.usable(query, key) else _tiles


def unit(x: Tensor) -> Tensor:
    """Rows of x divided by their length, as `contrastive_sums` has them: (R, D), float32, or float64 for float64."""
    refuse_forward_mode(x)
    return _unit(x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); torch's own returns x from 20 on, which float64 notices."""
    return torch.logaddexp(x, x.new_zeros(()))


def _check(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor | float,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    positive: int | None,
    columns: bool,
) -> None:
    """Raises where the arguments of `contrastive_sums` do not fit together."""
    for name, rows in (("query", query), ("key", query if key is None else key)):
        if rows.dtype not in FLOATS:
            raise TypeError(f"contrastive_sums: {name} is of type {rows.dtype} and must be one of {FLOATS}.")
        if rows.dim() != 2 or rows.shape[0] == 0 or rows.shape[1] == 0 or rows.shape[1] != query.shape[1]:
            raise ValueError(
                f"contrastive_sums: query has shape {tuple(query.shape)}, {name} {tuple(rows.shape)}; they must be "
                "(N, D) and (M, D) with N, M and D at least 1."
            )
    if isinstance(scale, Tensor) and scale.dim() != 0:
        raise ValueError(f"contrastive_sums: scale has shape {tuple(scale.shape)} and must have none; write scale[0].")
    if columns and key is None:
        raise ValueError("contrastive_sums: columns=True with key=None; the columns are the rows then, so use rows.")
    if (query_ids is None and key_ids is not None) or (key_ids is None and key is not None and query_ids is not None):
        raise ValueError("contrastive_sums: ids of one side only; give query_ids and key_ids, or neither.")
    if key is None and key_ids is not None and key_ids is not query_ids:
        raise ValueError("contrastive_sums: key_ids with key=None; the keys are the queries, so leave key_ids out.")
    for name, ids, rows in (("query_ids", query_ids, query), ("key_ids", key_ids, query if key is None else key)):
        if ids is not None and ids.dtype != torch.int64:
            raise TypeError(f"contrastive_sums: {name} is of type {ids.dtype} and must be int64; write {name}.long().")
        if ids is not None and ids.shape != rows.shape[:1]:
            raise ValueError(
                f"contrastive_sums: {name} has shape {tuple(ids.shape)} for {rows.shape[0]} rows; it must have one "
                "number a row."
            )
    if positive is not None and key is not None and key.shape[0] < query.shape[0]:
        raise ValueError(
            f"contrastive_sums: positive={positive} with {query.shape[0]} queries and {key.shape[0]} keys; there must "
            "be as many keys as queries at least."
        )


def _sums(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    positive: int | None,
    columns: bool,
    normalize_query: bool,
    normalize_key: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sums and, with `keep`, what the backward pass needs in place of the keys: their means, (N, D)."""
    with without_autocast(query.device.type):
        backend = backend_of(query, key)
        if keep:
            rows, means = backend.forward_with_means(
                query, key, scale, query_ids, key_ids, normalize_query, normalize_key
            )
            return rows, rows.new_empty(0), rows.new_empty(0), means
        sums = backend.forward(query, key, scale, query_ids, key_ids, positive, columns, normalize_query, normalize_key)
        return *sums, scale.new_empty(0, query.shape[1])


_contrastive = torch.library.custom_op("fastssl::contrastive", _sums, mutates_args=())


@_contrastive.register_fake
def _(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    positive: int | None,
    columns: bool,
    normalize_query: bool,
    normalize_key: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count, width = query.shape
    return (
        scale.new_empty(count),
        scale.new_empty(0 if positive is None else count),
        scale.new_empty(key.shape[0] if columns and key is not None else 0),
        scale.new_empty(count if keep else 0, width),
    )


def _gradients(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    positive: int | None,
    columns: bool,
    normalize_query: bool,
    normalize_key: bool,
    rows: Tensor,
    column_values: Tensor,
    grad_rows: Tensor | None,
    grad_positives: Tensor | None,
    grad_columns: Tensor | None,
    needs_query: bool,
    needs_key: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    with without_autocast(query.device.type):
        backend = backend_of(query, key)
        if backend is not _cuda:  # which alone knows what to do without
            grad_rows = rows.new_zeros(rows.shape) if grad_rows is None else grad_rows
            grad_columns = column_values.new_zeros(column_values.shape) if grad_columns is None else grad_columns
            if grad_positives is None:
                grad_positives = rows.new_zeros(0 if positive is None else len(rows))
        gradients = backend.backward(
            query,
            key,
            scale,
            query_ids,
            key_ids,
            positive,
            columns,
            normalize_query,
            normalize_key,
            rows,
            column_values,
            grad_rows,
            grad_positives,
            grad_columns,
            needs_query,
            needs_key,
        )
        grad_query, grad_key, grad_scale = gradients
        of_key = query if key is None else key
        return (
            query.new_empty(0, query.shape[1]) if grad_query is None else grad_query,
            of_key.new_empty(0, query.shape[1]) if grad_key is None else grad_key,
            grad_scale,
        )


_contrastive_backward = torch.library.custom_op("fastssl::contrastive_backward", _gradients, mutates_args=())


@_contrastive_backward.register_fake
def _(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    positive: int | None,
    columns: bool,
    normalize_query: bool,
    normalize_key: bool,
    rows: Tensor,
    column_values: Tensor,
    grad_rows: Tensor | None,
    grad_positives: Tensor | None,
    grad_columns: Tensor | None,
    needs_query: bool,
    needs_key: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    of_query = query.new_empty(query.shape if needs_query else (0, query.shape[1]))
    of_key = query.new_empty(0, query.shape[1])
    if key is not None:
        of_key = key.new_empty(key.shape if needs_key else (0, key.shape[1]))
    return of_query, of_key, scale.new_empty(())


def _gradients_of_means(
    query: Tensor, scale: Tensor, normalize_query: bool, means: Tensor, grad_rows: Tensor
) -> tuple[Tensor, Tensor]:
    """The same where the means of the keys are known: gradients in query and scale."""
    with without_autocast(query.device.type):
        grad = grad_rows[:, None] * means
        if not normalize_query:
            return (grad * scale).to(query.dtype), (grad * query).sum(dtype=torch.float64).to(scale.dtype)
        unit, norm = unit_rows(query, scale.dtype)
        grad_scale = (grad * unit).sum(dtype=torch.float64).to(scale.dtype)
        return unit_rows_backward(grad.mul_(scale), unit, norm, query.dtype), grad_scale


_means_backward = torch.library.custom_op(
    "fastssl::contrastive_backward_of_means", _gradients_of_means, mutates_args=()
)


@_means_backward.register_fake
def _(query: Tensor, scale: Tensor, normalize_query: bool, means: Tensor, grad_rows: Tensor) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), scale.new_empty(())


@torch.library.custom_op("fastssl::unit_rows", mutates_args=())
def _unit(x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return unit_rows(x, working_dtype(x.dtype))[0]


@_unit.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=working_dtype(x.dtype))


@torch.library.custom_op("fastssl::unit_rows_backward", mutates_args=())
def _unit_backward(x: Tensor, grad: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        unit, norm = unit_rows(x, grad.dtype)
        return unit_rows_backward(grad.clone(), unit, norm, x.dtype)


@_unit_backward.register_fake
def _(x: Tensor, grad: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    query, key, scale, query_ids, key_ids, *ctx.options, keep = inputs
    rows, _, columns, kept = output
    ctx.has_means = keep
    if keep:
        ctx.save_for_backward(query, scale, kept)
    else:
        ctx.save_for_backward(query, key, scale, query_ids, key_ids, rows, columns)


def _differentiate(
    ctx: Any, grad_rows: Tensor | None, grad_positives: Tensor | None, grad_columns: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    positive, columns, normalize_query, normalize_key = ctx.options
    needs_query, needs_key = ctx.needs_input_grad[:2]
    grad_key = None
    saved = ctx.saved_tensors
    # Gradients that are to be differentiated again come from an operator, which refuses that.
    plain = not torch.is_grad_enabled() and nothing_looks(*saved, grad_rows, grad_positives, grad_columns)
    if ctx.has_means:
        query, scale, means = saved
        grad_rows = scale.new_zeros(len(query)) if grad_rows is None else grad_rows
        of_means = _gradients_of_means if plain else _means_backward
        grad_query, grad_scale = of_means(query, scale, normalize_query, means, grad_rows)
    else:
        query, key, scale, query_ids, key_ids, rows, column_values = saved
        options = (query_ids, key_ids, positive, columns, normalize_query, normalize_key)
        values = (rows, column_values, grad_rows, grad_positives, grad_columns)
        gradients = _gradients if plain else _contrastive_backward
        grad_query, grad_key, grad_scale = gradients(query, key, scale, *options, *values, needs_query, needs_key)
    found = zip((grad_query, grad_key, grad_scale), ctx.needs_input_grad, strict=False)
    return *(gradient if needed else None for gradient, needed in found), *(None,) * 7


class _Contrastive(torch.autograd.Function):
    """`_contrastive` in eager mode."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        output = _sums(*inputs)
        ctx.set_materialize_grads(False)
        _keep(ctx, inputs, output)
        return output

    backward = staticmethod(_differentiate)


def refuse_forward_mode(*inputs: Tensor | None) -> None:
    """Raises where an input has a tangent, which torch.library's operators would drop without a word."""
    forward_ad = torch.autograd.forward_ad
    if forward_ad._current_level < 0:  # outside of dual_level() nothing has one
        return
    if any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in inputs):
        raise NotImplementedError(
            "fastssl.loss: a derivative in forward mode was asked for (torch.func.jvp, torch.autograd.forward_ad); the "
            "fused losses have those of backward() only, so write the loss with torch.nn.functional.cross_entropy on "
            "z @ z.T."
        )


def refuse_second_derivative(ctx: Any, *_: Tensor) -> NoReturn:
    """The backward pass of a backward pass."""
    raise NotImplementedError(
        "fastssl.loss: second derivatives were asked for (create_graph=True, then backward); the fused losses have first "
        "derivatives only, so for a gradient penalty write the loss with torch.nn.functional.cross_entropy on z @ z.T."
    )


def _keep_unit(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_unit(ctx: Any, grad: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return _unit_backward(x, grad)


_contrastive.register_autograd(_differentiate, setup_context=_keep)
_contrastive_backward.register_autograd(refuse_second_derivative)
_means_backward.register_autograd(refuse_second_derivative)
_unit.register_autograd(_differentiate_unit, setup_context=_keep_unit)
_unit_backward.register_autograd(refuse_second_derivative)
