"""The folder behind a LightlyDataset, with the attributes that torchvision's folder datasets have."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from PIL import Image
from torchvision.datasets.vision import VisionDataset

from .. import ops
from ..transforms.multi_view_transform import takes_encoded
from .sources import IMAGE_EXTENSIONS, ImageFolder

__all__ = ["VIDEO_EXTENSIONS", "FolderDataset", "load_image"]

VIDEO_EXTENSIONS = (".mp4", ".mov", ".avi", ".mpg", ".hevc", ".m4v", ".webm", ".mpeg")


def load_image(path: str) -> Image.Image:
    """The image of a file, in RGB."""
    return Image.fromarray(ops.decode(path).numpy())


class FolderDataset(VisionDataset):
    """Images of a folder as `(sample, target)`: class folders, or flat with target 0.

    Args:
        root: The folder.
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
        if filenames is None:
            folder = ImageFolder(self.root, extensions=IMAGE_EXTENSIONS + VIDEO_EXTENSIONS)
            self.paths, self.targets, self.classes = list(folder.paths), list(folder.targets), list(folder.classes)
        else:
            self.paths, self.targets, self.classes = _look_up(self.root, filenames)
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
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
        path, target = self.paths[index], self.targets[index]
        if self.loader is load_image and takes_encoded(self.transform):
            sample: Any = path
        else:
            sample = self.loader(path)
        if self.transform is not None:
            sample = self.transform(sample)
        if self.target_transform is not None:
            return sample, self.target_transform(target)
        return sample, target

    def __len__(self) -> int:
        return len(self.paths)

    def filename(self, index: int) -> str:
        """The path relative to the folder."""
        return os.path.relpath(self.paths[index], self.root)


def _look_up(root: str, filenames: Iterable[str]) -> tuple[list[str], list[int], list[str]]:
    """Paths, targets and classes of the named files, in the order in which a search of the folder finds them."""
    if isinstance(filenames, (str, bytes)):
        raise TypeError(f"LightlyDataset: filenames={filenames!r} must be a list of names; write [{filenames!r}].")
    names = {os.path.relpath(os.path.join(root, name), root) for name in filenames}
    classes = class_folders(root)
    place = {name: i for i, name in enumerate(classes)}
    found: list[tuple[int, str, str]] = []  # target, folder, name: sorted, the order of a search
    for name in names:
        folder, _, rest = name.partition(os.sep)
        if classes:
            fits = bool(rest) and folder in place
        else:
            fits = not rest and name.lower().endswith(IMAGE_EXTENSIONS + VIDEO_EXTENSIONS)
        if fits and os.path.isfile(os.path.join(root, name)):
            found.append((place.get(folder, 0), *os.path.split(os.path.join(root, name))))
    if not found:
        raise FileNotFoundError(
            f"LightlyDataset: none of the {len(names)} filenames is an image in {root}; write them relative to that "
            "folder, such as 'class/name.jpg'."
        )
    if len(found) < len(names):
        kept = {os.path.relpath(os.path.join(folder, name), root) for _, folder, name in found}
        warnings.warn(
            f"LightlyDataset: {len(names) - len(found)} of {len(names)} filenames are no images in {root} and are left "
            f"out, such as {min(names - kept)!r}.",
            stacklevel=4,
        )
    found.sort()
    return [os.path.join(folder, name) for _, folder, name in found], [target for target, _, _ in found], classes
