"""What the tests of the drop-ins share: lightly, a dataset, descriptions of batches, and a test of two distributions.

A module of its own, so that spawned workers find what is in it.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import images
import pytest
import torch
from PIL import Image
from torch import Tensor

PHOTO = images.photo(100, 120)


def lightly() -> ModuleType:
    """lightly, or a skip where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it imports deprecates this and that
        pytest.importorskip("lightly", reason="lightly is not installed, so there is nothing to compare with")
        import lightly
        import lightly.data
        import lightly.transforms
    return lightly


class Images:
    """A dataset of one image over and over: what differs between samples was drawn."""

    def __init__(self, count: int, transform: Any = None) -> None:
        self.count, self.transform = count, transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int, str]:
        image: Any = Image.fromarray(PHOTO)
        return (image if self.transform is None else self.transform(image)), index, f"{index}.png"


class Flags:
    """Collates, and says for each view whether it lies in shared memory."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, batch: list[Any]) -> list[bool]:
        views, _, _ = self.collate(batch)
        return [view.is_shared() for view in views]


def structure(thing: Any) -> Any:
    """What consumers of a batch rely on: containers, shapes and types, and the values of targets and names."""
    if isinstance(thing, Tensor):
        return ("tensor", tuple(thing.shape), thing.dtype, thing.tolist() if thing.dtype == torch.int64 else None)
    if isinstance(thing, list | tuple):
        return (type(thing).__name__, [structure(part) for part in thing])
    return thing


def features(views: Tensor) -> dict[str, Tensor]:
    """Numbers that each augmentation moves, for each of N views (N, 3, S, S) in [0, 1]."""
    luma = views.mean(dim=1)
    return {
        "red": views[:, 0].mean(dim=(1, 2)),
        "green": views[:, 1].mean(dim=(1, 2)),
        "blue": views[:, 2].mean(dim=(1, 2)),
        "contrast": luma.std(dim=(1, 2)),
        "edges": luma.diff(dim=2).abs().mean(dim=(1, 2)),
        "saturation": (views.amax(dim=1) - views.amin(dim=1)).mean(dim=(1, 2)),
        "leftness": luma[:, :, : luma.shape[2] // 2].mean(dim=(1, 2)) - luma.mean(dim=(1, 2)),
        "upness": luma[:, : luma.shape[1] // 2].mean(dim=(1, 2)) - luma.mean(dim=(1, 2)),
    }


def check_same_distribution(ours: Tensor, theirs: Tensor) -> None:
    """Means and deviations of the features of two sets of views agree within five standard errors.

    Five: 16 comparisons that each fail by chance once in 1.7 million. On top, half a step of 8 bits for each of the
    five operations after which Pillow rounds, mostly downwards.
    """
    rounding = 5 * 0.5 / 255
    a, b = features(ours.float()), features(theirs.float())
    for name in a:
        x, y = a[name].double(), b[name].double()
        error = (x.var() / len(x) + y.var() / len(y)).sqrt()
        off = (x.mean() - y.mean()).abs()
        assert off <= 5 * error + rounding, f"mean of {name}: {x.mean():.4f}, lightly {y.mean():.4f}, error {error:.4f}"
        # The error of a deviation, for any distribution: sqrt((m4 - m2^2) / 4 m2 n).
        errors = [((v - v.mean()).pow(4).mean() - v.var() ** 2) / (4 * v.var() * len(v)) for v in (x, y)]
        error = (errors[0] + errors[1]).sqrt()
        off = (x.std() - y.std()).abs()
        assert off <= 5 * error + rounding, f"spread of {name}: {x.std():.4f}, lightly {y.std():.4f}, error {error:.4f}"
