"""torchvision's decoder in a Loader: nvJPEG on a GPU, on the CPU its libjpeg-turbo."""

import contextlib

import images
import pytest
import torch
from conftest import devices
from slow_streams import on_host
from test_pipelines_dali import KINDS, assert_same, broken, left, tensor_of

from fastssl import Loader, ops, recipes
from fastssl.data import ImageFolder
from fastssl.pipelines import nvjpeg
from fastssl.pipelines.nvjpeg import NvjpegDecoder, why_not_nvjpeg

CPU = torch.device("cpu")


def mean_limit(device, kind):
    """On the CPU the decoders are the same. nvJPEG repeats subsampled chroma, where libjpeg-turbo interpolates it: that alone
    moves the test's noise by 12 levels on average, and its photographs by 4.4."""
    if device == "cpu":
        return 0
    return 1 if kind in ("4:4:4", "gray") else 13


@pytest.mark.parametrize("device", devices())
def test_pixels_are_those_of_the_cpu(device):
    batch = [left(data, i) for i, data in enumerate(KINDS.values())]
    made = NvjpegDecoder(torch.device(device)).decode(batch)
    for kind, image, decoded in zip(KINDS, batch, made, strict=True):
        assert decoded[3:7] == (0, 0, image.height, image.width)
        assert decoded.owner.data_ptr() == decoded.address and decoded.owner.device.type == device
        strides = (decoded.stride, 1, decoded.plane) if decoded.plane else (decoded.stride, 3, 1)
        pixels = decoded.owner.as_strided((image.height, image.width, 3), strides)
        off = (pixels.cpu().int() - ops.decode(image.data).int()).abs()
        assert off.float().mean() <= mean_limit(device, kind)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("bad", [(0,), (2, 3), (0, 1, 2, 3, 4)], ids=str)
def test_of_a_batch_that_fails_only_the_images_at_fault_are_missing(device, bad):
    decoder = NvjpegDecoder(torch.device(device))
    data = [images.jpeg(images.photo(40 + i, 50, seed=i)) for i in range(5)]
    batch = [
        left(one, i)._replace(data=tensor_of(broken(one))) if i in bad else left(one, i) for i, one in enumerate(data)
    ]
    got = decoder.decode(batch)
    assert [i for i, decoded in enumerate(got) if decoded is None] == list(bad)
    assert None not in decoder.decode([left(one, i) for i, one in enumerate(data)])


def test_a_loader_gives_the_batches_of_the_cpu(photos, tmp_path):
    options = {"batch_size": 5, "epochs": 2, "decode": "full", "on_error": "skip"}
    for i, path in enumerate(sorted(photos.rglob("*.jpg"))):
        data = path.read_bytes()
        (tmp_path / f"{i}.jpg").write_bytes(broken(data) if i == 4 else data[:500] if i == 9 else data)
    source = ImageFolder(tmp_path)
    want = Loader(source, recipes.simclr(16), **options)
    loader = on_host(Loader(source, recipes.simclr(16), **options), NvjpegDecoder(CPU), 0.8)
    assert_same(loader, want)
    assert [str(fault) for fault in loader.errors] == [str(fault) for fault in want.errors] and len(want.errors) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_can_use_it():
    assert why_not_nvjpeg(torch.device("cuda", 0)) is None


def test_why_it_cannot_be_used_is_said():
    assert "decodes on a GPU" in why_not_nvjpeg(CPU)


def test_one_gpu_and_one_name_for_it_in_a_process(monkeypatch):
    """torchvision would make another decoder, and never let go of the first."""
    asked = []
    monkeypatch.setattr(nvjpeg, "_gpu", None)
    monkeypatch.setattr(nvjpeg, "_decode_all", lambda data, device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    assert why_not_nvjpeg(torch.device("cuda")) is None and why_not_nvjpeg(torch.device("cuda", 0)) is None
    assert asked == [torch.device("cuda", 0)] * 2
    assert "serves cuda:0 in this process" in why_not_nvjpeg(torch.device("cuda", 1))


def test_no_memory_is_not_the_images_fault(monkeypatch):
    def fail(data, mode, device):
        raise RuntimeError("Error while decoding JPEG images: CUDA out of memory. Tried to allocate 2.00 MiB.")

    monkeypatch.setattr(torch.ops.image, "decode_jpegs_cuda", fail, raising=False)
    with pytest.raises(torch.OutOfMemoryError, match=r"nvJPEG: .*Tried to allocate"):
        NvjpegDecoder(torch.device("cuda", 0)).decode([left(KINDS["gray"], 0)])
