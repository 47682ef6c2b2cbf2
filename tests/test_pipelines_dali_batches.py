"""Ragged batches of DALI's: its readers and ours, order and shares, failures, ends; on the CPU by its CPU backend."""

import contextlib
import gc
import io
import os
import tarfile
import tempfile
import threading
from collections import Counter

import images
import numpy as np
import pytest
import torch
from conftest import devices
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import Memory, pictures
from test_pipelines_dali import LEVELS, everything, small  # noqa: F401

import fastssl
from fastssl import DecodeError, Loader, Plan, ops, recipes
from fastssl.data import ArraySource, ImageFolder, SourceReader
from fastssl.pipelines import DaliBatches, FileReader, WebdatasetReader, dali_readers
from fastssl.pipelines.dali_modules import why_not_dali
from fastssl.pipelines.tar_index import tar_members
from fastssl.transforms import GPUViews

pytestmark = pytest.mark.skipif(why_not_dali() is not None, reason=str(why_not_dali()))

READERS = {"files": FileReader, "source": SourceReader}


def batches_of(reader, device="cpu", batch_size=4, **options):
    return DaliBatches(reader, batch_size=batch_size, device=device, threads=2, **options)


@pytest.fixture
def source(photos):
    return ImageFolder(photos)


def write_archive(path, files):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def archives(tmp_path):
    """Three archives of 5, 1 and 7 samples; sample i is a JPEG of height 20 + i, its target 3 * i."""
    paths, number = [], 0
    for a, count in enumerate((5, 1, 7)):
        files = []
        for _ in range(count):
            files.append((f"some folder/{number:03d}.jpg", images.jpeg(images.photo(20 + number, 30))))
            files.append((f"some folder/{number:03d}.cls", str(3 * number).encode()))
            number += 1
        paths.append(str(write_archive(tmp_path / f"{a}.tar", files)))
    return paths


# --- what comes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("reader", READERS)
def test_each_image_comes_once_with_its_target_and_name(source, reader, device):
    batches = batches_of(READERS[reader](source, shuffle=True, seed=3), device)
    seen = Counter()
    for _ in range(2):
        for pixels, targets, filenames in batches:
            assert targets.dtype == torch.int64 and targets.device.type == device
            for image, target, name in zip(pixels, targets.tolist(), filenames, strict=True):
                assert image.device.type == device and image.dtype == torch.uint8
                want = ops.decode(source.root + "/" + name).int()
                assert (image.cpu().int() - want).abs().max() <= LEVELS[device]
                assert source.targets[[source.filename(i) for i in range(len(source))].index(name)] == target
                seen[name] += 1
    assert len(seen) == len(source) and set(seen.values()) == {2}
    assert len(batches) == 6 and batches.epoch == 2 and not batches.errors


@pytest.mark.parametrize("device", devices())
def test_they_go_straight_into_render_and_gpu_views(source, device):
    recipe = recipes.simclr(24)
    on_host = device == "cpu"
    for pixels, _, filenames in batches_of(FileReader(source), device):
        plan = Plan.draw(recipe, [image.shape[:2] for image in pixels], seed=1)
        got = ops.render(pixels, plan, recipe)
        again = GPUViews(recipe)([image.permute(2, 0, 1) for image in pixels], plan)
        want = ops.render([ops.decode(source.root + "/" + name) for name in filenames], plan, recipe)
        for a, b, c in zip(got, again, want, strict=True):
            assert torch.equal(a, b) and (torch.equal(a, c) if on_host else (a.cpu() - c).abs().mean() < 0.02)


@pytest.mark.parametrize("device", devices())
def test_a_batch_that_is_kept_stays_as_it_is(source, device):
    kept, copies = [], []
    for _ in range(2):
        for pixels, _, _ in batches_of(FileReader(source), device):
            kept += pixels
            copies += [image.clone() for image in pixels]
    gc.collect()
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_on_a_gpu_is_free_again_only_when_its_use_is_done(source):
    """The consumer asks for work that takes long, lets go of the images at once, and goes on; DALI wants memory meanwhile."""
    results, want = [], []
    for _ in range(4):
        for pixels, _, filenames in batches_of(FileReader(source), "cuda"):
            torch.cuda._sleep(20_000_000)
            results.append([image.clone() for image in pixels])
            want.append(filenames)
            del pixels
    for copies, filenames in zip(results, want, strict=True):
        for image, name in zip(copies, filenames, strict=True):
            decoded = ops.decode(source.root + "/" + name).int()
            assert (image.cpu().int() - decoded).abs().max() <= LEVELS["cuda"]


