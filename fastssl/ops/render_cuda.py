"""Rendering by the CUDA kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastssl._native import _C
from fastssl.ops.pixels import Pixels

__all__ = ["WORKSPACE_BYTES", "launch"]

# What the views in flight may take of the GPU's memory, bytes; one view may always take what it needs.
WORKSPACE_BYTES = 96 << 20


def launch(
    pixels: Pixels,
    plan: Tensor,
    specs: Sequence[Any],
    out: Sequence[Tensor],
    dtype: Any,
    channels_last: bool,
    workspace_bytes: int = WORKSPACE_BYTES,
) -> None:
    """Renders into `out`, on its device, in the order of torch's current stream there, without waiting for it.

    With tensors on the CPU, the kernels themselves run there, thread by thread: for tests.
    """
    if not out or not pixels.number:
        return
    device = out[0].device
    on_gpu = device.type == "cuda"
    if on_gpu and torch.cuda.is_current_stream_capturing():
        # Its table is copied from memory of the host that is soon used again, as a replay would find it.
        raise RuntimeError(
            "render: a CUDA graph is being captured, of which it cannot be part, since each batch has a plan of its own; call it "
            "before the capture and before each replay, with out= for the tensors that the graph reads."
        )
    prepared = _C.prepare_render(
        specs,
        pixels.table,
        pixels.number,
        pixels.step,
        plan.data_ptr(),
        [tensor.data_ptr() for tensor in out],
        dtype,
        channels_last,
        workspace_bytes,
    )
    # Named, as torch.set_default_device() may say another.
    table = torch.empty(prepared.table_bytes, dtype=torch.uint8, device="cpu", pin_memory=on_gpu)
    prepared.write(table.data_ptr())
    table = table.to(device, non_blocking=True)
    workspace = torch.empty(prepared.workspace_bytes, dtype=torch.uint8, device=device)
    stream = torch.cuda.current_stream(device).cuda_stream if on_gpu else 0
    prepared.launch(table.data_ptr(), workspace.data_ptr(), device.index if on_gpu else -1, stream)
