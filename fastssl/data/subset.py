"""Some of the images of a source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastssl.data.sources import PixelArray, Source
from fastssl.ops.decode import Encoded

__all__ = ["Subset"]


class Subset(Source):
    """The images of a source at some indices, in their order; its targets and class names stay those of the source.

    Args:
        source: Of the images.
        indices: In the source.

    Attributes:
        classes: The source's names of classes; empty if it has none.

    Raises:
        IndexError: The source has no such index.

    >>> from fastssl.data.sources import DatasetSource
    >>> Subset(DatasetSource([("a.jpg", 0), ("b.jpg", 1), ("c.jpg", 1)]), [2, 0]).filename(0)
    '2'
    """

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        wrong = [index for index in indices if not 0 <= index < len(source)]
        if wrong:
            raise IndexError(f"Subset: there is no image {wrong[0]}; the source has {len(source)}, from 0 on.")
        self.source, self.indices = source, list(indices)
        self.channels, self.mode, self.labels_by_fetch = source.channels, source.mode, source.labels_by_fetch
        self.classes: list[str] = list(getattr(source, "classes", None) or [])

    def __len__(self) -> int:
        return len(self.indices)

    def path(self, index: int) -> str | None:
        return self.source.path(self.indices[index])

    def fetch(self, index: int) -> Encoded | Tensor:
        return self.source.fetch(self.indices[index])

    def target(self, index: int) -> int:
        return self.source.target(self.indices[index])

    def filename(self, index: int) -> str:
        return self.source.filename(self.indices[index])

    def native(self) -> PixelArray | None:
        inner = self.source.native()
        if inner is None:
            return None
        rows = torch.tensor(self.indices, dtype=torch.int64, device="cpu")
        return PixelArray(inner.images, rows if inner.rows is None else inner.rows[rows])

    def paths_of(self, indices: Tensor) -> list[str | None]:
        return self.source.paths_of(self._inner(indices))

    def targets_of(self, indices: Tensor) -> Tensor:
        return self.source.targets_of(self._inner(indices))

    def filenames_of(self, indices: Tensor) -> list[str]:
        return self.source.filenames_of(self._inner(indices))

    def _inner(self, indices: Tensor) -> Tensor:
        return torch.tensor([self.indices[i] for i in indices.tolist()], dtype=torch.int64, device="cpu")

    def fingerprint(self) -> str | None:
        said = self.source.fingerprint()
        return None if said is None else repr((said, self.indices))

    def unlabelled(self, indices: Iterable[int]) -> list[int]:
        return [i for i in indices if self.source.unlabelled([self.indices[i]])]

    def restore_labels(self, labels: Mapping[int, Sequence[Any]]) -> None:
        self.source.restore_labels({self.indices[i]: label for i, label in labels.items()})
