"""The set of shapes: labelled, deterministic, and no class can be told by colour or place alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.data.sources import ImageFolder
from fastssl.data.subset import Subset
from fastssl.data.synthetic import CLASSES, draw_shape, make_shapes
from fastssl.embedding import Embeddings, knn_accuracy


@pytest.fixture(scope="module")
def pictures():
    """40 pictures of each class, (N, 48, 48, 3) in [0, 1], and their classes."""
    drawn = [draw_shape(name, size=48, seed=(1, label, i)) for label, name in enumerate(CLASSES) for i in range(40)]
    return np.stack(drawn) / 255.0, torch.arange(len(CLASSES)).repeat_interleave(40)


def accuracy(features, targets):
    """Leave-one-out k-NN by Euclidean distance between standardized features, by way of a lift to the sphere."""
    z = torch.from_numpy((features - features.mean(0)) / features.std(0)).float()
    lifted = torch.cat([z, (2 * z.norm(dim=1).max() ** 2 - z.square().sum(1, keepdim=True)).sqrt()], 1)
    return knn_accuracy(Embeddings(lifted, targets, [str(i) for i in range(len(z))]), k=20, temperature=1e-3)


# 400 guesses at 10 classes are right 10 % of the time with a deviation of 1.5 %: above 18 % is no accident.
@pytest.mark.parametrize("statistic", ["mean colour", "deviation of colour", "centre of mass", "darkest and lightest"])
def test_colour_and_place_do_not_give_the_class(statistic, pictures):
    images, targets = pictures
    gray = images.mean(3)
    contrast = np.abs(gray - np.median(gray, axis=(1, 2), keepdims=True))
    at = np.linspace(-1, 1, 48)
    features = {
        "mean colour": images.mean((1, 2)),
        "deviation of colour": np.stack([images[..., c].std((1, 2)) for c in range(3)], 1),
        "centre of mass": np.stack(
            [(contrast * axis).sum((1, 2)) / contrast.sum((1, 2)) for axis in (at[:, None], at[None, :])], 1
        ),
        "darkest and lightest": np.concatenate([images.min((1, 2)), images.max((1, 2))], 1),
    }[statistic]
    assert accuracy(features, targets) < 0.18


def test_the_measure_would_find_the_class_in_a_place(pictures):
    _, targets = pictures
    noise = np.random.default_rng(0).normal(0, 0.1, (len(targets), 2))
    assert accuracy(np.stack([targets // 4, targets % 4], 1) + noise, targets) > 0.9


def test_a_set_is_class_folders_of_jpeg_files(tmp_path):
    root = make_shapes(tmp_path / "shapes", n_per_class=2, n_val_per_class=1, size=40)
    train, val = ImageFolder(root / "train"), ImageFolder(root / "val")
    assert train.classes == val.classes == sorted(CLASSES)
    assert (len(train), len(val)) == (20, 10)
    with Image.open(train.path(0)) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (40, 40), "RGB")


def test_the_same_seed_gives_the_same_files_and_another_gives_others(tmp_path):
    def contents(root):
        return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*.jpg"))}

    a = contents(make_shapes(tmp_path / "a", n_per_class=2, n_val_per_class=1, size=24))
    b = contents(make_shapes(tmp_path / "b", n_per_class=3, n_val_per_class=1, size=24))
    c = contents(make_shapes(tmp_path / "c", n_per_class=2, n_val_per_class=1, size=24, seed=1))
    assert len(set(a.values())) == 30, "two pictures are the same"
    assert a.items() <= b.items(), "a larger set begins with the smaller one"
    assert not set(a.values()) & set(c.values())


def test_a_set_that_is_there_is_kept_and_other_files_are_not_touched(tmp_path):
    root = make_shapes(tmp_path / "shapes", n_per_class=1, n_val_per_class=0, size=24)
    first = next(root.rglob("*.jpg"))
    before = first.stat().st_mtime_ns
    make_shapes(root, n_per_class=1, n_val_per_class=0, size=24)
    assert first.stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="shapes holds files"):
        make_shapes(root, n_per_class=2, n_val_per_class=0, size=24)


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="'heptagon' is no class"):
        draw_shape("heptagon")
    with pytest.raises(ValueError, match="size=8"):
        draw_shape("dotted-star", size=8)
    with pytest.raises(ValueError, match="n_per_class=0"):
        make_shapes(tmp_path, n_per_class=0)


def test_a_subset_is_its_sources_images_in_the_order_given(photos):
    folder = ImageFolder(photos)
    some = Subset(folder, [20, 3])
    assert len(some) == 2 and some.classes == ["cat", "dog", "owl"]
    for i, index in enumerate([20, 3]):
        assert (some.path(i), some.target(i), some.filename(i)) == (
            folder.path(index),
            folder.target(index),
            folder.filename(index),
        )
        assert torch.equal(some.fetch(i), folder.fetch(index))
    with pytest.raises(IndexError, match="no image 23; the source has 23"):
        Subset(folder, [0, 23])
