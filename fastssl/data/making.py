"""Making batches: what is under way, its memory, its end. What the batches hold, subclasses say."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from fastssl._native import _C, PLAN_FIELDS, DecodeError
from fastssl.data import endings
from fastssl.data.batch import Batch
from fastssl.data.faults import Fault, OnError
from fastssl.data.tally import Tally
from fastssl.ops.render import DTYPES, encode_recipe, native_views, render_after
from fastssl.pipelines.ahead import DecodeAhead
from fastssl.pipelines.balance import Balance
from fastssl.pipelines.choose import Choice
from fastssl.pipelines.decoder import Decoder
from fastssl.pipelines.device import Decodings, DevicePipeline, Gathered
from fastssl.pipelines.streams import Event
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Recipe

__all__ = ["Device", "Flight", "Making", "Settings"]

# Between two looks at whether Ctrl-C was pressed.
_WAIT_MILLISECONDS = 100
# Between two looks at whether the device still has work: a share of the images moves by how long it has none.
_LOOK_MILLISECONDS = 2


class _InterpreterEnds(BaseException):
    """Nobody is left to take the batch that is waited for."""


class Settings(Protocol):
    """What the Loader and its like say of their batches."""

    recipe: Recipe
    batch_size: int
    device: torch.device
    threads: int
    prefetch: int
    dtype: torch.dtype
    channels_last: bool
    on_error: OnError
    errors: list[Fault]
    _stats: dict[str, Any]


@dataclass
class Device:
    """What renders on a device, and what decodes there, all or a share; without a decoder, the CPU does."""

    choice: Choice
    decoder: Decoder | None
    balance: Balance
    pipeline: DevicePipeline
    most: int | None = None  # images of a batch that the decoder takes; None: any number


@dataclass
class Flight:
    """A batch that is being made.

    Args:
        indices: Of its samples; also their place in the draw.
        epoch: Of the draw.
        views: What the engine writes; nothing where images are gathered for a device.
        gathered: For a device, until it is rendered.
        plan: (B, V, fields).
        job: Of the engine.
        decodings: What the device decodes, from the moment on when the job is done.
        share: Of the images, that was to be left to the device.
        more: The subclass's.
    """

    indices: Tensor
    epoch: int
    views: list[Tensor]
    gathered: Gathered | None
    plan: Tensor
    share: float
    more: Any
    bad: set[int] = field(default_factory=set)  # positions of samples that cannot be read
    job: Any = None
    decodings: Future[Decodings] | None = None
    waited_cpu: float = 0.0  # seconds of the consumer
    waited_device: float = 0.0
    asked: Event | None = None  # what the consumer's stream had to do when it began to wait
    starved: float = 0.0  # seconds of the waits in which it had done that


@dataclass
class _Made:
    """A batch that is there, or that a device has been asked for; or why there is none."""

    flight: Flight
    batch: Batch
    mark: Any


@dataclass
class _Failed:
    """A batch that could not be made ahead."""

    flight: Flight
    error: Exception


class Making(Iterator[Batch]):
    """Yields batches, several of which are under way at a time.

    Closes itself at the end, on errors, and when let go of.

    Args:
        who: Names it in errors.
        settings: Of its batches.
        device: Where views are made; None for the CPU.
        pool: Memory for batches on the CPU; None for a new one.
        channels: Of the images.
        engine: Further arguments of the engine.
    """

    def __init__(
        self,
        who: str,
        settings: Settings,
        device: Device | None,
        pool: _C.BufferPool | None,
        channels: int,
        crashes: list[Exception],
        engine: dict[str, Any],
    ) -> None:
        self._closed = True  # until all is there
        self._closing = threading.Lock()  # who gets it closes
        self._who = who
        self._settings = settings
        self._channels = channels
        self._pid = os.getpid()
        encoded = encode_recipe(settings.recipe)
        self._custom = [view.custom is not None for view in settings.recipe]
        parts = zip(self._custom, native_views(encoded), native_views(encoded, "before_custom"), strict=True)
        self._views = [before if custom else whole for custom, whole, before in parts]
        self._pending: deque[Flight] = deque()
        self._ready: deque[_Made | _Failed] = deque()  # what the device makes already
        self._taken_up: Flight | None = None  # between the two
        self._ending: Exception | None = None  # of what should have followed these
        self._device = device
        self._pipeline: DevicePipeline | None = None
        self._ahead: DecodeAhead | None = None
        self._balance = Balance(0.0, fixed=True)
        self._tally = Tally()
        self._last: float | None = None  # when a batch was there
        self._lock = threading.RLock()  # of whoever makes a batch; that thread may close, too
        self._dropped, self._dropped_first = 0, ""
        self._bad = {self._key(fault) for fault in settings.errors}
        self._crashes = crashes
        self._pool = pool or _C.BufferPool(kept=(settings.prefetch + 2) * (len(self._views) + sum(self._custom)))
        self._engine = _C.Engine(threads=settings.threads, views=self._views, channels=channels, **engine)
        if device is not None:
            self._pipeline, self._balance = device.pipeline, device.balance
            if device.decoder is not None:
                self._ahead = DecodeAhead(device.decoder, device.pipeline.streams, device.pipeline.hold)
        self._closed = False
        endings.begin(self)

    # What subclasses say

    @abstractmethod
    def _following(self) -> Flight | None:
        """Starts the batch that comes next; None at the end."""

    def _can_follow(self) -> bool:
        """Whether `_following` has not to wait for others."""
        return True

    @abstractmethod
    def _describe(self, flight: Flight, indices: Tensor) -> tuple[Tensor, list[str]]:
        """Targets (B,) and filenames of a batch that is decoded."""

    @abstractmethod
    def _fault(self, flight: Flight, position: int, reason: str) -> Fault:
        """What is wrong with a sample that cannot be read."""

    @staticmethod
    def _key(fault: Fault) -> int | str:
        """What tells a bad sample from others."""
        return fault.index

    @abstractmethod
    def _again(self, flight: Flight, position: int) -> Any:
        """A job that makes this sample once more, on the CPU."""

    @abstractmethod
    def _replace(self, flight: Flight, position: int, fault: Fault) -> int:
        """Fills the place of a bad sample with a good one, and returns its index. `fault`: what is wrong with the bad one."""

    def _taken(self, flight: Flight) -> None:
        """Called for each batch as it is taken up."""

    def _gathered(self, flight: Flight) -> None:
        """Called for each batch once its job is done."""

    def _kept(self, indices: list[int]) -> None:
        """Called for each batch with the samples that stay in it."""

    def _handed(self, flight: Flight) -> None:
        """Called for each batch just before it is handed out."""

    def _ended(self, pool: _C.BufferPool) -> None:
        """Called at the end, with the memory of the batches."""

    def _let_go(self, device: Device) -> None:
        """Called when the device is no longer used here, in whatever way that comes."""

    # Making batches

    def _start(self, flight: Flight, submit: Callable[[Flight], Any]) -> Flight:
        """Starts the samples of a flight on their way; `submit` gives the job."""
        flight.job = submit(flight)
        if self._ahead is not None and flight.gathered is not None and flight.gathered.leave:
            flight.decodings = self._ahead.start(flight.job, flight.gathered)
        return flight

    def _prepare(self, indices: Tensor, epoch: int, more: Any) -> Flight:
        """Memory for a batch of so many samples."""
        n = len(indices)
        gathered = None if self._pipeline is None else self._pipeline.gather(n, self._leave(n))
        views = self._lease_views(n) if gathered is None else []
        plan = torch.empty((n, len(self._views), len(PLAN_FIELDS)), dtype=torch.float32, device="cpu")
        return Flight(indices, epoch, views, gathered, plan, self._balance.share, more)

    def _leave(self, n: int) -> int:
        """How many of so many samples stay encoded."""
        most = None if self._device is None else self._device.most
        return self._balance.leave(n) if most is None else min(self._balance.leave(n), most)

    def _outputs(self, flight: Flight) -> dict[str, Any]:
        """Where the engine is to write: arguments of submit()."""
        if flight.gathered is not None:
            return {"outputs": [], "plans": flight.plan.data_ptr(), "gather": flight.gathered.native}
        outputs = [
            (view.data_ptr(), DTYPES[dtype], last)
            for view, (dtype, last) in zip(flight.views, self._forms(), strict=True)
        ]
        return {"outputs": outputs, "plans": flight.plan.data_ptr()}

    def _forms(self) -> list[tuple[torch.dtype, bool]]:
        """Type and memory format of what comes before the custom steps."""
        own = (self._settings.dtype, self._settings.channels_last)
        return [(torch.float32, False) if custom else own for custom in self._custom]

    def _lease(self, n: int, size: int, dtype: torch.dtype, channels_last: bool) -> Tensor:
        """A view of n samples, in memory that comes back to the pool when its last user lets go of it."""
        channels = self._channels
        numel = channels * size * size
        lease = self._pool.lease(self._settings.batch_size * numel * dtype.itemsize)
        flat = torch.frombuffer(lease, dtype=dtype, count=n * numel)
        if channels_last:
            return flat.view(n, size, size, channels).permute(0, 3, 1, 2)
        return flat.view(n, channels, size, size)

    def _lease_views(self, n: int) -> list[Tensor]:
        """What the engine writes: the views, or what their custom steps take."""
        return [self._lease(n, view.size, *form) for view, form in zip(self._views, self._forms(), strict=True)]

    def _customize(self, batch: Batch) -> Batch:
        """Goes on with the views that have a step of the user's own."""
        settings = self._settings
        for v, view in enumerate(settings.recipe):
            if self._custom[v]:
                form = (settings.dtype, settings.channels_last)
                batch.views[v] = render_after(
                    view,
                    batch.views[v],
                    batch.params.data[:, v],
                    dtype=settings.dtype,
                    channels_last=settings.channels_last,
                    threads=settings.threads,
                    out=None if self._pipeline is not None else self._lease(len(batch), view.size, *form),
                )
        return batch

    def _wait(self, done: Callable[[int], bool], flight: Flight | None = None) -> float:
        """Waits, and returns the seconds that it took; a flight gets those in which the consumer's stream had nothing to do.

        Args:
            done: Waits for at most so many milliseconds, and says whether all is done.
        """
        asked = None if flight is None else flight.asked
        started = busy = time.perf_counter()
        while True:
            there = done(_WAIT_MILLISECONDS if asked is None else _LOOK_MILLISECONDS)
            now = time.perf_counter()
            if asked is not None and asked.query():
                asked = None
            elif asked is not None:
                busy = now
            if there:
                break
            # Back in Python, where Ctrl-C becomes an exception.
            if self._closed and endings.interpreter_ends():
                raise _InterpreterEnds
            if self._closed:
                raise RuntimeError(f"{self._who}: the iteration was closed by another thread while this one waited.")
        self._tally.waited += now - started
        if flight is not None:
            flight.starved += now - busy
        return now - started

    def _wait_for(self, job: Any, flight: Flight | None = None) -> float:
        seconds = self._wait(job.wait, flight)
        if self._crashes:
            raise self._crashes[0]
        return seconds

    def __next__(self) -> Batch:
        # Threads may share an iteration; each batch goes to one of them. What is made ahead is to be an ordinary tensor, whatever
        # the mode in which this one is asked for.
        with self._lock, torch.inference_mode(False), torch.no_grad(), endings.at_work():
            try:
                return self._next()
            except _InterpreterEnds:
                pass  # and so the batch at hand dies here, where it is waited for
        raise StopIteration  # a thread that nobody waits for has nothing to complain of

    def _next(self) -> Batch:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"{self._who}: this iteration was begun in another process, whose threads do not exist here; call iter() here."
            )
        if self._closed:
            raise StopIteration
        try:
            while True:
                self._fill()
                if not self._pending and not self._ready:
                    if self._ending is not None:
                        raise self._ending
                    if self._dropped and not self._tally.images:
                        raise DecodeError(
                            f"{self._who}: none of {self._dropped} samples can be read; the first: {self._dropped_first}"
                        )
                    # At its end, and only there, the memory is kept: to touch it anew takes longer than a view.
                    pool, self._pool = self._pool, _C.BufferPool(kept=0)
                    self.close()
                    self._ended(pool)
                    raise StopIteration
                if self._ready:
                    made = self._ready.popleft()
                    self._taken(made.flight)
                    if isinstance(made, _Failed):
                        raise made.error
                else:
                    flight = self._pending.popleft()
                    self._taken(flight)
                    if self._pipeline is not None and not self._balance.fixed:
                        # Where the host is ahead, its waits cost nothing while the device has work.
                        flight.asked = self._pipeline.mark()
                    made = self._make(flight)
                batch = self._hand_over(made)
                if len(batch):
                    break
                self._handed(made.flight)
            self._note_balance(made.flight)
            self._note_stats()
            self._make_ready()  # first: if that is interrupted, this batch is not handed out, and resuming begins with it
            self._handed(made.flight)
            return batch
        except BaseException:
            # A device that has failed fails again as its memory is taken back; the first error says more.
            with contextlib.suppress(torch.AcceleratorError):
                self.close()
            raise

    def _note_balance(self, flight: Flight) -> None:
        """Tells of the batch that is there. Not of an iteration's first one, for which everybody waits."""
        now = time.perf_counter()
        if self._last is not None and not self._balance.fixed:
            # A device that is behind has the next batch waiting for it. Not so the CPU: the device then begins late, so that its
            # part of the wait says nothing.
            short = flight.waited_cpu >= flight.waited_device
            if self._pending:
                short = not self._pending[0].job.wait(0)
            self._balance.note(now - self._last, flight.starved, short, len(flight.indices), flight.share)
        self._last = now

    def _fill(self) -> None:
        """Starts batches until as many are under way as there are to be."""
        # One more than stays behind: while the last images of a batch are made, threads go on with the next.
        while self._ending is None and len(self._pending) < self._settings.prefetch + 1:
            if (self._pending or self._ready) and not self._can_follow():
                return  # rather than wait for one more
            try:
                flight = self._following()
            except BaseException as error:
                if not isinstance(error, Exception):
                    raise
                self._ending = error  # what came before goes out first
                return
            if flight is None:
                return
            self._pending.append(flight)

    def _make_ready(self) -> None:
        """Lets the device begin with the next batch if it is decoded, while the consumer works on this one."""
        if self._pipeline is None or self._ready or not self._pending:
            return
        flight = self._pending[0]
        if not flight.job.wait(0) or flight.job.failures() or self._crashes:
            return
        decodings = flight.decodings
        if decodings is None or (decodings.done() and not decodings.exception() and not decodings.result().failed):
            flight = self._pending.popleft()
            try:
                self._ready.append(self._make(flight))
            except BaseException as error:
                if not isinstance(error, Exception):
                    raise
                self._ready.append(_Failed(flight, error))  # the batch before goes out first

    def _make(self, flight: Flight) -> _Made:
        self._taken_up = flight
        if self._pipeline is None:
            return _Made(flight, self._finish(flight), None)
        asked = self._pipeline.mark() if any(self._custom) else None
        with self._pipeline.stream():
            if (
                asked is not None
            ):  # custom steps may read what the training loop writes, and see what it had asked for before
                self._pipeline.wait(asked)
            batch = self._finish(flight)
            batch.targets = self._pipeline.upload(batch.targets)
            return _Made(flight, batch, self._pipeline.mark())

    def _hand_over(self, made: _Made) -> Batch:
        batch = made.batch
        if self._pipeline is not None:
            self._pipeline.hand_over(made.mark, (*batch.views, batch.targets))
            return batch
        device = self._settings.device
        return batch if device.type == "cpu" else batch.to(device)  # waits: the memory is used again

    def _decoded(self, flight: Flight) -> tuple[Decodings, list[tuple[int, str]]]:
        """What the device has decoded; what it could not the CPU has, or says why it cannot either."""
        future = flight.decodings
        if future is None or self._ahead is None:
            return Decodings(), []
        flight.waited_device = self._wait(lambda most: bool(futures.wait([future], most / 1000).done), flight)
        self._tally.waited_device += flight.waited_device
        decodings = self._ahead.take(future)
        jobs = [self._again(flight, position) for position in decodings.failed]
        for job in jobs:
            self._wait_for(job)
        return decodings, [failure for job in jobs for failure in job.failures()]

    def _finish(self, flight: Flight) -> Batch:
        settings = self._settings
        flight.waited_cpu = self._wait_for(flight.job, flight)
        self._gathered(flight)
        decodings, undecodable = self._decoded(flight)
        indices = flight.indices.clone()  # the batch's own
        dropped: set[int] = set()
        failures = sorted(flight.job.failures() + undecodable)
        flight.bad.update(position for position, _ in failures)
        for position, reason in failures:
            fault = self._note(self._fault(flight, position, reason))
            if settings.on_error == "skip":
                dropped.add(position)
                self._dropped += 1
                self._dropped_first = self._dropped_first or str(fault)
            else:
                indices[position] = self._replace(flight, position, fault)
        kept = [i for i in range(len(indices)) if i not in dropped]
        numbers = indices.tolist()
        self._kept([numbers[position] for position in kept])
        self._tally.images += len(kept)
        targets, filenames = self._describe(flight, indices)
        batch = Batch(
            views=flight.views,
            targets=targets,
            filenames=filenames,
            indices=indices,
            params=Plan(flight.plan),
            epoch=flight.epoch,
        )
        if dropped:
            batch = batch.select(kept)
        if flight.gathered is not None and self._pipeline is not None:
            batch.views = self._pipeline.render(
                flight.gathered, decodings, kept, batch.params.data, self._views, self._forms(), self._channels
            )
            flight.gathered = None
        return self._customize(batch) if len(batch) else batch

    # Bad samples

    def _note(self, fault: Fault) -> Fault:
        """Lists a bad sample, and raises if that is the policy."""
        settings = self._settings
        if self._key(fault) not in self._bad:
            self._bad.add(self._key(fault))
            settings.errors.append(fault)
        if settings.on_error == "raise":
            raise DecodeError(
                f"{fault}. Repair or remove it, or go on without such files by on_error='skip' or 'replace', and see "
                "loader.errors."
            )
        return fault

    # Stats

    def _advise(self) -> str:
        """What to do where the consumer waits for samples that are read elsewhere."""
        return "what the samples come from is what takes the time"

    def _note_stats(self) -> None:
        rendered_on = "cpu" if self._pipeline is None else str(self._pipeline.device)
        decoder = None if self._ahead is None or self._device is None else self._device.choice.decoder
        threads, times = self._settings.threads, self._engine.times()
        stats = self._tally.summary(times, threads, rendered_on, decoder, self._advise())
        if self._device is not None:
            stats["decoding"] = {
                **self._device.choice.describe(),
                "share": self._balance.share,
                "device_images": 0 if self._ahead is None else self._ahead.images,
                "device_seconds": 0.0 if self._ahead is None else self._ahead.seconds,
            }
        self._settings._stats = stats

    # Ending

    def close(self) -> None:
        """Stops the threads and lets go of the memory; what has been yielded stays valid."""
        if getattr(self, "_closed", True) or not self._closing.acquire(blocking=False):
            return
        self._closed = True
        endings.end(self)
        stopped = False
        try:
            stopped = self._ahead is None or self._ahead.close()
        finally:  # Ctrl-C may come while that waits; the threads must not outlive the memory that they write
            self._release(stopped)

    def _release(self, stopped: bool) -> None:
        """Lets go of what the threads use; `stopped`: of these, the decoder's is not at work any more."""
        flights = [*self._pending] if self._taken_up is None else [self._taken_up, *self._pending]
        # Another thread may be in the middle of a batch. It will notice; what it uses goes with the iteration.
        alone = self._lock.acquire(blocking=False)
        try:
            if self._pipeline is not None and self._pipeline.leave((flights, [*self._ready])):
                self._engine.close()
            elif not self._engine.close():
                endings.keep(self._engine, flights)  # the threads still write into this memory
            elif alone and stopped and self._device is not None:
                self._take_back(flights, self._device.pipeline)
                self._let_go(self._device)
        finally:
            if alone:
                self._taken_up = None
                self._pending.clear()
                self._ready.clear()
                self._lock.release()
            self._pool.close()

    def _take_back(self, flights: list[Flight], pipeline: DevicePipeline) -> None:
        """The memory of batches that are not rendered any more, which the device may still read and write."""
        with pipeline.stream():
            for flight in flights:
                if flight.gathered is not None:
                    future = flight.decodings
                    begun = future is not None and future.done() and not future.exception()
                    pipeline.give_back(flight.gathered, future.result() if future and begun else Decodings())
        pipeline.close()

    def __del__(self) -> None:
        self.close()
