"""Stand-ins for a device, by which the way of batches to one is tested where there is none.

`on_host` puts a loader on one. `HostStreams` does everything at once. `SlowStreams` does everything later, as a GPU does: each
stream is a thread that works off what it was asked for, in order, now and then with a pause. Its memory is torch's caching
allocator in small: a block that is let go of belongs to the stream it came from at once, and is spoilt in that stream's order, so
that whoever still reads it on another stream, and did not say so, reads nonsense.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastssl import ops
from fastssl.data.device_choice import DeviceChoice
from fastssl.data.making import Device
from fastssl.ops.render_cuda import run
from fastssl.pipelines.balance import Balance
from fastssl.pipelines.choose import Choice
from fastssl.pipelines.decoder import Decoded, Decoder, LeftImage, decoded_of
from fastssl.pipelines.device import DevicePipeline
from fastssl.pipelines.streams import HostStreams, Streams

SPOILT = 0xAB


def on_host(
    loader: Any,
    decoder: Decoder | None = None,
    share: float = 1.0,
    streams: Streams | None = None,
    balanced: bool = False,
    most: int | None = None,
) -> Any:
    """The loader, whose views are rendered by the kernels compiled for the host; `decoder` gets a share of each batch."""
    choice = Choice(decoder=None if decoder is None else "nvjpeg", share=share, balanced=balanced)

    def make() -> Device:
        pipeline = DevicePipeline(streams or HostStreams(), loader.batch_size, slots=loader.prefetch + 3)
        return Device(choice, decoder, Balance(choice.share, fixed=not balanced), pipeline, most)

    loader._device_choice = OnHost(make)  # DeviceLoader makes its own only when it iterates
    return loader


class OnHost(DeviceChoice):
    """Gives what `make` makes, and what came back of it."""

    def __init__(self, make: Callable[[], Device]) -> None:
        self._make_one, self._idle = make, None

    def take(self, measure: Any, plain: Any) -> Device:
        return self._again() or self._make_one()


class HostDecoder:
    """Decodes by fastssl's own decoder; refuses what `refuses` says, as a GPU does that is given what it cannot decode."""

    name = "host"

    def __init__(self, refuses: Callable[[LeftImage], bool] = lambda image: False) -> None:
        self.refuses = refuses
        self.images = 0
        self._used = threading.Lock()

    def decode(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        assert self._used.acquire(blocking=False), "two threads use this decoder"
        try:
            self.images += len(images)
            return [None if self.refuses(image) else self._decode(image) for image in images]
        finally:
            self._used.release()

    def _decode(self, image: LeftImage) -> Decoded:
        return decoded_of(ops.decode(image.data.clone()), planes=False)


# Of a thread that is a stream's: which stream.
_here = threading.local()


class Event:
    """A place in what a stream was asked for."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._reached = threading.Event()
        self._pid = os.getpid()

    def _check(self) -> None:
        if os.getpid() != self._pid:  # as CUDA has it
            raise RuntimeError("the device is used in a forked child")

    def query(self) -> bool:
        self._check()
        return self._reached.is_set()

    def synchronize(self) -> None:
        self._check()
        if not self._reached.is_set():
            waiting = getattr(_here, "stream", None)
            if waiting is None:
                self._stream.host_waits.set()
            else:
                waiting.waits_for = self
        assert self._reached.wait(60), "the stream does not go on"

    def reach(self) -> None:
        self._reached.set()


class Stream:
    """A thread that works off what it is asked for.

    Attributes:
        going: Cleared: it stands still.
        host_waits: Set when the host, or any thread that is no stream's, begins to wait for what is not done yet.
        waits_for: The event that it waits for, or did last.
    """

    def __init__(self, pause_seconds: float, seed: int) -> None:
        self._work: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._draw = random.Random(seed)
        self.pause_seconds = pause_seconds
        self.going = threading.Event()
        self.going.set()
        self.host_waits = threading.Event()
        self.waits_for: Event | None = None
        self._left: list[
            None
        ] = []  # as many as there is work; a finalizer may come between reading a number and writing it
        self._done, self._held_up = 0, False
        self.errors: list[BaseException] = []
        self._ended = False
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _here.stream = self
        while (work := self._work.get()) is not None:
            if self._draw.random() < 0.5:
                time.sleep(self._draw.random() * self.pause_seconds)
            self._held_up = True
            self.going.wait()
            self._held_up = False
            try:
                work()
            except Exception as error:  # noqa: BLE001
                self.errors.append(error)
            del work
            self._left.pop()
            self._done += 1

    def progress(self) -> tuple[int, int]:
        """How much is left to do, and how much it has done."""
        return len(self._left), self._done

    def is_stuck(self) -> bool:
        """Whether it has nothing to do, stands still, or waits for another."""
        waits = self.waits_for is not None and not self.waits_for.query()
        return waits or not self._left or (self._held_up and not self.going.is_set())

    def join(self) -> None:
        self._thread.join()

    def do(self, work: Callable[[], Any]) -> None:
        with self._lock:
            if not self._ended:
                self._left.append(None)
                self._work.put(work)
                return
        if threading.current_thread() is not self._thread:
            self._thread.join()
        work()

    def mark(self) -> Event:
        event = Event(self)
        self.do(event.reach)
        return event

    def end(self) -> None:
        """What comes from now on is done at once, after what is left to do. A thread must not outlive the interpreter."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self.going.set()
                self._work.put(None)


class SlowStreams:
    """See the module. What the consumer does with a batch, it says to `consumer`."""

    device = torch.device("cpu")

    def __init__(self, pause_seconds: float = 0.004, seed: int = 0) -> None:
        self.streams = [Stream(pause_seconds, seed + i) for i in range(3)]
        self.render_stream, self.decode_stream, self.consumer = self.streams
        self._here = threading.local()
        self._lock = threading.RLock()  # finalizers come whenever they like
        self._free: dict[tuple[int, int], list[np.ndarray]] = {}
        self._used_by: dict[int, set[int]] = {}  # by address: streams, beside its own, that were said to use it
        self._pid = os.getpid()
        self.staged = 0  # how often memory of the host was asked for
        self.reused = 0

    def _current(self) -> Stream:
        if os.getpid() != self._pid:
            raise RuntimeError("the device is used in a forked child")
        return self.streams[getattr(self._here, "stream", 2)]

    @contextlib.contextmanager
    def _within(self, stream: int) -> Iterator[None]:
        before = getattr(self._here, "stream", 2)
        self._here.stream = stream
        try:
            yield
        finally:
            self._here.stream = before

    def rendering(self) -> Any:
        return self._within(0)

    def decoding(self) -> Any:
        return self._within(1)

    def mark(self) -> Event:
        return self._current().mark()

    def wait(self, event: Event) -> None:
        self._current().do(event.synchronize)

    def staging(self, size: int) -> Tensor:
        self.staged += 1
        return torch.full((size,), SPOILT, dtype=torch.uint8)

    def copy(self, host: Tensor) -> Tensor:
        out = self.empty(tuple(host.shape), host.dtype, False)
        address, size = out.data_ptr(), host.nbytes  # not the tensor: memory is held by whoever asked for it
        self._current().do(lambda: _bytes(address, size).copy_(host.view(-1).view(torch.uint8)))
        return out

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
        like = torch.empty(shape, dtype=dtype, device="meta")
        if channels_last:
            like = like.to(memory_format=torch.channels_last)
        size = like.numel() * dtype.itemsize
        key = (getattr(self._here, "stream", 2), size)
        with self._lock:
            free = self._free.setdefault(key, [])
            self.reused += bool(free)
            memory = free.pop() if free else np.full(max(size, 1), SPOILT, dtype=np.uint8)
            self._used_by[memory.ctypes.data] = set()
        lent = memory[:]
        weakref.finalize(lent, self._let_go, key, memory)
        return torch.from_numpy(lent)[:size].view(dtype).as_strided(shape, like.stride())

    def _let_go(self, key: tuple[int, int], memory: np.ndarray) -> None:
        owner = self.streams[key[0]]
        with self._lock:
            users = self._used_by.pop(memory.ctypes.data)
        for event in [self.streams[user].mark() for user in users]:
            owner.do(event.synchronize)

        def spoil() -> None:
            memory.fill(SPOILT)
            with self._lock:
                self._free[key].append(memory)

        owner.do(spoil)

    def launch(self, prepared: Any) -> None:
        self._current().do(lambda: run(prepared, self.device))

    def hand_over(self, event: Event, tensors: Iterable[Tensor]) -> None:
        self.consumer.do(event.synchronize)
        with self._lock:
            for tensor in (t for t in tensors if t.numel()):
                self._used_by[tensor.data_ptr()].add(2)

    # For tests

    def read(self, batch: Any, into: list[Any]) -> None:
        """Asks the consumer's stream for copies of a batch; nothing of the batch is held for that."""
        parts = [(t.data_ptr(), t.shape, t.stride(), t.dtype, t.untyped_storage().nbytes()) for t in batch.views]
        target = (
            batch.targets.data_ptr(),
            batch.targets.shape,
            batch.targets.stride(),
            torch.int64,
            batch.targets.nbytes,
        )

        def copy() -> None:
            into.append([_bytes(a, size).view(t).as_strided(s, st).clone() for a, s, st, t, size in [*parts, target]])

        self.consumer.do(copy)

    def synchronize(self) -> None:
        for stream in self.streams:
            stream.mark().synchronize()
        for stream in self.streams:
            for error in stream.errors:
                raise error

    def settle(self) -> None:
        """Returns when no stream can go on by itself: each has nothing left to do, stands still, or waits for another."""
        while True:
            before = [stream.progress() for stream in self.streams]
            stuck = all(stream.is_stuck() for stream in self.streams)
            # One may have gone on, and have let another go on that was looked at before.
            if stuck and before == [stream.progress() for stream in self.streams]:
                return
            time.sleep(0.001)

    def end(self) -> None:
        for stream in self.streams:
            stream.end()
        for stream in self.streams:
            stream.join()


class SlowDecoder(HostDecoder):
    """Decodes in the order of the decoding stream, from memory as it then is, into memory of that stream."""

    def __init__(self, streams: SlowStreams, **options: Any) -> None:
        super().__init__(**options)
        self._streams = streams

    def _decode(self, image: LeftImage) -> Decoded:
        out = self._streams.empty((image.height, image.width, 3), torch.uint8, False)
        address, size = out.data_ptr(), out.nbytes
        data, length = image.data.data_ptr(), image.data.numel()
        self._streams._current().do(
            lambda: _bytes(address, size).copy_(ops.decode(_bytes(data, length).clone()).view(-1))
        )
        return decoded_of(out, planes=False)


def _bytes(address: int, size: int) -> Tensor:
    if not size:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)
