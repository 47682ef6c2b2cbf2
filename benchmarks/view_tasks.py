"""The tasks of views.py: which contenders do what on which images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from contenders import albumentations, dali, kornia, lightly, ours, torchvision
from harness import Run, Task
from view_checks import Sums, check_pixels, check_views, expected_of, remembered
from view_recipes import CIFAR, DINO, SIMCLR, Recipe

MEMORY_BATCHES = 4  # that memory is measured over: one more than a Loader has in flight


@dataclass(frozen=True)
class Inputs:
    """What every contender of a task gets.

    Args:
        recipe: The views to make.
        batch_size: Images in a batch; the last one may hold fewer.
        threads: Native threads or workers to use.
        jpegs: The files' bytes, or
        pixels: the images decoded, (N, H, W, 3), uint8.
        paths: The files, where they are read from the disk; `folder` holds links to these and nothing else.
        expected_file: Where the statistics of the views are kept, once they were computed.
    """

    recipe: Recipe
    batch_size: int
    threads: int = 1
    jpegs: Sequence[bytes] = ()
    pixels: Any = None
    paths: Sequence[Path] = ()
    folder: Path | None = None
    expected_file: Path | None = None

    def __len__(self) -> int:
        return len(self.jpegs) if self.pixels is None else len(self.pixels)

    def first(self, count: int) -> Inputs:
        """The first images only, in a folder of their own if there is one."""
        pixels = None if self.pixels is None else self.pixels[:count]
        paths, folder = self.paths[:count], self.folder
        if folder is not None:
            folder = linked(paths, folder.with_name(f"{folder.name}-{count}"))
        return replace(self, jpegs=self.jpegs[:count], pixels=pixels, paths=paths, folder=folder, expected_file=None)

    def batches(self) -> Iterator[Any]:
        """Batches of JPEG bytes, or of pixels."""
        items = self.jpegs if self.pixels is None else self.pixels
        return (items[i : i + self.batch_size] for i in range(0, len(self), self.batch_size))

    @cached_property
    def arrays(self) -> list[Any]:
        """The images decoded, each (H, W, 3), uint8."""
        return list(self.pixels) if self.pixels is not None else [albumentations.decode(jpeg) for jpeg in self.jpegs]

    @cached_property
    def expected(self) -> dict[int, Sums]:
        """What torchvision's views of these images are like."""
        if self.expected_file is None:
            raise ValueError("Inputs: without expected_file nothing can be checked; it is for the first() images only.")
        return remembered(self.expected_file, lambda: expected_of(self.recipe, self.tensors()))

    def tensors(self) -> Iterable[Any]:
        """The images decoded, each (3, H, W), uint8."""
        import torch

        if self.pixels is None:
            return map(torchvision.decode, self.jpegs)
        return torch.from_numpy(self.pixels).permute(0, 3, 1, 2).contiguous()


def linked(paths: Sequence[Path], folder: Path) -> Path:
    """A new folder that holds links to the files and nothing else."""
    folder.mkdir(parents=True)
    for i, path in enumerate(paths):
        (folder / f"{i:05d}{path.suffix}").symlink_to(path.resolve())
    return folder


class Mapped:
    """Map-style dataset of `function(item)`, made in the process that uses it."""

    def __init__(self, items: Sequence[Any], make: Callable[[], Callable[[Any], Any]]) -> None:
        self.items, self.make = items, make

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.function(self.items[index]), 0

    @cached_property
    def function(self) -> Callable[[Any], Any]:
        return self.make()


