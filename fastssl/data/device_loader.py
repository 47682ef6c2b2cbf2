"""Views for a device out of a DataLoader that only gathers bytes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastssl._native import _C, DecodeError, available_cpus
from fastssl.data.batch import Batch
from fastssl.data.checks import as_device, check_count
from fastssl.data.device_choice import MEASURED, Decode, DeviceChoice, check_decode, images_per_second
from fastssl.data.encoded import EncodedBatch
from fastssl.data.faults import Fault, OnError, check_on_error
from fastssl.data.feeder import Feeder, Reading
from fastssl.data.making import Device, Flight, Making
from fastssl.data.native_calls import pixels_of
from fastssl.ops.decode import decode_other
from fastssl.ops.render import check_format, encode_recipe
from fastssl.ops.threads import check_threads
from fastssl.pipelines.choose import Choice
from fastssl.transforms.view import Recipe

__all__ = ["DeviceLoader", "to_device"]

_LEAST_BATCHES = 4  # that are measured, of which the first two warm up

# By id of a DataLoader with persistent workers: who reads it, or did last.
_readings: dict[int, Reading] = {}


def to_device(
    dataloader: Iterable[EncodedBatch],
    recipe: Recipe,
    device: str | torch.device = "cuda",
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    threads: int | None = None,
    prefetch: int = 2,
    decode: Decode = "auto",
    on_error: OnError = "raise",
) -> DeviceLoader:
    """Makes views on a device of what a DataLoader of your own gathers: one line of an existing loop changes.

    The DataLoader, with its data set, sampler and workers, only gathers bytes, by `collate_fn=fastssl.data.BytesCollate()`.
    Decoding and rendering happen in this process, on native threads and on streams of the device, while the model trains. Batches
    are taken from a DataLoader with workers on a thread, so that those that are there do not wait for one that is not; one
    without workers reads in the thread that asks for a batch.

    What is drawn follows torch's generator, from which each iteration takes one number: `torch.manual_seed` governs it. Pixels
    are the same from run to run with decode="cpu" or "full"; those of a decoder of the device differ by some levels of 255 from
    the CPU's, and "auto" may choose either.

    Args:
        dataloader: Yields `EncodedBatch`es; any iterable of them will do.
        recipe: The views, such as `fastssl.recipes.simclr(224)`.
        device, dtype, channels_last, threads, prefetch, decode: As for `fastssl.Loader`; with decode="auto" the ways to decode
            are compared on the first batch, over and over.
        on_error: "raise" (DecodeError), "skip" (the batch is smaller), "replace" (the next good sample of the batch takes the
            place, drawn anew).

    Returns:
        An iterable of `fastssl.Batch`, as long as the DataLoader; their `indices` count the samples of an iteration, and their
        `epoch` is 0.

    Raises:
        ValueError, TypeError: An argument is not as described; while iterating, what the DataLoader yields is no EncodedBatch.

    >>> import fastssl
    >>> dataset = [(b"...", 0, "a.jpg"), (b"...", 1, "b.jpg")]
    >>> loader = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=fastssl.data.BytesCollate())
    >>> batches = fastssl.to_device(loader, fastssl.recipes.simclr(224), "cpu")
    >>> len(batches)
    1
    """
    return DeviceLoader(
        dataloader,
        recipe,
        device,
        dtype=dtype,
        channels_last=channels_last,
        threads=threads,
        prefetch=prefetch,
        decode=decode,
        on_error=on_error,
    )


class DeviceLoader:
    """What `to_device` returns.

    Attributes:
        dataloader: As given; its sampler can be told the epoch.
        errors: Every sample that could not be read so far.
    """

    def __init__(
        self,
        dataloader: Iterable[EncodedBatch],
        recipe: Recipe,
        device: str | torch.device,
        *,
        dtype: torch.dtype,
        channels_last: bool,
        threads: int | None,
        prefetch: int,
        decode: Decode,
        on_error: OnError,
    ) -> None:
        encoded = encode_recipe(recipe)
        check_format("to_device", encoded, dtype)
        check_on_error("to_device", on_error)
        if not hasattr(dataloader, "__iter__"):
            raise TypeError(
                f"to_device: got {type(dataloader).__name__}; it takes a DataLoader with collate_fn=fastssl.data.BytesCollate()."
            )
        self.dataloader = dataloader
        self.recipe = recipe
        self.device = as_device("to_device", device)
        self.dtype = dtype
        self.channels_last = bool(channels_last)
        self.threads = available_cpus() if threads is None else check_threads("to_device", threads)
        self.prefetch = check_count("to_device", "prefetch", prefetch, 0)
        self.decode = check_decode("to_device", decode, self.device)
        self.on_error = on_error
        self.batch_size = getattr(dataloader, "batch_size", None) or 1  # a guess; the batches say
        self.errors: list[Fault] = []
        self._stats: dict[str, Any] = {}
        self._device_choice: DeviceChoice | None = None

    def __len__(self) -> int:
        """Batches of an iteration.

        Raises:
            TypeError: The DataLoader does not know.
        """
        return len(self.dataloader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        seed = int(torch.randint(0, 2**63 - 1, (), device="cpu"))
        # With persistent workers there is one iterator for all epochs, which cannot begin anew while a thread asks it for more.
        persistent = getattr(self.dataloader, "persistent_workers", False)
        if persistent and (reading := _readings.pop(id(self.dataloader), None)) is not None:
            reading.take_away()
        batches = _checked(self.dataloader)
        first = next(batches, None)
        if first is None:
            return iter(())
        self.batch_size = max(self.batch_size, len(first))
        if self._device_choice is None:
            self._device_choice = DeviceChoice(
                "to_device", self.device, self.decode, self.batch_size, self.prefetch, self.threads, only_cpu=None
            )
        device = self._device_choice.take(lambda choice: self._measure(first, choice), lambda: _has_plain(first))
        following: Iterator[EncodedBatch] = batches
        if getattr(
            self.dataloader, "num_workers", 0
        ):  # without workers it is this process that reads, in its own thread
            following = Feeder(batches, self.prefetch + 1)
            if persistent:
                _readings[id(self.dataloader)] = following.reading
        return _Pass(self, device, first, following, seed)

    def _measure(self, batch: EncodedBatch, choice: Choice) -> float:
        warm_up = 2 * len(batch)
        again = to_device(
            [batch] * max(_LEAST_BATCHES, 2 - (-MEASURED // len(batch))),
            self.recipe,
            self.device,
            dtype=self.dtype,
            channels_last=self.channels_last,
            threads=self.threads,
            prefetch=self.prefetch,
            decode=choice,
            on_error="skip",
        )
        with torch.random.fork_rng(devices=[]):  # measuring draws nothing
            return images_per_second(again, self.device, warm_up)

    def stats(self) -> dict[str, Any]:
        """Where the time of the latest iteration went, as `fastssl.Loader.stats`; but `read_seconds` is how long the DataLoader
        was waited for, which counts as `wait_seconds`, too."""
        return self._stats


def _has_plain(batch: EncodedBatch) -> bool:
    """Whether any of the images is a JPEG that may be left to a device."""
    encoded = [data for data, side in zip(batch.images(), batch.sides.tolist(), strict=True) if side == [0, 0]]
    return any(_C.plain_jpeg_size(data.data_ptr(), data.numel()) for data in encoded)


def _checked(batches: Iterable[EncodedBatch]) -> Iterator[EncodedBatch]:
    for batch in batches:
        if not isinstance(batch, EncodedBatch):
            raise TypeError(
                f"to_device: the DataLoader gave a {type(batch).__name__}; write DataLoader(..., "
                "collate_fn=fastssl.data.BytesCollate())."
            )
        yield batch


@dataclass(frozen=True)
class _Given:
    """The images of a batch, by address, and what keeps them alive."""

    batch: EncodedBatch
    images: list[tuple[int, int, int, int]]


class _Pass(Making):
    """The batches of one iteration."""

    def __init__(
        self,
        loader: DeviceLoader,
        device: Device | None,
        first: EncodedBatch,
        following: Iterator[EncodedBatch],
        seed: int,
    ) -> None:
        self._loader = loader
        self._first: EncodedBatch | None = first
        self._batches = following
        self._seen = 0
        super().__init__(
            "to_device",
            loader,
            device,
            None,
            channels=3,
            crashes=[],
            engine={
                "seed": seed,
                "as_stored": False,
                "may_shrink": loader.decode != "full",
                "array": None,
                "fetch": _never,
                "decode_other": lambda data: pixels_of(decode_other(data)),
                "image_step": None,
            },
        )

    def _following(self) -> Flight | None:
        began = time.perf_counter()
        batch, self._first = self._first, None
        if batch is None:
            batch = next(self._batches, None)
        self._tally.read_elsewhere(time.perf_counter() - began)
        if batch is None:
            return None
        n = len(batch)
        self._loader.batch_size = max(self._loader.batch_size, n)
        indices = torch.arange(self._seen, self._seen + n, device="cpu")
        self._seen += n
        sides = batch.sides.tolist()
        images = [(data.data_ptr(), data.numel(), *side) for data, side in zip(batch.images(), sides, strict=True)]
        flight = self._prepare(indices, 0, _Given(batch, images))  # each iteration has a seed of its own
        leave = 0 if flight.gathered is None else flight.gathered.leave
        return self._start(flight, lambda flight: self._submit(flight, range(n), [], 0, leave))

    def _submit(self, flight: Flight, which: Sequence[int], positions: list[int], repeat: int, leave: int = 0) -> Any:
        """Starts these samples of the batch on their way to their positions; no positions: 0, 1, 2 ..."""
        indices = torch.from_numpy(flight.indices.numpy()[which])  # numpy: Note [Torch's threads]
        return self._engine.submit(
            indices=indices.data_ptr(),
            count=len(indices),
            positions=positions,
            paths=[],
            given=[flight.more.images[i] for i in which],
            epoch=flight.epoch,
            repeat=repeat,
            leave=leave,
            urgent=bool(positions),  # the consumer waits for it
            **self._outputs(flight),
        )

    def _describe(self, flight: Flight, indices: Tensor) -> tuple[Tensor, list[str]]:
        batch: EncodedBatch = flight.more.batch
        places = (indices - flight.indices[0]).tolist()
        filenames = batch.filenames or [str(index) for index in indices.tolist()]
        targets = torch.from_numpy(batch.targets.numpy()[places])  # numpy: Note [Torch's threads]
        return targets, [filenames[place] for place in places]

    def _fault(self, flight: Flight, position: int, reason: str) -> Fault:
        batch: EncodedBatch = flight.more.batch
        index = int(flight.indices[position])
        name = batch.names[position] or f"sample {index} of the iteration"
        return Fault(index, name, batch.unreadable.get(position, reason))

    @staticmethod
    def _key(fault: Fault) -> int | str:
        return fault.filename  # indices count what was shuffled

    def _again(self, flight: Flight, position: int) -> Any:
        return self._submit(flight, [position], [position], 0)

    def _replace(self, flight: Flight, position: int, fault: Fault) -> int:
        """With the next good one of the batch, drawn as a repetition."""
        n = len(flight.indices)
        for distance in range(1, n):
            place = (position + distance) % n
            if place in flight.bad:
                continue
            job = self._submit(flight, [place], [position], min(distance, 255))
            self._wait_for(job)
            failures = job.failures()
            if not failures:
                return int(flight.indices[place])
            flight.bad.add(place)
            self._note(self._fault(flight, place, failures[0][1]))
        raise DecodeError(f"to_device: none of the {n} samples of a batch can be read; one of them: {fault}")

    def _advise(self) -> str:
        return "the DataLoader is what takes the time; raise its num_workers if there are more CPUs"

    def _let_go(self, device: Device) -> None:
        if self._loader._device_choice is not None:
            self._loader._device_choice.give_back(device)

    def _can_follow(self) -> bool:
        return self._first is not None or not isinstance(self._batches, Feeder) or self._batches.ready()

    def close(self) -> None:
        super().close()
        if isinstance(self._batches, Feeder):
            self._batches.close()
        self._batches = iter(())  # the DataLoader's workers end with its iterator


def _never(index: int) -> Any:
    raise RuntimeError(f"sample {index} was not given")
