"""Views that a dataset's transform made, stacked into a batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastssl.ops.shared import empty_batch

__all__ = ["MultiViewCollate", "label", "split_samples", "stack"]


class MultiViewCollate:
    """Stacks samples of several views each into a batch; the `collate_fn` for a dataset whose transform makes views.

    Gives what lightly's class of this name gives. In a DataLoader worker the batch is written straight into shared
    memory, which saves a copy of every view.

    >>> views, targets, filenames = MultiViewCollate()([
    ...     ([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)], 4, "a.jpg"),
    ...     ([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)], 2, "b.jpg"),
    ... ])
    >>> [view.shape for view in views], targets, filenames
    ([torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 8, 8])], tensor([4, 2]), ['a.jpg', 'b.jpg'])
    """

    def __call__(self, batch: Sequence[Any]) -> tuple[list[Tensor], Tensor, list[str]]:
        """Stacks a batch.

        Args:
            batch: B samples `(views, target, filename)` or `(views, target)`; views is a list of V tensors, each of one
                shape throughout the batch.

        Returns:
            V tensors (B, ...), targets (B,) int64, and filenames, [] for samples without. An empty batch gives a
            warning and `([], tensor([]), [])`.

        Raises:
            TypeError: a sample is no such tuple, or its views are no tensors.
            ValueError: the samples differ in the number, the shape or the type of their views, or a target is not a
                whole number.
        """
        if len(batch) == 0:
            warnings.warn("MultiViewCollate received an empty batch.", stacklevel=2)
            return [], torch.zeros(0, dtype=torch.int64, device="cpu"), []
        samples, targets, filenames = split_samples("MultiViewCollate", batch)
        for i, views in enumerate(samples):
            several = isinstance(views, list | tuple)
            if not several or not all(isinstance(view, Tensor) for view in views):
                got = [type(view).__name__ for view in views] if several else type(views).__name__
                raise TypeError(
                    f"MultiViewCollate: sample {label(i, filenames)} holds {got}, and must hold a list of tensors, one "
                    "for each view; give the dataset a transform such as SimCLRTransform(), or collate images with "
                    "SimCLRCollateFunction()."
                )
            if len(views) != len(samples[0]):
                raise ValueError(
                    f"MultiViewCollate: sample {label(i, filenames)} has {len(views)} views, and sample "
                    f"{label(0, filenames)} has {len(samples[0])}; every sample of a batch must have as many."
                )
        stacked = [
            stack([views[v] for views in samples], f"MultiViewCollate: view {v}", filenames)
            for v in range(len(samples[0]))
        ]
        return stacked, targets, filenames


def split_samples(who: str, batch: Sequence[Any]) -> tuple[list[Any], Tensor, list[str]]:
    """Takes a batch of `(image, target, filename)` or `(image, target)` apart.

    Args:
        who: Opens the errors.
        batch: The samples, all of one length.

    Returns:
        What each sample holds first, B; targets (B,) int64; filenames, B, or none where samples hold two things.
    """
    for i, sample in enumerate(batch):
        if not isinstance(sample, tuple | list) or len(sample) not in (2, 3):
            got = f"{len(sample)} things" if isinstance(sample, tuple | list) else f"a {type(sample).__name__}"
            raise TypeError(
                f"{who}: sample {i} of the batch is {got}, and must be (image, target, filename) or (image, target); "
                "for images without labels let the dataset return (image, 0)."
            )
        if len(sample) != len(batch[0]):
            raise ValueError(
                f"{who}: sample {i} of the batch holds {len(sample)} things, and sample 0 holds {len(batch[0])}; let "
                "the dataset return a filename for every sample or for none."
            )
    filenames = [sample[2] for sample in batch if len(sample) == 3]
    targets = [_target(who, sample[1], i, filenames) for i, sample in enumerate(batch)]
    return [sample[0] for sample in batch], torch.tensor(targets, dtype=torch.int64, device="cpu"), filenames


def stack(tensors: list[Tensor], what: str, filenames: list[str]) -> Tensor:
    """Stacks tensors of one shape and type; in a DataLoader worker, straight into shared memory.

    Args:
        tensors: B tensors of the same shape.
        what: Opens the error.
        filenames: Name the samples in the error, or none.

    Returns:
        (B, ...).
    """
    first = tensors[0]
    for i, tensor in enumerate(tensors):
        if tensor.shape != first.shape or tensor.dtype != first.dtype:
            raise ValueError(
                f"{what} of sample {label(i, filenames)} is {tuple(tensor.shape)} {tensor.dtype}, and of sample "
                f"{label(0, filenames)} {tuple(first.shape)} {first.dtype}; a batch needs one shape and type, so let "
                "the transform crop or resize to a fixed size."
            )
    if first.device.type != "cpu":
        return torch.stack(tensors)
    return torch.stack(tensors, out=empty_batch((len(tensors), *first.shape), first.dtype))


def _target(who: str, target: Any, i: int, filenames: list[str]) -> int:
    """A target as an int; whole floats, and tensors and arrays of one element, too."""
    value = target
    if isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and float(value).is_integer():
        return int(float(value))
    raise ValueError(
        f"{who}: the target of sample {label(i, filenames)} is {target!r}, and must be a whole number; for other "
        "targets let the dataset return the index of the sample as its target and look them up with that."
    )


def label(i: int, filenames: list[str]) -> str:
    """How an error names a sample: its place in the batch, and its filename if it has one."""
    return f"{i} of the batch ({filenames[i]})" if filenames else f"{i} of the batch"
