"""Bad input works as a user expects, or raises an error that names the file or argument, the reason and the remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import images
import numpy as np
import pytest
import torch
from bad_files import BAD, GOOD, UNUSUAL, WIDE
from loading import RECIPE, VIEW, Memory, joined

import fastssl
from fastssl import ops, recipes
from fastssl.data import DatasetSource, Fault, ImageFolder
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import (
    IMAGENET,
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Jitter,
    Normalize,
    QuarterTurn,
    Solarize,
    View,
)

# --- folders ----------------------------------------------------------------------------------------------------------


def test_empty_folder(tmp_path):
    for make in (ImageFolder, lambda root: fastssl.Loader(root, RECIPE)):
        with pytest.raises(FileNotFoundError, match="no image") as caught:
            make(tmp_path)
        assert str(tmp_path) in str(caught.value) and ".jpg" in str(caught.value)


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("no pictures here")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "table.csv").write_text("1,2")
    with pytest.raises(FileNotFoundError, match="no image"):
        ImageFolder(tmp_path)


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fastssl.Loader(str(tmp_path / "nowhere"), RECIPE)


def test_file_in_place_of_a_folder(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(images.jpeg(images.flat(8, 8)))
    with pytest.raises(NotADirectoryError, match=r"photo\.jpg"):
        ImageFolder(path)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(UNUSUAL))
@pytest.mark.filterwarnings(
    "ignore:Palette images with Transparency:UserWarning"
)  # Pillow, in what it is compared with
def test_unusual_files_are_images_like_any_other(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(UNUSUAL[name])
    decoded = ops.decode(path)
    want = images.rgb(UNUSUAL[name]).astype(int)
    # 6: two JPEG decoders may differ by 3 levels (see test_decode.py), and CMYK multiplies two of their channels.
    assert np.abs(decoded.numpy().astype(int) - want).max() <= 6
    (batch,) = fastssl.Loader(tmp_path, RECIPE, batch_size=4)
    for got, again in zip(batch.views, ops.render([decoded], batch.params, RECIPE), strict=True):
        assert torch.equal(got, again) and torch.isfinite(got).all()


def test_png_of_sixteen_bits(tmp_path):
    """Scaled to 8 bits, as one expects of it; Pillow's convert("RGB") would cut it at 255."""
    path = tmp_path / "deep.png"
    path.write_bytes(images.png_of_sixteen_bits(WIDE))
    assert np.abs(ops.decode(path).numpy() - WIDE[:, :, None] / 257).max() < 1
    whole = View(crop=CenterCrop(size=23, keep=1.0), normalize=None)
    (batch,) = fastssl.Loader(tmp_path, (whole,), batch_size=1)
    assert (batch.views[0][0, 0] - torch.from_numpy(WIDE[4:27].astype(np.float32) / 65535)).abs().max() < 1 / 255


@pytest.fixture(params=sorted(BAD))
def spoiled(tmp_path, request) -> ImageFolder:
    """Nine good files and, among them, bad.jpg, spoiled after the folder was listed; its index is 4."""
    if request.param == "unreadable" and os.geteuid() == 0:
        pytest.skip("root reads files without permission")
    for i, data in enumerate(GOOD):
        (tmp_path / f"{'a' if i < 4 else 'c'}_{i}.jpg").write_bytes(data)
    (tmp_path / "bad.jpg").write_bytes(GOOD[0])
    source = ImageFolder(tmp_path)
    BAD[request.param](tmp_path / "bad.jpg")
    assert source.filename(4) == "bad.jpg" and len(source) == 10
    return source


def test_a_bad_file_raises_with_its_name_reason_and_remedy(spoiled):
    loader = fastssl.Loader(spoiled, RECIPE, batch_size=3)
    with pytest.raises(fastssl.DecodeError, match=r"bad\.jpg: .{5,}on_error") as caught:
        list(loader)
    assert isinstance(caught.value, ValueError)
    assert [(fault.index, Path(fault.filename).name) for fault in loader.errors] == [(4, "bad.jpg")]
    with pytest.raises(fastssl.DecodeError, match=r"bad\.jpg"):  # and again: nothing is worn out by it
        list(loader)
    assert len(loader.errors) == 1


