"""The pairwise sigmoid loss over the pairs of all processes; what _distributed.py says of exactness holds here, too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastssl.loss._distributed import alike, own_part, towers
from fastssl.loss._operators import refuse_forward_mode, refuse_second_derivative
from fastssl.loss._sigmoid import sigmoid_backward, sigmoid_forward
from fastssl.models._gather import gather, gather_rows, world_size

__all__ = ["gathered_pairwise_losses"]


def gathered_pairwise_losses(query: Tensor, key: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, float]:
    """Losses of this process's queries over the keys of all processes, (N,), and the mean number of rows of a process.

    As `pairwise_losses`, the positive of row i being key i. Every process must call this.
    """
    query, key = alike(query, key)
    refuse_forward_mode(query, key, scale, bias)
    everyone, counts = gather(torch.cat([query, key], dim=1))
    losses = _pairwise(query, key, scale, bias, everyone, counts)
    return losses, everyone.shape[0] / world_size()


@torch.library.custom_op("fastssl::pairwise_sigmoid_of_processes", mutates_args=())
def _pairwise(query: Tensor, key: Tensor, scale: Tensor, bias: Tensor, everyone: Tensor, counts: Tensor) -> Tensor:
    with torch.autocast(query.device.type, enabled=False):
        _, all_keys = towers(everyone)
        return sigmoid_forward(query, all_keys, scale, bias, own_part(counts).start)


@_pairwise.register_fake
def _(query: Tensor, key: Tensor, scale: Tensor, bias: Tensor, everyone: Tensor, counts: Tensor) -> Tensor:
    return scale.new_empty(query.shape[0])


@torch.library.custom_op("fastssl::pairwise_sigmoid_of_processes_backward", mutates_args=())
def _pairwise_backward(
    query: Tensor,
    key: Tensor,
    scale: Tensor,
    bias: Tensor,
    everyone: Tensor,
    counts: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        all_queries, all_keys = towers(everyone)
        all_grads = gather_rows(grad[:, None], counts.tolist()).flatten()
        options = (scale, bias, own_part(counts).start)
        grad_query, _, grad_scale, grad_bias = sigmoid_backward(query, all_keys, *options, grad, False, False)
        grad_key, _, _, _ = sigmoid_backward(key, all_queries, *options, all_grads, True, False)
        return grad_query, grad_key, grad_scale, grad_bias


@_pairwise_backward.register_fake
def _(
    query: Tensor,
    key: Tensor,
    scale: Tensor,
    bias: Tensor,
    everyone: Tensor,
    counts: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), scale.new_empty(()), bias.new_empty(())


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = _pairwise_backward(*ctx.saved_tensors, grad)
    needs = ctx.needs_input_grad[:4]
    return *(g if needed else None for g, needed in zip(grads, needs, strict=True)), None, None


_pairwise.register_autograd(_differentiate, setup_context=_keep)
_pairwise_backward.register_autograd(refuse_second_derivative)
