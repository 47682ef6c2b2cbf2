"""Caches of decoded images in files: made ahead of a training, and checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fastssl._native import _C, CacheError, available_cpus
from fastssl.data.faults import Fault
from fastssl.data.loader import Loader
from fastssl.data.pixel_cache import CacheSize, as_cache
from fastssl.data.sources import Source, as_source
from fastssl.ops.threads import check_threads
from fastssl.transforms.view import CenterCrop, Recipe, View

__all__ = ["CacheError", "CacheInfo", "build_cache", "verify_cache"]

_BATCH = 64
# The least that can be asked of an image: the Loader decodes and keeps all of it whatever the view.
_GLANCE = (View(crop=CenterCrop(size=1), normalize=None),)


@dataclass(frozen=True)
class CacheInfo:
    """What a cache file holds.

    Args:
        path: The file.
        samples: Of the source.
        images: That are in it; the others could not be decoded, or did not fit.
        bytes: Its size.
        rule: How its images were decoded.
        faults: Samples that could not be decoded, where the cache was just made.
    """

    path: str
    samples: int
    images: int
    bytes: int
    rule: str
    faults: tuple[Fault, ...] = ()


def build_cache(
    source: Source | str | os.PathLike[str] | Any,
    path: str | os.PathLike[str],
    *,
    recipe: Recipe | None = None,
    cache_bytes: int | None = None,
    threads: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> CacheInfo:
    """Decodes all images of a source once, into the file that `Loader(source, ..., cache=path)` then reads.

    A Loader fills its file by itself during the first epoch; this is for doing it ahead, as on one machine for many. What was
    stored before a break-off is taken up again. A file that is there and is of this source is left as it is.

    Args:
        source: As a Loader takes it.
        path: The file; its folder must exist.
        recipe: Keeps images only as large as these views can need, for a Loader with `cache_size="recipe"`; None keeps
            every pixel.
        cache_bytes: Most bytes of the file; None for no limit.
        threads: None for all CPUs that the process may use.
        on_error: "raise" ends at the first sample that cannot be decoded, "skip" lists them in the result.
        overwrite: Removes a file, or a part of one, that is there already, whatever it was made from. Only where no other process
            fills it.
        progress: Called with the number of samples done and of all, after every few.

    Raises:
        CacheError: The file is of another source, damaged or foreign, or cannot be written.
        DecodeError: A sample cannot be decoded.
        ValueError: An argument is not as described.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f'build_cache: on_error={on_error!r} must be "raise" or "skip".')
    if path == "ram":
        raise ValueError(f"build_cache: path={path!r} is what a Loader calls memory; give the path of a file.")
    source = as_source(source)
    if source.native() is not None:
        raise ValueError(
            "build_cache: the images lie in memory as an array already; a Loader reads them where they are."
        )
    if overwrite:
        for name in (os.fspath(path), f"{os.fspath(path)}.part"):
            with suppress(FileNotFoundError):
                os.remove(name)
    size: CacheSize = "full" if recipe is None else "recipe"
    cache = as_cache(source, recipe or _GLANCE, path, cache_bytes, size)
    assert cache is not None
    native = cache.open()
    assert isinstance(native, _C.FileCache)
    faults: list[Fault] = []
    if not native.complete:
        loader = Loader(
            source,
            _GLANCE,
            batch_size=_BATCH,
            shuffle=False,
            threads=threads,
            dtype=torch.uint8,
            on_error=on_error,
            rank=0,
            world_size=1,
        )
        loader._cache = cache
        done = 0
        for batch in loader:
            done += len(batch) + len(loader.errors) - len(faults)
            faults = list(loader.errors)
            if progress is not None:
                progress(done, len(source))
        cache.attend(())
    if progress is not None:
        progress(len(source), len(source))
    counts = native.counts()
    name = os.path.abspath(os.fspath(path))
    return CacheInfo(name, len(source), counts["images"], counts["bytes"], native.rule, tuple(faults))


def verify_cache(path: str | os.PathLike[str], *, threads: int | None = None) -> CacheInfo:
    """Reads a complete cache file from end to end and checks every checksum in it.

    Args:
        path: The file.
        threads: None for all CPUs that the process may use.

    Raises:
        CacheError: It is damaged, foreign, or of another version; the message says how many images are damaged.
        FileNotFoundError: There is no such file, or it is still being filled.
    """
    name = os.fspath(path)
    if not os.path.exists(name):
        part = f"{name}.part"
        filled = f"; {part!r} is there, which is filled but not complete yet" if os.path.exists(part) else ""
        raise FileNotFoundError(f"verify_cache: there is no file {name!r}{filled}.")
    native = _C.FileCache(path=os.fsencode(name), samples=0, fingerprint=b"", rule="", any=True)
    damaged = native.damaged(available_cpus() if threads is None else check_threads("verify_cache", threads))
    counts = native.counts()
    if damaged:
        raise CacheError(
            f"cache {name!r}: the pixels of {len(damaged)} of {counts['images']} images are damaged (wrong checksum), the "
            f"first of image {damaged[0]}; delete the file, then it is filled anew"
        )
    return CacheInfo(os.path.abspath(name), native.samples, counts["images"], counts["bytes"], native.rule)
