"""LightlyDataset beside lightly's own, on the same folders."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import dropin
import images
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision import datasets
from torchvision.transforms import v2

import fastssl
from fastssl.data import LightlyDataset, MultiViewCollate
from fastssl.transforms import SimCLRTransform

FOLDERS = {
    "flat": ["b.png", "a.jpg", "C.PNG", "z.webp", "d.bmp", "notes.txt", "e.tiff", "f.ppm"],
    "classes": ["dog/b.jpg", "dog/a.png", "cat/1.jpg", "Cow/x.jpeg", "cat/notes.txt"],
    "nested classes": ["b/z.png", "b/sub/a.png", "b/sub-1/a.png", "b/sub/deep/1.png", "a/x.png", "a/sub/b.png"],
    "classes and loose images": ["loose.png", "a/1.png", "b/1.png"],
    "flat with lightly_outputs": ["a.png", "b.png", "lightly_outputs/log.txt"],
}


def write(root: Path, names: list[str]) -> Path:
    """A folder with these files: images that all differ, in the format of their ending, or texts."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".txt"):
            path.write_text("nothing to see")
        else:
            Image.fromarray(images.photo(20 + i, 30, seed=i)).save(path)
    return root


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "folder", FOLDERS["classes"])


def described(dataset: Any) -> list[tuple[str, int, str, tuple[int, int]]]:
    """All of a dataset but the pixels."""
    return [(filename, target, image.mode, image.size) for image, target, filename in dataset]


def as_pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


# Folders


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_is_what_lightly_makes_of_it(kind, tmp_path):
    lightly = dropin.lightly()
    root = str(write(tmp_path, FOLDERS[kind]))
    theirs, ours = lightly.data.LightlyDataset(root), LightlyDataset(root)
    assert len(ours) == len(theirs)
    assert described(ours) == described(theirs)
    assert ours.get_filenames() == theirs.get_filenames()
    assert ours.dataset.samples == theirs.dataset.samples
    assert ours.dataset.targets == theirs.dataset.targets
    assert ours.input_dir == theirs.input_dir == root
    for i in range(len(ours)):
        # Two builds of libjpeg may round differently, by 2 of 255; the other formats here lose nothing, but WebP.
        assert np.abs(as_pixels(ours[i][0]) - as_pixels(theirs[i][0])).max() <= 2
    if ours.dataset.classes:
        assert ours.dataset.classes == theirs.dataset.classes
        assert ours.dataset.class_to_idx == theirs.dataset.class_to_idx
        assert ours.dataset.imgs == theirs.dataset.imgs


def test_hidden_files_are_no_images_and_hidden_folders_no_classes(tmp_path):
    write(tmp_path, ["cat/1.png", "cat/.hidden.png", ".ipynb_checkpoints/1.png", "dog/1.png"])
    dataset = LightlyDataset(tmp_path)
    assert dataset.get_filenames() == ["cat/1.png", "dog/1.png"]
    assert dataset.dataset.classes == ["cat", "dog"]


def test_outputs_of_lightly_are_no_class(tmp_path):
    write(tmp_path, ["cat/1.png", "dog/1.png", "dog/2.png", "abc_lightly_outputs/1.png"])
    dataset = LightlyDataset(tmp_path)
    assert dataset.dataset.classes == ["cat", "dog"]
    assert [target for _, target, _ in dataset] == [0, 1, 1]


def test_indices_count_from_the_end_too(folder):
    dataset = LightlyDataset(str(folder))
    assert dataset[-1][2] == dataset[len(dataset) - 1][2] == "dog/b.jpg"
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_a_path_object_and_a_trailing_slash_work(folder):
    names = LightlyDataset(str(folder)).get_filenames()
    assert LightlyDataset(folder).get_filenames() == names
    assert LightlyDataset(f"{folder}/").get_filenames() == names


def test_index_to_filename_is_asked(folder):
    def name(dataset, index):
        return f"{index}-{dataset.samples[index][1]}"

    dataset = LightlyDataset(folder, index_to_filename=name)
    assert [filename for _, _, filename in dataset] == dataset.get_filenames() == ["0-0", "1-1", "2-2", "3-2"]


# Some of the files