def test_any_source_will_do(tmp_path):
    samples = [(data, i, f"{i}.jpg") for i, data in enumerate(pictures(5))]
    samples[2] = (images.photo(9, 8), 2, "2.jpg")  # pixels
    (tmp_path / "3.jpg").write_bytes(samples[3][0])
    samples[3] = (tmp_path / "3.jpg", 3, "3.jpg")
    ((pixels, targets, filenames),) = batches_of(SourceReader(samples), batch_size=8)
    assert targets.tolist() == list(range(5)) and filenames == [f"{i}.jpg" for i in range(5)]
    for image, (data, _, _) in zip(pixels, samples, strict=True):
        assert torch.equal(image, torch.from_numpy(data) if isinstance(data, np.ndarray) else ops.decode(data))
    array = np.random.default_rng(0).integers(0, 255, (6, 9, 7, 3), dtype=np.uint8)
    ((pixels, targets, _),) = batches_of(SourceReader(ArraySource(array, targets=range(6))), batch_size=8)
    assert torch.equal(torch.stack(pixels), torch.from_numpy(array)) and targets.tolist() == list(range(6))
    with pytest.raises(ValueError, match=r"1 channels.*fastssl\.Loader"):
        SourceReader(ArraySource(array[:, :, :, :1]))


# --- order and shares ---------------------------------------------------------------------------------------------------


def names(batches):
    return [name for _, _, filenames in batches for name in filenames]


@pytest.mark.parametrize("reader", READERS)
def test_the_order_is_that_of_the_loader(source, reader):
    batches = batches_of(READERS[reader](source, shuffle=True, seed=11))
    loader = Loader(source, recipes.evaluation(8), batch_size=4, seed=11)
    first, second = names(batches), names(batches)
    assert first == [name for batch in loader for name in batch.filenames] and first != second
    batches.set_epoch(0)
    assert names(batches) == first
    assert names(batches_of(READERS[reader](source))) == [source.filename(i) for i in range(len(source))]


