"""Choosing who decodes, and moving the share at run time."""

import importlib.util
import logging
import sys
import types

import pytest
import torch
from images import jpeg, photo, png
from loading import Memory

import fastssl
from fastssl import Loader, recipes
from fastssl.data.device_choice import DeviceChoice, images_per_second
from fastssl.pipelines import Choice, choose
from fastssl.pipelines.balance import Balance

CPU = torch.device("cpu")


def machine(cpu, device, both=1.0):
    """Images a second of a machine whose CPU and device decode so many; `both` is what is left when they do at once."""

    def measure(choice):
        if choice.decoder is None:
            return cpu
        if choice.share == 1:
            return device[choice.decoder]
        return both * min(cpu / (1 - choice.share), device[choice.decoder] / choice.share)

    return measure


@pytest.mark.parametrize("cpu, device, both, want", [
    (1000, {"nvjpeg": 4000}, 1.0, "nvjpeg 80%"),
    (1000, {"nvjpeg": 4000}, 0.5, "nvjpeg"),
    (9000, {"nvjpeg": 3000}, 0.7, "cpu"),
    (9000, {"nvjpeg": 3000}, 1.0, "nvjpeg 25%"),
    (1000, {"nvjpeg": 1020}, 0.5, "cpu"),  # 2 % are not worth the device's time
    (1000, {"nvjpeg": 2000, "dali": 5000}, 0.6, "dali"),
    (1000, {"nvjpeg": 5000, "dali": 2000}, 0.6, "nvjpeg"),
    (1000, {}, 1.0, "cpu"),
])  # fmt: skip
def test_the_fastest_is_chosen(caplog, cpu, device, both, want):
    with caplog.at_level(logging.INFO, "fastssl"):
        choice = choose.choose(machine(cpu, device, both), list(device), CPU)
    assert str(choice) == want
    assert choice.balanced == (0 < choice.share < 1)
    assert choice.rates["cpu"] == cpu and len(choice.rates) == 1 + 2 * len(device)
    assert choice.describe()["by"] == want and 0 <= choice.busy["cpu"] <= 1
    (record,) = caplog.records
    assert f"by {want}:" in record.getMessage() and f"cpu {cpu:,}" in record.getMessage()


def settle(cpu, device, demand, share, batches=400, images=256):
    """The last shares of a pipeline whose consumer takes at most `demand` images a second."""
    balance = Balance(share, fixed=False)
    shares, waits = [], []
    for _ in range(batches):
        left = balance.leave(images)
        by_cpu, by_device, work = (images - left) / cpu, left / device, images / demand
        seconds = max(by_cpu, by_device, work)
        waited = seconds - work
        waited_cpu = waited if by_cpu >= by_device else 0.0
        balance.note(seconds, waited_cpu, waited - waited_cpu, images)
        shares.append(balance.share)
        waits.append(waited / seconds)
    return shares[-100:], waits[-100:]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_finds_the_balance(share):
    shares, waits = settle(cpu=1000, device=3000, demand=1e9, share=share)
    assert min(shares) > 0.65 and max(shares) < 0.85  # 0.75 is where both take as long
    shares, waits = settle(cpu=4000, device=3000, demand=2000, share=share)
    assert max(shares) < 0.05, "the CPU keeps up alone"
    shares, waits = settle(cpu=1000, device=3000, demand=2000, share=share)
    assert min(shares) > 0.45 and max(shares) < 0.65, "the device takes what the CPU cannot, and little more"
    assert sum(waits) / len(waits) < 0.05


def test_a_fixed_share_stays():
    balance = Balance(0.3, fixed=True)
    balance.note(1.0, 0.9, 0.0, 10)
    assert balance.share == 0.3 and balance.leave(10) == 3


@pytest.mark.parametrize("arguments, words", [
    ({"decoder": "jpeg2000"}, "decoder='jpeg2000'"),
    ({"decoder": "dali", "share": 1.5}, "share=1.5"),
])  # fmt: skip
def test_bad_choices(arguments, words):
    with pytest.raises(ValueError, match=words):
        Choice(**arguments)


