"""The contrastive losses of one process as torch.library operators: opaque to torch.compile, differentiable once.

Bodies run under no autocast: the logits are float32 at least, whatever the type of the embeddings.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from fastssl.loss import _tiles

__all__ = ["infonce_losses", "ntxent_losses", "refuse_second_derivative"]


def ntxent_losses(z: Tensor, temperature: float) -> Tensor:
    """NT-Xent of every row of z, (2B, D): (2B,), in the working dtype; rows i and i + B are views of one image."""
    losses, _ = _ntxent(z, temperature)
    return losses


def infonce_losses(query: Tensor, key: Tensor, bank: Tensor, temperature: float) -> Tensor:
    """InfoNCE of every row of query, (B, D), with its row of key against the rows of bank, (M, D): (B,).

    query and key are normalized, bank is taken as it is, and is not kept for the backward pass, so it may change after
    the call.
    """
    with_mean = torch.is_grad_enabled() and query.requires_grad
    losses, _ = _infonce(query, key, bank, temperature, with_mean)
    return losses


@torch.library.custom_op("fastssl::ntxent", mutates_args=())
def _ntxent(z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    with torch.autocast(z.device.type, enabled=False):
        unit, _ = _tiles.unit_rows(z)
        return _tiles.ntxent_forward(unit, [], temperature)


@_ntxent.register_fake
def _(z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    dtype = _tiles.working_dtype(z.dtype)
    return z.new_empty(z.shape[0], dtype=dtype), z.new_empty((2, z.shape[0]), dtype=dtype)


@torch.library.custom_op("fastssl::ntxent_backward", mutates_args=())
def _ntxent_backward(grad: Tensor, z: Tensor, losses: Tensor, stats: Tensor, temperature: float) -> Tensor:
    with torch.autocast(z.device.type, enabled=False):
        unit, norm = _tiles.unit_rows(z)
        total, shift = stats
        grad_unit = _tiles.ntxent_backward(unit, losses, grad, torch.stack([grad / total, shift]), [], temperature)
        return _tiles.unit_rows_backward(grad_unit, unit, norm, z.dtype)


@_ntxent_backward.register_fake
def _(grad: Tensor, z: Tensor, losses: Tensor, stats: Tensor, temperature: float) -> Tensor:
    return z.new_empty(z.shape)


@torch.library.custom_op("fastssl::infonce", mutates_args=())
def _infonce(query: Tensor, key: Tensor, bank: Tensor, temperature: float, with_mean: bool) -> tuple[Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        unit, _ = _tiles.unit_rows(query)
        positive, _ = _tiles.unit_rows(key)
        return _tiles.infonce_forward(unit, positive.to(unit.dtype), bank, temperature, with_mean)


@_infonce.register_fake
def _(query: Tensor, key: Tensor, bank: Tensor, temperature: float, with_mean: bool) -> tuple[Tensor, Tensor]:
    dtype = _tiles.working_dtype(query.dtype)
    mean_rows = query.shape[0] if with_mean else 0
    return query.new_empty(query.shape[0], dtype=dtype), query.new_empty((mean_rows, query.shape[1]), dtype=dtype)


@torch.library.custom_op("fastssl::infonce_backward", mutates_args=())
def _infonce_backward(
    grad: Tensor, query: Tensor, key: Tensor, losses: Tensor, mean: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        unit, norm = _tiles.unit_rows(query)
        positive, positive_norm = _tiles.unit_rows(key)
        # The gradient in the logit of the positive, expm1(-loss), is the opposite of that in all negatives together.
        pull = (grad * torch.expm1(-losses) / temperature)[:, None]
        grad_query = pull * (positive - mean) if len(mean) else torch.zeros_like(unit)
        return (
            _tiles.unit_rows_backward(grad_query, unit, norm, query.dtype),
            _tiles.unit_rows_backward((pull * unit).to(positive.dtype), positive, positive_norm, key.dtype),
        )


@_infonce_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, losses: Tensor, mean: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)


def _keep_ntxent(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    z, ctx.temperature = inputs
    ctx.save_for_backward(z, *output)


def _differentiate_ntxent(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
    return _ntxent_backward(grad, *ctx.saved_tensors, ctx.temperature), None


def _keep_infonce(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float, bool], output: tuple[Tensor, Tensor]) -> None:
    query, key, _, ctx.temperature, _ = inputs
    ctx.save_for_backward(query, key, *output)


def _differentiate_infonce(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    grad_query, grad_key = _infonce_backward(grad, *ctx.saved_tensors, ctx.temperature)
    return grad_query, grad_key, None, None, None


def refuse_second_derivative(ctx: Any, *_: Tensor) -> NoReturn:
    """The backward pass of a backward pass."""
    raise NotImplementedError(
        "NTXentLoss: second derivatives were asked for (create_graph=True, then backward); the fused loss has first "
        "derivatives only, so for a gradient penalty write the loss with torch.nn.functional.cross_entropy on z @ z.T."
    )


_ntxent.register_autograd(_differentiate_ntxent, setup_context=_keep_ntxent)
_infonce.register_autograd(_differentiate_infonce, setup_context=_keep_infonce)
_ntxent_backward.register_autograd(refuse_second_derivative)
_infonce_backward.register_autograd(refuse_second_derivative)
