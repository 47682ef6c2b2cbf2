"""The Loader as its users see it: what a batch holds, how many there are, and in which order they come."""

from __future__ import annotations

import copy
import pickle

import images
import numpy as np
import pytest
import torch
from conftest import devices
from loading import RECIPE, VIEW, Memory, joined, pictures
from PIL import Image

import fastssl
from fastssl import ops, recipes
from fastssl.data import Batch, ImageFolder
from fastssl.transforms.view import Crop, View

PICTURES = pictures(23)


@pytest.mark.parametrize("device", devices())
def test_a_batch_holds_views_targets_and_names(photos, device):
    source = ImageFolder(photos)
    loader = fastssl.Loader(source, RECIPE, batch_size=10, device=device)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [10, 10, 3] and len(loader) == 3
    for batch in batches:
        assert isinstance(batch, Batch) and batch.epoch == 0
        n = len(batch)
        assert [tuple(view.shape) for view in batch.views] == [(n, 3, 24, 24), (n, 3, 17, 17)]
        assert all(view.dtype == torch.float32 and view.is_contiguous() for view in batch.views)
        assert all(view.device.type == device for view in batch.views) and batch.targets.device.type == device
        assert batch.targets.dtype == batch.indices.dtype == torch.int64
        assert batch.indices.shape == batch.targets.shape == (n,) and len(batch.params) == n
        for i, index in enumerate(batch.indices.tolist()):
            assert batch.targets[i] == source.target(index) and batch.filenames[i] == source.filename(index)
    assert sorted(joined(batches).indices.tolist()) == list(range(23))


def test_torch_may_have_another_default_device(photos):
    want = list(fastssl.Loader(ImageFolder(photos), RECIPE, batch_size=10))
    before = torch.get_default_device()
    torch.set_default_device("meta")
    try:
        got = list(fastssl.Loader(ImageFolder(photos), RECIPE, batch_size=10))
    finally:
        torch.set_default_device(before)
    for a, b in zip(got, want, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))
        assert torch.equal(a.targets, b.targets) and a.filenames == b.filenames


def test_a_batch_unpacks_in_three(photos):
    for batch in fastssl.Loader(photos, RECIPE, batch_size=8):
        views, targets, filenames = batch
        (view0, view1), _, _ = batch
        assert views is batch.views and targets is batch.targets and filenames is batch.filenames
        assert view0 is views[0] and view1 is views[1]


def test_views_are_those_of_render(photos):
    for batch in fastssl.Loader(photos, RECIPE, batch_size=9, threads=2, decode="full"):
        decoded = [ops.decode(photos / name) for name in batch.filenames]
        for got, want in zip(batch.views, ops.render(decoded, batch.params, RECIPE), strict=True):
            assert torch.equal(got, want)


def test_batch_to_moves_views_and_targets(photos):
    batch = next(iter(fastssl.Loader(photos, RECIPE, batch_size=4)))
    moved = batch.to("meta")
    assert moved.views[0].device.type == moved.targets.device.type == "meta"
    assert moved.filenames == batch.filenames and batch.views[0].device.type == "cpu"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("channels_last", [False, True])
def test_dtype_and_memory_format(photos, dtype, channels_last):
    recipe = (VIEW.with_(normalize=None),)
    options = {"batch_size": 7, "shuffle": False}
    plain = joined(fastssl.Loader(photos, recipe, **options))
    loader = fastssl.Loader(photos, recipe, dtype=dtype, channels_last=channels_last, **options)
    for batch in loader:
        (view,) = batch.views
        assert view.dtype == dtype
        assert view.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    got = joined(loader).params  # the next epoch: another draw
    assert not torch.equal(got.data, plain.params.data)
    loader.set_epoch(0)
    (got,), (want,) = joined(loader).views, plain.views
    if dtype == torch.uint8:
        assert (got.double() - want.double() * 255).abs().max() <= 0.5 + 1e-4  # 1e-4 for values between two levels
    else:
        assert torch.equal(got, want.to(dtype))


