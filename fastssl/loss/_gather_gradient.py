"""Rows of all processes of the default group, with gradient: for losses that read them in ways `gathered_sums` has not.

The backward pass sums the gradient in all rows over all processes: as many numbers as rows times columns, which
`gathered_sums` does without. The collectives are in the bodies of operators, so torch.compile sees no graph break.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor

from fastssl.loss._operators import refuse_second_derivative
from fastssl.loss._rows import working_dtype
from fastssl.models._gather import MOST_ROWS, gather_counts, gather_rows, world_size

__all__ = ["gather_with_gradient"]


def gather_with_gradient(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of all processes in their order, (T, D), and which of them are this process's, (N,), int64.

    Every process must call this, and where one differentiates the result, all must. Raises ValueError where a process
    has no row, or rows of another width or type.
    """
    return _gather(rows)


@torch.library.custom_op("fastssl::gather_with_gradient", mutates_args=())
def _gather(rows: Tensor) -> tuple[Tensor, Tensor]:
    counts = gather_counts(rows)
    start = sum(counts[: torch.distributed.get_rank()])
    return gather_rows(rows, counts), torch.arange(start, start + len(rows), device=rows.device)


@_gather.register_fake
def _(rows: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size(min=world_size(), max=MOST_ROWS)
    return rows.new_empty(total, rows.shape[1]), rows.new_empty(rows.shape[0], dtype=torch.int64)


@torch.library.custom_op("fastssl::gather_with_gradient_backward", mutates_args=())
def _gather_backward(grad: Tensor, places: Tensor) -> Tensor:
    # In a type that every backend can sum; a copy, since the sum is made in place.
    total = grad.to(working_dtype(grad.dtype), copy=True, memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total[places].to(grad.dtype)


@_gather_backward.register_fake
def _(grad: Tensor, places: Tensor) -> Tensor:
    return grad.new_empty(places.shape[0], grad.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
    return _gather_backward(grad, *ctx.saved_tensors)


_gather.register_autograd(_differentiate, setup_context=_keep)
_gather_backward.register_autograd(refuse_second_derivative)
