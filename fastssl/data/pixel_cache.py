"""What a Loader keeps of decoded images: which cache, for which source, and how it is doing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from fastssl._native import _C, CacheError
from fastssl.data.sources import Source
from fastssl.ops.decode import to_image
from fastssl.ops.render import encode_recipe, native_views
from fastssl.transforms.view import Recipe

__all__ = ["CacheSize", "PixelCache", "as_cache", "available_bytes", "fingerprint"]

CacheSize = Literal["full", "recipe"]

# Raised whenever the same file would be decoded to other pixels than before.
_DECODING = 1


class PixelCache:
    """The cache of one Loader, in whichever process the Loader is.

    Args:
        source: Of the images.
        recipe: Which views; says how small an image may be kept where `size` is "recipe".
        where: None for memory, else the file.
        limit: Most bytes; None for half of what is available (memory), or for no limit (a file).
        size: "full" or "recipe".

    Raises:
        CacheError: The file is damaged, foreign, of another source or rule, or cannot be made.
    """

    def __init__(self, source: Source, recipe: Recipe, where: str | None, limit: int | None, size: CacheSize) -> None:
        self.source, self.where, self.limit, self.size = source, where, limit, size
        self._views = encode_recipe(recipe)
        self._fingerprint = b"" if where is None else fingerprint(source)
        self._native: _C.MemoryCache | _C.FileCache | None = None
        self._process = 0
        self.open()

    def open(self) -> _C.MemoryCache | _C.FileCache:
        """The native cache of this process."""
        native, here = self._native, self._process == os.getpid()
        idle = isinstance(native, _C.FileCache) and native.idle  # perhaps the other machine has completed it by now
        if native is not None and here and not idle and not native.error():
            return native
        if self.where is None:
            inherited = native if isinstance(native, _C.MemoryCache) else None
            limit = _share_of_memory() if self.limit is None else self.limit
            native = _C.MemoryCache(samples=len(self.source), bytes=limit, base=inherited)
            self._budget = limit
        else:
            native = _C.FileCache(
                path=os.fsencode(self.where),
                samples=len(self.source),
                fingerprint=self._fingerprint,
                rule=_rule(self.source, self._views, self.size),
                limit=self.limit or 0,
            )
            self._budget = self.limit or 0
        self._native, self._process = native, os.getpid()
        return native

    def keep_for(self) -> tuple[Any, ...]:
        """The native views for which an image may be kept smaller; none where every pixel is kept."""
        return native_views(self._views) if self.size == "recipe" else ()

    def check(self) -> None:
        """Raises CacheError if the cache was found damaged, or could not be written."""
        if self._native is not None and (error := self._native.error()):
            raise CacheError(error)

    def attend(self, indices: Iterable[int]) -> None:
        """After a batch of these samples: their labels are looked up, and a file that has all images is completed.

        What was not fetched here was found in the file, where whoever stored it left its label. What was found in memory
        was fetched here, or before a fork.

        Raises:
            CacheError: It cannot be written, or lacks a label.
        """
        native = self._native
        if not isinstance(native, _C.FileCache):
            return
        for index in self.source.unlabelled(indices):
            label = native.label(index)
            if not label:
                raise CacheError(
                    f"cache {self.where!r}: it lacks the target and name of image {index}; delete the file, then it is "
                    "filled anew"
                )
            self.source.restore_labels({index: json.loads(label)})
        if native.ready:
            native.finish()

    def labels(self) -> bool:
        """Whether each image is to be stored with its label."""
        return self.where is not None and self.source.labels_by_fetch

    def stats(self) -> dict[str, Any]:
        """See `Loader.stats`."""
        n, native = len(self.source), self._native
        if native is None or self._process != os.getpid():
            native = self.open()
        counts = native.counts()
        images, size = counts["images"], counts["bytes"]
        if images >= n:
            advice = "all images are kept"
        elif isinstance(native, _C.FileCache) and native.idle:
            advice = f"another machine is filling {self.where!r}; until it is complete, this one decodes"
        elif counts["left_out"]:
            need = f"; all need about {size // images * n}" if images else ""
            smaller = ', or take cache_size="recipe"' if self.size == "full" else ""
            if isinstance(native, _C.FileCache) and native.complete:  # perhaps by a run with another limit
                advice = (
                    f"{self.where!r} is complete with {images} of {n} images; {counts['left_out']} did not fit into the "
                    f"cache_bytes with which it was filled{need}. It stays so: to have more, delete it and give cache_bytes "
                    f"more, if there is{smaller}"
                )
            else:
                elsewhere = ", or a path in the place of memory" if self.where is None else ""
                advice = (
                    f"{images} of {n} images fit into cache_bytes={self._budget}{need}: give it more, "
                    f"if there is{smaller}{elsewhere}"
                )
        elif isinstance(native, _C.FileCache) and native.complete:
            advice = f"all images are kept but {n - images}, which could not be decoded"
        else:
            advice = f"{images} of {n} images are kept so far"
        return {"samples": n, "limit": self._budget, **counts, "advice": advice}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_native": None}


def as_cache(
    source: Source,
    recipe: Recipe,
    cache: str | os.PathLike[str] | None,
    cache_bytes: int | None,
    cache_size: CacheSize,
) -> PixelCache | None:
    """The cache that a Loader's arguments ask for; None also where the images lie in memory as an array.

    Raises:
        ValueError, TypeError: They are not as Loader describes them.
    """
    if cache_size not in ("full", "recipe"):
        raise ValueError(
            f'Loader: cache_size={cache_size!r} must be "full" (every pixel), or "recipe" (as small as the views allow).'
        )
    whole = isinstance(cache_bytes, int) and not isinstance(cache_bytes, bool)
    if cache_bytes is not None and (not whole or cache_bytes < 1):
        raise ValueError(f"Loader: cache_bytes={cache_bytes!r} must be a whole number of bytes, or None.")
    if cache is None:
        if cache_bytes is not None or cache_size != "full":
            raise ValueError(
                'Loader: cache_bytes and cache_size say how to cache; write cache="ram" or a path as well.'
            )
        return None
    if not isinstance(cache, str | os.PathLike) or not os.fspath(cache):
        raise TypeError(f'Loader: cache={cache!r} must be None, "ram", or the path of a file.')
    if source.native() is not None:  # pixels in memory: nothing would be saved
        return None
    where = None if cache == "ram" else os.path.abspath(os.fspath(cache))
    return PixelCache(source, recipe, where, cache_bytes, cache_size)


def _rule(source: Source, encoded: str, size: CacheSize) -> str:
    """How images were decoded, in words: two caches of the same rule hold the same pixels."""
    how = f"decoding {_DECODING} of {source.channels} channels, {source.mode}"
    if size == "full":
        return f"{how}; full size"
    views = [
        [view.size, view.crop.name, view.of, view.area, view.aspect, view.keep, view.steps[:1] == [_C.Step.crop]]
        for view in native_views(encoded)
    ]
    code = hashlib.sha256(json.dumps(views).encode()).hexdigest()[:16]
    return f"{how}; as small as the views allow, which have sizes {[v[0] for v in views][:40]}, code {code}"


def fingerprint(source: Source) -> bytes:
    """32 bytes that change when the source does.

    What the source's `fingerprint()` says, if it has one. Else, the names of all samples, with size and time of change
    for those that are files; and the contents of the first, the middle and the last of those that are not, with their
    targets and names where these are known only by a fetch: such labels are kept in the file.
    """
    sha = hashlib.sha256()
    named = not source.labels_by_fetch  # else the name is known only once a sample was fetched
    sha.update(b"" if named else b"labels")
    said = source.fingerprint()
    if said is not None:
        sha.update(b"said" + (said if isinstance(said, bytes) else str(said).encode()))
        return sha.digest()
    fetched = []
    for index in range(len(source)):
        path = source.path(index)
        if path is None:
            fetched.append(index)
            about: tuple[Any, ...] = ()
        else:
            try:
                status = os.stat(path)
                about = (status.st_size, status.st_mtime_ns)
            except OSError:  # a bad sample, of which the Loader will say so
                about = ("missing",)
        name = source.filename(index) if named else ""
        sha.update(repr((name, *about)).encode("utf-8", "surrogateescape"))
    for index in sorted({fetched[0], fetched[len(fetched) // 2], fetched[-1]}) if fetched else []:
        sha.update(_contents(source, index))
        if not named:
            sha.update(repr((source.target(index), source.filename(index))).encode("utf-8", "surrogateescape"))
    return sha.digest()


def _contents(source: Source, index: int) -> bytes:
    try:
        image = source.fetch(index)
        if isinstance(image, bytes | bytearray | memoryview):
            return hashlib.sha256(image).digest()
        if not isinstance(image, Tensor):
            image = to_image(image)
        return hashlib.sha256(image.contiguous().numpy().data).digest()
    except (OSError, ValueError, RuntimeError):  # a bad sample, of which the Loader will say so
        return b"bad"


def _share_of_memory() -> int:
    """Half of the available memory, shared out among the ranks of this machine, as torchrun counts them."""
    return available_bytes() // 2 // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def available_bytes(system: str | os.PathLike[str] = "/") -> int:
    """Memory that this process may still take without swapping: of the machine, and of each control group it is in.

    Args:
        system: The folder that holds `proc` and `sys`.
    """
    root = Path(system)
    memory = root / "proc/meminfo"
    found = [
        int(line.split()[1]) * 1024 for line in memory.read_text().splitlines() if line.startswith("MemAvailable:")
    ]
    groups = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, name = line.split(":", 2)
        if number == "0":
            base, limit, usage, cached = groups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        inner = base / name.strip("/")
        # In a container the group's own folder is the root of what is seen.
        for folder in [inner, *inner.parents][: len(inner.parts) - len(base.parts) + 1]:
            most, used = _lines(folder / limit), _lines(folder / usage)
            if not most or not used or most[0] == "max":
                continue
            kept = dict(line.split() for line in _lines(folder / "memory.stat")).get(
                cached, "0"
            )  # given back on demand
            found.append(max(0, int(most[0]) - int(used[0]) + int(kept)))
    return min(found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # no such control group here
        return []
