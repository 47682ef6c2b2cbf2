"""One pass of a Loader: which samples come next, and what takes the place of bad ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastssl._native import _C, DecodeError
from fastssl.data.faults import Fault
from fastssl.data.making import Device, Flight, Making
from fastssl.data.native_calls import array_of, fetcher, pixels_of, stepper
from fastssl.data.order import Order, Step
from fastssl.ops.decode import decode_other

if TYPE_CHECKING:
    from fastssl.data.loader import Loader

__all__ = ["Iteration"]


@dataclass(frozen=True)
class _Place:
    """Where a batch stands in its epoch."""

    step: Step
    order: Tensor


class Iteration(Making):
    """Yields the batches of a Loader from (epoch, position) on, up to the epoch `end`."""

    def __init__(self, loader: Loader, device: Device | None, epoch: int, position: int, end: int) -> None:
        self._loader = loader
        self.end = end
        self._steps = _all_steps(loader.order, epoch, position, end)
        source, step, mode, cache = loader.source, loader.image_step, loader.source.mode, loader._cache
        array = array_of(source)
        self._paths = array is None
        crashes: list[Exception] = []
        super().__init__(
            "Loader",
            loader,
            device,
            loader._take_pool(),
            source.channels,
            crashes,
            {
                "seed": loader.seed,
                "as_stored": mode == "unchanged",
                "may_shrink": loader.decode != "full",
                "array": array,
                "fetch": fetcher(source, crashes, labels=cache is not None and cache.labels()),
                "decode_other": lambda data: pixels_of(decode_other(data, mode)),
                "image_step": None if step is None else stepper(source, step, crashes),
                "cache": None if cache is None else cache.open(),
                "keep_for": () if cache is None else cache.keep_for(),
            },
        )

    def _following(self) -> Flight | None:
        following = next(self._steps, None)
        if following is None:
            return None
        step, order = following
        flight = self._prepare(step.indices, step.epoch, _Place(step, order))
        leave = 0 if flight.gathered is None else flight.gathered.leave
        return self._start(flight, lambda flight: self._submit(flight, step.indices, [], 0, leave))

    def _submit(self, flight: Flight, indices: Tensor, positions: list[int], repeat: int, leave: int = 0) -> Any:
        """Starts samples on their way to their positions in the batch; no positions: 0, 1, 2 ..."""
        return self._engine.submit(
            indices=indices.data_ptr(),
            count=len(indices),
            positions=positions,
            paths=self._loader.source.paths_of(indices) if self._paths else [],
            epoch=flight.epoch,
            repeat=repeat,
            leave=leave,
            urgent=bool(positions),  # the consumer waits for it
            **self._outputs(flight),
        )

    def _describe(self, flight: Flight, indices: Tensor) -> tuple[Tensor, list[str]]:
        source = self._loader.source
        return source.targets_of(indices), source.filenames_of(indices)

    def _taken(self, flight: Flight) -> None:
        self._loader._resume = None
        self._loader.epoch = flight.epoch + 1  # an iteration that is broken off leaves its epoch behind

    def _gathered(self, flight: Flight) -> None:
        if self._loader._cache is not None:
            self._loader._cache.check()

    def _kept(self, indices: list[int]) -> None:
        if self._loader._cache is not None:
            self._loader._cache.attend(indices)

    def _handed(self, flight: Flight) -> None:
        # Only now is it certain that the batch is handed out, and that resuming goes on behind it.
        self._taken(flight)
        loader, step = self._loader, flight.more.step
        whole = loader.order.steps_per_epoch(step.after) == 0
        loader._cursor = (step.epoch + whole, 0 if whole else step.after, self.end)

    def _ended(self, pool: _C.BufferPool) -> None:
        self._loader._keep_pool(pool)

    def _let_go(self, device: Device) -> None:
        self._loader._keep_device(device)

    def _fault(self, flight: Flight, position: int, reason: str) -> Fault:
        return self._fault_of(int(flight.indices[position]), reason)

    def _fault_of(self, index: int, reason: str) -> Fault:
        source = self._loader.source
        return Fault(index, source.path(index) or source.filename(index), reason)

    def _again(self, flight: Flight, position: int) -> Any:
        return self._submit(flight, flight.indices[position : position + 1].clone(), [position], 0)

    def _replace(self, flight: Flight, position: int, fault: Fault) -> int:
        """With the next good one in the order of the epoch, drawn as a repetition."""
        place, order = flight.more.step.places[position], flight.more.order
        for distance in range(1, len(order)):
            index = int(order[(place + distance) % len(order)])
            if index in self._bad:
                continue
            job = self._submit(flight, torch.tensor([index], device="cpu"), [position], min(distance, 255))
            self._wait_for(job)
            failures = job.failures()
            if not failures:
                return index
            self._note(self._fault_of(index, failures[0][1]))
        raise DecodeError(f"Loader: none of the {len(order)} samples can be read; one of them: {fault}")


def _all_steps(order: Order, epoch: int, position: int, end: int) -> Iterator[tuple[Step, Tensor]]:
    """The batches from (epoch, position) on. It must not hold the iteration: that would be a cycle."""
    for e in range(epoch, end):
        samples = order.permutation(e)
        for step in order.steps(e, position, samples):
            yield step, samples
        position = 0
