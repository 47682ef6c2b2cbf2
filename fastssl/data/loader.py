"""The loader: from files to finished batches, on threads of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch

from fastssl._native import _C, available_cpus
from fastssl.data.batch import Batch
from fastssl.data.checks import as_device, check_count
from fastssl.data.device_choice import MEASURED, Decode, DeviceChoice, check_decode, images_per_second
from fastssl.data.faults import Fault, OnError, check_on_error
from fastssl.data.iteration import Iteration
from fastssl.data.making import Device
from fastssl.data.native_calls import ImageStep, is_plain
from fastssl.data.order import Order
from fastssl.data.pixel_cache import CacheSize, as_cache
from fastssl.data.sources import Source, as_source
from fastssl.data.subset import Subset
from fastssl.ops.render import check_format, encode_recipe, native_views
from fastssl.ops.threads import check_threads
from fastssl.pipelines.choose import Choice
from fastssl.transforms.plan import check_key
from fastssl.transforms.view import Recipe

__all__ = ["Loader"]

# Samples that are looked at before ways to decode are compared at all.
_LOOKED_AT = 16


class Loader:
    """Batches of views from a source of images, read, decoded and rendered by native threads.

    Worth it because no pixel passes through Python, one decode serves all views, and views are written once, into the
    batch. A view depends on (seed, epoch, index, view) alone: threads, batch size and ranks do not change it.

    Iterating once goes through `epochs` epochs; the next iteration goes on with the epoch after. Threads exist only while an
    iteration does. Batch memory is kept from an iteration that came to its end to the next, and let go of with the loader, or
    when an iteration is broken off. Memory, in bytes: (prefetch + 2) * batch_size * (sum over views of C * size^2 * bytes a
    value, and as much again in float32 for a view with a custom step) for batches, C being the channels of the images; for
    each thread the largest decoded image (C bytes a pixel, or 2 * C of 16 bits; twice that with an image_step; where colours
    come before the crop, 8 * C more; once more while a cache's file is filled) and 8 * C * size^2 for the largest view; with
    cache="ram", cache_bytes at most and 8 for each sample. Batch memory is first touched by the threads that write it, so that on
    a machine of several memory nodes it lies where they run. Threads stay on the CPUs that the process may use; they are not
    pinned any further, as no gain of that has been measured.

    With views made on a GPU, batch memory is of two kinds, kept from an iteration to the next. On the host, pinned: prefetch + 3
    times what a batch's images take of which the views need something, 512 KiB * batch_size at first, and, where the GPU
    decodes, as many times what they take encoded, 128 KiB * batch_size at first; torch rounds each block up to a power of two. On
    the GPU: four batches of views (two that are still to be used, one that is, one made ahead), the decoded part of a batch's
    images, 96 MiB of scratch, or what one view needs if that is more, and, where the GPU decodes, at most four times 256 MiB of
    pixels.

    Args:
        source: A folder, a Source, or a map-style data set of `(image, target)` or `(image, target, filename)`.
        recipe: The views, such as `fastssl.recipes.simclr(224)`.
        batch_size: Samples of a batch, on each rank.
        device: Where the batches go. For a GPU, images are decoded as `decode` says, what the CPU decodes is copied in one piece
            a batch, as much of each image as its views need, and views are rendered on the GPU, on a stream of its own, with the
            values that the CPU would give them, bit for bit. The host does not wait for the GPU, unless it is more than two
            batches ahead of the stream that takes them; or all pinned memory for batches is in use; or an image did not fit into
            its batch's, and is copied from pageable memory, which may wait for the stream that renders (memory grows with what
            did not fit, so that the batches after the first ones fit as a rule); or a view has a custom step, whose result is
            looked at. For GPUs that this build has no kernels for (`fastssl.build_info()`), and for other devices, views are
            made on the CPU and copied; `stats()["rendered_on"]` says which.
        seed: Of order and draws, 0 to 2^64 - 1.
        shuffle: Whether each epoch has its own order.
        drop_last: Whether a last, smaller batch is left out.
        epochs: Epochs of one iteration; there is no pause between them.
        prefetch: Batches that are prepared ahead; 0 prepares each when it is asked for. From 1 on, threads that find no image
            left in a batch go on with the next, so that no thread waits for another's large photograph.
        threads: Native threads; None for all CPUs that the process may use: its affinity, cut down to the quota of its control
            group, rounded up. OMP_NUM_THREADS and torch.set_num_threads do not count.
        dtype: float32, float16, bfloat16, or uint8 (with `normalize=None`).
        channels_last: Memory format of the views.
        decode: Who decodes, and how. "cpu" decodes a JPEG in half, a quarter or an eighth of its size where every view still has
            at least its own resolution in it; of 12-megapixel photographs for views of 224 pixels that takes 40 % less time.
            Views of such an image differ by about 1/255 on average from those of the whole (measured on photographs; the
            largest difference, at a sharp edge, was 55/255), since what is smaller is also smoother. "full" never does. Either
            decodes only the part of an image that its views need, whose pixels are those of the whole, and does not see damage
            beside it; but a truncated file is an error whatever was drawn.
            "nvjpeg" and "dali" leave baseline JPEGs to that decoder of the GPU, which decodes them whole, up to 256 MiB of
            pixels a batch; the rest, and what it refuses, the CPU decodes as with "cpu". A `fastssl.pipelines.Choice` leaves it
            a part of each batch, which may be moved while iterating. "auto" is "cpu" where batches stay on the CPU; for a GPU,
            it compares these on a few hundred images of the source when the Loader is first iterated, for some seconds, and
            begins with the fastest: `stats()["decoding"]` and the log "fastssl" say which, and why. Decoding takes the GPU's
            time from training, so its part shrinks while nobody waits for a batch, to nothing where the CPU keeps up alone, and
            grows again when the GPU runs out of work; the waits of a host that is ahead of it do not count.
            Of the same file two decoders make pixels that differ by some levels of 255; what is drawn is the same. So views on
            a GPU are the same, bit for bit, from run to run and on resuming, only with "cpu" and "full"; "auto" may choose, and
            move, differently each time. Where a GPU decodes, a thread allocates there and waits for it at any time while an
            iteration lives, which torch.cuda.graph by default forbids all threads during a capture: capture before
            iter(loader), or with capture_error_mode="thread_local".
        image_step: A step of your own on each whole decoded image, (H, W, C), uint8 or uint16; returns another, of any size, for
            which the views are then drawn. It runs on the Loader's threads, one at a time, as Python does. A ValueError, OSError
            or RuntimeError in it makes the sample a bad one; another exception ends the iteration, as a RuntimeError that
            names it.
        on_error: What happens with a sample that cannot be read: "raise" (DecodeError, which names it), "skip" (its batch is
            smaller), "replace" (the next good sample of the epoch takes its place, drawn anew).
        cache: Where decoded images are kept, so that later epochs read and decode nothing: "ram", or the path of a file.
        cache_bytes: Most bytes that the cache takes; None for half of the memory that is available when the Loader is made
            (of the machine and of the control group, shared out among LOCAL_WORLD_SIZE ranks), or, in a file, for no limit.
        cache_size: "full" keeps every pixel. "recipe" keeps a JPEG at the smallest of 1, 1/2, 1/4 and 1/8 of its size (libjpeg's
            scaled decoding) at which each crop that the recipe can draw on it still has at least the pixels of its view: the
            smallest area at the most extreme aspect, the central square, or the whole, also within another view's crop.
        rank, world_size: This process's part of each global batch; None asks torch.distributed, if it is initialized.

    With a cache, an image that is not in it is decoded whole and stored, before `image_step`; what `fetch` returns is taken to be
    the same each time. Views are those of decode="full", byte for byte, with cache_size="full". Images that lie in memory as
    an array are read where they are, and no cache is made.

    In memory, the cache belongs to the loader, goes with it, and is not pickled; each rank has its own. A file is shared by all
    processes of a machine, and best lies on its own disk. They fill `<path>.part` together, each image once, and rename it when
    every sample is stored or known to be bad; a run that is broken off leaves it for the next. The file belongs to the source it
    was made from, which is looked at when the Loader is made. Of samples that are files, the names, sizes and times of change of
    all are checked. Of others, the contents of the first, the middle and the last, and the names of all. Of a map-style data
    set, whose targets and names are kept in the file too, as only its `__getitem__` tells them: how many samples it has, and
    contents, targets and names of the first, the middle and the last; another change, as of other labels, goes unnoticed, and
    the old ones are given. A source with a `fingerprint()` is checked by that, and by nothing else. Every image is verified at
    its first use. The file must not be written to while it is used. `fastssl.data.build_cache` makes one ahead.

    Raises:
        ValueError, TypeError, FileNotFoundError: An argument is not as described.
        CacheError: The cache's file is damaged, foreign, or of another source, or cannot be written; also while iterating.

    Attributes:
        epoch: The epoch with which the next iteration begins.
        errors: Every sample that could not be read so far, once each.
    """

    def __init__(
        self,
        source: Source | str | os.PathLike[str] | Any,
        recipe: Recipe,
        *,
        batch_size: int = 256,
        device: str | torch.device = "cpu",
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        epochs: int = 1,
        prefetch: int = 2,
        threads: int | None = None,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        decode: Decode = "auto",
        image_step: ImageStep | None = None,
        on_error: OnError = "raise",
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        cache_size: CacheSize = "full",
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        encoded = encode_recipe(recipe)
        check_format("Loader", encoded, dtype)
        check_key("Loader", seed, 0)
        check_on_error("Loader", on_error)
        self.source = as_source(source)
        _check_channels(self.source.channels, encoded)
        self.recipe = recipe
        self.batch_size = check_count("Loader", "batch_size", batch_size, 1)
        self.device = as_device("Loader", device)
        self.seed = seed
        self.epochs = check_count("Loader", "epochs", epochs, 1)
        self.prefetch = check_count("Loader", "prefetch", prefetch, 0)
        self.threads = available_cpus() if threads is None else check_threads("Loader", threads)
        self.dtype = dtype
        self.channels_last = bool(channels_last)
        self.decode = check_decode("Loader", decode, self.device)
        if image_step is not None and not callable(image_step):
            raise TypeError(
                f"Loader: image_step={image_step!r} must be a callable that takes and returns a tensor, or None."
            )
        self.image_step = image_step
        self.on_error = on_error
        rank, world_size = _place(rank, world_size)
        if world_size > 1 and not drop_last:
            raise ValueError(
                f"Loader: world_size={world_size} needs drop_last=True: the last batch cannot be shared out evenly, and a rank "
                "with fewer batches would leave the others waiting."
            )
        if world_size > 1 and on_error == "skip":
            raise ValueError(
                f"Loader: on_error='skip' with world_size={world_size} would give the ranks batches of different "
                "sizes; use 'replace'."
            )
        self.order = Order(len(self.source), batch_size, seed, bool(shuffle), bool(drop_last), rank, world_size)
        if not len(self.source):
            raise ValueError("Loader: the source is empty.")
        if not self.order.steps_per_epoch():
            raise ValueError(
                f"Loader: {len(self.source)} samples do not fill one batch of {batch_size * world_size}, and drop_last=True "
                "leaves the rest out; take a smaller batch_size."
            )
        self.epoch = 0
        self.errors: list[Fault] = []
        # Of the last batch handed out: epoch and position to go on from, and the epoch at which its iteration ends.
        self._cursor = (0, 0, self.epochs)
        self._resume: tuple[int, int] | None = None  # position within self.epoch and the end, until a batch is taken
        self._stats: dict[str, Any] = {}
        if image_step is not None and cache_size == "recipe":
            raise ValueError(
                'Loader: cache_size="recipe" keeps smaller images, and image_step would get those; write cache_size="full".'
            )
        self._cache = as_cache(self.source, recipe, cache, cache_bytes, cache_size)
        self._device_choice = DeviceChoice(
            "Loader", self.device, self.decode, self.batch_size, self.prefetch, self.threads, self._only_cpu()
        )
        self._pool: tuple[int, _C.BufferPool] | None = None  # of the last whole iteration, and the process it was in

    def __len__(self) -> int:
        """Batches of one iteration from the start of an epoch."""
        return self.epochs * self.order.steps_per_epoch()

    def __iter__(self) -> Iterator[Batch]:
        position, end = self._resume or (0, self.epoch + self.epochs)
        device = self._device_choice.take(self._measure, self._has_plain)
        return Iteration(self, device, self.epoch, position, end)

    def _only_cpu(self) -> str | None:
        """Why a decoder of the device gets nothing to do."""
        if self.source.native() is not None:
            return "the source's images are decoded already"
        if self._cache is not None:
            return "the cache keeps what the CPU has decoded"
        if self.image_step is not None:
            return "image_step gets what the CPU has decoded"
        return None

    def _evenly(self, count: int) -> list[int]:
        """So many samples at most, from the whole source."""
        n = min(len(self.source), count)
        return torch.linspace(0, len(self.source) - 1, n, dtype=torch.float64, device="cpu").round().long().tolist()

    def _has_plain(self) -> bool:
        """Whether any of a few samples is a JPEG that may be left to a device."""
        return any(is_plain(self.source, index) for index in self._evenly(_LOOKED_AT))

    def _measure(self, choice: Choice) -> float:
        """Images a second of a few hundred samples, decoded so, once they have been read."""
        sample = Subset(self.source, self._evenly(MEASURED))
        loader = Loader(
            sample,
            self.recipe,
            batch_size=min(self.batch_size, len(sample)),
            device=self.device,
            threads=self.threads,
            prefetch=self.prefetch,
            dtype=self.dtype,
            channels_last=self.channels_last,
            epochs=1 + max(1, -(-MEASURED // len(sample))),
            decode=choice,
            on_error="skip",  # who has the errors is the loader that measures
            rank=0,
            world_size=1,
        )
        return images_per_second(loader, self.device, len(sample))

    def _keep_device(self, device: Device) -> None:
        self._device_choice.give_back(device)

    def _take_pool(self) -> _C.BufferPool | None:
        """The memory that the last whole iteration left, for one iteration to use."""
        kept, self._pool = self._pool, None
        return kept[1] if kept is not None and kept[0] == os.getpid() else None

    def _keep_pool(self, pool: _C.BufferPool) -> None:
        self._pool = (os.getpid(), pool)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration begin with `epoch`."""
        check_key("Loader.set_epoch", self.seed, epoch)
        self.epoch = epoch
        self._resume = None
        self._cursor = (epoch, 0, epoch + self.epochs)

    def state_dict(self) -> dict[str, int | bool]:
        """Where the loader is, after the last batch that it handed out.

        Returns:
            `seed`, `epoch`, and `position`: how many of the epoch's samples all ranks together have been handed; `end`: the epoch
            at which the iteration ends; and for checking `length` of the source, `shuffle`, and `version` of this form.
        """
        epoch, position, end = self._cursor
        return {
            "version": 1,
            "seed": self.seed,
            "epoch": epoch,
            "position": position,
            "end": end,
            "length": len(self.source),
            "shuffle": self.order.shuffle,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on exactly where `state` was taken, also with other threads, batch size or world size.

        It ends where the iteration of the state would have ended.

        Raises:
            ValueError: The state is of another seed, order or source.
        """
        if not isinstance(state, dict) or not set(self.state_dict()) <= set(state) or state["version"] != 1:
            raise ValueError(
                f"Loader.load_state_dict: got {state!r}; it takes what state_dict() of this release returned."
            )
        own = self.state_dict()
        for name, what in (("seed", "seed"), ("shuffle", "shuffle"), ("length", "number of samples")):
            if state[name] != own[name]:
                raise ValueError(
                    f"Loader.load_state_dict: the state was taken with {what} {state[name]}, this loader has {own[name]}; the "
                    "order of the samples would be another."
                )
        epoch, position, end = state["epoch"], state["position"], state["end"]
        check_key("Loader.load_state_dict", self.seed, epoch)
        if not isinstance(position, int) or not 0 <= position <= len(self.source):
            raise ValueError(
                f"Loader.load_state_dict: position {position} is not within the {len(self.source)} samples."
            )
        if not self.order.steps_per_epoch(position):  # all batches of the epoch were handed out
            epoch, position = epoch + 1, 0
        if epoch >= end:  # the iteration was at its end: the next is a new one
            end = epoch + self.epochs
        self.epoch, self._resume, self._cursor = epoch, (position, end), (epoch, position, end)

    def stats(self) -> dict[str, Any]:
        """Where the time of the latest iteration went.

        Returns:
            `images`; `seconds` since it began; `images_per_second`; `read_seconds`, `decode_seconds`, `render_seconds`, summed
            over `threads` (on a GPU, rendering takes none of theirs); `rendered_on`, a device; `wait_seconds`, for which the
            consumer waited; and `advice`, which knob to turn. Empty at first.
            On a GPU also `decoding`: `by` whom, as it was asked for or chosen; `rates`, the images a second of each way that was
            measured, and how `busy` "cpu" (those that this process may run on) and "gpu" were before it was measured, 0 to 1, for
            information, None where that is not known (for "gpu", without the package pynvml); the `share` of each batch that
            goes to the GPU's decoder now; and the `device_images` and `device_seconds` of its work so far.
            With a cache also `cache`: of `samples`, the `images` that it holds, their `bytes` and the `limit` of these (0: none);
            `hits` and `misses` of this process; `left_out`, how often an image did not fit; and `advice`.
        """
        cache = {} if self._cache is None else {"cache": self._cache.stats()}
        return {**self._stats, **cache} if self._stats else {}


def _check_channels(channels: int, encoded: str) -> None:
    for i, view in enumerate(native_views(encoded)):
        if view.mean and len(view.mean) != channels:
            raise ValueError(
                f"Loader: view {i} normalizes {len(view.mean)} channels, and the source has {channels}; write "
                "View(..., normalize=Normalize(mean=..., std=...)) with a number for each, or normalize=None."
            )


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is None and world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1
    if rank is None or world_size is None:
        raise ValueError(f"Loader: rank={rank!r} and world_size={world_size!r} go together; give both or none.")
    check_count("Loader", "world_size", world_size, 1)
    if check_count("Loader", "rank", rank, 0) >= world_size:
        raise ValueError(f"Loader: rank={rank} must be below world_size={world_size}.")
    return rank, world_size