def test_a_bad_file_is_skipped_and_listed(spoiled):
    loader = fastssl.Loader(spoiled, RECIPE, batch_size=3, on_error="skip", epochs=2)
    batches = list(loader)
    assert len(batches) <= 8 and sum(len(batch) for batch in batches) == 18
    consistent(batches, spoiled)
    assert sorted(joined(batches).indices[:9].tolist()) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    (fault,) = loader.errors
    assert (
        isinstance(fault, Fault) and fault.index == 4 and fault.filename.endswith("bad.jpg") and len(fault.reason) > 4
    )

    # The good samples are what they would be without the bad one among them.
    with_all = fastssl.Loader(Memory([*GOOD[:4], GOOD[0], *GOOD[4:]]), RECIPE, batch_size=3, epochs=2)
    want = joined(with_all)
    keep = want.indices != 4
    got = joined(batches)
    assert torch.equal(got.indices, want.indices[keep]) and torch.equal(got.params.data, want.params.data[keep])
    assert all(torch.equal(a, b[keep]) for a, b in zip(got.views, want.views, strict=True))


def test_a_bad_file_is_replaced_and_listed(spoiled):
    options = {"on_error": "replace", "epochs": 2}
    loader = fastssl.Loader(spoiled, RECIPE, batch_size=3, **options)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [3, 3, 3, 1] * 2
    consistent(batches, spoiled)
    assert [fault.index for fault in loader.errors] == [4]
    got = joined(batches)
    first = got.indices[:10].tolist()
    assert 4 not in first and len(set(first)) == 9, "one good sample stands twice"
    twice = next(i for i in first if first.count(i) == 2)
    a, b = (place for place, i in enumerate(first) if i == twice)
    assert not torch.equal(got.params.data[a], got.params.data[b]), "the stand-in is drawn anew"
    again = fastssl.Loader(spoiled, RECIPE, batch_size=4, threads=1, **options)
    assert joined(again) == got, "the stand-in depends on batch size or threads"


def consistent(batches, source) -> None:
    """Names, targets and pixels of each sample belong to its index, and nothing stale is in a batch."""
    for batch in batches:
        n = len(batch)
        assert n > 0 and all(len(view) == n for view in batch.views) and len(batch.params) == n
        assert len(batch.filenames) == len(batch.targets) == len(batch.indices) == n
        decoded = [ops.decode(source.path(i)) for i in batch.indices.tolist()]
        for i, index in enumerate(batch.indices.tolist()):
            assert batch.filenames[i] == source.filename(index) and batch.targets[i] == source.target(index)
        for got, want in zip(batch.views, ops.render(decoded, batch.params, RECIPE), strict=True):
            assert torch.equal(got, want)


def test_many_bad_files_are_all_listed(tmp_path):
    for i in range(40):
        (tmp_path / f"{i:02d}.jpg").write_bytes(GOOD[i % 9] if i % 2 else b"broken")
    source = ImageFolder(tmp_path)
    for policy, sizes in (("skip", 20), ("replace", 40)):
        loader = fastssl.Loader(source, RECIPE, batch_size=7, on_error=policy, threads=3)
        batches = list(loader)
        assert sum(len(batch) for batch in batches) == sizes
        consistent(batches, source)
        assert sorted(fault.index for fault in loader.errors) == list(range(0, 40, 2))
        assert all(index % 2 for index in joined(batches).indices.tolist())
        list(loader)
        assert len(loader.errors) == 20, "each bad sample is listed once"


def test_nothing_but_bad_files(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"broken")
    with pytest.raises(fastssl.DecodeError, match=r"\d\.jpg"):
        list(fastssl.Loader(tmp_path, RECIPE, batch_size=2))
    with pytest.raises(fastssl.DecodeError, match=r"none of the 5"):
        list(fastssl.Loader(tmp_path, RECIPE, batch_size=2, on_error="replace"))
    loader = fastssl.Loader(tmp_path, RECIPE, batch_size=2, on_error="skip")
    with pytest.raises(fastssl.DecodeError, match=r"none of 5 samples can be read; the first: "):
        list(loader)
    assert len(loader.errors) == 5


