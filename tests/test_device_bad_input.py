"""Every way in which input can be bad, through every pipeline: policy, errors and batches are those of the Loader on the CPU."""

from __future__ import annotations

import os
from pathlib import Path

import images
import pytest
import torch
from bad_files import BAD, GOOD, UNUSUAL
from conftest import devices
from loading import RECIPE, Memory
from slow_streams import SlowDecoder, SlowStreams, on_host

import fastssl
from fastssl import Loader
from fastssl.data import BytesCollate, ImageFolder
from fastssl.pipelines.nvjpeg import NvjpegDecoder

CPU = torch.device("cpu")
# By name: makes of a Loader, or of what to_device gives, one whose views are made on a device. "gpu": on a real one.
PIPELINES = {
    "cpu": lambda loader: on_host(loader),
    "slow": lambda loader: slowly(loader, share=0.5),
    "nvjpeg": lambda loader: on_host(loader, NvjpegDecoder(CPU)),
    "half": lambda loader: on_host(loader, NvjpegDecoder(CPU), share=0.5),
}
GPU = devices()[-1]
ON_GPU = [pytest.param("gpu cpu", marks=GPU.marks), pytest.param("gpu nvjpeg", marks=GPU.marks)]
NAMES = [*PIPELINES, *ON_GPU]


def slowly(loader, share):
    streams = SlowStreams()
    made = on_host(loader, SlowDecoder(streams, refuses=cannot_be_decoded), share=share, streams=streams)
    made.slow = streams  # for `taken`, which waits for it
    return made


def cannot_be_decoded(image):
    try:
        fastssl.ops.decode(image.data.clone())
    except fastssl.DecodeError:
        return True
    return False


def loader_of(pipeline, source, **options):
    options = {"batch_size": 3, "decode": "full", **options}
    if pipeline.startswith("gpu"):
        return Loader(source, RECIPE, device="cuda", **{**options, "decode": pipeline.split()[1]})
    return PIPELINES[pipeline](Loader(source, RECIPE, **options))


def taken(loader):
    """What comes out of it, with copies of views and targets, and the message of the error that ended it, if one did."""
    batches, error = [], None
    try:
        for batch in loader:
            if hasattr(loader, "slow"):
                copies = []
                loader.slow.read(batch, copies)
                loader.slow.synchronize()
                views, targets = copies[0][:-1], copies[0][-1]
            else:
                views, targets = [view.cpu().clone() for view in batch.views], batch.targets.cpu()
            batches.append((batch.filenames, targets.tolist(), batch.indices.tolist(), batch.params.data, views))
    except (fastssl.DecodeError, TypeError, ValueError) as caught:
        error = f"{type(caught).__name__}: {caught}"
    if hasattr(loader, "slow"):
        loader.slow.end()
    return batches, error


# Decoders may differ by 3 levels of 255 (test_decode.py), which jitter of 0.8 stretches by up to 1.8 each for brightness,
# contrast and saturation, and normalizing divides by 0.224; that is the most. On average it is a tenth of that at most.
FURTHEST = 3 / 255 * 1.8**3 / 0.224
ON_AVERAGE = FURTHEST / 10


def assert_alike(got, want, decoder):
    (got, error), (wanted, wanted_error) = got, want
    assert error == wanted_error
    assert [batch[:3] for batch in got] == [batch[:3] for batch in wanted]
    for (*_, params, views), (*_, wanted_params, wanted_views) in zip(got, wanted, strict=True):
        assert torch.equal(params, wanted_params)
        for view, wanted_view in zip(views, wanted_views, strict=True):
            difference = (view - wanted_view).abs()
            assert difference.max() <= FURTHEST * decoder and difference.mean() <= ON_AVERAGE * decoder


def exact(pipeline):
    """Whether its pixels are those of the CPU's decoder."""
    return pipeline in ("cpu", "slow", "gpu cpu")


def table_that_is_none(data):
    """A Huffman table of first coefficients with a symbol that is none: the headers are read, and decoding fails."""
    at = data.index(b"\xff\xc4") + 5 + 16  # behind marker, length and name, and how many codes of each length there are
    return data[:at] + b"\xc8" + data[at + 1 :]