@pytest.mark.parametrize(
    "kind, filenames",
    [
        ("flat", ["d.bmp", "a.jpg", "d.bmp"]),
        ("classes", ["dog/b.jpg", "Cow/x.jpeg", "cat/1.jpg"]),
        ("nested classes", ["b/sub-1/a.png", "b/sub/a.png", "b/z.png", "a/x.png"]),
    ],
)
def test_filenames_keep_what_lightly_keeps(kind, filenames, tmp_path):
    lightly = dropin.lightly()
    root = str(write(tmp_path, FOLDERS[kind]))
    theirs = lightly.data.LightlyDataset(root, filenames=filenames)
    assert described(LightlyDataset(root, filenames=filenames)) == described(theirs)


def test_classes_keep_their_numbers_without_all_files(folder):
    dataset = LightlyDataset(folder, filenames=["dog/a.png"])  # lightly raises where a class loses all its images
    assert dataset.dataset.classes == ["Cow", "cat", "dog"]
    assert dataset[0][1:] == (2, "dog/a.png")


def test_only_the_named_files_are_looked_up(folder, monkeypatch):
    opened = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(os.fspath(path)) or scandir(path))
    LightlyDataset(folder, filenames=["dog/a.png"])
    assert opened == [str(folder)]  # for its classes


def test_filenames_that_are_not_there_are_left_out_with_a_warning(folder):
    names = ["dog/a.png", "dog/gone.png", "cat/notes.txt", "loose.png", "../folder2/x.png"]
    with pytest.warns(
        UserWarning, match=r"4 of 5 filenames are no images in .*such as '\.\./folder2/x\.png'"
    ) as caught:
        dataset = LightlyDataset(folder, filenames=names)
    assert caught[0].filename == __file__
    assert dataset.get_filenames() == ["dog/a.png"]
    with pytest.raises(FileNotFoundError, match=r"none of the 1 filenames .*'class/name.jpg'"):
        LightlyDataset(folder, filenames=["gone.png"])
    with pytest.raises(FileNotFoundError, match="none of the 0 filenames"):
        LightlyDataset(folder, filenames=[])
    with pytest.raises(TypeError, match=r"write \['dog/a.png'\]"):
        LightlyDataset(folder, filenames="dog/a.png")


# Folders that cannot be


def test_what_cannot_be_a_dataset_is_explained(tmp_path):
    with pytest.raises(ValueError, match="input_dir='no/such/folder' is not an existing folder"):
        LightlyDataset("no/such/folder")
    (tmp_path / "file.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"file\.jpg' is not an existing folder"):
        LightlyDataset(tmp_path / "file.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no image in .*empty; .*\.jpg, \.jpeg"):
        LightlyDataset(tmp_path / "empty")
    write(tmp_path / "texts", ["a/1.txt", "b/1.txt"])
    with pytest.raises(FileNotFoundError, match="no image in the 2 sub-folders of"):
        LightlyDataset(tmp_path / "texts")
    with pytest.raises(ValueError, match="from_torch_dataset"):
        LightlyDataset(None, transform=len)


@pytest.mark.parametrize("video", ["clip.mp4", "a/b/clip.AVI"])
def test_videos_are_refused_with_the_remedy(video, tmp_path):
    write(tmp_path, ["a/1.png"] if "/" in video else ["1.png"])
    (tmp_path / video).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / video).write_bytes(b"")
    for filenames in (None, [video]):
        with pytest.raises(NotImplementedError, match=r"clip.* is a video, .*ffmpeg -i clip"):
            LightlyDataset(tmp_path, filenames=filenames)


def test_an_unreadable_file_is_named(tmp_path):
    write(tmp_path, ["a.png", "b.png"])
    (tmp_path / "b.png").write_text("no image")
    for transform in (None, SimCLRTransform(16)):
        dataset = LightlyDataset(tmp_path, transform=transform)
        assert dataset[0][2] == "a.png"
        with pytest.raises(fastssl.DecodeError, match=r"b\.png"):
            dataset[1]
    (tmp_path / "b.png").unlink()
    with pytest.raises(fastssl.DecodeError, match=r"b\.png"):
        dataset[1]


# Transforms


def test_our_transforms_are_handed_paths_and_others_images(folder, monkeypatch):
    def no_pillow(*args: Any, **options: Any) -> None:
        raise AssertionError("a PIL image was made")

    dataset = LightlyDataset(folder, transform=SimCLRTransform(input_size=16))
    with monkeypatch.context() as patch:
        patch.setattr(Image, "fromarray", no_pillow)
        views, target, filename = dataset[2]
    assert [view.shape for view in views] == [(3, 16, 16)] * 2
    assert (target, filename) == (2, "dog/a.png")
    dataset.transform = lambda image: (type(image), image.mode)
    assert dataset[0][0] == (Image.Image, "RGB")