def data_loader(dataset: Any, inputs: Inputs, workers: int, collate_fn: Any = None) -> Run:
    """A pass over a DataLoader whose workers stay alive between passes, so that their start is not counted."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        dataset,
        batch_size=inputs.batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate_fn,
    )
    return lambda: loader


def checking(inputs: Inputs, antialiased: bool = True) -> Callable[[Iterable[Any]], dict[str, Any]]:
    return check_views(inputs.recipe, len(inputs), inputs.batch_size, lambda: inputs.expected, antialiased)


def one_by_one(make: Callable[[Recipe], Callable[[Any], list[Any]]], items: Sequence[Any], inputs: Inputs) -> Run:
    """Image by image in this process, in batches as a DataLoader collates them."""
    return data_loader(Mapped(items, lambda: make(inputs.recipe)), inputs, 0)


# --- decoding alone ---------------------------------------------------------------------------------------------------


def simplejpeg_decode(inputs: Inputs) -> Run:
    import simplejpeg

    return lambda: (simplejpeg.decode_jpeg(jpeg, colorspace="RGB") for jpeg in inputs.jpegs)


def decode_task(inputs: Inputs) -> Task:
    task = Task("decode", "images", inputs, len(inputs), check_pixels(inputs.jpegs), {"threads": 1})

    @task.contender("fastssl.ops.decode", "fastssl")
    def _(inputs: Inputs) -> Run:
        from fastssl import ops

        return lambda: map(ops.decode, inputs.jpegs)

    task.contender("simplejpeg", "simplejpeg")(simplejpeg_decode)

    @task.contender("torchvision.io.decode_jpeg")
    def _(inputs: Inputs) -> Run:
        return lambda: map(torchvision.decode, inputs.jpegs)

    @task.contender("OpenCV", "cv2")
    def _(inputs: Inputs) -> Run:
        return lambda: map(albumentations.decode, inputs.jpegs)

    @task.contender("Pillow")
    def _(inputs: Inputs) -> Run:
        import io

        from PIL import Image

        return lambda: (Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in inputs.jpegs)

    return task


# --- from JPEG bytes in memory, one thread ----------------------------------------------------------------------------


def views_task(title: str, inputs: Inputs, more: Sequence[str]) -> Task:
    """Views from bytes, beside full decoding of the same bytes, which every round times too.

    Args:
        more: Which of "operators", "kornia", "DALI CPU" and "DALI CPU, steps blended" take part.
    """
    check = checking(inputs)
    task = Task(title, "images", inputs, len(inputs), check, {"threads": 1})

    @task.contender("fastssl.Loader", "fastssl")
    def _(inputs: Inputs) -> Run:
        loader = ours.loader(ours.encoded_source(inputs.jpegs), inputs.recipe, inputs.batch_size, inputs.threads)
        return lambda: loader

    if "operators" in more:

        @task.contender("fastssl.ops, decode and render", "fastssl")
        def _(inputs: Inputs) -> Run:
            return ours.operators(inputs.recipe, inputs.batches)

    task.contender("simplejpeg, full decode alone", "simplejpeg", check=check_pixels(inputs.jpegs))(simplejpeg_decode)

    @task.contender("albumentations", "albumentations", "cv2", check=checking(inputs, antialiased=False))
    def _(inputs: Inputs) -> Run:
        return one_by_one(albumentations.from_jpeg, inputs.jpegs, inputs)

    @task.contender("lightly", "lightly", slow=True)
    def _(inputs: Inputs) -> Run:
        return one_by_one(lightly.from_jpeg, inputs.jpegs, inputs)

    @task.contender("torchvision v2", slow=True)
    def _(inputs: Inputs) -> Run:
        return one_by_one(torchvision.from_jpeg, inputs.jpegs, inputs)

    if "kornia" in more:

        @task.contender("kornia", "kornia", slow=True, check=checking(inputs, antialiased=False))
        def _(inputs: Inputs) -> Run:
            return kornia.batches(inputs.recipe, inputs.batches)

    if "DALI CPU" in more:

        @task.contender("DALI CPU", "nvidia.dali", slow=True)
        def _(inputs: Inputs) -> Run:
            return dali.batches(inputs.recipe, inputs.batches, inputs.batch_size, inputs.threads)

    if "DALI CPU, steps blended" in more:

        @task.contender("DALI CPU, steps blended", "nvidia.dali", slow=True)
        def _(inputs: Inputs) -> Run:
            return dali.batches(inputs.recipe, inputs.batches, inputs.batch_size, inputs.threads, blended=True)

    return task


def simclr_task(inputs: Inputs) -> Task:
    return views_task("simclr", inputs, ("operators", "kornia", "DALI CPU", "DALI CPU, steps blended"))


def dino_task(inputs: Inputs) -> Task:
    return views_task("dino", inputs, ("kornia", "DALI CPU"))


def photographs_task(inputs: Inputs) -> Task:
    return views_task("photographs", inputs, ())


# --- from pixels ------------------------------------------------------------------------------------------------------


def cached_task(inputs: Inputs) -> Task:
    """Epochs after the first: fastssl and albumentations from decoded pixels, lightly from JPEG as it always is."""
    check = checking(inputs)
    task = Task("cached", "images", inputs, len(inputs), check, {"threads": 1})

    @task.contender("fastssl.Loader", "fastssl")
    def _(inputs: Inputs) -> Run:
        from harness import exhaust

        source = ours.encoded_source(inputs.jpegs)
        loader = ours.loader(source, inputs.recipe, inputs.batch_size, inputs.threads, cache="ram")
        exhaust(loader)  # fills it
        return lambda: loader

    @task.contender("albumentations", "albumentations", "cv2", check=checking(inputs, antialiased=False))
    def _(inputs: Inputs) -> Run:
        return one_by_one(albumentations.from_pixels, inputs.arrays, inputs)

    @task.contender("lightly", "lightly", slow=True)
    def _(inputs: Inputs) -> Run:
        return one_by_one(lightly.from_jpeg, inputs.jpegs, inputs)

    return task


def cifar_task(inputs: Inputs) -> Task:
    """Decoded images of 32 px; every library gets them in the form it is fastest with."""
    check = checking(inputs)
    task = Task("cifar", "images", inputs, len(inputs), check, {"threads": 1})

    @task.contender("fastssl.Loader", "fastssl")
    def _(inputs: Inputs) -> Run:
        from fastssl.data import ArraySource

        source = ArraySource(inputs.pixels, [0] * len(inputs))
        loader = ours.loader(source, inputs.recipe, inputs.batch_size, inputs.threads)
        return lambda: loader

    @task.contender("albumentations", "albumentations", "cv2", check=checking(inputs, antialiased=False))
    def _(inputs: Inputs) -> Run:
        return one_by_one(albumentations.from_pixels, inputs.arrays, inputs)

    @task.contender("lightly", "lightly", slow=True)
    def _(inputs: Inputs) -> Run:
        from PIL import Image

        return one_by_one(lightly.from_pixels, [Image.fromarray(array) for array in inputs.arrays], inputs)

    @task.contender("torchvision v2", slow=True)
    def _(inputs: Inputs) -> Run:
        return one_by_one(torchvision.from_pixels, inputs.tensors(), inputs)

    @task.contender("kornia", "kornia", slow=True, check=checking(inputs, antialiased=False))
    def _(inputs: Inputs) -> Run:
        images = inputs.tensors()
        return kornia.batches_of_pixels(inputs.recipe, lambda: iter(images.split(inputs.batch_size)))

    return task


# --- whole loaders ----------------------------------------------------------------------------------------------------


def reading(function: Callable[[bytes], Any]) -> Callable[[Path], Any]:
    return lambda path: function(path.read_bytes())


def loaders_task(inputs: Inputs) -> Task:
    check = checking(inputs)
    task = Task("loaders", "images", inputs, len(inputs), check, {"threads": inputs.threads})
    size = inputs.recipe.views[0].size

    def folder_loader(inputs: Inputs, threads: int) -> Any:
        import fastssl

        return ours.loader(fastssl.data.ImageFolder(inputs.folder), inputs.recipe, inputs.batch_size, threads)

    @task.contender("fastssl.Loader", "fastssl")
    def _(inputs: Inputs) -> Run:
        loader = folder_loader(inputs, inputs.threads)
        return lambda: loader

    if inputs.threads > 1 and hasattr(os, "sched_setaffinity"):

        @task.contender("fastssl.Loader, one thread on one core", "fastssl")
        def _(inputs: Inputs) -> Run:
            loader = folder_loader(inputs, 1)
            return lambda: on_one_core(loader)

    @task.contender("fastssl transform in LightlyDataset + DataLoader", "fastssl", slow=True)
    def _(inputs: Inputs) -> Run:
        from fastssl.data import LightlyDataset
        from fastssl.transforms import SimCLRTransform

        dataset = LightlyDataset(str(inputs.folder), transform=SimCLRTransform(input_size=size))
        return data_loader(dataset, inputs, inputs.threads)

    @task.contender("fastssl collate in DataLoader", "fastssl", slow=True)
    def _(inputs: Inputs) -> Run:
        from fastssl.data import LightlyDataset, SimCLRCollateFunction

        collate = SimCLRCollateFunction(input_size=size, cj_strength=1.0)
        return data_loader(LightlyDataset(str(inputs.folder)), inputs, inputs.threads, collate)

    @task.contender("lightly dataset + DataLoader", "lightly", slow=True)
    def _(inputs: Inputs) -> Run:
        from lightly.data import LightlyDataset
        from lightly.transforms import SimCLRTransform

        dataset = LightlyDataset(str(inputs.folder), transform=SimCLRTransform(input_size=size))
        return data_loader(dataset, inputs, inputs.threads)

    @task.contender("torchvision v2 + DataLoader", slow=True)
    def _(inputs: Inputs) -> Run:
        dataset = Mapped(inputs.paths, lambda: reading(torchvision.from_jpeg(inputs.recipe)))
        return data_loader(dataset, inputs, inputs.threads)

    @task.contender(
        "albumentations + DataLoader", "albumentations", "cv2", slow=True, check=checking(inputs, antialiased=False)
    )
    def _(inputs: Inputs) -> Run:
        dataset = Mapped(inputs.paths, lambda: reading(albumentations.from_jpeg(inputs.recipe)))
        return data_loader(dataset, inputs, inputs.threads)

    @task.contender("DALI CPU", "nvidia.dali", slow=True)
    def _(inputs: Inputs) -> Run:
        def files() -> Iterator[list[bytes]]:
            for i in range(0, len(inputs.paths), inputs.batch_size):
                yield [path.read_bytes() for path in inputs.paths[i : i + inputs.batch_size]]

        return dali.batches(inputs.recipe, files, inputs.batch_size, inputs.threads)

    return task


def on_one_core(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, made while this thread and those that it starts are bound to one of its cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield from batches
    finally:
        os.sched_setaffinity(0, cores)


@dataclass(frozen=True)
class Kind:
    """What makes a task, of which recipe, and over whose speed the tables show ratios."""

    make: Callable[[Inputs], Task]
    recipe: Recipe
    baseline: str


TASKS = {
    "decode": Kind(decode_task, SIMCLR, "simplejpeg"),
    "simclr": Kind(simclr_task, SIMCLR, "lightly"),
    "dino": Kind(dino_task, DINO, "lightly"),
    "cached": Kind(cached_task, SIMCLR, "lightly"),
    "photographs": Kind(photographs_task, SIMCLR, "lightly"),
    "cifar": Kind(cifar_task, CIFAR, "lightly"),
    "loaders": Kind(loaders_task, SIMCLR, "lightly dataset + DataLoader"),
}