# --- how many, in which order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, 22, 23, 24, 100])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("epochs", [1, 3])
def test_len_is_the_number_of_batches(batch_size, drop_last, epochs):
    if drop_last and batch_size > 23:
        with pytest.raises(ValueError, match="drop_last"):
            fastssl.Loader(Memory(PICTURES), RECIPE[1:], batch_size=batch_size, drop_last=drop_last)
        return
    options = {"batch_size": batch_size, "drop_last": drop_last, "epochs": epochs}
    loader = fastssl.Loader(Memory(PICTURES), RECIPE[1:], **options)
    sizes = [len(batch) for batch in loader]
    assert len(sizes) == len(loader)
    whole = [batch_size] * (23 // batch_size)
    rest = [] if drop_last or 23 % batch_size == 0 else [23 % batch_size]
    assert sizes == (whole + rest) * epochs


@pytest.mark.parametrize("prefetch", [0, 1, 5, 50])
@pytest.mark.parametrize("threads", [1, 3])
def test_prefetch_changes_no_batch(prefetch, threads):
    options = {"batch_size": 4, "epochs": 2, "seed": 3}
    want = joined(fastssl.Loader(Memory(PICTURES), RECIPE, **options))
    got = joined(fastssl.Loader(Memory(PICTURES), RECIPE, prefetch=prefetch, threads=threads, **options))
    assert got == want


def test_without_shuffle_the_order_is_the_source_s():
    loader = fastssl.Loader(Memory(PICTURES), RECIPE, batch_size=6, shuffle=False, epochs=2)
    assert joined(loader).indices.tolist() == list(range(23)) * 2


def test_each_epoch_has_its_own_order_and_draws():
    loader = fastssl.Loader(Memory(PICTURES), RECIPE, batch_size=6)
    epochs = []
    for e in range(3):
        assert loader.epoch == e
        batches = list(loader)
        assert {batch.epoch for batch in batches} == {e}
        epochs.append(joined(batches))
    orders = [epoch.indices.tolist() for epoch in epochs]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    one, other = (epoch.params.data[epoch.indices.argsort()] for epoch in epochs[:2])
    assert (one != other).any(dim=2).all(), "a sample was drawn alike in two epochs"


def test_epochs_in_one_iteration_are_those_of_several():
    several = fastssl.Loader(Memory(PICTURES), RECIPE, batch_size=6)
    one = fastssl.Loader(Memory(PICTURES), RECIPE, batch_size=6, epochs=3)
    assert joined(one) == joined(batch for _ in range(3) for batch in several)
    assert one.epoch == several.epoch == 3


def test_set_epoch_goes_back_and_forth():
    loader = fastssl.Loader(Memory(PICTURES), RECIPE, batch_size=6)
    first = joined(loader)
    joined(loader)
    loader.set_epoch(0)
    assert joined(loader) == first and loader.epoch == 1


def test_a_broken_off_epoch_is_left_behind():
    loader = fastssl.Loader(Memory(PICTURES), RECIPE, batch_size=6)
    for batch in loader:
        assert batch.epoch == 0
        break
    assert {batch.epoch for batch in loader} == {1}


def test_iterations_side_by_side_do_not_disturb_each_other():
    loader = fastssl.Loader(Memory(PICTURES), RECIPE, batch_size=6)
    want = joined(loader)
    loader.set_epoch(0)
    one = iter(loader)
    first = next(one)
    other = iter(fastssl.Loader(Memory(PICTURES), RECIPE, batch_size=6, seed=9))
    next(other)
    assert joined([first, *one]) == want
    assert len(list(other)) == 3


# --- sources ----------------------------------------------------------------------------------------------------------


def test_a_dataset_may_return_anything_that_is_an_image(tmp_path):
    image = images.photo(30, 40)
    lossless = images.png(image)
    path = tmp_path / "x.png"
    path.write_bytes(lossless)
    tensor = torch.from_numpy(image)
    forms = [
        Image.fromarray(image),
        image,
        tensor.permute(2, 0, 1),
        lossless,
        bytearray(lossless),
        torch.frombuffer(bytearray(lossless), dtype=torch.uint8),
        path,
        str(path),
    ]
    view = View(crop=Crop(size=20, area=(1.0, 1.0), aspect=(4 / 3, 4 / 3)), normalize=None)
    pairs = [(form, i) for i, form in enumerate(forms)]
    triples = [(form, i, f"name {i}") for i, form in enumerate(forms)]
    for samples in (pairs, triples):
        (batch,) = fastssl.Loader(samples, (view,), batch_size=len(forms), shuffle=False)
        assert batch.targets.tolist() == list(range(len(forms)))
        assert torch.equal(batch.views[0], batch.views[0][:1].expand_as(batch.views[0])), "the forms differ"
        names = [f"name {i}" if len(samples[0]) == 3 else str(i) for i in range(len(forms))]
        assert list(batch.filenames) == names


def test_a_torch_dataset_with_targets_of_its_own():
    class Numbers(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> tuple[Image.Image, torch.Tensor]:
            return Image.fromarray(images.flat(12, 12, (20 * index,) * 3)), torch.tensor(index % 3)

    view = View(crop=Crop(size=8), normalize=None)
    for batch in fastssl.Loader(Numbers(), (view,), batch_size=4, threads=2):
        assert torch.equal(batch.targets, batch.indices % 3)
        levels = batch.views[0].mean(dim=(1, 2, 3)) * 255
        assert (levels - 20 * batch.indices).abs().max() < 0.1  # float32


def test_a_source_may_return_pixels():
    pixels = torch.from_numpy(np.stack([images.photo(30, 30, seed=i) for i in range(6)]))
    loader = fastssl.Loader(Memory(list(pixels)), RECIPE, batch_size=4, shuffle=False)
    got = joined(loader)
    assert got.targets.tolist() == [0, 10, 20, 30, 40, 50] and got.filenames[3] == "memory/3"
    for view, want in zip(got.views, ops.render(list(pixels), got.params, RECIPE), strict=True):
        assert torch.equal(view, want)


def test_a_path_makes_an_image_folder(photos):
    loader = fastssl.Loader(str(photos), recipes.evaluation(16), batch_size=23, shuffle=False)
    assert isinstance(loader.source, ImageFolder)
    (batch,) = loader
    assert batch.targets.tolist() == [0] * 9 + [1] * 8 + [2] * 6
    assert batch.filenames[0].replace("\\", "/") == "cat/cat_000.jpg"


def test_stats_say_where_the_time_went(photos):
    loader = fastssl.Loader(photos, RECIPE, batch_size=5)
    for _ in loader:
        continue
    stats = loader.stats()
    assert stats["images"] == 23 and stats["images_per_second"] > 0
    for name in ("read_seconds", "decode_seconds", "render_seconds", "wait_seconds", "seconds"):
        assert stats[name] >= 0, name
    assert stats["decode_seconds"] > 0 and stats["render_seconds"] > 0


def test_a_loader_survives_pickle_and_copy(photos):
    loader = fastssl.Loader(photos, RECIPE, batch_size=5, seed=3)
    iteration = iter(loader)
    next(iteration)
    again = pickle.loads(pickle.dumps(loader))
    for twin in (again, copy.deepcopy(loader)):
        assert len(twin) == len(loader)
        twin.set_epoch(4)
        loader.set_epoch(4)
        assert joined(twin) == joined(loader)
    assert len(list(iteration)) == 4


def test_a_batch_survives_pickle(photos):
    batch = next(iter(fastssl.Loader(photos, RECIPE, batch_size=5)))
    again = pickle.loads(pickle.dumps(batch))
    assert joined([again]) == joined([batch])


def test_the_loader_leaves_random_state_alone(photos):
    """Its draws are its own: torch's, numpy's and Python's generators are as they were."""
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    list(fastssl.Loader(photos, RECIPE, batch_size=5))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
