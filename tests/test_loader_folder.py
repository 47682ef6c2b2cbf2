"""ImageFolder: which files belong to it, in which order, with which targets."""

from __future__ import annotations

import os

import images
import pytest
import torchvision

from fastssl.data import ImageFolder

JPEG = images.jpeg(images.flat(8, 8))


def write(root, *names: str):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    return root


def names(folder: ImageFolder) -> list[str]:
    return [folder.filename(i).replace(os.sep, "/") for i in range(len(folder))]


def test_class_folders_as_in_torchvision(tmp_path):
    root = write(tmp_path, "b/2.jpg", "b/10.jpg", "a/1.png", "a/deep/er/0.jpg", "C/x.JPEG", "a/notes.txt", "b/x.webp")
    ours = ImageFolder(root)
    theirs = torchvision.datasets.ImageFolder(str(root))
    assert ours.classes == theirs.classes == ["C", "a", "b"]
    assert ours.class_to_idx == theirs.class_to_idx
    assert sorted(zip(ours.paths, ours.targets, strict=True)) == sorted(theirs.samples)
    assert [ours.target(i) for i in range(len(ours))] == ours.targets == sorted(ours.targets)
    assert [ours.path(i) for i in range(len(ours))] == ours.paths


def test_flat_folder(tmp_path):
    root = write(tmp_path, "b.jpg", "a.JPG", "c.jpeg", "readme.md")
    folder = ImageFolder(root)
    assert names(folder) == ["a.JPG", "b.jpg", "c.jpeg"]
    assert folder.targets == [0, 0, 0] and folder.classes == []


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    root = write(tmp_path, "a/1.jpg", "a/.1.jpg", "a/._1.jpg", ".cache/2.jpg", "b/3.jpg")
    assert names(ImageFolder(root)) == ["a/1.jpg", "b/3.jpg"]


def test_order_and_names_do_not_depend_on_how_the_folder_was_written(tmp_path):
    files = [f"{c}/{i}.jpg" for c in "xyz" for i in range(12)]
    one = ImageFolder(write(tmp_path / "one", *files))
    other = ImageFolder(write(tmp_path / "other", *reversed(files)))
    assert names(one) == names(other) and one.targets == other.targets
    assert len(set(names(one))) == 36


def test_extensions_can_be_chosen(tmp_path):
    root = write(tmp_path, "a/1.jpg", "a/2.png", "b/3.img")
    assert names(ImageFolder(root, extensions=(".img", ".PNG"))) == ["a/2.png", "b/3.img"]


def test_images_beside_class_folders_are_not_dropped_silently(tmp_path):
    root = write(tmp_path, "loose.jpg", "a/1.jpg", "b/2.jpg")
    with pytest.raises(ValueError, match="layout"):
        ImageFolder(root)
    assert names(ImageFolder(root, layout="classes")) == ["a/1.jpg", "b/2.jpg"]
    assert sorted(names(ImageFolder(root, layout="flat"))) == ["a/1.jpg", "b/2.jpg", "loose.jpg"]


def test_unusual_names(tmp_path):
    odd = ["a b/1 2.jpg", "\N{SNOWMAN}/\N{LATIN SMALL LETTER E WITH ACUTE}.jpg", "100%/{x}[y].jpg", "-/'\".jpg"]
    folder = ImageFolder(write(tmp_path, *odd))
    assert sorted(names(folder)) == sorted(odd)
    assert len(folder.classes) == 4
    assert all(folder.fetch(i).shape == (8, 8, 3) for i in range(4))


def test_links_to_files_and_folders_are_followed(tmp_path):
    write(tmp_path / "store", "x.jpg", "y.jpg")
    root = write(tmp_path / "root", "a/1.jpg")
    (root / "b").symlink_to(tmp_path / "store", target_is_directory=True)
    (root / "a" / "2.jpg").symlink_to(tmp_path / "store" / "x.jpg")
    assert names(ImageFolder(root)) == ["a/1.jpg", "a/2.jpg", "b/x.jpg", "b/y.jpg"]
