"""Two SimCLR views, 224 px, of each of 320 JPEG photographs: the engine, the drop-ins and what users run today.

Three tasks, each with one thread and with two, pinned to as many cores:

* decode: JPEG bytes in memory to RGB pixels: the limit, since every contender has to decode.
* views: JPEG bytes in memory to normalized float32 batches.
* loaders: a folder of files to normalized float32 batches, as a training loop takes them, as many workers as threads.

Counted: decode, crop, flip, jitter, grayscale, blur, normalize, stacking into batches; for loaders the files too (from
the system's cache). Not counted: start-up, of processes too. Draws differ between libraries, so pixels cannot agree;
shape, type, mean and deviation must. `--quick` takes 128 images and 3 rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import harness
from harness import CheckFailed, Run, Task

SIZE = 224
BATCH = 32
BASELINES = {
    "decode": "simplejpeg",
    "views": "lightly SimCLRTransform",
    "loaders": "lightly dataset + DataLoader",
}


@dataclass(frozen=True)
class Inputs:
    """What every contender gets: the same files, also as bytes, and the number of threads or workers to use."""

    paths: list[Path]
    folder: Path  # holds links to the paths and nothing else
    threads: int

    @cached_property
    def jpegs(self) -> list[bytes]:
        return [path.read_bytes() for path in self.paths]

    def batches(self) -> Iterable[list[bytes]]:
        return (self.jpegs[i : i + BATCH] for i in range(0, len(self.jpegs), BATCH))

    @cached_property
    def expected(self) -> tuple[float, float]:
        """Mean and deviation of two views of every image, by torchvision's v2 functions."""
        transform = simclr_of_torchvision()
        sums = Sums()
        for jpeg in self.jpegs:
            for view in transform(jpeg):
                sums.add(view)
        return sums.mean, sums.deviation


@dataclass
class Sums:
    """Running mean and deviation of all values of the tensors added."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: Any) -> None:
        values = values.double()
        self.count += values.numel()
        self.total += values.sum().item()
        self.squares += values.square().sum().item()

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def deviation(self) -> float:
        return math.sqrt(self.squares / self.count - self.mean**2)


def views_of(batch: Any) -> Sequence[Any]:
    return batch[0] if isinstance(batch, list | tuple) else batch.views


def check_views(inputs: Inputs) -> Callable[[Iterable[Any]], dict[str, Any]]:
    """Two float32 views of every image whose mean and deviation are those of torchvision's.

    One view's draw moves its mean by 0.64 and its deviation by 27 % (standard deviations over 30 draws of the ImageNet
    sample; n views move by 1 / sqrt(n) of it); four times that is allowed for the difference of two samples.
    """

    def check(batches: Iterable[Any]) -> dict[str, Any]:
        import torch

        count, sums = 0, Sums()
        for batch in batches:
            views = views_of(batch)
            shape = (min(BATCH, len(inputs.paths) - count), 3, SIZE, SIZE)
            if len(views) != 2 or any(tuple(v.shape) != shape or v.dtype != torch.float32 for v in views):
                raise CheckFailed(f"{[(tuple(v.shape), v.dtype) for v in views]}, not two float32 {shape}")
            for view in views:
                sums.add(view)
            count += shape[0]
        if count != len(inputs.paths):
            raise CheckFailed(f"{count} images of {len(inputs.paths)}")
        mean, deviation = inputs.expected
        allowed = 4 * math.sqrt(2 / (2 * count))
        found = {"mean": round(sums.mean, 3), "deviation": round(sums.deviation, 3)}
        if abs(sums.mean - mean) > 0.64 * allowed or abs(sums.deviation / deviation - 1) > 0.27 * allowed:
            raise CheckFailed(f"{found}; expected mean {mean:.3f}, deviation {deviation:.3f}")
        return found

    return check


def check_pixels(inputs: Inputs) -> Callable[[Any], dict[str, Any]]:
    """The first image is Pillow's, up to 3 levels (decoders may round their inverse DCT and colour differently)."""

    def check(images: Iterable[Any]) -> dict[str, Any]:
        import numpy as np
        from PIL import Image

        output = list(images)
        exact = np.asarray(Image.open(inputs.paths[0]).convert("RGB"), np.int16)
        got = np.asarray(output[0], np.int16)
        got = got.transpose(1, 2, 0) if got.shape[0] == 3 else got
        if len(output) != len(inputs.paths) or got.shape != exact.shape:
            raise CheckFailed(
                f"{len(output)} images, the first {got.shape}; expected {len(inputs.paths)}, {exact.shape}"
            )
        if (largest := int(abs(got - exact).max())) > 3:
            raise CheckFailed(f"differs from Pillow by {largest} levels")
        return {"largest_difference": largest}

    return check