@pytest.mark.parametrize("decode", ["nvjpeg", "dali", Choice(decoder="nvjpeg", share=0.5)])
def test_a_decoder_of_the_device_needs_one(photos, decode):
    with pytest.raises(ValueError, match=r'decodes on a GPU, and the device is "cpu"'):
        Loader(photos, recipes.simclr(16), decode=decode)


@pytest.mark.parametrize("decode", ["fast", 3, None, ""])
def test_decode_is_checked(photos, decode):
    with pytest.raises(ValueError, match="must be one of 'auto', 'full', 'cpu', 'nvjpeg', 'dali'"):
        Loader(photos, recipes.simclr(16), decode=decode)


@pytest.mark.parametrize("options, words", [
    ({"cache": "ram"}, "the cache keeps what the CPU has decoded"),
    ({"image_step": lambda image: image}, "image_step gets what the CPU has decoded"),
])  # fmt: skip
def test_what_only_the_cpu_can_do(photos, options, words):
    with pytest.raises(ValueError, match=words):
        Loader(photos, recipes.simclr(16), device="cuda", decode="nvjpeg", **options)


def test_no_nvjpeg_without_a_gpu():
    assert "decodes on a GPU" in choose.why_not_decoder("nvjpeg", CPU)
    with pytest.raises(RuntimeError, match=r"decode='nvjpeg': .*write decode='cpu'"):
        choose.make_decoder("nvjpeg", CPU, 4, 1)


# --- what may go wrong while measuring --------------------------------------------------------------------------------


def test_a_decoder_without_memory_is_left_out(caplog):
    """On a device that is nearly full it fails where training would not: then it is no candidate, and the log says so."""

    def measure(choice):
        if choice.decoder == "nvjpeg":
            raise torch.OutOfMemoryError("no memory left")
        return machine(1000, {"dali": 3000})(choice)

    with caplog.at_level(logging.INFO, "fastssl"):
        assert str(choose.choose(measure, ["nvjpeg"], CPU)) == "cpu"
        choice = choose.choose(measure, ["nvjpeg", "dali"], CPU)
    assert str(choice) == "dali 75%" and choice.rates["nvjpeg"] == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2 and "nvjpeg is left out" in warnings[0] and "no memory left" in warnings[0]


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A DeviceChoice that believes in a GPU with nvJPEG, and gives its choice in place of a device."""
    module = sys.modules[DeviceChoice.__module__]
    monkeypatch.setattr(module, "why_not", lambda device: None)
    monkeypatch.setattr(module, "why_not_decoder", lambda name, device: None if name == "nvjpeg" else "absent")
    monkeypatch.setattr(DeviceChoice, "_make", lambda self, choice: choice)
    return lambda decode="auto": DeviceChoice("Loader", torch.device("cuda"), decode, 4, 2, 1, None)


def plain():
    return True


def test_what_cannot_be_measured_is_measured_the_next_time(on_a_gpu):
    """Where not one image can be read, that is for the iteration to say, by its policy; and nothing is chosen by it."""

    def unreadable(choice):
        raise fastssl.DecodeError("none of 4 samples can be read")

    device = on_a_gpu()
    assert device.take(unreadable, plain).decoder is None and device.choice is None
    assert str(device.take(machine(1000, {"nvjpeg": 4000}, 0.5), plain)) == "nvjpeg"
    assert device.choice is not None and str(device.take(unreadable, plain)) == "nvjpeg", "it is measured once"


def test_what_is_named_is_not_measured(on_a_gpu):
    def never(choice):
        raise AssertionError("measured")

    for decode, want in (
        ("nvjpeg", "nvjpeg"),
        ("cpu", "cpu"),
        ("full", "cpu"),
        (Choice(decoder="nvjpeg", share=0.5), "nvjpeg 50%"),
    ):
        assert str(on_a_gpu(decode).take(never, plain)) == want


def test_a_gpu_that_does_not_tell_how_busy_it_is(monkeypatch):
    """NVIDIA's library has errors of its own, which are no RuntimeErrors: on a part of a GPU (MIG) there is no such figure."""

    class NVMLError(Exception):
        pass

    def refuse(device):
        raise NVMLError("Not Supported")

    gpu = torch.device("cuda", 0)
    monkeypatch.setitem(sys.modules, "pynvml", types.SimpleNamespace(NVMLError=NVMLError))
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 40)
    assert choose._gpu_busy(gpu) == 0.4
    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    assert choose._gpu_busy(gpu) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert choose._gpu_busy(gpu) is None