def test_a_dataset_that_raises_is_a_bad_sample():
    class Dataset:
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int):
            if index == 2:
                raise ValueError("the disk is on fire")
            return images.photo(20, 20, seed=index), index

    with pytest.raises(fastssl.DecodeError, match="the disk is on fire") as caught:
        list(fastssl.Loader(Dataset(), RECIPE, batch_size=2))
    assert "2" in str(caught.value)
    loader = fastssl.Loader(Dataset(), RECIPE, batch_size=2, on_error="skip")
    assert sorted(joined(loader).indices.tolist()) == [0, 1, 3, 4, 5]
    assert "the disk is on fire" in loader.errors[0].reason


@pytest.mark.parametrize(
    "sample, reason",
    [
        (5, r"\(image, target\)"),
        ((1, 2, 3, 4), r"\(image, target\)"),
        ((torch.full((3, 4, 4), 7.0), 0), "uint8"),
        ((None, 0), "image"),
        ((b"", 0), "empty"),
        ((images.photo(8, 8), "cat"), "cat"),
    ],
)
def test_samples_that_are_no_samples(sample, reason):
    with pytest.raises((fastssl.DecodeError, TypeError, ValueError), match=reason):
        list(fastssl.Loader([sample], RECIPE, batch_size=1))


# --- arguments --------------------------------------------------------------------------------------------------------

NAN = float("nan")
PICTURE = torch.zeros((8, 8, 3), dtype=torch.uint8)
ONE = View(crop=Crop(size=8), normalize=None)


def loader(**options):
    return fastssl.Loader(Memory(GOOD), RECIPE, **options)


def edited(**fields: float) -> Plan:
    plan = Plan.draw((ONE,), [(8, 8)], seed=0)
    for name, value in fields.items():
        getattr(plan, name)[...] = value
    return plan


def render(plan=None, image=PICTURE, recipe=(ONE,), **options):
    return ops.render([image], edited() if plan is None else plan, recipe, **options)


