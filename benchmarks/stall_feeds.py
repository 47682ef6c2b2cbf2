"""Who feeds the network of stall.py: loaders and data loaders over one folder of files, and what their batches must be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from contenders import lightly, ours, torchvision
from harness import CheckFailed
from torch import Tensor
from view_checks import Sums, compared, expected_of
from view_recipes import Recipe

LOADER = "fastssl.Loader"
EXPECTED_IMAGES = 256  # that torchvision's statistics are taken over
CHECKED_BATCHES = 2
Feed = Iterator[list[Tensor]]


@dataclass(frozen=True)
class Inputs:
    """What every contender gets.

    Args:
        folder: Of JPEG files.
        paths: The same, without repetitions.
        recipe: The views to make.
        batch: Images of a batch.
        threads: Native threads or workers.
        device: Where batches go.
        dtype: Of the views, as the network gets them.
    """

    folder: Path
    paths: Sequence[Path]
    recipe: Recipe
    batch: int
    threads: int
    device: torch.device
    dtype: torch.dtype

    @cached_property
    def expected(self) -> Sums:
        """What torchvision's views of these images are like."""
        (size,) = {spec.size for spec in self.recipe.views}
        jpegs = (path.read_bytes() for path in self.paths[:EXPECTED_IMAGES])
        return expected_of(self.recipe, map(torchvision.decode, jpegs))[size]


@dataclass(frozen=True)
class Contender:
    """A way of feeding the network.

    Args:
        name: As the tables show it.
        make: Gives batches without end, and a function that tells what there is to tell of them; closing ends all.
        needs: Modules without which it is absent.
        warm_up: Batches that do not count, by the number of threads.
    """

    name: str
    make: Callable[[Inputs], tuple[Feed, Callable[[], dict[str, Any]]]]
    needs: tuple[str, ...] = ()
    warm_up: Callable[[int], int] = lambda threads: 8


def feed_of(batches: Any) -> Feed:
    return (batch.views for batch in batches)


def from_loader(inputs: Inputs, decode: str, epochs: int = 1_000_000) -> tuple[Feed, Callable[[], dict[str, Any]]]:
    import fastssl

    loader = fastssl.Loader(
        fastssl.data.ImageFolder(inputs.folder),
        ours.recipe_of(inputs.recipe),
        batch_size=inputs.batch,
        device=inputs.device,
        threads=inputs.threads,
        dtype=inputs.dtype,
        channels_last=True,
        drop_last=True,
        epochs=epochs,
        decode=decode,
    )
    return feed_of(loader), loader.stats


def resident(inputs: Inputs) -> tuple[Feed, Callable[[], dict[str, Any]]]:
    feed, _ = from_loader(inputs, "cpu")
    batch = [view.clone() for view in next(feed)]
    return itertools.repeat(batch), dict


def from_to_device(inputs: Inputs) -> tuple[Feed, Callable[[], dict[str, Any]]]:
    from torch.utils.data import DataLoader

    import fastssl

    reading = DataLoader(
        Flat(inputs.folder),
        batch_size=inputs.batch,
        shuffle=True,
        drop_last=True,
        num_workers=max(1, inputs.threads // 4),
        persistent_workers=True,
        collate_fn=fastssl.data.BytesCollate(),
    )
    loader = fastssl.to_device(
        reading,
        ours.recipe_of(inputs.recipe),
        inputs.device,
        threads=inputs.threads,
        dtype=inputs.dtype,
        channels_last=True,
    )
    return (views for _ in itertools.count() for views in feed_of(loader)), loader.stats


class Flat:
    """The paths of a folder's files, as a data set."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(str(path) for path in folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.paths[index], 0


def from_lightly(inputs: Inputs) -> tuple[Feed, Callable[[], dict[str, Any]]]:
    from lightly.data import LightlyDataset
    from torch.utils.data import DataLoader

    loader = DataLoader(
        LightlyDataset(str(inputs.folder), transform=lightly.from_pixels(inputs.recipe)),
        batch_size=inputs.batch,
        shuffle=True,
        drop_last=True,
        num_workers=inputs.threads,
        persistent_workers=True,
        pin_memory=inputs.device.type == "cuda",
    )

    def feed() -> Feed:
        for views, _targets, _filenames in itertools.chain.from_iterable(loader for _ in itertools.count()):
            there = [view.to(inputs.device, non_blocking=True) for view in views]
            yield [view.to(inputs.dtype, memory_format=torch.channels_last) for view in there]

    return feed(), dict


CONTENDERS = (
    # Its share of the device's decoder falls from what was fastest alone to what training needs within some twenty batches.
    Contender(LOADER, lambda inputs: from_loader(inputs, "auto"), warm_up=lambda threads: 32),
    Contender("fastssl.Loader, decoding on the CPU", lambda inputs: from_loader(inputs, "cpu")),
    Contender("fastssl.to_device + DataLoader", from_to_device, warm_up=lambda threads: 32 + threads // 2),
    Contender("lightly + DataLoader", from_lightly, ("lightly",), warm_up=lambda threads: 2 * threads + 2),
)


def check(feed: Feed, inputs: Inputs) -> dict[str, Any]:
    """Two batches: shape, type, place and layout of the views, and what view_checks.py compares."""
    (size,) = {spec.size for spec in inputs.recipe.views}
    sums, before = Sums(), None
    for views in itertools.islice(feed, CHECKED_BATCHES):
        for view in views:
            if (tuple(view.shape), view.dtype, view.device) != (
                (inputs.batch, 3, size, size),
                inputs.dtype,
                inputs.device,
            ):
                raise CheckFailed(f"a view is {tuple(view.shape)}, {view.dtype} on {view.device}")
            if not view.is_contiguous(memory_format=torch.channels_last):
                raise CheckFailed(f"a view has strides {view.stride()}, not those of channels last")
            sums.add(view.float())
        if len(views) != len(inputs.recipe.views) or (before is not None and torch.equal(before, views[0])):
            raise CheckFailed(f"{len(views)} views of an image, or one batch twice")
        before = views[0]
    return compared(size, sums, inputs.expected, antialiased=True)
