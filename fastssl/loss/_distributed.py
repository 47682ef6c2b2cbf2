"""NT-Xent over the rows of all processes of the default group, exact under DistributedDataParallel.

Every process owns its rows' losses and its rows' gradients. Forward gathers the rows, backward two numbers a row (the
weight over the sum, and the shift): with them a process computes what the other processes' losses contribute to its
own rows, so gradients are never exchanged (the usual way, a reduce-scatter of the gradient in all rows, moves D
numbers a row).
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
import torch.distributed
from torch import Tensor

from fastssl.loss import _tiles
from fastssl.loss._operators import refuse_second_derivative
from fastssl.models._gather import gather_rows

__all__ = ["ntxent_mean"]


@torch.compiler.disable
def ntxent_mean(z: Tensor, temperature: float) -> Tensor:
    """NT-Xent of this process's rows, (2B, D), against the rows of all processes: (), in the working dtype.

    The mean of this process's losses where all processes have as many rows; else their sum over the mean number of
    rows of a process, so that the mean over the processes, of value and gradient alike, is always that of the whole
    batch.
    """
    losses, rows_per_process = _NTXentOfAllProcesses.apply(z, temperature)
    return losses.sum() / rows_per_process


class _NTXentOfAllProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float) -> tuple[Tensor, float]:
        rank = torch.distributed.get_rank()
        gathered = gather_rows(z.detach())
        with torch.autocast(z.device.type, enabled=False):
            units = [_tiles.unit_rows(rows)[0] for rows in gathered]
            remote = units[:rank] + units[rank + 1 :]
            losses, stats = _tiles.ntxent_forward(units[rank], remote, temperature)
        ctx.save_for_backward(z, losses, stats, *gathered)
        ctx.temperature, ctx.rank = temperature, rank
        return losses, sum(len(rows) for rows in gathered) / len(gathered)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, None]:
        z, losses, (total, shift), *gathered = ctx.saved_tensors
        rank = ctx.rank
        with torch.autocast(z.device.type, enabled=False), torch.no_grad():
            own_stats = torch.stack([grad / total, shift])
            all_stats = [stats.t() for stats in gather_rows(own_stats.t().contiguous())]
            unit, norm = _tiles.unit_rows(gathered[rank])
            remote = (
                (_tiles.unit_rows(gathered[other])[0], all_stats[other])
                for other in range(len(gathered))
                if other != rank
            )
            grad_unit = _tiles.ntxent_backward(unit, losses, grad, own_stats, remote, ctx.temperature)
            grad_z = _tiles.unit_rows_backward(grad_unit, unit, norm, z.dtype)
        return _OnceDifferentiable.apply(grad_z, z, grad), None


class _OnceDifferentiable(torch.autograd.Function):
    """A gradient, made to depend on what it was computed from, so that its own gradient is an error and not zero."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, *inputs: Tensor) -> Tensor:
        return result.view_as(result)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        refuse_second_derivative(ctx, *grads)