def test_the_path_gives_the_views_of_the_image(folder):
    transform = SimCLRTransform(input_size=16)
    dataset = LightlyDataset(folder)
    image = dataset[0][0]
    dataset.transform = transform
    found = []
    for make in (lambda: dataset[0][0], lambda: transform(image)):
        torch.manual_seed(0)
        found.append(torch.cat(make()))
    assert torch.equal(*found)


def test_a_loader_of_ones_own_is_used(folder):
    dataset = LightlyDataset(folder, transform=SimCLRTransform(input_size=16, normalize=None))
    dataset.dataset.loader = lambda path: Image.new("RGB", (30, 30), "black")
    assert torch.cat(dataset[0][0]).max() == 0
    assert dataset.source is None


def test_setting_a_transform_reaches_both_of_torchvisions(folder):
    for dataset in (LightlyDataset(folder), LightlyDataset.from_torch_dataset(datasets.FakeData(2, (3, 8, 8)))):
        assert dataset.transform is None
        dataset.transform = v2.ToImage()
        assert dataset.transform is dataset.dataset.transform is dataset.dataset.transforms.transform
        assert isinstance(dataset[0][0], torch.Tensor)
        dataset.transform = None
        assert (dataset.transform, dataset.dataset.transforms) == (None, None)
        assert isinstance(dataset[0][0], Image.Image)


def test_a_target_transform_is_kept(folder):
    dataset = LightlyDataset(folder)
    dataset.dataset.target_transform = lambda target: target + 10
    dataset.transform = v2.ToImage()
    assert dataset[0][1] == 10
    assert dataset.dataset.transforms(dataset.dataset.loader(dataset.dataset.paths[0]), 1)[1] == 11


# Torch datasets


def test_a_torch_dataset_is_what_lightly_makes_of_it(folder):
    lightly = dropin.lightly()
    for base in (datasets.FakeData(3, (3, 20, 20)), datasets.ImageFolder(folder), Subset(datasets.FakeData(9), [2, 5])):
        theirs = lightly.data.LightlyDataset.from_torch_dataset(base)
        ours = LightlyDataset.from_torch_dataset(base)
        assert described(ours) == described(theirs)
        assert ours.get_filenames() == theirs.get_filenames()
        assert ours.dataset is base
        assert ours.input_dir is None


def test_a_torch_dataset_takes_our_transform_even_inside_a_subset(folder):
    for base in (datasets.FakeData(3, (3, 20, 20)), datasets.ImageFolder(folder), Subset(datasets.FakeData(9), [2, 5])):
        dataset = LightlyDataset.from_torch_dataset(base, transform=SimCLRTransform(input_size=16))
        assert isinstance(dataset.transform, SimCLRTransform)
        views, _, _ = dataset[0]
        assert [view.shape for view in views] == [(3, 16, 16)] * 2


def test_an_empty_dataset_can_be_filled():
    dataset = LightlyDataset(None)
    dataset.dataset = TensorDataset(torch.arange(3), torch.arange(3))
    assert len(dataset) == 3
    assert dataset[2] == (2, 2, "2")


def test_datasets_add_up(folder):
    dataset = LightlyDataset(folder)
    assert len(dataset + dataset) == 2 * len(dataset)


# Saving


def test_dump_copies_the_files(folder, tmp_path):
    dataset = LightlyDataset(folder)
    dataset.dump(tmp_path / "all")
    for name in dataset.get_filenames():
        assert (tmp_path / "all" / name).read_bytes() == (folder / name).read_bytes()
    dataset.dump(str(tmp_path / "some"), filenames=["dog/b.jpg", "cat/1.jpg"])
    assert LightlyDataset(tmp_path / "some").get_filenames() == ["cat/1.jpg", "dog/b.jpg"]


