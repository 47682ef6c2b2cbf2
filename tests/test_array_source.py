"""Images in memory: the same batches as from a source that is asked in Python, for every layout that is taken."""

from __future__ import annotations

import pickle

import images
import numpy as np
import pytest
import torch
from loading import RECIPE, VIEW, joined

import fastssl
from fastssl import ops
from fastssl.data import ArraySource, PixelArray, Source, Subset

PHOTOS = np.stack([images.photo(30, 40, seed=i) for i in range(11)])
OPTIONS = {"batch_size": 4, "threads": 2, "seed": 5}


class InPython(Source):
    """The same samples by fetch."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.channels = array, array.shape[3]

    def __len__(self) -> int:
        return len(self.array)

    def fetch(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.array[index]))

    def target(self, index: int) -> int:
        return index % 3


TARGETS = [i % 3 for i in range(11)]


@pytest.mark.parametrize(
    "form",
    [
        PHOTOS,
        torch.from_numpy(PHOTOS),
        torch.from_numpy(PHOTOS).permute(0, 3, 1, 2),
        torch.from_numpy(PHOTOS).permute(0, 3, 1, 2).contiguous(),
        np.concatenate([PHOTOS, PHOTOS])[:11],
        np.concatenate([PHOTOS, PHOTOS], axis=2)[:, :, 40:],
        np.asfortranarray(PHOTOS),
        np.repeat(PHOTOS, 2, axis=0)[::2],
    ],
    ids=["array", "tensor", "permuted", "N3HW", "part", "columns of wider", "Fortran", "every second"],
)
def test_every_layout_gives_the_batches_of_fetch(form):
    want = joined(fastssl.Loader(InPython(PHOTOS), RECIPE, **OPTIONS))
    source = ArraySource(form, targets=TARGETS)
    assert joined(fastssl.Loader(source, RECIPE, **OPTIONS)) == want
    assert torch.equal(source.fetch(3), torch.from_numpy(PHOTOS[3]))


def test_views_turned_upside_down_in_memory():
    turned = PHOTOS[:, ::-1]  # strides below zero are copied
    source = ArraySource(turned)
    assert joined(fastssl.Loader(source, RECIPE, **OPTIONS)).views[0].isfinite().all()
    assert torch.equal(source.fetch(0), torch.from_numpy(turned[0].copy()))


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_other_channels_and_bits(channels, dtype):
    rng = np.random.default_rng(channels)
    array = rng.integers(0, np.iinfo(dtype).max + 1, (6, 20, 25, channels)).astype(dtype)
    view = VIEW.with_(jitter=None, grayscale=None, normalize=None)
    got = joined(fastssl.Loader(ArraySource(array), (view, view), **OPTIONS))
    assert got.views[0].shape == (6, channels, 24, 24)
    pixels = [torch.from_numpy(array[i]) for i in got.indices.tolist()]
    for view_got, want in zip(got.views, ops.render(pixels, got.params, (view, view)), strict=True):
        assert torch.equal(view_got, want)


def test_gray_without_a_dimension_for_channels():
    view = VIEW.with_(jitter=None, grayscale=None, normalize=None)
    flat = joined(fastssl.Loader(ArraySource(PHOTOS[:, :, :, 0]), (view,), **OPTIONS))
    deep = joined(fastssl.Loader(ArraySource(PHOTOS[:, :, :, :1]), (view,), **OPTIONS))
    assert flat == deep and flat.views[0].shape[1] == 1


def test_a_memory_mapped_array_is_read_in_place(tmp_path):
    np.save(tmp_path / "x.npy", PHOTOS)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")  # must not be written, and torch would warn of that
    source = ArraySource(mapped, targets=TARGETS)
    assert np.shares_memory(source.images, mapped)
    assert joined(fastssl.Loader(source, RECIPE, **OPTIONS)) == joined(
        fastssl.Loader(InPython(PHOTOS), RECIPE, **OPTIONS)
    )


def test_what_lies_in_memory_is_not_copied():
    tensor = torch.from_numpy(PHOTOS.copy())
    assert np.shares_memory(ArraySource(tensor).images, tensor.numpy())
    assert np.shares_memory(ArraySource(tensor.permute(0, 3, 1, 2)).images, tensor.numpy())


def test_the_memory_outlives_source_and_loader():
    iteration = iter(fastssl.Loader(ArraySource(PHOTOS.copy(), TARGETS), RECIPE, **OPTIONS, prefetch=1))
    first = next(iteration)
    want = joined(fastssl.Loader(InPython(PHOTOS), RECIPE, **OPTIONS))
    assert joined([first, *iteration]) == want


def test_a_subset_is_served_natively_and_alike():
    chosen = [7, 2, 2, 9, 0]
    native = Subset(ArraySource(PHOTOS, TARGETS), chosen)
    assert native.native() is not None
    want = joined(fastssl.Loader(Subset(InPython(PHOTOS), chosen), RECIPE, **OPTIONS))
    assert joined(fastssl.Loader(native, RECIPE, **OPTIONS)) == want
    deeper = Subset(native, [3, 1])
    assert deeper.native().rows.tolist() == [9, 2]
    assert sorted(joined(fastssl.Loader(deeper, RECIPE, **OPTIONS)).filenames) == ["2", "9"]


def test_targets_and_names():
    names = [f"n{i}" for i in range(11)]
    for targets in (TARGETS, np.array(TARGETS), torch.tensor(TARGETS, dtype=torch.int16)):
        batch = next(iter(fastssl.Loader(ArraySource(PHOTOS, targets, names), RECIPE, **OPTIONS)))
        assert batch.targets.tolist() == [i % 3 for i in batch.indices.tolist()]
        assert batch.filenames == [f"n{i}" for i in batch.indices.tolist()] and batch.targets.dtype == torch.int64
    batch = next(iter(fastssl.Loader(ArraySource(PHOTOS), RECIPE, **OPTIONS)))
    assert batch.targets.eq(0).all() and batch.filenames == [str(i) for i in batch.indices.tolist()]


def test_a_batch_s_indices_are_its_own():
    loader = fastssl.Loader(ArraySource(PHOTOS), RECIPE, **OPTIONS, prefetch=0)
    seen = []
    for batch in loader:
        seen += batch.indices.tolist()
        batch.indices.zero_()
    assert sorted(seen) == list(range(11))


def test_a_source_survives_pickle():
    again = pickle.loads(pickle.dumps(ArraySource(PHOTOS, TARGETS)))
    assert joined(fastssl.Loader(again, RECIPE, **OPTIONS)) == joined(
        fastssl.Loader(ArraySource(PHOTOS, TARGETS), RECIPE, **OPTIONS)
    )


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (([PHOTOS[0]],), TypeError, "DatasetSource"),
        ((PHOTOS.astype(np.float32),), TypeError, "uint8 or uint16"),
        ((torch.zeros(2, 3, 4, 4),), TypeError, "uint8 or uint16"),
        ((torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device="meta"),), TypeError, "cpu"),
        ((PHOTOS[0, 0],), ValueError, r"\(N, H, W, C\)"),
        ((PHOTOS[:0],), ValueError, "not empty"),
        ((PHOTOS, [1, 2]), ValueError, "11 images"),
        ((PHOTOS, [0.5] * 11), ValueError, "whole numbers"),
        ((PHOTOS, None, ["a"]), ValueError, "1 filenames"),
    ],
)
def test_what_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        ArraySource(*arguments)


@pytest.mark.parametrize(
    "array, words",
    [
        (PixelArray(PHOTOS.astype(np.float32)), "uint8 or uint16"),
        (PixelArray(PHOTOS[:, ::-1]), "uint8 or uint16"),
        (PixelArray(PHOTOS, torch.arange(11) + 1), "rows beyond"),
        (PixelArray(PHOTOS, torch.arange(11) - 1), "rows beyond"),
        (PixelArray(PHOTOS.transpose(0, 1, 3, 2)), "side by side"),
        (PixelArray(PHOTOS[:3]), "3 images for 11 samples"),
    ],
)
def test_a_source_that_promises_what_it_does_not_hold(array, words):
    class Wrong(InPython):
        def native(self) -> PixelArray:
            return array

    with pytest.raises(ValueError, match=words):
        next(iter(fastssl.Loader(Wrong(PHOTOS), RECIPE, **OPTIONS)))


def test_a_source_s_channels_must_be_those_that_are_normalized():
    with pytest.raises(ValueError, match=r"view 0 normalizes 3 channels, and the source has 1"):
        fastssl.Loader(ArraySource(PHOTOS[:, :, :, 0]), RECIPE, **OPTIONS)