# --- the recipe, as each library writes it ----------------------------------------------------------------------------


def simclr_of_torchvision() -> Callable[[bytes], list[Any]]:
    """On uint8 tensors, the fast way; the blur's kernel covers three deviations of the widest blur."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], p=0.5),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    def both(jpeg: bytes) -> list[Any]:
        image = decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), ImageReadMode.RGB)
        return [transform(image), transform(image)]

    return both


def simclr_of_albumentations() -> Callable[[bytes], list[Any]]:
    import albumentations as A
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    transform = A.Compose(
        [
            A.RandomResizedCrop(size=(SIZE, SIZE), scale=(0.08, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=0.8),
            A.ToGray(p=0.2),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5),
            A.Normalize(),
            A.ToTensorV2(),
        ]
    )
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

    def both(jpeg: bytes) -> list[Any]:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags)
        return [transform(image=image)["image"] for _ in range(2)]

    return both


def simclr_of_lightly() -> Callable[[bytes], list[Any]]:
    import io

    from lightly.transforms import SimCLRTransform
    from PIL import Image

    transform = SimCLRTransform(input_size=SIZE)
    return lambda jpeg: transform(Image.open(io.BytesIO(jpeg)).convert("RGB"))


class InMemory:
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


def data_loader(dataset: Any, workers: int, collate_fn: Any = None) -> Run:
    """A pass over a DataLoader whose workers stay alive between passes, so that their start is not counted."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0, collate_fn=collate_fn
    )
    return lambda: loader


def from_memory(make: Callable[[], Callable[[bytes], list[Any]]], inputs: Inputs) -> Run:
    """In this process with one thread; with more, as users do it: in that many worker processes."""
    return data_loader(InMemory(inputs.jpegs, make), 0 if inputs.threads == 1 else inputs.threads)


# --- the tasks --------------------------------------------------------------------------------------------------------


def decode_task(inputs: Inputs) -> Task:
    task = Task("decode", "images", check_pixels(inputs))

    def in_threads(decode: Callable[[bytes], Any]) -> Run:
        if inputs.threads == 1:
            return lambda: map(decode, inputs.jpegs)
        pool = ThreadPoolExecutor(inputs.threads)
        return lambda: pool.map(decode, inputs.jpegs)

    @task.contender("fastssl.ops.decode", "fastssl")
    def _(inputs: Inputs) -> Run:
        from fastssl import ops

        return in_threads(ops.decode)

    @task.contender("simplejpeg", "simplejpeg")
    def _(inputs: Inputs) -> Run:
        import simplejpeg

        return in_threads(lambda jpeg: simplejpeg.decode_jpeg(jpeg, colorspace="RGB"))

    @task.contender("torchvision.io.decode_jpeg")
    def _(inputs: Inputs) -> Run:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        return in_threads(lambda j: decode_jpeg(torch.frombuffer(bytearray(j), dtype=torch.uint8), ImageReadMode.RGB))

    @task.contender("Pillow")
    def _(inputs: Inputs) -> Run:
        import io

        from PIL import Image

        return in_threads(lambda jpeg: Image.open(io.BytesIO(jpeg)).convert("RGB"))

    return task


