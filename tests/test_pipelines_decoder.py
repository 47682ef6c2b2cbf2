"""What decoders share: what they are given and give, and whose fault an error is."""

import pytest
import torch
from conftest import devices
from loading import Memory, pictures
from slow_streams import HostDecoder, on_host
from torch.utils._python_dispatch import TorchDispatchMode

from fastssl import Loader, recipes
from fastssl.pipelines.decoder import check_device, decoded_of
from fastssl.pipelines.device import Gathered


class Operators(TorchDispatchMode):
    """Names torch's operators, but for those by which numpy's arrays become tensors and the other way round."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function not in (torch.ops.aten.lift_fresh.default, torch.ops.aten.detach.default):
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("planes", [True, False])
@pytest.mark.parametrize("rows, columns", [(1, 1), (5, 7), (1, 9), (9, 1)])
@pytest.mark.parametrize("kind", ["contiguous", "transposed", "part"])
def test_every_layout_is_handed_on(planes, rows, columns, kind):
    shape = (3, rows, columns) if planes else (rows, columns, 3)
    pixels = (torch.arange(3 * rows * columns) % 251).to(torch.uint8).view(shape)
    if kind == "transposed":  # the other layout in memory
        pixels = pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1) if planes else (
            pixels.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        )  # fmt: skip
    elif kind == "part":
        wide = torch.zeros([side + 2 for side in shape], dtype=torch.uint8)
        part = wide[1:-1, 1:-1, 1:-1]
        part.copy_(pixels)
        pixels = part
    decoded = decoded_of(pixels, planes, top=2, left=3)
    assert decoded[3:7] == (2, 3, rows, columns)
    assert decoded.owner.data_ptr() == decoded.address
    image = pixels.permute(1, 2, 0) if planes else pixels
    step, plane = (1, decoded.plane) if decoded.plane else (3, 1)
    assert torch.equal(torch.as_strided(decoded.owner, (rows, columns, 3), (decoded.stride, step, plane)), image)


@pytest.mark.parametrize("planes", [True, False])
def test_what_decoders_give_is_handed_on_without_an_operator(planes):
    """The next batch waits for it: 256 images by strides are 1 ms, of the 19 ms that an engine takes for them."""
    pixels = torch.zeros((3, 5, 7) if planes else (5, 7, 3), dtype=torch.uint8)
    with Operators() as operators:
        decoded = decoded_of(pixels, planes)
    assert operators.names == [] and decoded.owner is pixels


@pytest.mark.parametrize("small", [True, False])  # the first batch of large files has memory beside its block
def test_what_is_left_encoded_is_listed_without_an_operator(monkeypatch, small):
    counts, data = [], pictures(8)
    if not small:
        monkeypatch.setattr("fastssl.pipelines.device._FIRST_ENCODED", 256)
    left = Gathered.left

    def counting(self):
        with Operators() as operators:
            images = left(self)
        counts.append((operators.names, len(images)))
        assert [bytes(image.data.numpy()) for image in images] == [data[image.position] for image in images]
        assert all(image.data.dtype == torch.uint8 and image.data.device.type == "cpu" for image in images)
        return images

    monkeypatch.setattr(Gathered, "left", counting)
    loader = on_host(Loader(Memory(data), recipes.simclr(16), batch_size=8, shuffle=False), HostDecoder())
    assert [len(batch) for batch in loader] == [8]
    assert counts[0][0] == [] and counts[0][1] > 4


def test_an_error_waits_for_what_decodes_and_not_for_training(monkeypatch):
    waited = []

    class Stream:
        def synchronize(self):
            waited.append("stream")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append("device"))
    check_device("DALI", torch.device("cuda", 0), RuntimeError("a bad image"))
    assert waited == ["stream"]
    check_device("DALI", torch.device("cpu"), RuntimeError("a bad image"))
    assert waited == ["stream"]


@pytest.mark.parametrize("device", devices()[-1:])
def test_a_bad_image_does_not_wait_for_training(device):
    device = torch.device(device)
    busy = torch.cuda.Stream(device)
    with torch.cuda.stream(busy):
        torch.cuda._sleep(2_000_000_000)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        check_device("DALI", device, RuntimeError("a bad image"))
    assert not busy.query(), "it waited for another stream"
    busy.synchronize()