# What is called, and what its error must say: the argument's name, and what was got.
WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: Crop(size=0), r"size=0"),
    (lambda: Crop(size=-3), r"size=-3"),
    (lambda: Crop(size=22.5), r"size=22\.5"),
    (lambda: Crop(size="big"), r"size='big'"),
    (lambda: Crop(size=True), r"size=True"),
    (lambda: Crop(size=10**9), r"size=1000000000"),
    (lambda: Crop(size=8, area=(0.0, 1.0)), r"area=\(0\.0, 1\.0\)"),
    (lambda: Crop(size=8, area=(0.5, 0.2)), r"area=\(0\.5, 0\.2\)"),
    (lambda: Crop(size=8, area=(0.5, 1.5)), r"area=\(0\.5, 1\.5\)"),
    (lambda: Crop(size=8, area=(NAN, 1.0)), r"area=\(nan"),
    (lambda: Crop(size=8, area=0.5), r"area=0\.5"),
    (lambda: Crop(size=8, area=(0.1, 0.2, 0.3)), r"area="),
    (lambda: Crop(size=8, aspect=(0, 1)), r"aspect=\(0, 1\)"),
    (lambda: Crop(size=8, aspect=(2, 1)), r"aspect=\(2, 1\)"),
    (lambda: Crop(size=8, aspect=(1, float("inf"))), r"aspect="),
    (lambda: Crop(size=8, interpolation="nearest"), r"interpolation='nearest'"),
    (lambda: CenterCrop(size=0), r"size=0"),
    (lambda: CenterCrop(size=8, keep=0), r"keep=0"),
    (lambda: CenterCrop(size=8, keep=1.2), r"keep=1\.2"),
    (lambda: CenterCrop(size=8, keep=NAN), r"keep=nan"),
    (lambda: CenterCrop(size=8, interpolation=3), r"interpolation=3"),
    (lambda: Flip(p=-0.1), r"p=-0\.1"),
    (lambda: Flip(p=1.1), r"p=1\.1"),
    (lambda: Flip(p="often"), r"p='often'"),
    (lambda: QuarterTurn(p=NAN), r"p=nan"),
    (lambda: QuarterTurn(turns=4), r"turns=4"),
    (lambda: QuarterTurn(turns=()), r"turns=\(\)"),
    (lambda: QuarterTurn(turns=(1, 1.5)), r"turns=\(1, 1\.5\)"),
    (lambda: Grayscale(p=2), r"p=2"),
    (lambda: Jitter(p=-1), r"p=-1"),
    (lambda: Jitter(brightness=-0.1), r"brightness=-0\.1"),
    (lambda: Jitter(contrast="much"), r"contrast='much'"),
    (lambda: Jitter(saturation=float("inf")), r"saturation=inf"),
    (lambda: Jitter(hue=0.6), r"hue=0\.6"),
    (lambda: Jitter(hue=-0.1), r"hue=-0\.1"),
    (lambda: Blur(p=3), r"p=3"),
    (lambda: Blur(sigma_px=(2.0, 1.0)), r"sigma_px=\(2\.0, 1\.0\)"),
    (lambda: Blur(sigma_px=(-1.0, 1.0)), r"sigma_px=\(-1\.0, 1\.0\)"),
    (lambda: Blur(sigma_px=2.0), r"sigma_px=2\.0"),
    (lambda: Blur(sigma_px=(0.1, 1e9)), r"sigma_px="),
    (lambda: Solarize(p=1.5), r"p=1\.5"),
    (lambda: Solarize(threshold=-1), r"threshold=-1"),
    (lambda: Solarize(threshold=300), r"threshold=300"),
    (lambda: Normalize(mean=(0.5, 0.5), std=(1, 1, 1)), r"2 means need as many deviations, got 3"),
    (lambda: Normalize(mean=(0.5, 0.5, 0.5), std=(1, 0, 1)), r"std=\(1, 0, 1\)"),
    (lambda: Normalize(mean=0.5, std=(1, 1, 1)), r"mean=0\.5"),
    (lambda: View(crop=None), r"crop=None"),
    (lambda: View(crop=224), r"crop=224"),
    (lambda: View(crop=Crop(size=8), flip=0.5), r"flip=0\.5"),
    (lambda: View(crop=Crop(size=8), blur=Flip()), r"blur=Flip"),
    (lambda: View(crop=Crop(size=8), jitter=0.8), r"jitter=0\.8"),
    (lambda: View(crop=Crop(size=8), normalize=True), r"normalize=True"),
    (lambda: View(crop=Crop(size=8), jitter=Jitter(), order=("blur",)), r"order=\(.blur.,\) leaves out jitter"),
    (lambda: View(crop=Crop(size=8), order=("jitter", "grayscale", "blur", "sharpen")), r"order=.*sharpen"),
    (lambda: View(crop=Crop(size=8), order=("jitter", "jitter", "blur", "solarize")), r"order="),
    (lambda: View(crop=Crop(size=8), order=(1, "jitter", "blur", "solarize")), r"order="),
    (lambda: View(crop=Crop(size=8), order=None), r"order=None"),
    (lambda: recipes.simclr(0), r"size=0"),
    (lambda: recipes.simclr(32, strength=-1), r"strength=-1"),
    (lambda: recipes.simclr(32, strength="strong"), r"strength='strong'"),
    (lambda: recipes.simclr(32, strength=NAN), r"strength=nan"),
    (lambda: recipes.evaluation(32, keep=0), r"keep=0"),
    (lambda: loader(batch_size=0), r"batch_size=0"),
    (lambda: loader(batch_size=2.5), r"batch_size=2\.5"),
    (lambda: loader(batch_size="32"), r"batch_size='32'"),
    (lambda: loader(batch_size=100, drop_last=True), r"batch_size|drop_last"),
    (lambda: loader(device="tpu"), r"device.*tpu"),
    (lambda: loader(device=3.5), r"device"),
    (lambda: loader(seed=-1), r"seed=-1"),
    (lambda: loader(seed=2**64), r"seed=18446744073709551616"),
    (lambda: loader(seed=None), r"seed=None"),
    (lambda: loader(epochs=0), r"epochs=0"),
    (lambda: loader(prefetch=-1), r"prefetch=-1"),
    (lambda: loader(threads=0), r"threads=0"),
    (lambda: loader(threads=1.5), r"threads=1\.5"),
    (lambda: loader(dtype=torch.int32), r"dtype=torch\.int32"),
    (lambda: loader(dtype="float32"), r"dtype=.*float32"),
    (lambda: loader(dtype=torch.uint8), r"dtype=torch\.uint8.*normalize=None"),
    (lambda: loader(on_error="ignore"), r"on_error='ignore'.*skip"),
    (lambda: loader(rank=0), r"world_size"),
    (lambda: loader(world_size=2), r"rank"),
    (lambda: loader(rank=2, world_size=2, drop_last=True), r"rank=2.*world_size=2"),
    (lambda: loader(rank=-1, world_size=2, drop_last=True), r"rank=-1"),
    (lambda: loader(rank=0, world_size=2), r"drop_last=True"),
    (lambda: loader().set_epoch(-1), r"epoch=-1"),
    (lambda: loader().set_epoch("next"), r"epoch='next'"),
    (lambda: fastssl.Loader(Memory(GOOD), ()), r"recipe.*\(\).*simclr"),
    (lambda: fastssl.Loader(Memory(GOOD), "simclr"), r"recipe.*simclr"),
    (lambda: fastssl.Loader(Memory(GOOD), VIEW), r"recipe"),
    (lambda: fastssl.Loader(Memory(GOOD), (Crop(size=8),)), r"recipe.*Crop"),
    (lambda: fastssl.Loader(Memory([]), RECIPE), r"source is empty"),
    (lambda: fastssl.Loader([], RECIPE), r"source is empty"),
    (lambda: fastssl.Loader(5, RECIPE), r"int"),
    (lambda: fastssl.Loader(None, RECIPE), r"None"),
    (lambda: fastssl.Loader(iter([1, 2]), RECIPE), r"iterat"),
    (lambda: DatasetSource(3), r"int.*__getitem__"),
    (lambda: ImageFolder(None), r"None"),
    (lambda: ImageFolder(".", layout="tree"), r"layout='tree'"),
    (lambda: ImageFolder(".", extensions=".jpg"), r"extensions='\.jpg'"),
    (lambda: Plan(torch.zeros(3)), r"Plan.*\(3,\)"),
    (lambda: Plan(torch.zeros((1, 1, len(Plan.FIELDS)), dtype=torch.float64)), r"float32"),
    (lambda: Plan(None), r"None"),
    (lambda: Plan.draw((ONE,), [(0, 8)], seed=0), r"sizes"),
    (lambda: Plan.draw((ONE,), [(8, -8)], seed=0), r"sizes"),
    (lambda: Plan.draw((ONE,), [8], seed=0), r"sizes"),
    (lambda: Plan.draw((ONE,), [(8.5, 8)], seed=0), r"sizes"),
    (lambda: Plan.draw((ONE,), [(8, 8)], seed=-1), r"seed=-1"),
    (lambda: Plan.draw((ONE,), [(8, 8)], seed=1.5), r"seed=1\.5"),
    (lambda: Plan.draw((ONE,), [(8, 8)], seed=0, epoch=-1), r"epoch=-1"),
    (lambda: Plan.draw((ONE,), [(8, 8)], seed=0, indices=[1, 2]), r"1 sizes.*2"),
    (lambda: Plan.draw((ONE,), [(8, 8)], seed=0, indices=[-1]), r"indices"),
    (lambda: Plan.draw((), [(8, 8)], seed=0), r"recipe"),
    (lambda: edited().cheese, r"cheese"),
    (lambda: render(image=PICTURE.double()), r"image 0.*float64"),
    (lambda: render(image=PICTURE.float() + 255), r"image 0.*\[0, 1\].*divide"),
    (lambda: render(image=PICTURE.float() * float("nan")), r"image 0.*\[0, 1\]"),
    (lambda: render(image=PICTURE[None]), r"image 0.*\(1, "),
    (
        lambda: render(image=PICTURE[:, :, :2], recipe=(View(crop=Crop(size=8)),)),
        r"image 0: it has 2 channels, and Normalize has 3",
    ),
    (lambda: render(image=PICTURE[0]), r"image 0.*\(8, 3\)"),
    (lambda: render(image=PICTURE[:0]), r"image 0"),
    (lambda: render(image=PICTURE.numpy()), r"image 0.*ndarray"),
    (lambda: render(image=PICTURE.to("meta")), r"image 0.*meta"),
    (lambda: render(plan=torch.zeros((1, 1, 3))), r"plan.*\(1, 1, 3\)"),
    (lambda: render(plan=Plan.draw((ONE,) * 2, [(8, 8)], seed=0)), r"plan.*\(1, 2, "),
    (lambda: render(plan=Plan.draw((ONE,), [(8, 8)] * 2, seed=0)), r"plan.*\(2, 1, "),
    (lambda: render(plan="random"), r"plan"),
    (lambda: render(recipe=(Crop(size=8),)), r"recipe.*Crop"),
    (lambda: render(dtype=torch.int8), r"dtype=torch\.int8"),
    (
        lambda: render(dtype=torch.uint8, recipe=(View(crop=Crop(size=8), normalize=IMAGENET),)),
        r"uint8.*normalize=None",
    ),
    (
        lambda: render(dtype=torch.uint8, recipe=(View(crop=Crop(size=8), normalize=None, erase=Erase(value=2.0)),)),
        r"render: dtype=torch\.uint8 cannot hold Erase\(value=2\); take one from 0 to 1",
    ),
    (lambda: render(threads=0), r"threads=0"),
    (lambda: render(threads="all"), r"threads='all'"),
    (lambda: fastssl.set_num_threads(0), r"threads=0"),
    (lambda: fastssl.set_num_threads("two"), r"threads='two'"),
]