def views_task(inputs: Inputs) -> Task:
    task = Task("views", "images", check_views(inputs))

    @task.contender("fastssl.Loader", "fastssl")
    def _(inputs: Inputs) -> Run:
        import fastssl
        from fastssl.data.sources import Source

        class Memory(Source):
            def __len__(self) -> int:
                return len(inputs.jpegs)

            def path(self, index: int) -> str | None:
                return None

            def fetch(self, index: int) -> bytes:
                return inputs.jpegs[index]

            def target(self, index: int) -> int:
                return 0

            def filename(self, index: int) -> str:
                return inputs.paths[index].name

        recipe = fastssl.recipes.simclr(SIZE)
        loader = fastssl.Loader(Memory(), recipe, batch_size=BATCH, shuffle=False, threads=inputs.threads)
        return lambda: loader

    @task.contender("fastssl.ops, decode and render", "fastssl")
    def _(inputs: Inputs) -> Run:
        import itertools

        import fastssl
        from fastssl import ops
        from fastssl.transforms.plan import Plan

        fastssl.set_num_threads(inputs.threads)
        recipe = fastssl.recipes.simclr(SIZE)
        seeds = itertools.count()
        pool = ThreadPoolExecutor(inputs.threads)

        def batch(jpegs: list[bytes]) -> tuple[Any]:
            decode = map if inputs.threads == 1 else pool.map
            images = list(decode(ops.decode, jpegs))
            plan = Plan.draw(recipe, [tuple(image.shape[:2]) for image in images], seed=next(seeds))
            return (ops.render(images, plan, recipe),)

        return lambda: map(batch, inputs.batches())

    @task.contender("lightly SimCLRTransform", "lightly")
    def _(inputs: Inputs) -> Run:
        return from_memory(simclr_of_lightly, inputs)

    @task.contender("torchvision v2, tensors")
    def _(inputs: Inputs) -> Run:
        return from_memory(simclr_of_torchvision, inputs)

    @task.contender("albumentations", "albumentations", "cv2")
    def _(inputs: Inputs) -> Run:
        return from_memory(simclr_of_albumentations, inputs)

    return task


def loaders_task(inputs: Inputs) -> Task:
    task = Task("loaders", "images", check_views(inputs))

    @task.contender("fastssl.Loader", "fastssl")
    def _(inputs: Inputs) -> Run:
        import fastssl

        source = fastssl.data.ImageFolder(inputs.folder)
        recipe = fastssl.recipes.simclr(SIZE)
        loader = fastssl.Loader(source, recipe, batch_size=BATCH, shuffle=False, threads=inputs.threads)
        return lambda: loader

    @task.contender("fastssl transform in LightlyDataset + DataLoader", "fastssl")
    def _(inputs: Inputs) -> Run:
        from fastssl.data import LightlyDataset
        from fastssl.transforms import SimCLRTransform

        dataset = LightlyDataset(str(inputs.folder), transform=SimCLRTransform(input_size=SIZE))
        return data_loader(dataset, inputs.threads)

    @task.contender("fastssl collate in DataLoader", "fastssl")
    def _(inputs: Inputs) -> Run:
        from fastssl.data import LightlyDataset, SimCLRCollateFunction

        collate = SimCLRCollateFunction(input_size=SIZE, cj_strength=1.0)
        return data_loader(LightlyDataset(str(inputs.folder)), inputs.threads, collate)

    @task.contender("lightly dataset + DataLoader", "lightly")
    def _(inputs: Inputs) -> Run:
        from lightly.data import LightlyDataset
        from lightly.transforms import SimCLRTransform

        dataset = LightlyDataset(str(inputs.folder), transform=SimCLRTransform(input_size=SIZE))
        return data_loader(dataset, inputs.threads)

    @task.contender("torchvision v2 + DataLoader")
    def _(inputs: Inputs) -> Run:
        return data_loader(InMemory(inputs.paths, lambda: reading(simclr_of_torchvision())), inputs.threads)

    @task.contender("albumentations + DataLoader", "albumentations", "cv2")
    def _(inputs: Inputs) -> Run:
        return data_loader(InMemory(inputs.paths, lambda: reading(simclr_of_albumentations())), inputs.threads)

    return task


