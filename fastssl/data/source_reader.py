"""Any source as what a pipeline reads from."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastssl._native import _C, DecodeError
from fastssl.data.sources import Source, as_source
from fastssl.ops.decode import to_image
from fastssl.pipelines.readers import RawBatch, Share

__all__ = ["SourceReader"]

# Batches that are read ahead.
_AHEAD = 2


class SourceReader:
    """Reads the encoded images of a source on threads of its own, for `fastssl.pipelines.DaliBatches`.

    With the same seed its order is that of `fastssl.Loader`.

    Args:
        source: A Source, a folder, or a map-style data set of `(image, target)` or `(image, target, filename)`. Images that it
            has as pixels already are handed on as such.
        shuffle, seed, shard, shards, drop_last: See `fastssl.pipelines.readers.Share`.

    Raises:
        TypeError, ValueError: An argument is not as described.

    >>> reader = SourceReader([(b"one", 4, "a.jpg"), (b"three", 2, "b.jpg")])
    >>> (batch,) = reader.batches(epoch=0, batch_size=2, threads=1)
    >>> [bytes(image.numpy()) for image in batch.images], batch.targets, batch.filenames
    ([b'one', b'three'], [4, 2], ['a.jpg', 'b.jpg'])
    """

    def __init__(
        self,
        source: Source | str | os.PathLike[str] | Any,
        *,
        shuffle: bool = False,
        seed: int = 0,
        shard: int = 0,
        shards: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.source = as_source(source)
        if self.source.channels != 3 or self.source.mode != "RGB":
            raise ValueError(
                f"SourceReader: the source has {self.source.channels} channels, mode={self.source.mode!r}; DALI's pipelines are "
                "for RGB images. fastssl.Loader takes others."
            )
        self._share = Share("SourceReader", bool(shuffle), seed, shard, shards, bool(drop_last))
        if not len(self.source):
            raise ValueError("SourceReader: the source is empty.")
        self._share.check(len(self.source))

    def __len__(self) -> int:
        """Samples, of all shards."""
        return len(self.source)

    def count(self, batch_size: int) -> int:
        """Batches of an epoch."""
        return self._share.count(len(self), batch_size)

    def batches(self, epoch: int, batch_size: int, threads: int) -> Iterator[RawBatch]:
        """Those of an epoch."""
        first, last = self._share.bounds(len(self), batch_size)
        order = self._share.permutation(epoch, len(self))[first:last]
        pool = ThreadPoolExecutor(threads, "fastssl-read")
        started: deque[tuple[Tensor, list[Future[Tensor | str]]]] = deque()
        try:
            for at in range(0, len(order), batch_size):
                which = order[at : at + batch_size]
                started.append((which, [pool.submit(read) for read in self._reads(which)]))
                if len(started) > _AHEAD:
                    yield self._batch(*started.popleft())
            while started:
                yield self._batch(*started.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _reads(self, which: Tensor) -> list[Callable[[], Tensor | str]]:
        source = self.source
        native = source.native()
        if native is not None:
            rows = which if native.rows is None else native.rows[which]
            return [lambda row=row: torch.from_numpy(native.images[row]) for row in rows.tolist()]  # type: ignore[misc]
        paths = source.paths_of(which)
        return [
            (lambda i=i: _fetch(source, i)) if path is None else (lambda path=path: _read(path))  # type: ignore[misc]
            for i, path in zip(which.tolist(), paths, strict=True)
        ]

    def _batch(self, which: Tensor, images: list[Future[Tensor | str]]) -> RawBatch:
        source, indices = self.source, which.tolist()
        results = [image.result() for image in images]  # first: only a fetch may tell target and name
        filenames = source.filenames_of(which)
        names = [source.path(i) or filename for i, filename in zip(indices, filenames, strict=True)]
        return RawBatch(results, source.targets_of(which).tolist(), indices, names, filenames)


def _read(path: str) -> Tensor | str:
    try:
        return _as_bytes(_C.read_file(path))
    except DecodeError as error:
        return str(error)


def _fetch(source: Source, index: int) -> Tensor | str:
    """What readers and decoders raise makes a bad sample; another exception is a mistake in the source, and goes through."""
    try:
        image = source.fetch(index)
        if isinstance(image, bytes | bytearray | memoryview):
            return _as_bytes(image) if len(image) else "the data is empty (0 bytes)"
        if isinstance(image, Tensor) and image.dim() == 1:
            return image.contiguous() if len(image) else "the data is empty (0 bytes)"
        pixels = to_image(image)
        if pixels.dtype != torch.uint8 or pixels.shape[2] != 3:
            return f"an image of {pixels.dtype} and shape {tuple(pixels.shape)}; it must be uint8, (H, W, 3)"
        return pixels
    except (OSError, ValueError, RuntimeError) as error:
        return str(error) or "no reason was given"


def _as_bytes(data: Any) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
