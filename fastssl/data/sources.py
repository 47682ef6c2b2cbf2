"""Where images come from."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fastssl._native import _C, DecodeError
from fastssl.ops.decode import Encoded, Mode, check_mode, decode, to_image

__all__ = ["IMAGE_EXTENSIONS", "DatasetSource", "ImageFolder", "PixelArray", "Source", "as_source"]

# Those of lightly and torchvision.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

Layout = Literal["auto", "classes", "flat"]


@dataclass(frozen=True)
class PixelArray:
    """Images that lie in memory, for native threads to read.

    Args:
        images: (N, H, W, C), uint8 or uint16, the values of a row of pixels side by side.
        rows: Which of them are the source's samples, in its order, (n,), int64; None for all.
    """

    images: np.ndarray
    rows: Tensor | None = None


class Source:
    """Samples by index: an image, a target and a name each.

    A subclass gives `__len__`, and `path` or `fetch`. `fetch` is called on the Loader's threads, several at a time. The
    methods with `_of` are called once a batch; a subclass may replace them by something faster than a loop.

    Attributes:
        channels: Of every image.
        mode: How encoded images are decoded; see `fastssl.ops.decode`.
        labels_by_fetch: Whether target and name of a sample are known only once it was fetched; a cache's file then keeps them.
    """

    channels: int = 3
    mode: Mode = "RGB"
    labels_by_fetch: bool = False

    def __len__(self) -> int:
        raise NotImplementedError

    def path(self, index: int) -> str | None:
        """The file that holds the image, if it is one: the Loader then reads it without Python."""
        return None

    def fetch(self, index: int) -> Encoded | Tensor:
        """The image: encoded bytes, or pixels, (H, W, channels), uint8 or uint16."""
        raise NotImplementedError(f"{type(self).__name__} has neither path(index) nor fetch(index).")

    def target(self, index: int) -> int:
        """The label; 0 where there are none."""
        return 0

    def filename(self, index: int) -> str:
        """A name that is unique in the source."""
        return str(index)

    def native(self) -> PixelArray | None:
        """All images, if they lie in memory as an array: the Loader then asks for neither path nor fetch."""
        return None

    def paths_of(self, indices: Tensor) -> list[str | None]:
        """The path of each."""
        return [self.path(i) for i in indices.tolist()]

    def targets_of(self, indices: Tensor) -> Tensor:
        """The target of each, (n,), int64."""
        return torch.tensor([self.target(i) for i in indices.tolist()], dtype=torch.int64, device="cpu")

    def filenames_of(self, indices: Tensor) -> list[str]:
        """The name of each."""
        return [self.filename(i) for i in indices.tolist()]

    def fingerprint(self) -> str | bytes | None:
        """What changes whenever an image does, for caches in files; None to look at names, times, and some of the contents.

        Worth giving where images that are no files can change under the same names, or where looking takes long.
        """
        return None

    # Where only a fetch tells target and name, and the image comes from a cache instead.

    def unlabelled(self, indices: Iterable[int]) -> list[int]:
        """Those of these samples whose target and name are not known, as they were not fetched."""
        return []

    def restore_labels(self, labels: Mapping[int, Sequence[Any]]) -> None:
        """Takes over target and name of samples that another process fetched; what was fetched here stays."""


class ImageFolder(Source):
    """A folder of images: one sub-folder a class, or all of them flat.

    With class folders, the target is the rank of the class's name, as in torchvision and lightly; images may lie deeper.
    Flat, the target is 0. Paths are sorted; hidden files and folders are passed over.

    Args:
        root: The folder.
        extensions: What counts as an image, in lower case.
        layout: "classes", "flat" (images in sub-folders belong to it too), or "auto", which takes class folders if there are any.
        mode: "RGB", or "unchanged" for the channels and bits of the files; see `fastssl.ops.decode`.
        channels: With "unchanged", how many channels every file has; one that has others is a bad sample.

    Attributes:
        paths, targets: One entry an image.
        classes: Names of the class folders; empty if flat.
        class_to_idx: Their targets.

    Raises:
        FileNotFoundError: root does not exist, or holds no image.
        NotADirectoryError: root is a file.
        ValueError: With "auto", images lie both in root and in its sub-folders.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
        layout: Layout = "auto",
        mode: Mode = "RGB",
        channels: int = 3,
    ) -> None:
        check_mode("ImageFolder", mode)
        if not isinstance(channels, int) or isinstance(channels, bool) or channels < 1:
            raise ValueError(f"ImageFolder: channels={channels!r} must be a whole number, at least 1.")
        if mode == "RGB" and channels != 3:
            raise ValueError(f"ImageFolder: channels={channels} needs mode='unchanged'; RGB has 3.")
        self.mode, self.channels = mode, channels
        if layout not in ("auto", "classes", "flat"):
            raise ValueError(f'ImageFolder: layout={layout!r} must be "auto", "classes" or "flat".')
        if isinstance(extensions, str) or not all(isinstance(e, str) and e.startswith(".") for e in extensions):
            raise ValueError(f"ImageFolder: extensions={extensions!r} must be a list of endings, as ('.jpg', '.png').")
        self.root = os.fspath(root)
        self.extensions = tuple(extension.lower() for extension in extensions)
        if not os.path.exists(self.root):
            raise FileNotFoundError(
                f"ImageFolder: there is no folder {self.root!r}; the working folder is {os.getcwd()!r}."
            )
        if not os.path.isdir(self.root):
            raise NotADirectoryError(f"ImageFolder: {self.root!r} is a file; give the folder that holds the images.")

        loose: list[str] = []
        folders: list[str] = []
        for entry in _sorted_entries(self.root):
            if entry.is_dir():
                folders.append(entry.name)
            elif self._is_image(entry.name):
                loose.append(entry.path)
        inside = {name: self._inside(os.path.join(self.root, name)) for name in folders}
        found = sum(len(paths) for paths in inside.values())
        if layout == "auto" and loose and found:
            raise ValueError(
                f"ImageFolder: {self.root!r} holds {len(loose)} images and also sub-folders with {found}. Write layout='classes' "
                "to take the sub-folders as classes and leave the loose images out, or layout='flat' to take all without classes."
            )
        as_classes = layout == "classes" or (layout == "auto" and found > 0)
        self.classes: list[str] = folders if as_classes else []
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        self.paths: list[str] = []
        self.targets: list[int] = []
        if as_classes:
            for name in folders:
                self.paths += inside[name]
                self.targets += [self.class_to_idx[name]] * len(inside[name])
        else:
            self.paths = sorted(loose + [path for paths in inside.values() for path in paths])
            self.targets = [0] * len(self.paths)
        if not self.paths:
            raise FileNotFoundError(
                f"ImageFolder: no image in {self.root!r}{' in sub-folders' if layout == 'classes' else ''}; looked for files "
                f"that end in {', '.join(self.extensions)}."
            )

    def _is_image(self, name: str) -> bool:
        return not name.startswith(".") and name.lower().endswith(self.extensions)

    def _inside(self, folder: str) -> list[str]:
        """All images below, in the order of torchvision: by folder, then by name."""
        return sorted(self._walk(folder, frozenset([os.path.realpath(self.root)])), key=os.path.split)

    def _walk(self, folder: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
        real = os.path.realpath(folder)
        if real in above:  # a link to a folder that it lies in: all of it is listed already
            return
        for entry in _sorted_entries(folder):
            if entry.is_dir():
                yield from self._walk(entry.path, above | {real})
            elif self._is_image(entry.name):
                yield entry.path

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        return self.paths[index]

    def fetch(self, index: int) -> Tensor:
        return decode(self.paths[index], self.mode)

    def target(self, index: int) -> int:
        return self.targets[index]

    def filename(self, index: int) -> str:
        return self.paths[index][len(os.path.join(self.root, "")) :]

    # Faster by a call a sample; unless a subclass has an opinion about each.

    def paths_of(self, indices: Tensor) -> list[str | None]:
        if type(self).path is not ImageFolder.path:
            return super().paths_of(indices)
        paths = self.paths
        return [paths[i] for i in indices.tolist()]

    def targets_of(self, indices: Tensor) -> Tensor:
        if type(self).target is not ImageFolder.target:
            return super().targets_of(indices)
        targets = self.targets
        return torch.tensor([targets[i] for i in indices.tolist()], dtype=torch.int64, device="cpu")

    def filenames_of(self, indices: Tensor) -> list[str]:
        if type(self).filename is not ImageFolder.filename:
            return super().filenames_of(indices)
        paths, begin = self.paths, len(os.path.join(self.root, ""))
        return [paths[i][begin:] for i in indices.tolist()]

    def __repr__(self) -> str:
        return f"ImageFolder({self.root!r}: {len(self)} images, {len(self.classes)} classes)"


def _sorted_entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


class DatasetSource(Source):
    """Any map-style data set whose samples are `(image, target)` or `(image, target, filename)`.

    The image is anything that `fastssl.ops.to_image` takes. `__getitem__` runs on the Loader's threads and holds Python's lock,
    so a data set that decodes by itself is slower than one that returns bytes or paths, which are decoded without it.

    Args:
        dataset: Has `__len__` and `__getitem__`; without a transform of its own.
    """

    labels_by_fetch = True

    def __init__(self, dataset: Any) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise TypeError(
                f"DatasetSource: got {type(dataset).__name__}; it takes a data set with __len__ and __getitem__. An iterable "
                "data set has no order to shuffle: list it first."
            )
        self.dataset = dataset
        self._lock = threading.Lock()
        self._labels: dict[int, tuple[int, str]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, index: int) -> Encoded | Tensor:
        sample = self.dataset[index]
        if not isinstance(sample, tuple | list) or len(sample) not in (2, 3):
            raise TypeError(
                f"sample {index} is {type(sample).__name__}; it must be (image, target) or (image, target, filename)."
            )
        image = sample[0]
        if isinstance(image, str | os.PathLike):
            image = _read(image)
        elif not isinstance(image, bytes | bytearray | memoryview) and not _encoded(image):
            image = to_image(image)
        self._note(index, sample)
        return image

    def _note(self, index: int, sample: Any) -> None:
        with self._lock:
            self._labels[index] = (int(sample[1]), str(sample[2]) if len(sample) == 3 else str(index))

    def unlabelled(self, indices: Iterable[int]) -> list[int]:
        return [index for index in indices if index not in self._labels]

    def restore_labels(self, labels: Mapping[int, Sequence[Any]]) -> None:
        with self._lock:
            for index, (target, name) in labels.items():
                self._labels.setdefault(index, (int(target), str(name)))

    def target(self, index: int) -> int:
        """The target that the last fetch of this index returned; 0 if there was none."""
        return self._labels.get(index, (0, str(index)))[0]

    def filename(self, index: int) -> str:
        """The name that the last fetch of this index returned."""
        return self._labels.get(index, (0, str(index)))[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self.dataset}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["dataset"])  # type: ignore[misc]


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return _C.read_file(path)
    except DecodeError as error:
        raise DecodeError(f"{os.fspath(path)}: {error}") from error


def _encoded(image: Any) -> bool:
    return isinstance(image, Tensor) and image.dim() == 1 and image.dtype == torch.uint8


def as_source(data: Any) -> Source:
    """`data` or its `source`, if that is a Source; an ImageFolder for a path; a DatasetSource for a map-style data set."""
    if isinstance(data, Source):
        return data
    if isinstance(data, str | os.PathLike):
        return ImageFolder(data)
    own = getattr(data, "source", None)  # such as a LightlyDataset without a transform
    if isinstance(own, Source):
        return own
    if isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise TypeError(
            f"Loader: got {type(data).__name__}, which can only be iterated over; give a list, a data set, or a folder."
        )
    return DatasetSource(data)
