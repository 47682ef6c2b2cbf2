"""Batches for a GPU: decoded on the CPU into memory that the GPU copies from, rendered there."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastssl._native import _C
from fastssl.data.batch import Batch
from fastssl.ops.render import DTYPES
from fastssl.ops.render_cuda import WORKSPACE_BYTES, run

__all__ = ["DeviceViews", "Gathered"]

_ALIGN = 256
# Of the first blocks, before any batch was seen: bytes for an image.
_FIRST_GUESS = 512 << 10


@dataclass
class Gathered:
    """Where the decoded images of one batch go."""

    block: Tensor  # bytes, pinned
    native: Any  # _C.Gather over it


class DeviceViews:
    """Renders gathered batches on a device, on a stream of its own, so that decoding, copying and training overlap.

    A block of pinned memory is used again when the copy from it is done, which its event says; one that is too small for a
    batch is followed by larger ones. What is made within `stream()` belongs to the side stream; `hand_over` lets the stream that
    takes it wait for it, and notes that use, so that its memory is not given out again before that is done. The host never
    waits for the device, unless it is more batches ahead than there are blocks.

    Args:
        device: A GPU. On the CPU the kernels run on the host, and streams and events are not needed: for tests.
        batch_size: Images of a batch, at most.
        blocks: Batches that may be under way.
    """

    def __init__(self, device: torch.device, batch_size: int, blocks: int) -> None:
        self._on_gpu = device.type == "cuda"
        if self._on_gpu and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        self._batch_size = batch_size
        self._most = blocks
        self._bytes = _round_up(batch_size * _FIRST_GUESS)
        self._free: list[tuple[Tensor, torch.cuda.Event | None]] = []  # the oldest first
        self._made = 0
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None

    def stream(self) -> AbstractContextManager[Any]:
        """Within it, work and memory are the side stream's."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def mark(self) -> torch.cuda.Event | None:
        """Within `stream()`: what has been asked of it so far."""
        return self._stream.record_event() if self._stream is not None else None

    def hand_over(self, batch: Batch, mark: torch.cuda.Event | None) -> Batch:
        """The batch, for the current stream, which goes on when the side stream has come to `mark`."""
        if mark is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(mark)
            for tensor in (*batch.views, batch.targets):
                tensor.record_stream(current)
        return batch

    def gather(self, images: int) -> Gathered:
        """Memory for the decoded images of a batch to come."""
        block = self._take_block()
        return Gathered(block, _C.Gather(block.data_ptr(), block.numel(), images))

    def _take_block(self) -> Tensor:
        done = [i for i, (_, event) in enumerate(self._free) if event is None or event.query()]
        if not done and (self._made < self._most or not self._free):
            self._made += 1
            return self._new_block()
        block, event = self._free.pop(done[0] if done else 0)
        if event is not None:
            event.synchronize()
        return block if block.numel() >= self._bytes else self._new_block()

    def _new_block(self) -> Tensor:
        return torch.empty(self._bytes, dtype=torch.uint8, device="cpu", pin_memory=self._on_gpu)

    def render(
        self,
        gathered: Gathered,
        positions: Sequence[int],
        plan: Tensor,
        specs: Sequence[Any],
        forms: Sequence[tuple[torch.dtype, bool]],
        channels: int,
    ) -> list[Tensor]:
        """The views of the images at these positions; within `stream()`.

        Args:
            gathered: A batch that is decoded. Its block is used again from now on.
            positions: Of the images that are wanted.
            plan: What was drawn for these: (len(positions), V, len(PLAN_FIELDS)).
            specs: The V views, in native form.
            forms: Type and whether channels last, of each view.
            channels: Of the images.
        """
        block = gathered.block[: gathered.native.used].to(self.device, non_blocking=True)
        beside = [_bytes_at(*piece).to(self.device) for piece in gathered.native.beside]
        self._give_back(gathered)
        out = [
            torch.empty(
                (len(positions), channels, spec.size, spec.size),
                dtype=dtype,
                device=self.device,
                memory_format=torch.channels_last if last else torch.contiguous_format,
            )
            for spec, (dtype, last) in zip(specs, forms, strict=True)
        ]
        for form in dict.fromkeys(forms):  # one call for all views of one form
            which = [v for v in range(len(forms)) if forms[v] == form]
            drawn = plan[:, which].contiguous()
            prepared = _C.prepare_gathered(
                gathered.native,
                list(positions),
                block.data_ptr(),
                [piece.data_ptr() for piece in beside],
                [specs[v] for v in which],
                drawn.data_ptr(),
                [out[v].data_ptr() for v in which],
                DTYPES[form[0]],
                form[1],
                WORKSPACE_BYTES,
            )
            run(prepared, self.device)
        return out

    def _give_back(self, gathered: Gathered) -> None:
        """The block, once what has been asked for so far is done."""
        self._bytes = max(self._bytes, _round_up(int(gathered.native.taken * 1.125)))
        self._free.append((gathered.block, self.mark()))


def _round_up(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


def _bytes_at(address: int, size: int) -> Tensor:
    return torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)
