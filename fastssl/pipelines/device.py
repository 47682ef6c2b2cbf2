"""The way of a batch to a device: gathered on the CPU, decoded by either, rendered on the device."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastssl._native import _C
from fastssl.ops.render import DTYPES
from fastssl.ops.render_cuda import WORKSPACE_BYTES
from fastssl.pipelines.decoder import Decoded, LeftImage
from fastssl.pipelines.forks import keep_for_ever
from fastssl.pipelines.streams import Event, Streams

__all__ = ["Decodings", "DevicePipeline", "Gathered"]

# Note [Torch's threads]
# What torch does on the CPU to more than some thousand numbers it does on threads of OpenMP, one for each core, and when they are
# done they spin for some milliseconds before they sleep: 6 ms of a core for each of them, where a batch of 256 takes 20. An index
# of a plan once a batch so took the cores from those that decode. From one batch for a device to the next there are to be no such
# calls: numpy copies on the thread that asks. tests/test_torch_threads.py looks for them.

_ALIGN = 256
_NOTHING = torch.empty(0, dtype=torch.uint8, device="cpu")
# Of the first blocks, before any batch was seen: bytes for an image.
_FIRST_PIXELS = 512 << 10
_FIRST_ENCODED = 128 << 10
# Pixels, in bytes, that a decoder of the device may make of one batch: 256 photographs of 500 x 375 are 144 MB. Four batches of
# them may be there at once: two decoded ahead, one being rendered, one being let go of; five, if the decoder works on two at a
# time. The rest is left to the CPU.
_ROOM = 256 << 20
# Batches that the host may have asked the consumer's stream for beyond the one that it works on: enough to keep a device busy.
_RUN_AHEAD = 2


@dataclass
class _Slot:
    """Memory for one batch: pixels, which the device copies, and encoded images, which a decoder of the device reads."""

    pixels: Tensor
    encoded: Tensor
    done: Event | None = None  # with what last used it


@dataclass
class Gathered:
    """Where the images of one batch go."""

    slot: _Slot | None  # until it is given back
    native: Any  # _C.Gather over it
    leave: int  # of how many images, from the first on, those that a decoder of the device can take stay encoded

    def left(self) -> list[LeftImage]:
        """Once the batch is gathered: what is left to the device."""
        block = self._slot().encoded
        base, end = block.data_ptr(), block.data_ptr() + block.numel()
        memory = block.numpy()  # of which a part takes a sixth of the time that one of a tensor does
        return [
            LeftImage(
                position,
                torch.from_numpy(memory[address - base : address - base + size])
                if base <= address < end
                else _bytes_at(address, size),
                height,
                width,
                window,
            )
            for position, address, size, height, width, window in self.native.left()
        ]

    def memory(self) -> Any:
        """What must be kept for as long as somebody reads or writes any of it."""
        return self.slot, self.native

    def _slot(self) -> _Slot:
        if self.slot is None:
            raise RuntimeError("a batch was given back while it was in use")
        return self.slot


@dataclass
class Decodings:
    """What a decoder of the device made of the images that were left to it."""

    images: dict[int, Decoded] = field(default_factory=dict)  # by position
    failed: list[int] = field(default_factory=list)
    ready: Event | None = None


class DevicePipeline:
    """Renders gathered batches on a device, on streams of its own, so that decoding, copying and training overlap.

    It outlives the iterations that it serves, one at a time, as pinned memory is dear to come by.

    A slot of memory is used again when the rendering of its batch is done, which its event says; one that is too small for a
    batch is followed by larger ones. What is made within `stream()` belongs to the rendering stream; `hand_over` lets the
    stream that takes it wait for it, and notes that use, so that its memory is not given out again before that is done. The host
    never waits for the device, unless it is some batches ahead.

    Args:
        streams: Of the device.
        batch_size: Images of a batch, at most.
        slots: Batches that may be under way.
    """

    def __init__(self, streams: Streams, batch_size: int, slots: int) -> None:
        self.streams = streams
        self.device = streams.device
        self._most = slots
        self._pixel_bytes = _round_up(batch_size * _FIRST_PIXELS)
        self._encoded_bytes = _round_up(batch_size * _FIRST_ENCODED)
        self._free: list[_Slot] = []  # the oldest first
        self._made = 0
        self._pid = os.getpid()
        # What a decoder read and gave belongs to other streams, or to no pool of torch's: it is held until it has been used.
        self._held: deque[tuple[Event, Any]] = deque()
        self._asked: deque[Event] = deque()  # what the consumer's stream was asked for, batch by batch

    def stream(self) -> AbstractContextManager[Any]:
        """Within it, work and memory are the rendering stream's."""
        return self.streams.rendering()

    def gather(self, images: int, leave: int = 0) -> Gathered:
        """Memory for the images of a batch to come, of which the first `leave` may stay encoded."""
        slot = self._take_slot(leave > 0)
        encoded = slot.encoded.data_ptr(), slot.encoded.numel()
        native = _C.Gather(slot.pixels.data_ptr(), slot.pixels.numel(), images, *encoded, _ROOM if leave else 0)
        return Gathered(slot, native, leave)

    def _take_slot(self, leaves: bool) -> _Slot:
        done = [i for i, slot in enumerate(self._free) if slot.done is None or slot.done.query()]
        if not done and (self._made < self._most or not self._free):
            self._made += 1
            return self._fitting(None, leaves)
        slot = self._free.pop(done[0] if done else 0)
        if slot.done is not None:
            slot.done.synchronize()
        return self._fitting(slot, leaves)

    def _fitting(self, slot: _Slot | None, leaves: bool) -> _Slot:
        """A slot with what is large enough of this one, which nobody uses any more, and the rest anew."""
        encoded_bytes = self._encoded_bytes if leaves else 0
        pixels = encoded = None
        if slot is not None:
            pixels = slot.pixels if slot.pixels.numel() >= self._pixel_bytes else None
            encoded = slot.encoded if slot.encoded.numel() >= encoded_bytes else None
            slot.pixels = slot.encoded = _NOTHING  # what is too small is let go of before more is asked for
        return _Slot(
            self.streams.staging(self._pixel_bytes) if pixels is None else pixels,
            self.streams.staging(encoded_bytes) if encoded is None else encoded,
        )

    def render(
        self,
        gathered: Gathered,
        decodings: Decodings,
        positions: Sequence[int],
        plan: Tensor,
        specs: Sequence[Any],
        forms: Sequence[tuple[torch.dtype, bool]],
        channels: int,
    ) -> list[Tensor]:
        """The views of the images at these positions; within `stream()`.

        Args:
            gathered: A batch that is gathered. Its slot is used again from now on.
            decodings: Of what was left encoded.
            positions: Of the images that are wanted.
            plan: What was drawn for these: (len(positions), V, len(PLAN_FIELDS)).
            specs: The V views, in native form.
            forms: Type and whether channels last, of each view.
            channels: Of the images.
        """
        if not positions:
            self.give_back(gathered, decodings)
            return []
        streams, native = self.streams, gathered.native
        if decodings.ready is not None:
            streams.wait(decodings.ready)
        block = streams.copy(gathered._slot().pixels[: native.pixels.used])
        beside = [streams.copy(_bytes_at(*piece)) for piece in native.pixels.beside]
        out = [
            streams.empty((len(positions), channels, spec.size, spec.size), dtype, last)
            for spec, (dtype, last) in zip(specs, forms, strict=True)
        ]
        wanted = set(positions)
        decoded = [(p, *image[:-1]) for p, image in decodings.images.items() if p in wanted]
        for form in dict.fromkeys(forms):  # one call for all views of one form
            which = [v for v in range(len(forms)) if forms[v] == form]
            drawn = _of_views(plan, which)
            prepared = _C.prepare_gathered(
                native,
                list(positions),
                block.data_ptr(),
                [piece.data_ptr() for piece in beside],
                decoded,
                [specs[v] for v in which],
                drawn.data_ptr(),
                [out[v].data_ptr() for v in which],
                DTYPES[form[0]],
                form[1],
                WORKSPACE_BYTES,
            )
            streams.launch(prepared)
        self.give_back(gathered, decodings)
        return out

    def give_back(self, gathered: Gathered, decodings: Decodings) -> None:
        """The memory of a batch, once what the current stream has been asked for so far is done. A second time: nothing."""
        slot, native = gathered.slot, gathered.native
        if slot is None:
            return
        if decodings.ready is not None:
            self.streams.wait(decodings.ready)
        # Larger ones only where one was too small: pinned memory is dear to come by.
        if native.pixels.taken > slot.pixels.numel():
            self._pixel_bytes = max(self._pixel_bytes, _round_up(int(native.pixels.taken * 1.125)))
        if native.encoded.taken > slot.encoded.numel():
            self._encoded_bytes = max(self._encoded_bytes, _round_up(int(native.encoded.taken * 1.125)))
        done = slot.done = self.streams.mark()
        self.hold(done, (slot, native, decodings))
        gathered.slot = None  # from here on it is not this batch's: an interrupt must not bring it here twice
        self._free.append(slot)
        while self._held and self._held[0][0].query():
            self._held.popleft()

    def hold(self, event: Event, things: Any) -> None:
        """Keeps these until `event` is reached; any thread may call it."""
        self._held.append((event, things))

    def leave(self, things: Any) -> bool:
        """Whether this is a fork of the process that has the device; then these stay untouched for as long as it runs."""
        if os.getpid() == self._pid:
            return False
        keep_for_ever(things)
        return True

    def close(self) -> None:
        """Waits until nothing of the memory is used any more, and lets go of what decoders gave."""
        while self._held:
            self._held[0][0].synchronize()
            self._held.popleft()

    def __del__(self) -> None:
        if not self.leave(dict(self.__dict__)):
            self.close()

    def upload(self, tensor: Tensor) -> Tensor:
        """Within `stream()`: a tensor of the host, on the device; the host may let go of it."""
        staged = self.streams.staging(tensor.nbytes)
        if tensor.numel():  # numpy: Note [Torch's threads]
            np.copyto(staged.numpy(), tensor.contiguous().view(-1).view(torch.uint8).numpy())
        return self.streams.copy(staged).view(tensor.dtype).view(tensor.shape)

    def mark(self) -> Event:
        """What has been asked so far of the consumer's stream, or within `stream()` of that one."""
        return self.streams.mark()

    def wait(self, mark: Event) -> None:
        """Within `stream()`: goes on when the stream that was marked has come so far."""
        self.streams.wait(mark)

    def hand_over(self, mark: Event, tensors: Sequence[Tensor]) -> None:
        """Lets the consumer's stream go on when the rendering stream has come to `mark`; it is about to use these tensors.

        The host waits only if the consumer's stream has more than two batches still to do: whoever asks for batches and never
        for a result would else fill the device's memory with them.
        """
        self._asked.append(self.streams.mark())
        if len(self._asked) > _RUN_AHEAD:
            self._asked.popleft().synchronize()
        self.streams.hand_over(mark, tensors)


def _round_up(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


def _of_views(plan: Tensor, which: Sequence[int]) -> Tensor:
    """The part of a plan, (B, V, fields), that says these views; Note [Torch's threads]."""
    if len(which) == plan.shape[1]:
        return plan.contiguous()
    return torch.from_numpy(np.take(plan.numpy(), which, axis=1))


def _bytes_at(address: int, size: int) -> Tensor:
    return torch.frombuffer(_C.memory_at(address, size), dtype=torch.uint8)
