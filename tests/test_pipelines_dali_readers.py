"""What hands images to DALI's pipelines: DALI's own readers and ours, order and shares, archives."""

import io
import os
import tarfile

import images
import numpy as np
import pytest
import torch
from loading import Memory, pictures

import fastssl
from fastssl import DecodeError, Loader, ops, recipes
from fastssl.data import ArraySource, ImageFolder, SourceReader
from fastssl.pipelines import DaliBatches, FileReader, WebdatasetReader, dali_readers
from fastssl.pipelines.dali_modules import why_not_dali

pytestmark = pytest.mark.skipif(why_not_dali() is not None, reason=str(why_not_dali()))

READERS = {"files": FileReader, "source": SourceReader}


def batches_of(reader, device="cpu", batch_size=4, **options):
    return DaliBatches(reader, batch_size=batch_size, device=device, threads=2, **options)


def names(batches):
    return [name for _, _, filenames in batches for name in filenames]


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


# --- sources -----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("make", [
    lambda folder: SourceReader(ArraySource(np.zeros((2, 8, 8, 1), dtype=np.uint8))),
    lambda folder: SourceReader(ArraySource(np.zeros((2, 8, 8, 3), dtype=np.uint16))),
    lambda folder: FileReader(ImageFolder(folder, mode="unchanged")),
], ids=["gray", "16 bits", "unchanged"])  # fmt: skip
def test_images_that_are_not_rgb_are_refused(photos, make):
    with pytest.raises(ValueError, match=r"Reader: .*8-bit RGB.*fastssl\.Loader"):
        make(photos)


def test_an_array_is_never_written_to(tmp_path):
    """Neither one that must not be, which is mapped into memory, nor another, whatever is done to a batch."""
    array = np.random.default_rng(0).integers(0, 255, (6, 9, 7, 3), dtype=np.uint8)
    np.save(tmp_path / "array.npy", array)
    for stored in (np.load(tmp_path / "array.npy", mmap_mode="r"), array.copy()):
        for pixels, _, _ in batches_of(SourceReader(ArraySource(stored))):
            for image in pixels:
                image.zero_()
        assert np.array_equal(stored, array)


def test_files_of_any_source(source):
    """As it gives them itself, not as its folder lists them."""

    class Halved(ImageFolder):
        def target(self, index):
            return 10 * super().target(index)

    some = fastssl.data.Subset(Halved(source.root), [7, 0, 5])
    ((_, targets, filenames),) = batches_of(FileReader(some))
    assert filenames == [source.filename(i) for i in (7, 0, 5)]
    assert targets.tolist() == [10 * source.targets[i] for i in (7, 0, 5)]


def test_encoded_data_of_another_type_is_a_bad_sample():
    class Floats(Memory):
        def fetch(self, index):
            return torch.zeros(5) if index else super().fetch(0)

    batches = batches_of(SourceReader(Floats(pictures(3))), on_error="skip")
    assert [len(pixels) for pixels, _, _ in batches] == [1]
    assert all("must be uint8" in fault.reason for fault in batches.errors) and len(batches.errors) == 2


# --- order and shares ---------------------------------------------------------------------------------------------------


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
        WebdatasetReader(archives, shuffle=True, shard_id=i, num_shards=shards, drop_last=drop_last, initial_fill=3)
        if reader == "archives"
        else READERS[reader](source, shuffle=True, shard_id=i, num_shards=shards, drop_last=drop_last)
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
    with pytest.raises(ValueError, match=r"Reader: num_shards=20 is more than there are samples, (13|12|3)"):
        make(archives, num_shards=20)


def test_dali_reads_what_can_be_read(source, monkeypatch):
    """And not the stand-in for what it cannot."""
    monkeypatch.setattr(dali_readers, "_read", lambda path: pytest.fail(f"{path} was not read by DALI"))
    assert len(names(batches_of(FileReader(source)))) == len(source)


def test_names_that_are_no_text(tmp_path, monkeypatch):
    """Their batches are read without DALI, and no others."""
    by_hand, read = [], dali_readers._read
    monkeypatch.setattr(dali_readers, "_read", lambda path: (by_hand.append(os.path.basename(path)), read(path))[1])
    names_ = [os.fsdecode(name) for name in (b"a b.jpg", b"c.jpg", b"\xc3\xa4\n.jpg", b"\xff\xfe.jpg", b"z.jpg")]
    for name, data in zip(names_, pictures(5), strict=True):
        (tmp_path / name).write_bytes(data)
    files = [tmp_path / name for name in names_]
    for _ in range(2):
        assert [os.path.basename(name) for name in names(batches_of(FileReader(files), batch_size=2))] == names_
    assert by_hand == [*names_[2:4]] * 2


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
    seen = []
    with pytest.raises(DecodeError, match="WebdatasetReader: DALI cannot go on"):
        for pixels, _, _ in batches_of(reader):
            seen += pixels
    assert len(seen) == 4, "batches that are whole come before the error"


def test_archives_without_samples(tmp_path):
    path = str(write_archive(tmp_path / "a.tar", [("readme.txt", b"nothing")]))
    with pytest.raises(ValueError, match=r"no sample in 1 archives.*jpg"):
        WebdatasetReader([path])