@pytest.mark.parametrize("call, says", WRONG, ids=[f"{i:03d} {says}" for i, (_, says) in enumerate(WRONG)])
def test_wrong_arguments_are_named_with_their_values(call, says):
    with pytest.raises((ValueError, TypeError, AttributeError), match=f"(?s){says}"):
        call()


# Numbers that a user can write into a plan, and that no image has pixels for.
IMPOSSIBLE = [
    {"top": -1},
    {"left": -1},
    {"height": 9, "top": 0},
    {"width": 9, "left": 0},
    {"top": 8},
    {"left": 1e9},
    {"height": 0},
    {"width": -4},
    {"height": 1e30},
    {"top": NAN},
    {"width": NAN},
    {"left": float("inf")},
    {"brightness": NAN},
    {"contrast": float("inf")},
    {"saturation": NAN},
    {"hue": NAN},
    {"brightness": -1},
    {"sigma_px": NAN},
    {"sigma_px": -1},
    {"sigma_px": 1e9},
    {"solarize": NAN},
    {"order0": 7},
    {"order1": -1},
    {"order2": NAN},
    {"order0": 1},  # twice the same operation
    {"turns": 0.5},
    {"turns": NAN},
    {"flip_h": NAN},
]
EVERYTHING = VIEW.with_(crop=Crop(size=8), jitter=Jitter(p=1.0, brightness=0.4, hue=0.1), solarize=Solarize(p=1.0))