# What no marker tells of, and only decoding finds out, if that does.
DAMAGED = {
    **BAD,
    "damage within": lambda path: path.write_bytes(GOOD[0][:-60] + bytes(58) + b"\xff\xd9"),
    "a table that is none": lambda path: path.write_bytes(table_that_is_none(GOOD[0])),
    "cut, with an end": lambda path: path.write_bytes(images.jpeg(images.photo(200, 200))[:4000] + b"\xff\xd9"),
}


@pytest.fixture(params=sorted(DAMAGED))
def spoiled(tmp_path, request) -> ImageFolder:
    """Nine good files and, among them, bad.jpg, spoiled after the folder was listed; its index is 4."""
    if request.param == "unreadable" and os.geteuid() == 0:
        pytest.skip("root reads files without permission")
    for i, data in enumerate(GOOD):
        (tmp_path / f"{'a' if i < 4 else 'c'}_{i}.jpg").write_bytes(data)
    (tmp_path / "bad.jpg").write_bytes(GOOD[0])
    source = ImageFolder(tmp_path)
    DAMAGED[request.param](tmp_path / "bad.jpg")
    return source


@pytest.mark.parametrize("pipeline", NAMES)
@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
def test_a_bad_file(spoiled, policy, pipeline):
    options = {"on_error": policy, "epochs": 1 if policy == "raise" else 2}
    want = Loader(spoiled, RECIPE, batch_size=3, decode="full", **options)
    loader = loader_of(pipeline, spoiled, **options)
    assert_alike(taken(loader), taken(want), decoder=not exact(pipeline))
    assert loader.errors == want.errors
    if "nvjpeg" in pipeline and policy != "raise":
        assert loader.stats()["decoding"]["device_images"] >= 2 * 8, "the device had next to nothing to do"


def test_a_table_that_is_none_gets_as_far_as_the_decoder(tmp_path):
    """Else the tests above would show less than they seem to: the decoder fails on it, and the good ones around it are kept."""
    from fastssl._native import _C
    from fastssl.pipelines.decoder import LeftImage

    data = [torch.frombuffer(bytearray(GOOD[i]), dtype=torch.uint8) for i in range(5)]
    data[2] = torch.frombuffer(bytearray(table_that_is_none(GOOD[2])), dtype=torch.uint8)
    assert all(_C.plain_jpeg_size(item.data_ptr(), len(item)) for item in data)
    sizes = [_C.jpeg_size(item.data_ptr(), len(item))[:2] for item in data]
    left = [LeftImage(i, item, *size, (0, 0, *size)) for i, (item, size) in enumerate(zip(data, sizes, strict=True))]
    decoded = NvjpegDecoder(CPU).decode(left)
    assert [image is None for image in decoded] == [False, False, True, False, False]


@pytest.mark.parametrize("pipeline", NAMES)
def test_unusual_files_are_images_like_any_other(tmp_path, pipeline):
    for name, data in UNUSUAL.items():
        (tmp_path / name).write_bytes(data)
    want = Loader(tmp_path, RECIPE, batch_size=4, decode="full")
    loader = loader_of(pipeline, tmp_path, batch_size=4)
    assert_alike(taken(loader), taken(want), decoder=not exact(pipeline))
    assert loader.errors == []


@pytest.mark.parametrize("pipeline", NAMES)
@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_many_bad_files_are_all_listed(tmp_path, policy, pipeline):
    for i in range(40):
        (tmp_path / f"{i:02d}.jpg").write_bytes(GOOD[i % 9] if i % 2 else b"broken")
    source = ImageFolder(tmp_path)
    want = Loader(source, RECIPE, batch_size=7, decode="full", on_error=policy)
    loader = loader_of(pipeline, source, batch_size=7, on_error=policy, threads=3)
    assert_alike(taken(loader), taken(want), decoder=not exact(pipeline))
    assert loader.errors == want.errors and len(want.errors) == 20


@pytest.mark.parametrize("pipeline", NAMES)
@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
def test_nothing_but_bad_files(tmp_path, policy, pipeline):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"broken")
    source = ImageFolder(tmp_path)
    want = Loader(source, RECIPE, batch_size=2, decode="full", on_error=policy)
    loader = loader_of(pipeline, source, batch_size=2, on_error=policy)
    got, wanted = taken(loader), taken(want)
    assert got == wanted and wanted[1].startswith("DecodeError: ")
    assert loader.errors == want.errors


