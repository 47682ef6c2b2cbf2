"""What the tests of the Loader share: sources in memory, and batches put end to end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import images
import torch
from torch import Tensor

from fastssl.data import Batch, Source
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Blur, Crop, Flip, Grayscale, Jitter, Solarize, View

# Everything that can be drawn, in two views that differ.
VIEW = View(
    crop=Crop(size=24),
    flip=Flip(p=0.5),
    vflip=Flip(p=0.5),
    jitter=Jitter(p=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    grayscale=Grayscale(p=0.2),
    blur=Blur(p=0.5),
    solarize=Solarize(p=0.2),
)
RECIPE = (VIEW, VIEW.with_(crop=Crop(size=17, area=(0.05, 0.4), interpolation="bicubic")))


class Memory(Source):
    """Encoded images in memory; what is an exception is raised, and what is callable is called."""

    def __init__(self, items: Sequence[object]) -> None:
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    def fetch(self, index: int):
        item = self.items[index]
        if isinstance(item, BaseException):
            raise item
        return item() if callable(item) else item

    def target(self, index: int) -> int:
        return 10 * index

    def filename(self, index: int) -> str:
        return f"memory/{index}"


def pictures(n: int, seed: int = 0) -> list[bytes]:
    """n small JPEG files, no two alike, of sizes that differ."""
    return [images.jpeg(images.photo(28 + 3 * (i % 7), 40 - 2 * (i % 5), seed=1000 * seed + i)) for i in range(n)]


@dataclass
class Joined:
    """Batches end to end."""

    views: list[Tensor]
    targets: Tensor
    filenames: list[str]
    indices: Tensor
    params: Plan

    def __eq__(self, other: object) -> bool:
        """Whether every byte is the same."""
        assert isinstance(other, Joined)
        return (
            all(torch.equal(a, b) for a, b in zip(self.views, other.views, strict=True))
            and torch.equal(self.targets, other.targets)
            and self.filenames == other.filenames
            and torch.equal(self.indices, other.indices)
            and torch.equal(self.params.data, other.params.data)
        )


def joined(batches: Iterable[Batch]) -> Joined:
    batches = list(batches)
    return Joined(
        views=[torch.cat(parts) for parts in zip(*(batch.views for batch in batches), strict=True)],
        targets=torch.cat([batch.targets for batch in batches]),
        filenames=[name for batch in batches for name in batch.filenames],
        indices=torch.cat([batch.indices for batch in batches]),
        params=Plan.cat([batch.params for batch in batches]),
    )
