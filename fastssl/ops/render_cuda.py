"""Rendering by the CUDA kernels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastssl._native import _C
from fastssl.ops.pixels import Pixels

__all__ = ["WORKSPACE_BYTES", "FixedLaunches", "launch", "run", "serves", "why_not"]

# What the views in flight may take of the GPU's memory, bytes; one view may always take what it needs.
WORKSPACE_BYTES = 96 << 20


def serves(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether a build for these architectures ("80;90") has code for a GPU of this compute capability.

    Machine code runs on its own generation, from its own number on; the newest comes as PTX, too, which later GPUs compile.

    >>> serves("80;90", (8, 6)), serves("80;90", (7, 5)), serves("80;90", (12, 0)), serves("", (9, 0))
    (True, False, True, False)
    """
    built = [(int(number) // 10, int(number) % 10) for number in architectures.split(";") if number]
    return any(major == capability[0] and minor <= capability[1] for major, minor in built) or (
        bool(built) and capability > max(built)
    )


@functools.lru_cache
def why_not(device: torch.device) -> str | None:
    """Why the kernels cannot run on this GPU; None if they can."""
    architectures = _C.cuda_architectures()
    if not architectures:
        return "this build of fastssl has no CUDA kernels; install it again with nvcc on the PATH (FASTSSL_CUDA=ON)"
    capability = torch.cuda.get_device_capability(device)
    if not serves(architectures, capability):
        return (
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}, and this build of "
            f"fastssl has kernels for {architectures.replace(';', ', ')}; build it with "
            f"FASTSSL_CUDA_ARCHS={capability[0]}{capability[1]} (80 or newer), or move the images to the CPU"
        )
    return None


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
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        # Its table is copied from memory of the host that is soon used again, as a replay would find it.
        raise RuntimeError(
            "render: a CUDA graph is being captured, and would hold this one plan for ever; make a fastssl.ops.PreparedRender "
            "before the capture, and capture its launch()."
        )
    if device.type == "cuda" and (reason := why_not(device)) is not None:
        raise RuntimeError(f"render: {reason}.")
    run(_prepare(pixels, plan, specs, out, dtype, channels_last, workspace_bytes), device)


def run(prepared: Any, device: torch.device) -> None:
    """Launches what native code has prepared, on torch's current stream, with memory of torch's."""
    table = _to_device(prepared, device)
    workspace = torch.empty(prepared.workspace_bytes, dtype=torch.uint8, device=device)
    _launch(prepared, table, workspace)


class FixedLaunches:
    """A render whose launches and memory stay the same from plan to plan, so that a CUDA graph can hold them.

    Args:
        specs, out, dtype, channels_last, workspace_bytes: As for `launch`.
        most: Height and width that no image exceeds.
    """

    def __init__(
        self,
        specs: Sequence[Any],
        out: Sequence[Tensor],
        dtype: Any,
        channels_last: bool,
        most: tuple[int, int],
        workspace_bytes: int = WORKSPACE_BYTES,
    ) -> None:
        self._specs, self._out, self._most = specs, list(out), most
        self._form = (dtype, channels_last, workspace_bytes)
        self._prepared: Any = None

    def update(self, pixels: Pixels, plan: Tensor) -> None:
        """Takes a plan, and images, for the launches to come; on torch's current stream.

        Raises:
            RuntimeError: That stream is capturing a graph, which would hold this one plan.
            ValueError: The plan or the images need other launches than the first ones.
        """
        if self._out[0].device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "PreparedRender: update() while a CUDA graph is being captured, which would hold this one plan; call it before "
                "the capture and before each replay, and capture launch() alone."
            )
        prepared = _prepare(pixels, plan, self._specs, self._out, *self._form, self._most)
        device = self._out[0].device
        if self._prepared is None:
            self._table = torch.empty(prepared.table_bytes, dtype=torch.uint8, device=device)
            self._workspace = torch.empty(prepared.workspace_bytes, dtype=torch.uint8, device=device)
        elif not self._prepared.same_launches(prepared):
            raise ValueError(
                "PreparedRender: these images differ from the first ones in number, type or channels, or their plan holds what "
                "the recipe never draws; make another PreparedRender."
            )
        self._prepared = prepared
        self._table.copy_(_staged(prepared, device), non_blocking=True)

    def launch(self) -> None:
        """Renders by the plan last taken, in the order of torch's current stream."""
        if self._prepared is None:
            raise RuntimeError("PreparedRender: launch() before the first update(plan).")
        _launch(self._prepared, self._table, self._workspace)


def _prepare(
    pixels: Pixels,
    plan: Tensor,
    specs: Sequence[Any],
    out: Sequence[Tensor],
    dtype: Any,
    channels_last: bool,
    workspace_bytes: int,
    most: tuple[int, int] = (0, 0),
) -> Any:
    outputs = [tensor.data_ptr() for tensor in out]
    images = (pixels.table, pixels.number, pixels.step)
    return _C.prepare_render(specs, *images, plan.data_ptr(), outputs, dtype, channels_last, workspace_bytes, most)


def _staged(prepared: Any, device: torch.device) -> Tensor:
    """The table in memory from which a GPU can copy while the host goes on. torch frees it when the copy is done."""
    # On the CPU by name: torch.set_default_device() may say another.
    staged = torch.empty(prepared.table_bytes, dtype=torch.uint8, device="cpu", pin_memory=device.type == "cuda")
    prepared.write(staged.data_ptr())
    return staged


def _to_device(prepared: Any, device: torch.device) -> Tensor:
    return _staged(prepared, device).to(device, non_blocking=True)


def _launch(prepared: Any, table: Tensor, workspace: Tensor) -> None:
    device = table.device
    if device.type != "cuda":
        prepared.launch(table.data_ptr(), workspace.data_ptr(), -1, 0)
        return
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        prepared.launch(table.data_ptr(), workspace.data_ptr(), device.index, stream)
