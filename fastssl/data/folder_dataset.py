"""The folder behind a LightlyDataset, with the attributes that torchvision's folder datasets have."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from PIL import Image
from torchvision.datasets.vision import VisionDataset

from fastssl import ops
from fastssl.data.sources import IMAGE_EXTENSIONS, ImageFolder, Source
from fastssl.transforms.multi_view_transform import takes_encoded

__all__ = ["VIDEO_EXTENSIONS", "FolderDataset", "load_image"]

VIDEO_EXTENSIONS = (".mp4", ".mov", ".avi", ".mpg", ".hevc", ".m4v", ".webm", ".mpeg")  # lightly's


def load_image(path: str) -> Image.Image:
    """The image of a file, in RGB.

    Raises:
        DecodeError: the file cannot be read as an image.
    """
    return Image.fromarray(ops.decode(path).numpy())


class FolderDataset(VisionDataset, Source):
    """Images of a folder as `(sample, target)`: class folders, or flat with target 0.

    Also a `Source`, which the Loader reads without Python; it then ignores the transform, having a recipe.

    Args:
        root: The folder. If it has sub-folders, hidden ones and `lightly_outputs` aside, they are the classes, and
            images beside them are left out.
        transform: Called with each PIL image, or with its path if it is fastssl's own.
        filenames: Keeps only these, relative to root; see `LightlyDataset`.

    Raises:
        FileNotFoundError: no image is there.
        NotImplementedError: a video is there.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        transform: Callable[[Any], Any] | None = None,
        filenames: Iterable[str] | None = None,
    ) -> None:
        super().__init__(os.fspath(root), transform=transform)
        self.loader: Callable[[str], Any] = load_image
        self.extensions = IMAGE_EXTENSIONS
        self.classes = _class_folders(self.root)
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        names = self._search() if filenames is None else self._look_up(filenames)
        # The order of torchvision and lightly: by class, then by folder, then by name.
        found = sorted((self._target_of(name), *os.path.split(name)) for name in names)
        self.paths = [os.path.join(self.root, folder, name) for _, folder, name in found]
        self.targets = [target for target, _, _ in found]
        video = next((path for path in self.paths if path.lower().endswith(VIDEO_EXTENSIONS)), None)
        if video is not None:
            raise NotImplementedError(
                f"LightlyDataset: {video} is a video, and videos cannot be read yet; save their frames as images, for "
                f"example with `ffmpeg -i {os.path.basename(video)} frames/%06d.jpg`, and give the folder of frames."
            )

    @cached_property
    def samples(self) -> list[tuple[str, int]]:
        """Path and target of each image, as torchvision has them; also under the name `imgs`."""
        return list(zip(self.paths, self.targets, strict=True))

    @property
    def imgs(self) -> list[tuple[str, int]]:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path = self.paths[index]
        if self.loader is load_image and takes_encoded(self.transform):
            sample: Any = path
        else:
            sample = self.loader(path)
        if self.transform is not None:
            sample = self.transform(sample)
        return sample, self.target(index)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str | None:
        return self.paths[index] if self.loader is load_image else None

    def fetch(self, index: int) -> Any:
        return ops.to_image(self.loader(self.paths[index]))

    def target(self, index: int) -> Any:
        target = self.targets[index]
        return target if self.target_transform is None else self.target_transform(target)

    def filename(self, index: int) -> str:
        """The path relative to the folder."""
        return self.paths[index][len(os.path.join(self.root, "")) :]

    def get_filenames(self) -> list[str]:
        """The filenames of all images, in order."""
        return [self.filename(index) for index in range(len(self))]

    def _target_of(self, name: str) -> int:
        return self.class_to_idx.get(name.partition(os.sep)[0], 0)

    def _belongs(self, name: str) -> bool:
        """Whether a file of this name, relative to the folder, is part of the dataset."""
        folder, _, rest = name.partition(os.sep)
        return folder in self.class_to_idx if self.classes and rest else not self.classes and not rest

    def _search(self) -> list[str]:
        """The names of all images and videos, relative to the folder."""
        known = IMAGE_EXTENSIONS + VIDEO_EXTENSIONS
        try:
            folder = ImageFolder(self.root, extensions=known, layout="classes" if self.classes else "flat")
            names = [path[len(os.path.join(self.root, "")) :] for path in folder.paths]
        except FileNotFoundError:
            names = []
        names = [name for name in names if self._belongs(name)]
        if not names:
            where = f"the {len(self.classes)} sub-folders of {self.root}" if self.classes else self.root
            raise FileNotFoundError(
                f"LightlyDataset: there is no image in {where}; it looks for files that end in "
                f"{', '.join(IMAGE_EXTENSIONS)}."
            )
        return names

    def _look_up(self, filenames: Iterable[str]) -> list[str]:
        """Those of the named files that are there, and a warning about the others."""
        if isinstance(filenames, str | bytes):
            raise TypeError(f"LightlyDataset: filenames={filenames!r} must be a list of names; write [{filenames!r}].")
        names = {os.path.relpath(os.path.join(self.root, name), self.root) for name in filenames}
        known = IMAGE_EXTENSIONS + VIDEO_EXTENSIONS
        found = {
            name
            for name in names
            if self._belongs(name) and name.lower().endswith(known) and os.path.isfile(os.path.join(self.root, name))
        }
        if not found:
            raise FileNotFoundError(
                f"LightlyDataset: none of the {len(names)} filenames is an image in {self.root}; write them relative "
                f"to that folder, such as {'class/name.jpg' if self.classes else 'name.jpg'!r}."
            )
        if len(found) < len(names):
            warnings.warn(
                f"LightlyDataset: {len(names) - len(found)} of {len(names)} filenames are no images in {self.root} and "
                f"are left out, such as {min(names - found)!r}.",
                stacklevel=4,
            )
        return list(found)


def _class_folders(root: str) -> list[str]:
    """The sub-folders that are classes, sorted."""
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return [name for name in names if not name.startswith(".") and "lightly_outputs" not in name]
