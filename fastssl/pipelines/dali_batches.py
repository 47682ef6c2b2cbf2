"""Batches of decoded images of any sizes on a device, by DALI: for whoever makes views by other means than a Loader."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from fastssl._native import _C, DecodeError, available_cpus
from fastssl.ops.decode import decode
from fastssl.ops.devices import as_device
from fastssl.ops.threads import check_threads
from fastssl.pipelines.dali import DaliDecoder
from fastssl.pipelines.decoder import LeftImage
from fastssl.pipelines.faults import Fault, OnError, check_on_error
from fastssl.pipelines.forks import keep_for_ever
from fastssl.pipelines.pools import end_pool
from fastssl.pipelines.readers import RawBatch, Reader
from fastssl.transforms._checks import check_whole
from fastssl.transforms.plan import check_key

__all__ = ["DaliBatches", "RaggedBatch"]

# Batches that a GPU has not come to, at most: their decoded images lie in its memory.
_PENDING = 2


class RaggedBatch(NamedTuple):
    """Images of any sizes; unpacks as `images, targets, filenames`.

    Args:
        images: B tensors, (H, W, 3), uint8, on the device, as `fastssl.ops.render` takes them; for `GPUViews` see each through
            `permute(2, 0, 1)`. Most lie in memory of DALI's, which stays theirs until the last of a batch is let go of; use them
            on the stream that was torch's current one when the batch was taken, or wait for yours before you let go of them.
        targets: (B,), int64, on the device.
        filenames: B names.
    """

    images: list[Tensor]
    targets: Tensor
    filenames: list[str]


class DaliBatches:
    """Decodes what a reader reads on a device, by DALI, while the consumer works on the batch before.

    Iterating goes through one epoch; the next iteration through the epoch after. JPEGs of the usual kind (baseline, gray or
    YCbCr) are decoded by `DaliDecoder`, whole; all others, other formats, and what DALI cannot decode, by the CPU, as
    `fastssl.ops.decode` does, which says what is wrong with them, if anything is. So a bad image ends nothing: it is dealt with
    as `on_error` says, and listed. Damage within the coded data of a JPEG, which leaves its markers whole, is no error, as it is
    none elsewhere in fastssl: the decoder shows what it can.

        reader = fastssl.pipelines.FileReader(fastssl.data.ImageFolder("photos/"), shuffle=True)
        views = fastssl.transforms.GPUViews(fastssl.recipes.simclr(224))
        for images, targets, _ in fastssl.pipelines.DaliBatches(reader, batch_size=256):
            view0, view1 = views([image.permute(2, 0, 1) for image in images])

    Args:
        reader: `FileReader`, `WebdatasetReader`, `fastssl.data.SourceReader`, or another `Reader`.
        batch_size: Samples of a batch.
        device: A GPU; or the CPU, for tests.
        threads: Of the host, to read and to decode; None for all CPUs.
        on_error: What happens with a sample that cannot be read: "raise" (DecodeError, which names it), "skip" (its batch is
            smaller, and left out if nothing is left of it: not for shards, whose numbers of batches may then differ), "replace"
            (the next good sample of the batch takes its place; of a batch without any, one before).

    Attributes:
        epoch: The epoch with which the next iteration begins.
        errors: Every sample that could not be read so far, once each.

    Raises:
        TypeError: reader is none.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        batch_size: int = 256,
        device: str | torch.device = "cuda",
        threads: int | None = None,
        on_error: OnError = "raise",
    ) -> None:
        check_on_error("DaliBatches", on_error)
        if not hasattr(reader, "batches"):
            raise TypeError(
                f"DaliBatches: got {type(reader).__name__}; it takes a reader, such as fastssl.pipelines.FileReader(files), or "
                "fastssl.data.SourceReader(source) for any other source."
            )
        self.reader = reader
        self.batch_size = check_whole("DaliBatches", "batch_size", batch_size, 1)
        if not reader.count(self.batch_size):
            raise ValueError(
                f"DaliBatches: no batch of {self.batch_size} is full, and the reader has drop_last=True; take a smaller one."
            )
        self.device = as_device("DaliBatches", device)
        if self.device.type not in ("cuda", "cpu"):
            raise ValueError(f'DaliBatches: device="{self.device}"; DALI decodes for "cuda" or "cpu".')
        self.threads = available_cpus() if threads is None else check_threads("DaliBatches", threads)
        self.on_error = on_error
        self.epoch = 0
        self.errors: list[Fault] = []
        self._decoder: DaliDecoder | None = None  # of the last iteration, for the next: on a GPU it is dear to come by

    def __len__(self) -> int:
        """Batches of an epoch, if none is left out by on_error="skip"."""
        return self.reader.count(self.batch_size)

    def __iter__(self) -> Iterator[RaggedBatch]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        decoder, self._decoder = self._decoder, None
        if decoder is None:
            decoder = DaliDecoder(self.device, self.batch_size, self.threads)
        return _Pass(self, decoder, epoch)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration go through `epoch`."""
        check_key("DaliBatches.set_epoch", 0, epoch)
        self.epoch = epoch


@dataclass
class _Begun:
    """A batch that is being decoded: by DALI at these positions, by the CPU at others, by nobody at the rest."""

    raw: RawBatch
    left: list[LeftImage]
    others: dict[int, Future[Tensor]]


class _Sample(NamedTuple):
    image: Tensor | str
    target: int
    filename: str


class _Pass(Iterator[RaggedBatch]):
    """The batches of one epoch. Closes itself at the end, on errors, and when let go of."""

    def __init__(self, owner: DaliBatches, decoder: DaliDecoder, epoch: int) -> None:
        self._owner = owner
        self._decoder = decoder
        self._pid = os.getpid()
        self._pool: ThreadPoolExecutor | None = None  # as long as there is nothing to close
        self._bad = {fault.filename for fault in owner.errors}
        self._dropped, self._first_dropped, self._images = 0, "", 0
        self._batches = owner.reader.batches(epoch, owner.batch_size, owner.threads)
        self._coming: Future[_Begun | None] | None = None  # the batch to come; None before the first and after the last
        # What a GPU may still read: host memory is not given back in the order of a stream.
        self._read: deque[tuple[torch.cuda.Event, _Begun]] = deque()
        self._spare: _Sample | None = None  # encoded: it should keep no block of decoded images
        self._pool = ThreadPoolExecutor(owner.threads, "fastssl-ragged")

    def __next__(self) -> RaggedBatch:
        if os.getpid() != self._pid:
            raise RuntimeError(
                "DaliBatches: this iteration was begun in another process, whose threads do not exist here; call iter() here."
            )
        if self._pool is None:
            raise StopIteration
        try:
            while True:
                begun = (self._coming or self._begin(self._pool)).result()
                if begun is None:
                    self._coming = None
                    if self._dropped and not self._images:
                        raise DecodeError(
                            f"DaliBatches: none of {self._dropped} samples can be read; the first: {self._first_dropped}"
                        )
                    raise StopIteration
                images = self._finish(begun)
                self._hold(begun)
                batch = self._assemble(begun.raw, images)
                self._begin(self._pool)
                if batch.images:
                    self._images += len(batch.images)
                    return batch
        except BaseException:
            self.close()
            raise

    def _begin(self, pool: ThreadPoolExecutor) -> Future[_Begun | None]:
        # Of no method: the thread must not hold the pass, or it would be the one to close it.
        self._coming = pool.submit(_begin, self._batches, self._decoder, pool)
        return self._coming

    def _finish(self, begun: _Begun) -> list[Tensor | str]:
        """The images of a batch on the device, or why there is none."""
        images: list[Tensor | str] = list(begun.raw.images)
        if begun.left:
            for left, decoded in zip(begun.left, self._decoder.finish(), strict=True):
                if decoded is None:
                    assert self._pool is not None
                    begun.others[left.position] = self._pool.submit(decode, left.data)
                else:
                    images[left.position] = from_dlpack(decoded.owner)
        for position, future in begun.others.items():
            try:
                images[position] = future.result()
            except DecodeError as error:
                images[position] = str(error)
        return [image if isinstance(image, str) else self._move(image) for image in images]

    def _move(self, tensor: Tensor) -> Tensor:
        """To the device, by pinned memory: a copy from other memory may wait for what the consumer has asked of the stream."""
        device = self._owner.device
        if device.type != "cuda" or tensor.device.type == "cuda":
            return tensor
        return tensor.pin_memory().to(device, non_blocking=True)

    def _hold(self, begun: _Begun) -> None:
        """Keeps the encoded images until they are decoded, and the host from going on far ahead of the GPU."""
        if self._owner.device.type != "cuda":
            return
        self._read.append((torch.cuda.current_stream(self._owner.device).record_event(), begun))
        while self._read and (len(self._read) > _PENDING or self._read[0][0].query()):
            self._read.popleft()[0].synchronize()

    def _assemble(self, raw: RawBatch, images: list[Tensor | str]) -> RaggedBatch:
        owner = self._owner
        samples = [_Sample(*sample) for sample in zip(images, raw.targets, raw.filenames, strict=True)]
        good = [i for i, image in enumerate(images) if not isinstance(image, str)]
        kept: list[_Sample] = []
        for i, image in enumerate(images):
            if not isinstance(image, str):
                kept.append(samples[i])
                continue
            fault = self._note(Fault(raw.indices[i], raw.names[i], image))
            if owner.on_error == "skip":
                self._dropped += 1
                self._first_dropped = self._first_dropped or str(fault)
            else:
                kept.append(samples[next((j for j in good if j > i), good[0])] if good else self._decode_spare(fault))
        if good and owner.on_error == "replace":
            self._spare = _Sample(raw.images[good[-1]], raw.targets[good[-1]], raw.filenames[good[-1]])
        targets = torch.tensor([sample.target for sample in kept], dtype=torch.int64, device="cpu")
        return RaggedBatch(
            [sample.image for sample in kept],  # type: ignore[misc]  # of good ones, tensors
            self._move(targets),
            [sample.filename for sample in kept],
        )

    def _decode_spare(self, fault: Fault) -> _Sample:
        """A sample of a batch before, in the place of one whose batch has no good sample."""
        if self._spare is None:
            raise DecodeError(f"DaliBatches: no sample can be read so far; the last: {fault}")
        image, target, filename = self._spare
        assert not isinstance(image, str)
        return _Sample(self._move(decode(image) if image.dim() == 1 else image), target, filename)

    def _note(self, fault: Fault) -> Fault:
        if fault.filename not in self._bad:
            self._bad.add(fault.filename)
            self._owner.errors.append(fault)
        if self._owner.on_error == "raise":
            raise DecodeError(
                f"{fault}. Repair or remove it, or go on without such files by on_error='skip' or 'replace', and see "
                "errors."
            )
        return fault

    def close(self) -> None:
        """Ends reading and decoding; what has been yielded stays valid."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        if os.getpid() != self._pid:  # a fork: what is of threads and of the device cannot be let go of there
            keep_for_ever(dict(self.__dict__))
            return
        waited = end_pool(pool)
        while self._read:
            self._read.popleft()[0].synchronize()
        if not waited:  # what still runs holds reader and decoder, which end with it
            return
        if self._coming is not None:  # the decoder may have begun with it
            self._decoder.abandon()
        self._coming = None
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        self._owner._decoder = self._decoder

    def __del__(self) -> None:
        self.close()


def _begin(batches: Iterator[RawBatch], decoder: DaliDecoder, pool: ThreadPoolExecutor) -> _Begun | None:
    """Reads the next batch and lets it be decoded; None if there is none."""
    raw = next(batches, None)
    if raw is None:
        return None
    begun = _Begun(raw, [], {})
    for position, image in enumerate(raw.images):
        if isinstance(image, str) or image.dim() == 3:
            continue
        address, size = image.data_ptr(), image.numel()
        plain = _C.plain_jpeg_size(address, size)
        if not plain:
            begun.others[position] = pool.submit(decode, image)
            continue
        try:
            height, width, _ = _C.jpeg_size(address, size)
        except DecodeError as error:  # too large
            raw.images[position] = str(error)
        else:
            begun.left.append(LeftImage(position, image[:plain], height, width, (0, 0, height, width)))
    if begun.left:
        decoder.start(begun.left)
    return begun