def reading(function: Callable[[bytes], Any]) -> Callable[[Path], Any]:
    return lambda path: function(path.read_bytes())


# --- the runs ---------------------------------------------------------------------------------------------------------


def run_pinned(arguments: argparse.Namespace) -> None:
    """One process, pinned before any library starts its threads: every task with `arguments.pinned` threads."""
    threads: int = arguments.pinned
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import torch

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(p) for p in json.loads(Path(arguments.paths).read_text())]
        folder = Path(scratch) / "images"
        folder.mkdir()
        for i, path in enumerate(paths):
            (folder / f"{i:05d}{path.suffix}").symlink_to(path.resolve())
        inputs = Inputs(paths, folder, threads)
        tasks = [task(inputs) for task in (decode_task, views_task, loaders_task)]
        tasks = [task for task in tasks if task.title in (arguments.tasks or BASELINES)]
        for task in tasks:
            task.measure_memory(inputs)
        records = []
        for task in tasks:
            results = task.run(inputs, len(paths), rounds=arguments.rounds, settings={"threads": threads})
            of_task = [result.to_json() for result in results]
            records += of_task
            print(f"\n{task.title}, {threads} thread{'s' * (threads > 1)}\n", flush=True)
            print(harness.table(of_task, BASELINES[task.title]), flush=True)
    Path(arguments.out).write_text(json.dumps(records))


def run_all(arguments: argparse.Namespace) -> None:
    from inputs import find_jpegs

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as scratch:
        paths, origin = find_jpegs(arguments.data, arguments.images, Path(scratch) / "generated")
        megapixels, kilobytes = describe(paths)
        print(f"{origin}, on average {megapixels:.2f} megapixels and {kilobytes:.0f} kB; {arguments.rounds} rounds")
        if harness.LOAD_AT_START > 0.5:
            print(f"The machine is busy (load {harness.LOAD_AT_START}): measure again when it is not.")
        listed = Path(scratch) / "paths.json"
        listed.write_text(json.dumps([str(path) for path in paths]))
        records = []
        for threads in arguments.threads:
            if threads > cores:
                print(f"{threads} threads left out: this process may use {cores} cores.")
                continue
            out = Path(scratch) / f"{threads}.json"
            command = [sys.executable, __file__, "--pinned", str(threads), "--rounds", str(arguments.rounds)]
            command += ["--paths", str(listed), "--out", str(out)]
            command += ["--tasks", *arguments.tasks] if arguments.tasks else []
            quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": str(threads)}
            subprocess.run(command, check=True, env={**os.environ, **quiet})
            records += json.loads(out.read_text())
    settings = {"images": origin, "megapixels": megapixels, "kilobytes": kilobytes, "rounds": arguments.rounds}
    harness.write(harness.report("views", records, inputs=settings), Path(arguments.out) if arguments.out else None)


def describe(paths: list[Path]) -> tuple[float, float]:
    """Mean megapixels and mean kB of the files."""
    from PIL import Image

    pixels = 0
    for path in paths:
        with Image.open(path) as image:
            pixels += image.width * image.height
    return pixels / len(paths) / 1e6, sum(path.stat().st_size for path in paths) / len(paths) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of JPEG files (default: the ImageNet sample, else generated ones)")
    parser.add_argument("--quick", action="store_true", help="128 images, 3 rounds")
    parser.add_argument("--images", type=int, default=None, help="how many images at most (320)")
    parser.add_argument("--rounds", type=int, default=None, help="how often each contender is timed (7)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tasks", nargs="+", choices=list(BASELINES), help="only these")
    parser.add_argument("--out", help="where to write the JSON (default: benchmarks/results/views-<machine>.json)")
    parser.add_argument("--pinned", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--paths", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.images = arguments.images or (128 if arguments.quick else 320)
    arguments.rounds = arguments.rounds or (3 if arguments.quick else 7)
    run_pinned(arguments) if arguments.pinned else run_all(arguments)


if __name__ == "__main__":
    main()