def test_without_any_package_of_nvidia_there_is_no_dali(monkeypatch):
    def find_spec(name):
        raise ModuleNotFoundError("No module named 'nvidia'")

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert "DALI is not installed" in choose.why_not_decoder("dali", torch.device("cuda"))


def test_nvjpeg_says_why_it_cannot():
    """Here torchvision finds no driver, or has no such operator; either is a reason and no crash."""
    if torch.cuda.is_available():
        pytest.skip("here it can")
    assert "cannot decode on cuda" in choose.why_not_decoder("nvjpeg", torch.device("cuda"))


def test_nothing_is_measured_where_nothing_can_be_left_to_the_device(on_a_gpu, caplog):
    def never(choice):
        raise AssertionError("measured")

    with caplog.at_level(logging.INFO, "fastssl"):
        assert on_a_gpu().take(never, lambda: False).decoder is None
    assert "none is a baseline JPEG" in caplog.text


@pytest.mark.parametrize(
    "kind, want", [("JPEG", True), ("PNG", False), ("pixels", False), ("broken", False), ("paths", True)]
)
def test_a_loader_looks_at_a_few_samples(photos, kind, want):
    samples = {
        "JPEG": Memory([png(photo(20, 20)), jpeg(photo(20, 20))]),
        "PNG": Memory([png(photo(20, 20))]),
        "pixels": [(photo(20, 20), 0)] * 3,
        "broken": Memory([b"", jpeg(photo(20, 20))[:-50], OSError("gone"), KeyError("a mistake")]),
        "paths": photos,
    }[kind]
    assert Loader(samples, recipes.simclr(16))._has_plain() == want


def test_a_loader_measures_a_few_hundred_images_evenly(photos, monkeypatch):
    seen = []
    module = sys.modules[Loader.__module__]
    monkeypatch.setattr(
        module, "images_per_second", lambda batches, device, warm_up: seen.append((batches, warm_up)) or 1.0
    )
    loader = Loader(photos, recipes.simclr(16), batch_size=7, threads=2, dtype=torch.float16)
    assert loader._measure(Choice(decoder=None)) == 1.0
    ((measured, warm_up),) = seen
    assert warm_up == len(measured.source) == 23 and measured.epochs * 23 >= 512 + 23
    assert (measured.batch_size, measured.threads, measured.dtype, measured.on_error) == (7, 2, torch.float16, "skip")
    assert loader._evenly(5) == [0, 6, 11, 16, 22]


class Clock:
    """Batches of 10 images that take so many seconds each, by a clock that they move."""

    def __init__(self, monkeypatch, seconds):
        self.now, self.seconds, self.taken = 0.0, seconds, 0
        module = sys.modules[images_per_second.__module__]
        monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: self.now))

    def __iter__(self):
        for seconds in self.seconds:
            self.now += seconds
            self.taken += 1
            yield range(10)


@pytest.mark.parametrize("seconds, warm_up, want, taken", [
    ([1.0, 1.0, 0.1, 0.1], 20, 100, 4),  # the first two are cold
    ([1.0, 1.0], 20, 10, 2),  # there is no more
    ([0.5], 5, 20, 1),
    ([3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 1000, 10, 7),  # neither part takes for ever
])  # fmt: skip
def test_what_is_cold_does_not_count(monkeypatch, seconds, warm_up, want, taken):
    clock = Clock(monkeypatch, seconds)
    assert images_per_second(clock, CPU, warm_up) == pytest.approx(want)
    assert clock.taken == taken