@pytest.mark.parametrize("reader", [*READERS, "archives"])
@pytest.mark.parametrize("shards", [2, 3, 5])
@pytest.mark.parametrize("drop_last", [False, True])
def test_shards_share_each_epoch_out(source, archives, reader, shards, drop_last):
    made = [
        WebdatasetReader(archives, shuffle=True, shard=i, shards=shards, drop_last=drop_last, initial_fill=3)
        if reader == "archives"
        else READERS[reader](source, shuffle=True, shard=i, shards=shards, drop_last=drop_last)
        for i in range(shards)
    ]
    batches = [batches_of(r, batch_size=2) for r in made]
    total = len(made[0])
    for _ in range(2):
        parts = [names(b) for b in batches]
        seen = [name for part in parts for name in part]
        assert len(set(seen)) == len(seen), "a sample is in two shards, or comes twice"
        if drop_last:
            assert {len(part) for part in parts} == {total // shards // 2 * 2}
        else:
            assert len(seen) == total
    assert [len(b) for b in batches] == [-(-len(part) // 2) for part in parts]


@pytest.mark.parametrize("make", [
    WebdatasetReader,
    lambda archives, **share: FileReader(archives * 4, **share),
    lambda archives, **share: SourceReader([(path, 0) for path in archives], **share),
])  # fmt: skip
def test_more_shards_than_samples(archives, make):
    with pytest.raises(ValueError, match=r"Reader: shards=20 is more than there are samples, (13|12|3)"):
        make(archives, shards=20)


def test_dali_reads_what_can_be_read(source, monkeypatch):
    """And not the stand-in for what it cannot."""
    monkeypatch.setattr(dali_readers, "_read", lambda path: pytest.fail(f"{path} was not read by DALI"))
    assert len(names(batches_of(FileReader(source)))) == len(source)


def test_names_that_are_no_text(tmp_path):
    names_ = [os.fsdecode(name) for name in (b"a b.jpg", b"\xc3\xa4\n.jpg", b"\xff\xfe.jpg")]
    for name, data in zip(names_, pictures(3), strict=True):
        (tmp_path / name).write_bytes(data)
    batches = batches_of(FileReader(ImageFolder(tmp_path)), batch_size=2)
    assert sorted(names(batches)) == sorted(names_)


def test_a_reader_goes_on_in_pieces(source, monkeypatch):
    """DALI's file reader is given some thousand files at a time."""
    monkeypatch.setattr(dali_readers, "_FILES", 7)
    assert names(batches_of(FileReader(source), batch_size=3)) == [source.filename(i) for i in range(len(source))]


# --- archives -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
def test_archives(archives, shuffle):
    batches = batches_of(WebdatasetReader(archives, shuffle=shuffle, seed=5, initial_fill=4))
    orders = []
    for _ in range(3):
        order = []
        for pixels, targets, filenames in batches:
            for image, target, name in zip(pixels, targets.tolist(), filenames, strict=True):
                assert image.shape[0] == 20 + target // 3 and name == f"some folder/{target // 3:03d}.jpg"
                order.append(target // 3)
        assert sorted(order) == list(range(13))
        orders.append(order)
    assert (orders[0] == list(range(13))) != shuffle and (orders[0] == orders[1]) != shuffle
    again = batches_of(WebdatasetReader(archives, shuffle=shuffle, seed=5, initial_fill=4))
    assert names(again) == [f"some folder/{i:03d}.jpg" for i in orders[0]], "an epoch depends on seed and number alone"


def test_samples_without_image_or_target(tmp_path):
    data = images.jpeg(images.photo(20, 20))
    files = [("a.jpg", data), ("a.cls", b"1"), ("b.cls", b"2"), ("c.jpg", data), ("d.jpg", data), ("d.cls", b"cat")]
    files += [("e.jpg", b""), ("e.cls", b"3"), ("readme.txt", b"nothing"), ("f.JPG", data), ("f.cls", b" 4\n")]
    path = str(write_archive(tmp_path / "a.tar", files))
    batches = batches_of(WebdatasetReader([path]), on_error="skip")
    assert [targets.tolist() for _, targets, _ in batches] == [[1], [4]]
    assert [(fault.index, fault.filename) for fault in batches.errors] == [
        (1, f"{path}: b"),
        (2, f"{path}: c.jpg"),
        (3, f"{path}: d.jpg"),
        (4, f"{path}: e.jpg"),
    ]
    for fault, words in zip(batches.errors, ["no image", "targets=()", "targets=()", "empty"], strict=True):
        assert words in fault.reason
    without = batches_of(WebdatasetReader([path], targets=()), on_error="skip")
    assert [targets.tolist() for _, targets, _ in without] == [[0, 0, 0], [0]] and len(without.errors) == 1


LONG = "folder/" * 30 + "deep and long.jpg"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_those_that_tarfile_finds(tmp_path, form):
    names = ["a.jpg", "ä ö.jpg", "x/" * 60 + "y.jpg", *([] if form == tarfile.USTAR_FORMAT else [LONG])]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for i, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 700 * i
            archive.addfile(info, io.BytesIO(bytes([i]) * 700 * i))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        archive.addfile(link)
    with tarfile.open(path) as archive:
        want = [(m.name, m.offset_data, m.size) for m in archive if m.isfile()]
    assert [tuple(member) for member in tar_members(str(path))] == want and len(want) == len(names)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.data())
def test_no_damage_to_an_archive_is_more_than_an_error(form, data):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name in (LONG, "a.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 600
            archive.addfile(info, io.BytesIO(bytes(600)))
    spoilt = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(0, 4000))] = data.draw(st.integers(0, 255))
    for at in range(0, 4096, 512):  # with the checksum right again, damage goes deeper
        block = spoilt[at : at + 512]
        if data.draw(st.booleans()):
            total = sum(block) - sum(block[148:156]) + 256
            spoilt[at + 148 : at + 156] = b"%06o\0 " % total
    with tempfile.NamedTemporaryFile() as target:
        target.write(spoilt)
        target.flush()
        with contextlib.suppress(DecodeError):
            for member in tar_members(target.name):
                assert member.offset >= 0 and member.offset + member.size <= len(spoilt) and member.size >= 0


@pytest.mark.parametrize("spoil, words", [
    (lambda path: path.unlink(), "cannot open: No such file"),
    (lambda path: path.write_text("I am no archive. " * 100), "no tar archive"),
    (lambda path: path.write_bytes(path.read_bytes()[:1000]), r"ends early \(truncated\)"),
    (lambda path: path.write_bytes(path.read_bytes()[:700] + bytes(9) + path.read_bytes()[709:1000]), "ends early"),
    (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(600)), "compressed"),
], ids=["missing", "text", "truncated", "cut in a file", "gzip"])  # fmt: skip
def test_a_bad_archive_is_named(archives, tmp_path, spoil, words):
    spoil(tmp_path / "1.tar")
    with pytest.raises(DecodeError, match=rf"1\.tar: .*{words}"):
        WebdatasetReader(archives)


def test_an_archive_that_changes_ends_the_epoch_with_an_error(archives, tmp_path):
    reader = WebdatasetReader(archives)
    (tmp_path / "2.tar").write_bytes(b"")
    with pytest.raises(DecodeError, match="WebdatasetReader: DALI cannot go on"):
        list(batches_of(reader))


def test_archives_without_samples(tmp_path):
    path = str(write_archive(tmp_path / "a.tar", [("readme.txt", b"nothing")]))
    with pytest.raises(ValueError, match=r"no sample in 1 archives.*jpg"):
        WebdatasetReader([path])


# --- failures -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")  # Pillow's
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_every_failure_has_the_same_end_as_in_a_loader(everything, reader, policy):  # noqa: F811
    loader = Loader(everything, recipes.evaluation(8), batch_size=5, shuffle=False, on_error=policy)
    list(loader)
    batches = batches_of(READERS[reader](everything), batch_size=5, on_error=policy)
    count = 0
    for pixels, targets, filenames in batches:
        assert len(pixels) == len(targets) == len(filenames)
        for image, name in zip(pixels, filenames, strict=True):
            assert torch.equal(image, ops.decode(everything.root + "/" + name))
        count += len(pixels)
    assert count == len(everything) - (len(batches.errors) if policy == "skip" else 0)
    assert [str(fault) for fault in batches.errors] == sorted(str(fault) for fault in loader.errors)
    list(batches)
    assert len(batches.errors) == len(loader.errors), "each is listed once"


def test_a_failure_that_is_to_be_raised_names_the_file(tmp_path):
    for i, data in enumerate([*pictures(6), b"no picture"]):
        (tmp_path / f"{i}.jpg").write_bytes(data)
    batches = batches_of(FileReader(ImageFolder(tmp_path)), batch_size=2)
    for _ in range(2):  # nothing is worn out by it
        with pytest.raises(DecodeError, match=r"6\.jpg: no image format.*on_error='skip'"):
            list(batches)
    assert len(batches.errors) == 1


def test_nothing_can_be_read(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"broken")
    with pytest.raises(DecodeError, match="none of 5 samples can be read; the first: "):
        list(batches_of(FileReader(ImageFolder(tmp_path)), on_error="skip"))
    with pytest.raises(DecodeError, match="no sample can be read so far"):
        list(batches_of(FileReader(ImageFolder(tmp_path)), on_error="replace"))


def test_a_batch_without_a_good_sample_takes_one_from_before(tmp_path):
    data = pictures(3)
    for i in range(9):
        (tmp_path / f"{i}.jpg").write_bytes(data[i] if i < 3 else b"broken")
    batches = batches_of(FileReader(ImageFolder(tmp_path)), batch_size=3, on_error="replace")
    assert [filenames for _, _, filenames in batches] == [["0.jpg", "1.jpg", "2.jpg"], ["2.jpg"] * 3, ["2.jpg"] * 3]


def test_a_mistake_in_a_source_comes_through():
    class Broken(Memory):
        def fetch(self, index):
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        list(batches_of(SourceReader(Broken(pictures(4)))))


# --- ends ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [*READERS, "archives"])
@pytest.mark.parametrize("end", ["break", "close", "garbage", "exception", "at once", "all"])
def test_every_end_is_clean(source, archives, reader, end):
    before = threading.active_count()
    batches = batches_of(WebdatasetReader(archives) if reader == "archives" else READERS[reader](source))
    iterator = iter(batches)
    if end == "all":
        assert len(list(iterator)) == len(batches)
        assert next(iterator, None) is None
    elif end != "at once":
        next(iterator)
    if end == "exception":
        with pytest.raises(ZeroDivisionError):
            for _ in iterator:
                1 / 0  # noqa: B018
    elif end == "close":
        iterator.close()
        assert next(iterator, None) is None
    del iterator
    gc.collect()
    assert threading.active_count() <= before
    assert len(names(batches)) == len(batches.reader), "the next epoch is whole"


def test_two_iterations_at_once(source):
    batches = batches_of(FileReader(source))
    pairs = list(zip(batches, batches, strict=True))
    assert len(pairs) == len(batches) and all(a.filenames == b.filenames for a, b in pairs)


# --- arguments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call, words", [
    (lambda: DaliBatches(3, device="cpu"), r"got int; .*FileReader\(files\).*SourceReader"),
    (lambda: batches_of(FileReader(["a.jpg"]), batch_size=0), "batch_size=0"),
    (lambda: batches_of(FileReader(["a.jpg"] * 7, shards=2, drop_last=True)), "no batch of 4 is full"),
    (lambda: batches_of(FileReader(["a.jpg"]), "abacus"), "device='abacus'"),
    (lambda: batches_of(FileReader(["a.jpg"]), "meta"), 'device="meta"'),
    (lambda: batches_of(FileReader(["a.jpg"]), on_error="hide"), "on_error='hide'"),
    (lambda: DaliBatches(FileReader(["a.jpg"]), device="cpu", threads=0), "threads=0"),
    (lambda: batches_of(FileReader(["a.jpg"])).set_epoch(-1), "epoch=-1"),
    (lambda: FileReader("photos/"), r"got 'photos/'; .*ImageFolder"),
    (lambda: FileReader(3), "got 3"),
    (lambda: FileReader([]), "the list of files is empty"),
    (lambda: FileReader(["a", "b"], [1]), "2 files need as many targets, got 1"),
    (lambda: FileReader(["a"], seed=-1), "FileReader: seed=-1"),
    (lambda: FileReader(["a"], shards=0), "shards=0"),
    (lambda: FileReader(["a"], shard=2, shards=2), "shard=2 must be a whole number, from 0 to 1"),
    (lambda: WebdatasetReader("a.tar"), "got 'a.tar'; it takes a list"),
    (lambda: WebdatasetReader([]), "the list of archives is empty"),
    (lambda: WebdatasetReader(["\udcff.tar"]), "is not UTF-8"),
    (lambda: WebdatasetReader(["a"], initial_fill=0), "initial_fill=0"),
    (lambda: SourceReader([]), "the source is empty"),
    (lambda: SourceReader(iter([])), "can only be iterated over"),
])  # fmt: skip
def test_arguments_are_checked(call, words):
    with pytest.raises((ValueError, TypeError), match=f"(?s){words}"):
        call()


def test_the_recipe_of_a_loader_is_not_needed(source):
    """Images of any sizes to a method's own views: those of each recipe fit."""
    (pixels, _, _) = next(iter(batches_of(FileReader(source))))
    for name in ("dino", "wmse", "evaluation"):
        views = fastssl.transforms.GPUViews(small(name))([image.permute(2, 0, 1) for image in pixels])
        assert all(view.shape == (4, 3, 16, 16) for view in views)