def test_dump_encodes_what_is_no_file(tmp_path):
    base = datasets.FakeData(3, (3, 12, 14))
    LightlyDataset.from_torch_dataset(base).dump(tmp_path / "png", format="png")
    LightlyDataset.from_torch_dataset(base, index_to_filename=lambda _, i: f"{i}.jpg").dump(tmp_path / "jpg")
    LightlyDataset.from_torch_dataset(base).dump(tmp_path / "one", filenames=["2"], format="jpg")
    for path, kind in (
        (tmp_path / "png" / "2", "PNG"),
        (tmp_path / "jpg" / "0.jpg", "JPEG"),
        (tmp_path / "one" / "2", "JPEG"),
    ):
        with Image.open(path) as image:
            assert (image.format, image.size) == (kind, (14, 12))
    assert os.listdir(tmp_path / "one") == ["2"]
    with Image.open(tmp_path / "png" / "1") as image:
        assert np.array_equal(image, base[1][0])


def test_dump_takes_tensors_and_arrays(tmp_path):
    pixels = images.photo(12, 14)
    base = [(pixels, 0), (torch.from_numpy(pixels).permute(2, 0, 1), 1)]
    LightlyDataset.from_torch_dataset(base).dump(tmp_path)
    for name in ("0", "1"):
        with Image.open(tmp_path / name) as image:
            assert np.array_equal(image, pixels)


def test_dump_refuses_what_it_cannot_do(folder, tmp_path):
    dataset = LightlyDataset(folder)
    with pytest.raises(ValueError, match=r"1 filenames that are not in the dataset, such as 'gone\.jpg'"):
        dataset.dump(tmp_path / "out", filenames=["dog/b.jpg", "gone.jpg"])
    with pytest.raises(ValueError, match="format='nonsense'"):
        LightlyDataset.from_torch_dataset(datasets.FakeData(1, (3, 8, 8))).dump(tmp_path / "out", format="nonsense")
    dataset.transform = v2.ToImage()
    with pytest.raises(RuntimeError, match="transform = None"):
        dataset.dump(tmp_path / "out")


def test_get_filepath_from_filename(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dataset = LightlyDataset(str(folder))
    assert dataset.get_filepath_from_filename("dog/a.png") == str(folder / "dog/a.png")
    with pytest.raises(ValueError, match=r"'gone\.png'; pass the image"):
        dataset.get_filepath_from_filename("gone.png")
    path = LightlyDataset(None).get_filepath_from_filename("a/0", Image.fromarray(dropin.PHOTO))
    assert path.endswith("a/0.jpg")
    with Image.open(path) as image:
        assert (image.format, image.size) == ("JPEG", (120, 100))


# Loaders


def test_a_dataset_survives_pickling(folder):
    dataset = LightlyDataset(folder, transform=SimCLRTransform(16))
    assert dataset.dataset.samples
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.get_filenames() == dataset.get_filenames()
    assert copy[1][1:] == dataset[1][1:]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("collate", ["torch's", "MultiViewCollate"])
def test_a_loader_gives_what_lightlys_gives(collate, workers, folder):
    lightly = dropin.lightly()
    found = []
    for library in (lightly, fastssl):
        dataset = library.data.LightlyDataset(str(folder), transform=library.transforms.SimCLRTransform(input_size=16))
        function = None if collate == "torch's" else library.data.MultiViewCollate()
        loader = DataLoader(dataset, batch_size=3, num_workers=workers, collate_fn=function)
        found.append([dropin.structure(batch) for batch in loader])
    assert found[0] == found[1]


def test_spawned_workers_give_what_forked_ones_give(folder):
    dataset = LightlyDataset(folder, transform=SimCLRTransform(input_size=16))
    found = []
    for context in ("spawn", "fork"):
        torch.manual_seed(0)
        loader = DataLoader(
            dataset, batch_size=2, num_workers=1, collate_fn=MultiViewCollate(), multiprocessing_context=context
        )
        batches = list(loader)
        found.append(torch.cat([view for views, _, _ in batches for view in views]))
    assert torch.equal(*found)


def test_the_source_of_a_dataset_is_its_folder(folder):
    source = LightlyDataset(folder).source
    assert [source.path(i) for i in range(len(source))] == [str(folder / name) for name in source.get_filenames()]
    assert [source.target(i) for i in range(len(source))] == [0, 1, 2, 2]
    assert LightlyDataset(folder, transform=SimCLRTransform(16)).source is None
    loader = fastssl.Loader(source, fastssl.recipes.simclr(16), batch_size=4, shuffle=False)
    (batch,) = loader
    assert batch.filenames == LightlyDataset(folder).get_filenames()
