"""Ragged batches of DALI's: what comes, failures, ends; on the CPU by its CPU backend."""

import gc
import threading
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import devices
from loading import Memory, pictures
from test_pipelines_dali import LEVELS, everything, small  # noqa: F401
from test_pipelines_dali_readers import READERS, archives, batches_of, names, source  # noqa: F401

import fastssl
from fastssl import DecodeError, Loader, Plan, ops, recipes
from fastssl.data import ArraySource, ImageFolder, SourceReader
from fastssl.pipelines import DaliBatches, FileReader, WebdatasetReader
from fastssl.pipelines.dali_modules import why_not_dali
from fastssl.transforms import GPUViews

pytestmark = pytest.mark.skipif(why_not_dali() is not None, reason=str(why_not_dali()))

# --- what comes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("reader", READERS)
def test_each_image_comes_once_with_its_target_and_name(source, reader, device):  # noqa: F811
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
def test_they_go_straight_into_render_and_gpu_views(source, device):  # noqa: F811
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
def test_a_batch_that_is_kept_stays_as_it_is(source, device):  # noqa: F811
    kept, copies = [], []
    for _ in range(2):
        for pixels, _, _ in batches_of(FileReader(source), device):
            kept += pixels
            copies += [image.clone() for image in pixels]
    gc.collect()
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


class Event:
    def __init__(self, waited):
        self.waited = waited

    def query(self):
        return False

    def synchronize(self):
        self.waited.append(self)


def test_the_host_is_no_more_than_some_batches_ahead_of_a_gpu(source, monkeypatch):  # noqa: F811
    """Each batch that the device has not come to yet takes memory of it."""
    iteration = iter(batches_of(FileReader(source)))
    made, waited = [], []

    def record_event():
        made.append(Event(waited))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(record_event=record_event))
        patch.setattr(iteration, "_owner", SimpleNamespace(device=torch.device("cuda", 0)))
        for _ in range(5):
            iteration._hold(None)
        assert waited == made[:3]
    iteration.close()
    assert waited == made


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_on_a_gpu_is_free_again_only_when_its_use_is_done(source):  # noqa: F811
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
            if index == 5:
                raise KeyError("lost")

            return super().fetch(index)

    seen = []
    with pytest.raises(KeyError, match="lost"):
        for _, _, filenames in batches_of(SourceReader(Broken(pictures(7))), batch_size=2):
            seen += filenames
    assert len(seen) == 4, "batches before the mistake come first"


def test_a_reader_that_cannot_begin():
    class Broken:
        def count(self, batch_size):
            return 1

        def batches(self, epoch, batch_size, threads):
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        iter(batches_of(Broken()))
    gc.collect()  # pytest fails the test for what a finalizer raises


# --- ends ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [*READERS, "archives"])
@pytest.mark.parametrize("end", ["break", "close", "garbage", "exception", "at once", "all"])
def test_every_end_is_clean(source, archives, reader, end):  # noqa: F811
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


def test_the_garbage_collector_may_come_on_any_thread(source):  # noqa: F811
    """Also on one that the end of an iteration would wait for."""
    before = threading.active_count()
    batches = batches_of(FileReader(source))
    for _ in range(5):
        iteration = iter(batches)
        next(iteration)
        iteration._pool.submit(iteration.close).result(60)
        assert next(iteration, None) is None
        del iteration
    for _ in range(600):
        if threading.active_count() <= before:
            break
        time.sleep(0.1)
    else:
        pytest.fail("threads stay behind")
    assert len(names(batches)) == len(source)
    reading = SourceReader(source).batches(0, 4, 2)
    next(reading)
    reading.gi_frame.f_locals["pool"].submit(reading.close).result(60)
    assert next(reading, None) is None


def test_two_iterations_at_once(source):  # noqa: F811
    batches = batches_of(FileReader(source))
    pairs = list(zip(batches, batches, strict=True))
    assert len(pairs) == len(batches) and all(a.filenames == b.filenames for a, b in pairs)


# --- arguments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call, words", [
    (lambda: DaliBatches(3, device="cpu"), r"got int; .*FileReader\(files\).*SourceReader"),
    (lambda: batches_of(FileReader(["a.jpg"]), batch_size=0), "batch_size=0"),
    (lambda: batches_of(FileReader(["a.jpg"] * 7, num_shards=2, drop_last=True)), "no batch of 4 is full"),
    (lambda: batches_of(FileReader(["a.jpg"]), "abacus"), "device='abacus'"),
    (lambda: batches_of(FileReader(["a.jpg"]), "meta"), 'device="meta"'),
    (lambda: batches_of(FileReader(["a.jpg"]), on_error="hide"), "on_error='hide'"),
    (lambda: DaliBatches(FileReader(["a.jpg"]), device="cpu", threads=0), "threads=0"),
    (lambda: batches_of(FileReader(["a.jpg"])).set_epoch(-1), "epoch=-1"),
    (lambda: FileReader("photos/"), r"got 'photos/'; .*ImageFolder"),
    (lambda: FileReader(3), "got 3"),
    (lambda: FileReader([]), "the list of files is empty"),
    (lambda: FileReader([("a.jpg", 0)]), r"image 0 is tuple and no path of a file; .*SourceReader\(source\)"),
    (lambda: FileReader(ArraySource(np.zeros((2, 8, 8, 3), dtype=np.uint8))), "image 0 is NoneType and no path"),
    (lambda: FileReader(["a", "b"], [1]), "2 files need as many targets, got 1"),
    (lambda: FileReader(["a"], seed=-1), "FileReader: seed=-1"),
    (lambda: FileReader(["a"], num_shards=0), "num_shards=0"),
    (lambda: FileReader(["a"], shard_id=2, num_shards=2), "shard_id=2 must be a whole number, from 0 to 1"),
    (lambda: WebdatasetReader("a.tar"), "got 'a.tar'; it takes a list"),
    (lambda: WebdatasetReader([]), "the list of archives is empty"),
    (lambda: WebdatasetReader(["\udcff.tar"]), "is not UTF-8"),
    (lambda: WebdatasetReader(["a"], initial_fill=0), "initial_fill=0"),
    (lambda: WebdatasetReader(["a"], images="jpg"), r"images='jpg' must be a list of extensions.*\('jpg', 'png'\)"),
    (lambda: WebdatasetReader(["a"], images=[".jpg"]), "without a dot"),
    (lambda: WebdatasetReader(["a"], targets=["CLS"]), "targets=.*lower case"),
    (lambda: SourceReader([]), "the source is empty"),
    (lambda: SourceReader(iter([])), "can only be iterated over"),
])  # fmt: skip
def test_arguments_are_checked(call, words):
    with pytest.raises((ValueError, TypeError), match=f"(?s){words}"):
        call()


def test_the_recipe_of_a_loader_is_not_needed(source):  # noqa: F811
    """Images of any sizes to a method's own views: those of each recipe fit."""
    (pixels, _, _) = next(iter(batches_of(FileReader(source))))
    for name in ("dino", "wmse", "evaluation"):
        views = fastssl.transforms.GPUViews(small(name))([image.permute(2, 0, 1) for image in pixels])
        assert all(view.shape == (4, 3, 16, 16) for view in views)
