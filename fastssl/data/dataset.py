"""lightly's dataset: folders and torch datasets as `(sample, target, filename)`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets
from torchvision.datasets.vision import StandardTransform, VisionDataset

from fastssl import ops
from fastssl.data.folder_dataset import FolderDataset
from fastssl.data.sources import Source

__all__ = ["LightlyDataset", "filename_by_index"]


class LightlyDataset(Dataset[tuple[Any, Any, str]]):
    """Images of a folder, or of any torch dataset, as `(sample, target, filename)`.

    A folder of images gives target 0 for each, sorted by path; a folder of folders gives the sorted folder names as
    classes. A sample is a PIL image in RGB where there is no transform, and otherwise what the transform makes of it.
    fastssl's own transforms are handed the path, so that one native decode serves all views and no PIL image is made.

    Unlike lightly's, this is a `torch.utils.data.Dataset` and adds up to a ConcatDataset; classes keep their numbers
    under `filenames`; setting `transform` reaches torchvision's `transforms` too, and works for datasets that apply
    none themselves, such as `torch.utils.data.Subset`.

    Args:
        input_dir: The folder; None makes an empty object, as `from_torch_dataset` does before it fills it.
        transform: Called with each image.
        index_to_filename: Called with (dataset, index), gives the filename; by default the path relative to input_dir,
            and `str(index)` for torch datasets that are no folders. For spawned workers, a function of a module.
        filenames: Keeps only these, relative to input_dir, in the folder's order. Only they are looked up, the folder
            is not searched. Those that are not there are left out with a warning.
        tqdm_args: Accepted for lightly's sake; it is about videos.
        num_workers_video_frame_counting: Likewise.

    Raises:
        ValueError: input_dir does not exist, or a transform is given without an input_dir.
        FileNotFoundError: no image is there.
        NotImplementedError: the folder holds videos.

    >>> images = [(Image.new("RGB", (40, 30)), 7)]
    >>> LightlyDataset.from_torch_dataset(images, transform=lambda image: image.size)[0]
    ((40, 30), 7, '0')
    """

    _own_transform: Callable[[Any], Any] | None = None  # for datasets that apply none themselves

    def __init__(
        self,
        input_dir: str | os.PathLike[str] | None,
        transform: Callable[[Any], Any] | None = None,
        index_to_filename: Callable[[Any, int], str] | None = None,
        filenames: Iterable[str] | None = None,
        tqdm_args: dict[str, Any] | None = None,
        num_workers_video_frame_counting: int = 0,
    ) -> None:
        self.input_dir = input_dir
        self.index_to_filename = filename_by_index if index_to_filename is None else index_to_filename
        if input_dir is None:
            if transform is not None:
                raise ValueError(
                    "LightlyDataset: a transform without an input_dir has nothing to work on; for a torch dataset "
                    "write LightlyDataset.from_torch_dataset(dataset, transform=transform)."
                )
            return
        if not os.path.isdir(input_dir):
            raise ValueError(f"LightlyDataset: input_dir={os.fspath(input_dir)!r} is not an existing folder.")
        self.dataset: Any = FolderDataset(input_dir, transform=transform, filenames=filenames)

    @classmethod
    def from_torch_dataset(
        cls,
        dataset: Any,
        transform: Callable[[Any], Any] | None = None,
        index_to_filename: Callable[[Any, int], str] | None = None,
    ) -> LightlyDataset:
        """Wraps a dataset that returns `(sample, target)`.

        Args:
            dataset: A map-style dataset, such as `torchvision.datasets.CIFAR10(...)`.
            transform: Takes the place of the dataset's own, as setting `transform` later would; None leaves that.
            index_to_filename: As for the class.
        """
        wrapped = cls(None, index_to_filename=index_to_filename)
        wrapped.dataset = dataset
        if transform is not None:
            wrapped.transform = transform
        return wrapped

    def __getitem__(self, index: int) -> tuple[Any, Any, str]:
        """The sample, its target and its filename."""
        filename = self.index_to_filename(self.dataset, index)
        sample, target = self.dataset[index]
        if self._own_transform is not None:
            sample = self._own_transform(sample)
        return sample, target, filename

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def transform(self) -> Callable[[Any], Any] | None:
        """What is called with each image, or None."""
        if self._own_transform is not None:
            return self._own_transform
        transform: Callable[[Any], Any] | None = getattr(self.dataset, "transform", None)
        return transform

    @transform.setter
    def transform(self, transform: Callable[[Any], Any] | None) -> None:
        if not hasattr(self.dataset, "transform"):
            self._own_transform = transform
            return
        self.dataset.transform = transform
        if isinstance(self.dataset, VisionDataset):
            both = (transform, self.dataset.target_transform)
            self.dataset.transforms = None if both == (None, None) else StandardTransform(*both)

    @property
    def source(self) -> Source | None:
        """The files as a Source, from which a Loader reads without Python; None where samples are made in Python."""
        plain = isinstance(self.dataset, FolderDataset) and self.dataset.transform is None
        return self.dataset if plain and self.index_to_filename is filename_by_index else None

    def get_filenames(self) -> list[str]:
        """The filenames of all samples, in order."""
        if hasattr(self.dataset, "get_filenames") and self.index_to_filename is filename_by_index:
            return list(self.dataset.get_filenames())
        return [self.index_to_filename(self.dataset, index) for index in range(len(self))]

    def dump(
        self, output_dir: str | os.PathLike[str], filenames: Sequence[str] | None = None, format: str | None = None
    ) -> None:
        """Saves the images to a folder, under their filenames.

        Files are copied; images of other datasets are encoded, as the filename's ending says and otherwise as PNG.

        Args:
            output_dir: Made if it is not there.
            filenames: Only these; None for all.
            format: One of Pillow's, such as "png" or "jpg", for images that are encoded. The filename stays.

        Raises:
            RuntimeError: the dataset has a transform, so its samples are no longer its images.
            ValueError: a filename is not in the dataset, or Pillow does not know the format.
        """
        if self.transform is not None:
            raise RuntimeError("LightlyDataset: dump saves images, not views; set dataset.transform = None before it.")
        names = self.get_filenames()
        wanted = {*names} if filenames is None else {*filenames}
        missing = wanted.difference(names)
        if missing:
            raise ValueError(
                f"LightlyDataset: dump got {len(missing)} filenames that are not in the dataset, such as "
                f"{min(missing)!r}; write names as get_filenames() gives them."
            )
        for index, name in enumerate(names):
            if name not in wanted:
                continue
            target = os.path.join(output_dir, name)
            os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
            if isinstance(self.dataset, FolderDataset | datasets.ImageFolder):
                shutil.copyfile(self.dataset.samples[index][0], target)
            else:
                _save(self.dataset[index][0], target, format)

    def get_filepath_from_filename(self, filename: str, image: Any = None) -> str:
        """The path of the image with this filename; where no file is behind it, of a JPEG file made from `image`.

        Args:
            filename: As the dataset gives it.
            image: A PIL image, for datasets without files; it is written to a new temporary folder.

        Raises:
            ValueError: there is no such file, and no image.
        """
        if self.input_dir is not None:
            path = os.path.join(self.input_dir, filename)
            if os.path.isfile(path):
                return path
        if image is None:
            raise ValueError(
                f"LightlyDataset: there is no file for {filename!r}; pass the image too, and it is saved in a "
                "temporary folder: get_filepath_from_filename(filename, image)."
            )
        path = os.path.join(tempfile.mkdtemp(), filename) + ".jpg"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _save(image, path, None)
        return path


def filename_by_index(dataset: Any, index: int) -> str:
    """The path relative to the folder for datasets of files, the index for others."""
    if isinstance(dataset, FolderDataset):
        return dataset.filename(index)
    if isinstance(dataset, datasets.ImageFolder):
        return os.path.relpath(dataset.samples[index][0], dataset.root)
    return str(index)


def _save(image: Any, path: str, format: str | None) -> None:
    """Encodes an image of any kind that datasets return."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(ops.to_image(image).numpy())
    endings = Image.registered_extensions()
    if format is None:
        encoder = endings.get(os.path.splitext(path)[1].lower(), "PNG")
    else:
        encoder = endings.get(f".{format.lower()}", format.upper())
    if encoder not in Image.SAVE:
        raise ValueError(f"LightlyDataset: format={format!r} is none that Pillow writes; write for example 'png'.")
    image.save(path, format=encoder)
