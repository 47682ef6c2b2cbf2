"""NT-Xent of two views by the CUDA kernels, from rows to loss and gradients in two native calls.

The same numbers as `contrastive_sums` and plain torch after it, in a third of the launches and with a tenth of the host's work:
at 16384 rows a GPU takes less time for the kernels than Python and torch take to launch them one operation at a time. Views need
not lie side by side, no ids are made, a temperature that is a number stays one, and what the forward pass makes of the rows, unit
rows rounded to float16, is kept for the backward pass. Both can be captured into a CUDA graph.

Memory that is kept, besides the rows: 2 bytes a number (float32: 4) and some 24 bytes a row.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from fastssl._native import _C
from fastssl.loss import _cuda
from fastssl.loss._checks import inverse
from fastssl.loss._eager import nothing_looks
from fastssl.loss._operators import backend_of, refuse_forward_mode, refuse_second_derivative
from fastssl.models._gather import MOST_ROWS

__all__ = ["two_views", "usable"]


def usable(first: Tensor, second: Tensor | None, temperature: Tensor | float) -> bool:
    """Whether `two_views` takes these: in eager mode, rows on a GPU, of one type.

    Args:
        first: (R, D), rows of both views, R even; or (B, D), those of the first.
        second: (B, D), rows of the second view, of the same type; None: they are in first.
    """
    number = temperature if isinstance(temperature, Tensor) else None
    if not (nothing_looks(first, second, number) and backend_of(first, None) is _cuda):
        return False
    if torch.is_grad_enabled() and any(x is not None and x.is_inference() for x in (first, second)):
        return False  # which cannot be kept for a backward pass
    if second is None:
        return True
    alike = second.dtype == first.dtype and second.device == first.device
    return alike and 2 * first.shape[0] <= MOST_ROWS


def two_views(first: Tensor, second: Tensor | None, temperature: Tensor | float) -> Tensor:
    """Mean NT-Xent loss, (), float32, of `usable` rows; differentiable once in rows and temperature."""
    scale = inverse(temperature, first) if isinstance(temperature, Tensor) else None
    number = 1.0 if scale is not None else 1 / float(temperature)
    refuse_forward_mode(first, second, scale)
    if torch.is_grad_enabled():
        return _TwoViews.apply(first, second, scale, number)
    return _forward(first, second, scale, number)[0]


@functools.lru_cache(maxsize=64)
def _plan(rows: int, dimensions: int, dtype: torch.dtype, grid: Any) -> Any:
    return _C.Ntxent(rows, dimensions, _cuda.ROW_TYPES[dtype], grid)


def _plan_of(first: Tensor, second: Tensor | None) -> Any:
    count, dimensions = first.shape
    return _plan(count if second is None else 2 * count, dimensions, first.dtype, _cuda.grid_of(first.device))


def _located(first: Tensor, second: Tensor | None, scale: Tensor | None, number: float) -> tuple[tuple[Any, ...], Any]:
    """Rows and scale as native code is told of them, and what must live until the kernels are launched."""
    if first.stride(1) != 1 and first.shape[1] > 1:
        first = first.contiguous()
    half = len(first) // 2
    if second is None:
        address, stride = first.data_ptr() + half * first.stride(0) * first.element_size(), first.stride(0)
    else:
        if second.stride(1) != 1 and second.shape[1] > 1:
            second = second.contiguous()
        address, stride = second.data_ptr(), second.stride(0)
    place = 0 if scale is None else scale.data_ptr()
    return (first.data_ptr(), first.stride(0), address, stride, place, number), (first, second)


def _forward(first: Tensor, second: Tensor | None, scale: Tensor | None, number: float) -> tuple[Tensor, Tensor]:
    """The loss, and what is kept."""
    plan = _plan_of(first, second)
    rows, living = _located(first, second, scale, number)
    loss = torch.empty((), dtype=torch.float32, device=first.device)
    kept = torch.empty(plan.kept_bytes, dtype=torch.uint8, device=first.device)
    workspace = torch.empty(plan.forward_bytes, dtype=torch.uint8, device=first.device)
    addresses = loss.data_ptr(), kept.data_ptr(), workspace.data_ptr()
    _cuda.launch(plan.forward, first.device, *rows, *addresses)
    del living
    return loss, kept


def _backward(
    first: Tensor,
    second: Tensor | None,
    scale: Tensor | None,
    number: float,
    kept: Tensor,
    grad: Tensor,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients in rows and scale, of those that are needed."""
    plan = _plan_of(first, second)
    rows, living = _located(first, second, scale, number)
    packed = torch.contiguous_format
    grad_first = torch.empty_like(first, memory_format=packed) if needs[0] else None
    grad_second = torch.empty_like(second, memory_format=packed) if second is not None and needs[1] else None
    grad_scale = torch.empty_like(scale) if scale is not None and needs[2] else None
    workspace = torch.empty(plan.backward_bytes, dtype=torch.uint8, device=first.device)
    at = 0 if grad_first is None else grad_first.data_ptr()
    behind = 0 if grad_second is None else grad_second.data_ptr()
    if second is None and grad_first is not None:
        behind = at + grad_first.nbytes // 2
    addresses = at, behind, 0 if grad_scale is None else grad_scale.data_ptr(), workspace.data_ptr()
    _cuda.launch(plan.backward, first.device, *rows, grad.data_ptr(), kept.data_ptr(), *addresses)
    del living
    return grad_first, grad_second, grad_scale


# For a compiler that meets a backward pass which was begun without it: it would let go of memory whose address alone goes on.
_backward_apart = torch.compiler.disable(_backward)


class _TwoViews(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor | None, scale: Tensor | None, number: float) -> Tensor:
        loss, kept = _forward(first, second, scale, number)
        ctx.number = number
        ctx.save_for_backward(first, second, scale, kept)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        first, second, scale, kept = ctx.saved_tensors
        arguments = (first, second, scale, ctx.number, kept, grad, ctx.needs_input_grad[:3])
        if torch.compiler.is_compiling():
            return *_backward_apart(*arguments), None
        backward = _Differentiated.apply if torch.is_grad_enabled() else _backward
        return *backward(*arguments), None


class _Differentiated(torch.autograd.Function):
    """A backward pass that may be differentiated in turn, which is refused."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor | None, ...]:
        return _backward(*arguments)

    backward = staticmethod(refuse_second_derivative)
