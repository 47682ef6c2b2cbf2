"""One pass of a Loader: batches in flight, their memory, their errors."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastssl._native import _C, PLAN_FIELDS, DecodeError
from fastssl.data.batch import Batch
from fastssl.data.device_views import Gathered
from fastssl.data.faults import Fault
from fastssl.data.native_calls import array_of, fetcher, pixels_of, stepper
from fastssl.data.order import Order, Step
from fastssl.ops.decode import decode_other
from fastssl.ops.render import DTYPES, encode_recipe, native_views, render_after
from fastssl.transforms.plan import Plan

if TYPE_CHECKING:
    from fastssl.data.loader import Loader

__all__ = ["Iteration"]

# Between two looks at whether Ctrl-C was pressed.
_WAIT_MILLISECONDS = 100

# Native threads call into Python, so they must be gone before the interpreter is.
_live: weakref.WeakSet[Iteration] = weakref.WeakSet()


# The garbage collector may let go of an iteration on one of its own threads, which cannot wait for itself to end. Such an
# engine is kept here, with the memory it writes into, until somebody else can close it.
_unclosed: list[tuple[_C.Engine, Any]] = []


@atexit.register
def _close_all() -> None:
    live = list(_live)
    for iteration in live:
        iteration.close()
    _close_rest()
    # Another thread may be waiting for a batch, without Python's lock; let it come back while there is an interpreter.
    deadline = time.monotonic() + 20 * _WAIT_MILLISECONDS / 1000
    while any(iteration._waiters for iteration in live) and time.monotonic() < deadline:
        time.sleep(0.001)


def _close_rest() -> None:
    """Closes what was let go of on a native thread, unless this is such a thread again."""
    _unclosed[:] = [(engine, memory) for engine, memory in _unclosed if not engine.close()]


@dataclass
class _Flight:
    """A batch that is being made."""

    step: Step
    order: Tensor
    views: list[Tensor]  # what the engine writes; nothing where images are gathered for a device
    gathered: Gathered | None
    plan: Tensor
    job: Any


@dataclass
class _Made:
    """A batch that is there, or that a device has been asked for."""

    flight: _Flight
    batch: Batch
    mark: Any


class Iteration(Iterator[Batch]):
    """Yields the batches of a Loader from (epoch, position) on, up to the epoch `end`.

    Closes itself at the end, on errors, and when let go of.
    """

    def __init__(self, loader: Loader, epoch: int, position: int, end: int) -> None:
        self._loader = loader
        self.end = end
        self._pid = os.getpid()
        encoded = encode_recipe(loader.recipe)
        self._custom = [view.custom is not None for view in loader.recipe]
        parts = zip(self._custom, native_views(encoded), native_views(encoded, "before_custom"), strict=True)
        self._views = [before if custom else whole for custom, whole, before in parts]
        self._steps = _all_steps(loader.order, epoch, position, end)
        self._pending: deque[_Flight] = deque()
        self._ready: deque[_Made] = deque()  # what the device makes already
        self._device = loader._device_views()
        self._started = time.perf_counter()
        self._waited = 0.0
        self._waiters = 0
        self._lock = threading.Lock()
        self._images = 0
        self._dropped, self._dropped_first = 0, ""
        self._bad = {fault.index for fault in loader.errors}
        self._crashes: list[Exception] = []
        self._pool = loader._take_pool() or _C.BufferPool(
            kept=(loader.prefetch + 2) * (len(self._views) + sum(self._custom))
        )
        source, step, mode = loader.source, loader.image_step, loader.source.mode
        array = array_of(source)
        self._paths = array is None
        cache = loader._cache
        self._engine = _C.Engine(
            threads=loader.threads,
            views=self._views,
            seed=loader.seed,
            channels=source.channels,
            as_stored=mode == "unchanged",
            may_shrink=loader.decode == "auto",
            array=array,
            fetch=fetcher(source, self._crashes, labels=cache is not None and cache.labels()),
            decode_other=lambda data: pixels_of(decode_other(data, mode)),
            image_step=None if step is None else stepper(source, step, self._crashes),
            cache=None if cache is None else cache.open(),
            keep_for=() if cache is None else cache.keep_for(),
        )
        self._closed = False
        _live.add(self)
        _close_rest()

    # Making batches

    def _submit(
        self,
        indices: Tensor,
        positions: list[int],
        step: Step,
        repeat: int,
        views: list[Tensor],
        gathered: Gathered | None,
        plan: Tensor,
    ) -> Any:
        """Starts samples on their way to their positions in the batch; no positions: 0, 1, 2 ..."""
        return self._engine.submit(
            indices=indices.data_ptr(),
            count=len(indices),
            positions=positions,
            paths=self._loader.source.paths_of(indices) if self._paths else [],
            epoch=step.epoch,
            repeat=repeat,
            outputs=[
                (view.data_ptr(), _C.DType.float32, False)
                if custom
                else (view.data_ptr(), DTYPES[self._loader.dtype], self._loader.channels_last)
                for view, custom in (zip(views, self._custom, strict=True) if gathered is None else ())
            ],
            plans=plan.data_ptr(),
            gather=None if gathered is None else gathered.native,
        )

    def _lease(self, n: int, size: int, dtype: torch.dtype, channels_last: bool) -> Tensor:
        """A view of n samples, in memory that comes back to the pool when its last user lets go of it."""
        channels = self._loader.source.channels
        numel = channels * size * size
        lease = self._pool.lease(self._loader.batch_size * numel * dtype.itemsize)
        flat = torch.frombuffer(lease, dtype=dtype, count=n * numel)
        if channels_last:
            return flat.view(n, size, size, channels).permute(0, 3, 1, 2)
        return flat.view(n, channels, size, size)

    def _lease_views(self, n: int) -> list[Tensor]:
        """What the engine writes: the views, or what their custom steps take."""
        loader = self._loader
        return [
            self._lease(n, view.size, torch.float32, False)
            if custom
            else self._lease(n, view.size, loader.dtype, loader.channels_last)
            for view, custom in zip(self._views, self._custom, strict=True)
        ]

    def _customize(self, batch: Batch) -> Batch:
        """Goes on with the views that have a step of the user's own."""
        loader = self._loader
        for v, view in enumerate(loader.recipe):
            if self._custom[v]:
                batch.views[v] = render_after(
                    view,
                    batch.views[v],
                    batch.params.data[:, v],
                    dtype=loader.dtype,
                    channels_last=loader.channels_last,
                    threads=loader.threads,
                    out=None
                    if self._device
                    else self._lease(len(batch), view.size, loader.dtype, loader.channels_last),
                )
        return batch

    def _fill(self, target: int) -> None:
        """Starts batches until `target` of them are under way."""
        while len(self._pending) < target:
            following = next(self._steps, None)
            if following is None:
                return
            step, order = following
            gathered = None if self._device is None else self._device.gather(len(step.indices))
            views = self._lease_views(len(step.indices)) if gathered is None else []
            plan = torch.empty((len(step.indices), len(self._views), len(PLAN_FIELDS)), device="cpu")
            job = self._submit(step.indices, [], step, 0, views, gathered, plan)
            self._pending.append(_Flight(step, order, views, gathered, plan, job))

    def _wait(self, job: Any) -> None:
        started = time.perf_counter()
        self._waiters += 1
        try:
            while not job.wait(_WAIT_MILLISECONDS):
                # Back in Python, where Ctrl-C becomes an exception.
                if self._closed:
                    raise RuntimeError("Loader: the iteration was closed by another thread while this one waited.")
        finally:
            self._waiters -= 1
        self._waited += time.perf_counter() - started

    def __next__(self) -> Batch:
        with self._lock:  # threads may share an iteration; each batch goes to one of them
            return self._next()

    def _next(self) -> Batch:
        if os.getpid() != self._pid:
            raise RuntimeError(
                "Loader: this iteration was begun in another process, whose threads do not exist here; call iter(loader) here."
            )
        if self._closed:
            raise StopIteration
        try:
            while True:
                # One more than stays behind: while the last images of a batch are made, threads go on with the next.
                self._fill(self._loader.prefetch + 1)
                if not self._pending and not self._ready:
                    if self._dropped and not self._images:
                        raise DecodeError(
                            f"Loader: none of {self._dropped} samples can be read; the first: {self._dropped_first}"
                        )
                    # At its end, and only there, the memory is kept: to touch it anew takes longer than a view.
                    loader, pool = self._loader, self._pool
                    self._pool = _C.BufferPool(kept=0)
                    self.close()
                    loader._keep_pool(pool)
                    raise StopIteration
                made = self._ready.popleft() if self._ready else None
                flight = self._pending.popleft() if made is None else made.flight
                self._loader._resume = None  # taken up
                self._loader.epoch = flight.step.epoch + 1  # an iteration that is broken off leaves its epoch behind
                batch = self._hand_over(self._make(flight) if made is None else made)
                # Only now is it certain that the batch is handed out, and that resuming goes on behind it.
                step, whole = flight.step, self._loader.order.steps_per_epoch(flight.step.after) == 0
                self._loader._cursor = (step.epoch + whole, 0 if whole else step.after, self.end)
                if len(batch):
                    break
            self._note_stats()
            self._make_ready()
            return batch
        except BaseException:
            self.close()
            raise

    def _make_ready(self) -> None:
        """Lets the device begin with the next batch if it is decoded, while the consumer works on this one."""
        if self._device is None or self._ready or not self._pending:
            return
        job = self._pending[0].job
        if job.wait(0) and not job.failures() and not self._crashes:
            self._ready.append(self._make(self._pending.popleft()))

    def _make(self, flight: _Flight) -> _Made:
        if self._device is None:
            return _Made(flight, self._finish(flight), None)
        with self._device.stream():
            batch = self._finish(flight).to(self._device.device, non_blocking=True)
            return _Made(flight, batch, self._device.mark())

    def _hand_over(self, made: _Made) -> Batch:
        if self._device is not None:
            return self._device.hand_over(made.batch, made.mark)
        device = self._loader.device
        return made.batch if device.type == "cpu" else made.batch.to(device, non_blocking=True)

    def _finish(self, flight: _Flight) -> Batch:
        loader, source, step = self._loader, self._loader.source, flight.step
        self._wait(flight.job)
        if self._crashes:
            raise self._crashes[0]
        if loader._cache is not None:
            loader._cache.check()
        indices = step.indices.clone()  # the batch's own
        dropped: set[int] = set()
        for position, reason in sorted(flight.job.failures()):
            index = int(indices[position])
            self._note(index, reason)
            if loader.on_error == "skip":
                dropped.add(position)
                self._dropped += 1
                self._dropped_first = self._dropped_first or f"{source.filename(index)}: {reason}"
            else:
                indices[position] = self._replace(flight, position)
        if loader._cache is not None:
            loader._cache.attend(index for i, index in enumerate(indices.tolist()) if i not in dropped)
        self._images += len(indices) - len(dropped)
        batch = Batch(
            views=flight.views,
            targets=source.targets_of(indices),
            filenames=source.filenames_of(indices),
            indices=indices,
            params=Plan(flight.plan),
            epoch=step.epoch,
        )
        kept = [i for i in range(len(indices)) if i not in dropped]
        if dropped:
            batch = batch.select(kept)
        if flight.gathered is not None and self._device is not None and kept:
            forms = [
                (torch.float32, False) if custom else (loader.dtype, loader.channels_last) for custom in self._custom
            ]
            batch.views = self._device.render(
                flight.gathered, kept, batch.params.data, self._views, forms, source.channels
            )
        return self._customize(batch) if len(batch) else batch

    # Bad samples

    def _note(self, index: int, reason: str) -> None:
        """Lists a bad sample, and raises if that is the policy."""
        loader = self._loader
        fault = Fault(index, loader.source.path(index) or loader.source.filename(index), reason)
        if index not in self._bad:
            self._bad.add(index)
            loader.errors.append(fault)
        if loader.on_error == "raise":
            raise DecodeError(
                f"{fault}. Repair or remove it, or go on without such files by on_error='skip' or 'replace', and see "
                "loader.errors."
            )

    def _replace(self, flight: _Flight, position: int) -> int:
        """Fills the place of a bad sample with the next good one in the order of the epoch, drawn as a repetition."""
        place, order = flight.step.places[position], flight.order
        for distance in range(1, len(order)):
            index = int(order[(place + distance) % len(order)])
            if index in self._bad:
                continue
            job = self._submit(
                torch.tensor([index], device="cpu"),
                [position],
                flight.step,
                min(distance, 255),
                flight.views,
                flight.gathered,
                flight.plan,
            )
            self._wait(job)
            if self._crashes:
                raise self._crashes[0]
            failures = job.failures()
            if not failures:
                return index
            self._note(index, failures[0][1])
        raise DecodeError(f"Loader: none of the {len(order)} samples can be read; the first: {self._loader.errors[0]}")

    # Ending

    def _note_stats(self) -> None:
        times = self._engine.times()
        seconds = time.perf_counter() - self._started
        threads = self._loader.threads
        work = {name: times[f"{name}_seconds"] for name in ("read", "decode", "render")}
        if self._waited < 0.05 * seconds:
            advice = "the loader keeps up; the consumer is what takes the time"
        elif sum(work.values()) < 0.8 * seconds * threads:
            advice = "the threads are idle part of the time; raise prefetch"
        else:
            slowest = max(work, key=lambda name: work[name])
            advice = f"the consumer waits, most of all for {slowest}; raise threads if there are more CPUs"
        self._loader._stats = {
            "images": self._images,
            "seconds": seconds,
            "images_per_second": self._images / seconds,
            "threads": threads,
            "rendered_on": "cpu" if self._device is None else str(self._device.device),
            **{f"{name}_seconds": value for name, value in work.items()},
            "wait_seconds": self._waited,
            "advice": advice,
        }

    def close(self) -> None:
        """Stops the threads and lets go of the memory; what has been yielded stays valid."""
        if getattr(self, "_closed", True):
            return
        self._closed = True
        _live.discard(self)
        if not self._engine.close():
            _unclosed.append((self._engine, list(self._pending)))  # the threads still write into this memory
        self._pending.clear()
        self._ready.clear()
        self._pool.close()

    def __del__(self) -> None:
        self.close()


def _all_steps(order: Order, epoch: int, position: int, end: int) -> Iterator[tuple[Step, Tensor]]:
    """The batches from (epoch, position) on. It must not hold the iteration: that would be a cycle."""
    for e in range(epoch, end):
        samples = order.permutation(e)
        for step in order.steps(e, position, samples):
            yield step, samples
        position = 0