@pytest.mark.parametrize("pipeline", NAMES)
def test_a_source_that_raises_is_a_bad_sample(pipeline):
    items = [*GOOD[:5], ValueError("the disk is on fire"), b"", torch.zeros((3, 3), dtype=torch.uint8)]
    want = Loader(Memory(items), RECIPE, batch_size=3, decode="full", on_error="skip")
    loader = loader_of(pipeline, Memory(items), on_error="skip")
    assert_alike(taken(loader), taken(want), decoder=not exact(pipeline))
    assert loader.errors == want.errors and len(want.errors) >= 2


@pytest.mark.parametrize("pipeline", NAMES)
@pytest.mark.parametrize("sample", [5, (1, 2, 3, 4), (torch.full((3, 4, 4), 7.0), 0), (None, 0), (b"", 0)], ids=str)
def test_samples_that_are_no_samples(sample, pipeline):
    want, got = (taken(Loader([sample], RECIPE, batch_size=1))), taken(loader_of(pipeline, [sample], batch_size=1))
    assert got == want and want[1] is not None


# --- to_device --------------------------------------------------------------------------------------------------------


class Paths(torch.utils.data.Dataset):
    """The files of a folder, as `BytesCollate` takes them."""

    def __init__(self, source: ImageFolder) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[str, int, str]:
        return str(self.source.path(index)), self.source.target(index), self.source.filename(index)


def both(source: ImageFolder, policy: str, pipeline: str | None, batch_size: int = 3):
    """The Loader on the CPU, and to_device, with the same draws: its key is the number that it takes of torch's generator."""
    torch.manual_seed(5)
    seed = int(torch.randint(0, 2**63 - 1, ()))
    torch.manual_seed(5)
    options = {"decode": "full", "on_error": policy}
    want = Loader(source, RECIPE, batch_size=batch_size, seed=seed, shuffle=False, **options)
    bytes_only = torch.utils.data.DataLoader(Paths(source), batch_size=batch_size, collate_fn=BytesCollate())
    if pipeline is not None and pipeline.startswith("gpu"):
        options["decode"] = pipeline.split()[1]
        return fastssl.to_device(bytes_only, RECIPE, "cuda", **options), want
    loader = fastssl.to_device(bytes_only, RECIPE, "cpu", **options)
    return loader if pipeline is None else PIPELINES[pipeline](loader), want


def said(error: str | None) -> str | None:
    """Without the words by which the two tell who they are, and what they count."""
    return error and error.replace("to_device: ", "Loader: ")


@pytest.mark.parametrize("pipeline", [None, *NAMES])
@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
def test_a_bad_file_in_a_dataloader(spoiled, policy, pipeline):
    loader, want = both(spoiled, policy, pipeline)
    (batches, error), (wanted, wanted_error) = taken(loader), taken(want)
    assert [(f.index, Path(f.filename), f.reason) for f in loader.errors] == [
        (f.index, Path(f.filename), f.reason) for f in want.errors
    ]
    assert said(error) == wanted_error
    if policy == "replace" and want.errors:  # it has only its batch to choose from
        assert [batch[2] for batch in batches] == [[0, 1, 2], [3, 5, 5], [6, 7, 8], [9]]
        batches, wanted = [batches[0], *batches[2:]], [wanted[0], *wanted[2:]]
    decoder = pipeline is not None and not exact(pipeline)
    assert_alike((batches, None), (wanted, None), decoder=decoder)


@pytest.mark.parametrize("pipeline", [None, *NAMES])
@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_a_dataloader_of_many_bad_files(tmp_path, policy, pipeline):
    for i in range(40):
        (tmp_path / f"{i:02d}.jpg").write_bytes(GOOD[i % 9] if i % 2 else b"broken")
    loader, want = both(ImageFolder(tmp_path), policy, pipeline, batch_size=7)
    (batches, error), (wanted, _) = taken(loader), taken(want)
    assert error is None and sorted(map(str, loader.errors)) == sorted(map(str, want.errors))
    assert [len(batch[0]) for batch in batches] == [len(batch[0]) for batch in wanted]
    assert all(index % 2 for batch in batches for index in batch[2])


@pytest.mark.parametrize("pipeline", [None, *NAMES])
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_a_dataloader_of_nothing_but_bad_files(tmp_path, policy, pipeline):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"broken")
    loader, want = both(ImageFolder(tmp_path), policy, pipeline, batch_size=2)
    (batches, error), (_, wanted_error) = taken(loader), taken(want)
    assert batches == [] and said(error) == wanted_error
    assert list(map(str, loader.errors)) == list(map(str, want.errors))
