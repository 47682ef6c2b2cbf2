"""DALI's own readers, of files and of webdataset's tar archives, as sources of encoded images.

They read on threads of DALI's, ahead of who takes the batches. What they cannot read must not end them: DALI's file reader
stops for good at a file that it cannot open, so the batch at hand is then read file by file, and another reader goes on after it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from fastssl._native import _C, DecodeError, philox
from fastssl.pipelines.dali_modules import built, dali, fn
from fastssl.pipelines.readers import RawBatch, Share, check_rgb
from fastssl.pipelines.tar_index import samples_of, tar_members, write_index
from fastssl.transforms._checks import check_whole

__all__ = ["FileReader", "WebdatasetReader"]

_EMPTY = "the file is empty (0 bytes)"
# Files that one pipeline is given: DALI takes 4 us a file to begin with, and begins anew after one that it cannot open.
_FILES = 1 << 14


class FileReader:
    """Reads files by DALI's `readers.file`.

    An epoch is shuffled as a whole, and not within a window of `initial_fill` samples as DALI's own shuffling is: the list that
    DALI is given is shuffled already.

    Args:
        files: Paths; or a Source whose images are files, such as `fastssl.data.ImageFolder("photos/")`, with its targets and
            names.
        targets: One a file; None for those of the source, or 0.
        shuffle, seed, shard_id, num_shards, drop_last: See `fastssl.pipelines.readers.Share`.

    Raises:
        TypeError: files is a single path, or no sequence of paths, or a Source with images that are no files.
        ValueError: There is no file, there are not as many targets, the source's images are not 8-bit RGB, or an argument is out
            of its range.
    """

    def __init__(
        self,
        files: Any,
        targets: Sequence[int] | None = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
        shard_id: int = 0,
        num_shards: int = 1,
        drop_last: bool = False,
    ) -> None:
        is_source = hasattr(files, "paths_of")
        paths = files.paths_of(torch.arange(len(files), device="cpu")) if is_source else files
        if isinstance(paths, str | os.PathLike) or not isinstance(paths, Sequence):
            raise TypeError(
                f"FileReader: got {files!r}; it takes a list of paths, or a folder as fastssl.data.ImageFolder(path)."
            )
        for i, path in enumerate(paths):
            if not isinstance(path, str | os.PathLike):
                raise TypeError(
                    f"FileReader: image {i} is {type(path).__name__} and no path of a file; for what holds images in another way "
                    "write fastssl.data.SourceReader(source)."
                )
        if not paths:
            raise ValueError("FileReader: the list of files is empty.")
        self._paths = [os.fspath(path) for path in paths]
        if is_source:
            check_rgb("FileReader", files.channels, files.mode)
        if targets is None:
            everything = torch.arange(len(self._paths), device="cpu")
            targets = files.targets_of(everything).tolist() if is_source else [0] * len(self._paths)
        self._targets = [int(target) for target in targets]
        if len(self._targets) != len(self._paths):
            raise ValueError(f"FileReader: {len(self._paths)} files need as many targets, got {len(self._targets)}.")
        self._share = Share("FileReader", bool(shuffle), seed, shard_id, num_shards, bool(drop_last))
        self._share.check(len(self._paths))
        self._filename = files.filename if is_source else self._paths.__getitem__

    def __len__(self) -> int:
        """Files, of all shards."""
        return len(self._paths)

    def count(self, batch_size: int) -> int:
        return self._share.count(len(self), batch_size)

    def batches(self, epoch: int, batch_size: int, threads: int) -> Iterator[RawBatch]:
        first, last = self._share.bounds(len(self), batch_size)
        order = self._share.permutation(epoch, len(self))[first:last].tolist()
        given = max(1, _FILES // batch_size) * batch_size
        pipeline: Any = None
        until = 0  # where what this pipeline was given ends
        for at in range(0, len(order), batch_size):
            which = order[at : at + batch_size]
            if pipeline is None or at == until:
                files = [self._paths[i] for i in order[at : at + given]]
                strange = next((i for i, file in enumerate(files) if not _is_text(file)), len(files))
                if strange < len(files):
                    del files[strange // batch_size * batch_size :]  # its batch, and those after it
                until = at + len(files)
                pipeline = self._pipeline(files, batch_size, threads) if files else None
            images = None if pipeline is None else _run(pipeline, len(which))
            if images is None:
                pipeline, images = None, [_read(self._paths[i]) for i in which]
            yield RawBatch(
                images,
                [self._targets[i] for i in which],
                which,
                [self._paths[i] for i in which],
                [self._filename(i) for i in which],
            )

    def _pipeline(self, files: list[str], batch_size: int, threads: int) -> Any:
        pipeline = _reading(batch_size, threads)
        with pipeline:
            data, _ = fn.readers.file(
                files=files,
                pad_last_batch=True,  # so that nothing of the beginning is read again at the end
                dont_use_mmap=True,  # a file that grows shorter while it is mapped would end the process
            )
            pipeline.set_outputs(data)
        return built(pipeline)


class WebdatasetReader:
    """Reads tar archives as webdataset has them by DALI's `readers.webdataset`.

    Archives are read from their beginning to their end. With `shuffle`, each epoch draws their order, and DALI mixes what it
    reads in a window of `initial_fill` samples, so that samples which lie far apart seldom meet.

    The archives' headers are read once, when the reader is made; `index` files of DALI's are not needed.

    Args:
        archives: Paths.
        images: Extensions of what is an image, in lower case, without a dot before them.
        targets: Extensions of the file with the target, a whole number in digits; () for none, and targets of 0.
        initial_fill: Samples of the window.
        shuffle, seed, shard_id, num_shards, drop_last: See `fastssl.pipelines.readers.Share`.

    Raises:
        TypeError: archives is a single path, or no sequence; images or targets is no list of extensions.
        ValueError: There is no archive, or no sample in them, or an argument is out of its range.
        DecodeError: An archive cannot be read, or is truncated. Names it.
    """

    def __init__(
        self,
        archives: Sequence[str | os.PathLike[str]],
        *,
        images: Sequence[str] = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "tif", "tiff"),
        targets: Sequence[str] = ("cls",),
        initial_fill: int = 1024,
        shuffle: bool = False,
        seed: int = 0,
        shard_id: int = 0,
        num_shards: int = 1,
        drop_last: bool = False,
    ) -> None:
        if isinstance(archives, str | os.PathLike) or not isinstance(archives, Sequence):
            raise TypeError(f"WebdatasetReader: got {archives!r}; it takes a list of paths of tar archives.")
        if not archives:
            raise ValueError("WebdatasetReader: the list of archives is empty.")
        self._share = Share("WebdatasetReader", bool(shuffle), seed, shard_id, num_shards, bool(drop_last))
        self._fill = check_whole("WebdatasetReader", "initial_fill", initial_fill, 1)
        _check_extensions("images", images)
        _check_extensions("targets", targets)
        self._with_targets = bool(targets)
        self._images = ", .".join(images)
        # Of each sample; not the samples themselves, which take seven times the memory: an ImageNet has a million.
        self._names: list[str] = []
        self._archive: list[str] = []
        self._has_image, self._has_target = bytearray(), bytearray()
        self._indexed: list[tuple[str, str]] = []  # archives and their indices
        folder = tempfile.mkdtemp(prefix="fastssl-")
        weakref.finalize(self, _remove, folder, os.getpid())
        for number, archive in enumerate([os.fspath(archive) for archive in archives]):
            if not _is_text(archive):
                raise ValueError(
                    f"WebdatasetReader: {archive!r} is not UTF-8, and DALI takes no other path; rename it."
                )
            samples = list(samples_of(tar_members(archive), images, targets))
            if samples:  # DALI takes no empty index
                index = os.path.join(folder, f"{number}.idx")
                write_index(index, samples, len(self._names))
                self._indexed.append((archive, index))
                self._names += [sample.image.name if sample.image else sample.name for sample in samples]
                self._archive += [archive] * len(samples)
                self._has_image += bytes(sample.image is not None for sample in samples)
                self._has_target += bytes(sample.target is not None for sample in samples)
        if not self._names:
            raise ValueError(
                f"WebdatasetReader: no sample in {len(archives)} archives; looked for files that end in .{self._images}."
            )
        self._share.check(len(self._names))

    def __len__(self) -> int:
        """Samples, of all shards."""
        return len(self._names)

    def count(self, batch_size: int) -> int:
        return self._share.count(len(self), batch_size)

    def batches(self, epoch: int, batch_size: int, threads: int) -> Iterator[RawBatch]:
        first, last = self._share.bounds(len(self), batch_size)
        order = self._share.permutation(epoch, len(self._indexed)).tolist()
        pipeline = self._pipeline([self._indexed[i] for i in order], epoch, batch_size, threads)
        for at in range(first, last, batch_size):
            try:
                images, targets = pipeline.run()
            except RuntimeError as error:
                raise DecodeError(
                    f"WebdatasetReader: DALI cannot go on: {error} Have the archives changed since this reader was made?"
                ) from error
            n = min(batch_size, last - at)
            yield self._batch([images[i] for i in range(n)], [targets[i] for i in range(n)])

    def _pipeline(self, indexed: list[tuple[str, str]], epoch: int, batch_size: int, threads: int) -> Any:
        share = self._share
        key = (share.seed & 0xFFFFFFFF, share.seed >> 32)
        pipeline = _reading(batch_size, threads)
        with pipeline:
            outputs = fn.readers.webdataset(
                paths=[archive for archive, _ in indexed],
                index_paths=[index for _, index in indexed],
                ext=["image", "target"],
                random_shuffle=share.shuffle,
                initial_fill=self._fill,
                seed=philox((epoch, 0, 0, 0), key)[0] >> 1,
                shard_id=share.shard_id,
                num_shards=share.num_shards,
                stick_to_shard=True,
                pad_last_batch=True,  # so that what is read ahead at the end is of this shard, too
                dont_use_mmap=True,  # as above
            )
            pipeline.set_outputs(*outputs)
        return built(pipeline)

    def _batch(self, images: list[Any], targets: list[Any]) -> RawBatch:
        batch = RawBatch([], [], [], [], [])
        for image, target in zip(images, targets, strict=True):
            number = int((image.source_info() or target.source_info()).rpartition(":")[2])
            name = self._names[number]
            data = (
                _encoded(image)
                if self._has_image[number]
                else f"the sample has no image: no file that ends in .{self._images}"
            )
            value = _target(target) if self._has_target[number] else 0 if not self._with_targets else None
            if value is None and not isinstance(data, str):
                data = "the sample has no target that is a whole number; for data without targets write targets=()"
            batch.images.append(data)
            batch.targets.append(value or 0)
            batch.indices.append(number)
            batch.names.append(f"{self._archive[number]}: {name}")
            batch.filenames.append(name)
        return batch


def _check_extensions(name: str, extensions: Any) -> None:
    fits = isinstance(extensions, Sequence) and not isinstance(extensions, str)
    if not fits or not all(isinstance(e, str) and e and e == e.lower() and not e.startswith(".") for e in extensions):
        raise TypeError(
            f"WebdatasetReader: {name}={extensions!r} must be a list of extensions in lower case, without a dot before them, as "
            "('jpg', 'png')."
        )


def _is_text(path: str) -> bool:
    """Whether it is UTF-8: DALI takes no other path."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reading(batch_size: int, threads: int) -> Any:
    # The dynamic executor gives each batch memory of its own, which lives as long as somebody holds a sample of it.
    return dali.Pipeline(batch_size=batch_size, num_threads=threads, device_id=None, exec_dynamic=True)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and not a child of it that ends
        shutil.rmtree(folder, ignore_errors=True)


def _run(pipeline: Any, count: int) -> list[Tensor | str] | None:
    """The first images of the next batch; None where one cannot be read, whereupon the pipeline is no longer valid."""
    try:
        (data,) = pipeline.run()
    except RuntimeError:
        return None
    return [_encoded(data[i]) for i in range(count)]


def _encoded(data: Any) -> Tensor | str:
    """Memory of DALI's as a tensor, which keeps it."""
    return from_dlpack(data) if data.shape()[0] else _EMPTY


def _read(path: str) -> Tensor | str:
    try:
        return torch.from_numpy(np.frombuffer(bytearray(_C.read_file(path)), dtype=np.uint8))
    except DecodeError as error:
        return str(error)


def _target(data: Any) -> int | None:
    digits = bytes(np.asarray(data)).strip()
    return int(digits) if digits.lstrip(b"+-").isdigit() else None
