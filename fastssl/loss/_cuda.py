"""Contrastive sums and their gradients by the CUDA kernels of csrc/cuda/contrastive*, on rows as they come.

With S = scale * unit(query) @ unit(key).T, `forward` gives the logarithm of the sum of exp(S) over each row, over each
column, and the logits of positives; `backward` the gradients in query, key and scale. S is never stored, the scale never
read by the host, and nothing waits for the device: both can be captured into a CUDA graph. The same inputs give the same
bits.

Arguments that both share:

    query: (N, D), float32, float16 or bfloat16, on a CUDA device; D from 1 to 4096. Numbers of a row lie side by side.
    key: (M, D), of any of these types, on the same device; None: the queries, of which half of the pairs are computed.
    scale: One over the temperature, (), on the device, or a number.
    query_ids, key_ids: (N,) and (M,), int64, or None: pairs with equal ids are left out. Without key, query_ids serves both.
    positive: Key (i + positive) mod M is the positive of query i, M >= N; None: there are none.
    columns: Whether columns are summed too; without key they are the rows.
    normalize_query, normalize_key: Whether rows are divided by their length, as torch.nn.functional.normalize does.

Numbers: sums are float32. Of float16 and bfloat16 queries, unit rows of both sides and weights (probabilities times
gradients) are rounded to float16 for the matrix units; of float32 queries, both are split into two float16, whose products
keep 22 bits (csrc/cuda/contrastive_tile.h). Weights are rounded relative to the largest gradient of a sum, and are exact to
11 bits (float32: 22) down to 2^-28 of it. Max error: see fastssl/loss/_operators.py, Note [Sixteen bits].
Memory: operands, 2 bytes a number (float32: 4); sums of the gradient, 4 bytes a number and, where rows are few, up to 16
times that; 512 bytes a row at most for sums over columns; beyond 128 dimensions and for float32, 32 or 64 MiB for
weights.
On an H100 or H200, float16 and bfloat16 of 65 to 128 and of 193 to 256 dimensions, and the backward pass of others beyond
128, take kernels by wgmma (csrc/cuda/contrastive_wide*.h); FASTSSL_WGMMA=0 in the environment takes those of other GPUs, to
compare them.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastssl._native import _C
from fastssl.loss._rows import unit_rows
from fastssl.models._gather import MOST_ROWS
from fastssl.ops import render_cuda

__all__ = ["ROW_TYPES", "backward", "forward", "forward_with_means", "grid_of", "launch", "usable"]

ROW_TYPES = {
    torch.float32: _C.RowType.float32,
    torch.float16: _C.RowType.float16,
    torch.bfloat16: _C.RowType.bfloat16,
}

# Runs the kernels on the host, on tensors of the CPU: for tests. A grid that they take the device to be.
emulated_grid: Any = None


def usable(query: Tensor, key: Tensor | None) -> bool:
    """Whether `forward` and `backward` take these rows: their device, type and size. Others are for `_tiles`."""
    rows = (query,) if key is None else (query, key)
    return (
        _runs_on(query.device)
        and 1 <= query.shape[1] <= _C.CONTRASTIVE_MOST_DIMENSIONS
        # shape[0] and not len(), which would make a constant of a number of rows that is a symbol to the compiler.
        and all(r.dtype in ROW_TYPES and r.device == query.device and 1 <= r.shape[0] <= MOST_ROWS for r in rows)
    )


def forward(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor | float,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    positive: int | None,
    columns: bool,
    normalize_query: bool,
    normalize_key: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, (N,), positives, (N,) or (0,), and columns, (M,) or (0,): float32; -inf for a sum of nothing. See the module."""
    job, kept = _job(query, key, scale, query_ids, key_ids, positive, columns, normalize_query, normalize_key)
    rows = query.new_empty(len(query), dtype=torch.float32)
    positives = query.new_empty(0 if positive is None else len(query), dtype=torch.float32)
    sums = query.new_empty(0 if key is None or not columns else len(key), dtype=torch.float32)
    plan = _C.ForwardPlan(job, grid_of(query.device))
    workspace = query.new_empty(plan.bytes, dtype=torch.uint8)
    addresses = rows.data_ptr(), positives.data_ptr(), sums.data_ptr()
    launch(plan.launch, query.device, job, *addresses, workspace.data_ptr())
    del kept
    return rows, positives, rows.clone() if key is None and columns else sums


def forward_with_means(
    query: Tensor,
    key: Tensor,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    normalize_query: bool,
    normalize_key: bool,
) -> tuple[Tensor, Tensor]:
    """Rows, (N,), and the mean of the keys under the softmax of each row over its allowed entries, (N, D), float32.

    For a backward pass that needs no key: the gradient in the queries is grad_rows times scale times the mean. The kernels' own
    gives the mean as the gradient in rows that have their length already, where the gradient in each sum is 1 / scale.
    """
    rows_in = unit_rows(query, torch.float32)[0] if normalize_query else query
    if query.dtype != torch.float32:
        rows_in = rows_in.to(torch.float16)  # as the products have them
    options = (rows_in, key, scale, query_ids, key_ids, None, False, False, normalize_key)
    rows, _, none = forward(*options)
    each = scale.reciprocal().expand(len(rows))
    means, _, _ = backward(*options, rows, none, each, None, None, True, False)
    assert means is not None
    return rows, means.float()


