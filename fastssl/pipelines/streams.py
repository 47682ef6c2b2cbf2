"""Streams, events and memory of a device, as the pipelines use them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from fastssl.ops.render_cuda import run

__all__ = ["CudaStreams", "Event", "HostStreams", "Streams", "indexed"]


class Event(Protocol):
    """A place in what a stream was asked for."""

    def query(self) -> bool:
        """Whether it was reached."""
        ...

    def synchronize(self) -> None:
        """Waits until it is."""
        ...


class Streams(Protocol):
    """Two streams beside the consumer's: one that renders, one on which a decoder's results appear.

    Within `rendering()` and `decoding()`, `copy`, `empty` and `launch` belong to that stream, in which memory that is let go of
    may be given out again at once: what another stream still reads must be held, or noted by `hand_over`.
    """

    device: torch.device

    def rendering(self) -> AbstractContextManager[Any]: ...
    def decoding(self) -> AbstractContextManager[Any]: ...

    def mark(self) -> Event:
        """What the current stream has been asked for so far."""
        ...

    def wait(self, event: Event) -> None:
        """Lets the current stream go on when `event` is reached."""
        ...

    def staging(self, size: int) -> Tensor:
        """Memory of the host, (size,), uint8, that a device can copy from while the host goes on."""
        ...

    def copy(self, host: Tensor) -> Tensor:
        """On the device. `host` must keep its contents until that is done."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor: ...
    def launch(self, prepared: Any) -> None: ...

    def hand_over(self, event: Event, tensors: Iterable[Tensor]) -> None:
        """Outside of both: lets the consumer's stream go on when `event` is reached, and notes that it uses these tensors."""
        ...


def indexed(device: torch.device) -> torch.device:
    """The device by its number: "cuda" is the current GPU."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


class CudaStreams:
    """Of a GPU, with torch's caching allocator."""

    def __init__(self, device: torch.device) -> None:
        self.device = indexed(device)
        self._rendering = torch.cuda.Stream(device)
        self._decoding = torch.cuda.Stream(device)

    def rendering(self) -> AbstractContextManager[Any]:
        return self._on(self._rendering)

    def decoding(self) -> AbstractContextManager[Any]:
        return self._on(self._decoding)

    @contextlib.contextmanager
    def _on(self, stream: torch.cuda.Stream) -> Iterator[None]:
        # The device first: the stream's own context ends by making the device current that was so before, and on a thread that
        # never chose one that is GPU 0, where this would set up a context, some hundred MB, for each process of a machine.
        with torch.cuda.device(self.device), torch.cuda.stream(stream):
            yield

    def mark(self) -> Event:
        # Blocking: whoever waits for it sleeps, and leaves the core to threads that decode.
        event = torch.cuda.Event(blocking=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def wait(self, event: Any) -> None:
        torch.cuda.current_stream(self.device).wait_event(event)

    def staging(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)

    def copy(self, host: Tensor) -> Tensor:
        return host.to(self.device, non_blocking=True)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
        return _empty(shape, dtype, channels_last, self.device)

    def launch(self, prepared: Any) -> None:
        run(prepared, self.device)

    def hand_over(self, event: Any, tensors: Iterable[Tensor]) -> None:
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for tensor in tensors:
            tensor.record_stream(current)


class _Now:
    """Everything that was asked for is done."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class HostStreams:
    """Of no device: the kernels run on the host, at once."""

    device = torch.device("cpu")

    def rendering(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def decoding(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def mark(self) -> Event:
        return _Now()

    def wait(self, event: Event) -> None:
        pass

    def staging(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device="cpu")

    def copy(self, host: Tensor) -> Tensor:
        return host.clone()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
        return _empty(shape, dtype, channels_last, self.device)

    def launch(self, prepared: Any) -> None:
        run(prepared, self.device)

    def hand_over(self, event: Event, tensors: Iterable[Tensor]) -> None:
        pass


def _empty(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, device: torch.device) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=device, memory_format=layout)