@pytest.mark.parametrize("fields", IMPOSSIBLE, ids=str)
def test_a_plan_with_impossible_numbers_is_refused(fields):
    plan = Plan.draw((EVERYTHING,), [(8, 8)], seed=0)
    for name, value in fields.items():
        getattr(plan, name)[...] = value
    with pytest.raises(ValueError, match=next(iter(fields)) + "|crop|order"):
        ops.render([PICTURE], plan, (EVERYTHING,))


def test_a_plan_drawn_for_another_size_is_refused():
    plan = Plan.draw((EVERYTHING,), [(100, 100)], seed=0)
    with pytest.raises(ValueError, match=r"100 x 100.*8 x 8"):
        ops.render([PICTURE], plan, (EVERYTHING,))


def test_specs_are_frozen_and_take_keywords_only():
    crop = Crop(size=8)
    with pytest.raises(AttributeError):
        crop.size = 9
    for call in (lambda: Crop(8), lambda: Flip(0.5), lambda: View(crop)):
        with pytest.raises(TypeError, match="positional"):
            call()
    with pytest.raises(TypeError, match="scale"):
        Crop(size=8, scale=(0.1, 1.0))


def test_lists_do_where_tuples_do():
    """What is read from JSON or YAML comes as lists."""
    view = View(
        crop=Crop(size=8, area=[0.5, 1.0], aspect=[1, 1]),
        blur=Blur(p=1.0, sigma_px=[0.5, 1.0]),
        normalize=Normalize(mean=[0.5, 0.5, 0.5], std=[1, 1, 1]),
        order=["solarize", "jitter", "grayscale", "blur"],
    )
    plan = Plan.draw([view], [[8, 8]], seed=0)
    assert ops.render([PICTURE], plan, [view])[0].shape == (1, 3, 8, 8)