def backward(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor | float,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    positive: int | None,
    columns: bool,
    normalize_query: bool,
    normalize_key: bool,
    rows_out: Tensor,
    columns_out: Tensor,
    grad_rows: Tensor | None,
    grad_positives: Tensor | None,
    grad_columns: Tensor | None,
    needs_query: bool,
    needs_key: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Gradients in query, (N, D), key, (M, D), and scale, (): each in its type, or float32; None where not needed.

    Args:
        rows_out, columns_out: Rows and columns that `forward` returned, or, of columns alone, what the same sums are
        elsewhere. grad_rows, grad_positives, grad_columns: Gradients in the three results, float32; None: zeros.
        needs_query, needs_key: Which are wanted; that in the scale always comes.
    """
    job, kept = _job(query, key, scale, query_ids, key_ids, positive, columns, normalize_query, normalize_key)
    if key is None and columns and grad_columns is not None:  # columns were the rows
        grad_rows = grad_columns if grad_rows is None else grad_rows + grad_columns
    if key is None or not columns:
        grad_columns = None
    if positive is None:
        grad_positives = None
    gradients = [rows_out, columns_out, grad_rows, grad_positives, grad_columns]
    kept += (vectors := [_vector(gradient) for gradient in gradients])
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format) if needs_query else None
    grad_key = None
    if key is not None and needs_key:
        grad_key = torch.empty_like(key, memory_format=torch.contiguous_format)
    grad_scale = query.new_empty((), dtype=torch.float32)
    plan = _C.BackwardPlan(job, grid_of(query.device), needs_query, key is not None and needs_key)
    workspace = query.new_empty(plan.bytes, dtype=torch.uint8)
    inputs = _C.BackwardInputs(*(_address(vector) for vector in vectors))
    addresses = _address(grad_query), _address(grad_key), grad_scale.data_ptr()
    launch(plan.launch, query.device, job, inputs, *addresses, workspace.data_ptr())
    del kept
    return grad_query, grad_key, grad_scale


def _job(
    query: Tensor,
    key: Tensor | None,
    scale: Tensor | float,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    positive: int | None,
    columns: bool,
    normalize_query: bool,
    normalize_key: bool,
) -> tuple[Any, list[Tensor | None]]:
    """The job in native terms, and what must live until its kernels are launched."""
    if (query_ids is None) != (key_ids is None) and key is not None:
        raise ValueError("contrastive kernels: query_ids without key_ids, or the reverse; give both or none.")
    if not isinstance(scale, Tensor):
        scale = torch.full((), scale, dtype=torch.float32, device=query.device)
    scale = scale.detach().to(query.device, torch.float32, non_blocking=True)
    kept: list[Tensor | None] = [scale]

    def matrix(rows: Tensor, ids: Tensor | None, normalize: bool) -> Any:
        rows = rows.detach()
        if rows.stride(1) != 1 and rows.shape[1] > 1:
            rows = rows.contiguous()
        ids = None if ids is None else ids.contiguous()
        kept.extend((rows, ids))
        address, type = rows.data_ptr(), ROW_TYPES[rows.dtype]
        return _C.RowMatrix(address, len(rows), rows.stride(0), _address(ids), normalize, type)

    native_query = matrix(query, query_ids, normalize_query)
    native_key = None if key is None else matrix(key, key_ids, normalize_key)
    shift = -1 if positive is None else positive % len(query if key is None else key)
    job = _C.ContrastiveJob(native_query, native_key, query.shape[1], scale.data_ptr(), shift, columns)
    return job, kept


def _runs_on(device: torch.device) -> bool:
    if device.type == "cpu":
        return emulated_grid is not None
    return device.type == "cuda" and render_cuda.why_not(device) is None


def grid_of(device: torch.device) -> Any:
    """The GPU as far as plans depend on it."""
    return emulated_grid if device.type == "cpu" else _gpu_grid(device.index)


@functools.lru_cache
def _gpu_grid(index: int) -> Any:
    """The GPU, for plans; read once, as the environment is."""
    asked = os.environ.get("FASTSSL_WGMMA")
    if asked not in (None, "", "0", "1"):
        raise ValueError(f"fastssl: FASTSSL_WGMMA={asked!r} must be 0 or 1, or not be set.")
    if not asked:
        with contextlib.suppress(RuntimeError):  # no such GPU, or a build without them
            return _C.GridSize.of(index, True)
    try:
        return _C.GridSize.of(index, asked == "1")
    except RuntimeError as error:
        hint = " Unset FASTSSL_WGMMA for the other kernels." if asked == "1" else ""
        raise RuntimeError(f"fastssl, cuda:{index}: {error}.{hint}") from error


def launch(native: Callable[..., None], device: torch.device, *arguments: Any) -> None:
    """Calls native code that launches kernels, with the device and torch's current stream there as its last arguments."""
    if device.type == "cpu":
        native(*arguments, -1, 0)
        return
    # As torch.cuda.current_stream and current_device have it, without their objects, which cost the host as much as a launch.
    stream = torch._C._cuda_getCurrentRawStream(device.index)
    if torch._C._cuda_getDevice() == device.index:
        native(*arguments, device.index, stream)
        return
    with torch.cuda.device(device):
        native(*arguments, device.index, stream)


def _vector(v: Tensor | None) -> Tensor | None:
    """As the kernels read it."""
    return None if v is None else v.detach().to(torch.float32).contiguous()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
