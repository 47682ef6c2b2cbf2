"""Choosing who decodes, and moving the share at run time."""

import gc
import importlib.util
import io
import logging
import os
import sys
import types
import weakref

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
    assert choice.balanced == (choice.decoder is not None), "also the whole, which training may have less use for"
    assert choice.rates["cpu"] == cpu and len(choice.rates) == 1 + 2 * len(device)
    assert choice.describe()["by"] == want and 0 <= choice.busy["cpu"] <= 1
    (record,) = caplog.records
    assert f"by {want}:" in record.getMessage() and f"cpu {cpu:,}" in record.getMessage()
    assert "before it was measured, the CPU was busy by" in record.getMessage()


IMAGES = 256  # of a batch
NO_WORK = 1e12  # images a second of a consumer that does nothing with them


def run(cpu, device, consumer, share, ahead=2, slows=0.0, batches=2000, fixed=False, pauses=()):
    """The shares, the consumer's waits and the seconds of a pipeline; no time passes.

    Args:
        cpu, device, consumer: Images a second of each, if it had to wait for nobody.
        share: To begin with.
        ahead: Batches that are gathered before they are asked for; they keep the share of their time.
        slows: Seconds of the consumer that each image of the device takes.
        pauses: Batches for which the CPU takes a second longer.
    """
    balance = Balance(share, fixed)
    cpu_done = device_done = now = before = 0.0
    under_way, shares, waits = [], [], []
    for number in range(batches):
        while len(under_way) <= ahead:
            left = balance.leave(IMAGES)
            cpu_done = max(cpu_done, now) + (IMAGES - left) / cpu + (number in pauses)
            device_done = max(device_done, cpu_done) + left / device
            under_way.append((balance.share, left, cpu_done, device_done))
        gathered_with, left, _, there = under_way.pop(0)
        waited = max(0.0, there - now)
        now += waited
        if number:
            balance.note(now - before, waited, under_way[0][2] > now, IMAGES, gathered_with)
        before = now
        shares.append(balance.share)
        waits.append(waited)
        now += IMAGES / consumer + left * slows
    return shares, waits, now


# Of training: with all images decoded on the device it loses 11.6 %.
TRAINING = {"consumer": 2000, "slows": 0.131 / 2000}


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("cpu, ahead", [(8000, 2), (2050, 2), (8000, 8)])
def test_a_cpu_that_keeps_up_soon_decodes_all(share, cpu, ahead):
    shares, waits, seconds = run(cpu, 9400, share=share, ahead=ahead, **TRAINING)
    assert shares.index(0.0) <= 20 and not any(shares[20:])
    assert not any(waits[20:])
    assert seconds < 1.001 * 2000 * IMAGES / 2000


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_the_device_takes_what_the_cpu_cannot_and_little_more(share, ahead):
    shares, waits, seconds = run(1200, 9400, share=share, ahead=ahead, **TRAINING)
    assert sum(waits) < 0.02 * seconds
    # At 0.37 the CPU is as fast as training, which the device slows down a little; it is less only while less is tried.
    assert 0.35 < sum(shares[500:]) / 1500 < 0.43
    assert min(shares[500:]) > 0.25 and max(shares[500:]) < 0.45


def test_a_cpu_that_is_nearly_fast_enough_costs_next_to_nothing():
    shares, waits, seconds = run(1950, 9400, share=1.0, **TRAINING)
    assert max(shares[100:]) < 0.06 and sum(waits) < 0.005 * seconds


@pytest.mark.parametrize("ahead", [1, 2, 4])
@pytest.mark.parametrize("cpu, device", [(1000, 3000), (3000, 1000), (8000, 9400), (500, 9400)])
def test_who_only_decodes_has_the_fastest(cpu, device, ahead):
    rates = {"consumer": NO_WORK, "ahead": ahead}
    best = min(run(cpu, device, share=i / 50, fixed=True, batches=500, **rates)[2] for i in range(51)) * 4
    for share in (1.0, device / (cpu + device)):  # either may be where `choose` has it begin
        shares, _, seconds = run(cpu, device, share=share, **rates)
        assert seconds < best / 0.9
        assert abs(sum(shares[500:]) / 1500 - device / (cpu + device)) < 0.03
        assert max(shares[500:]) - min(shares[500:]) < 0.05, "it swings"


def test_a_pause_costs_little_and_is_forgotten():
    shares, _, seconds = run(8000, 9400, share=1.0, pauses=(300,), **TRAINING)
    _, _, without = run(8000, 9400, share=1.0, **TRAINING)
    assert 0 < max(shares[300:]) < 0.15 and shares[-1] == 0.0
    assert seconds < without + 3


def test_what_a_wait_does():
    balance = Balance(0.4, fixed=False)
    balance.note(1.0, 0.01, True, 100, 0.4)
    assert balance.share == pytest.approx(0.3), "less than 2 % is no wait: a quarter less"
    balance.note(1.0, 0.05, True, 100, 0.4)
    assert balance.share == pytest.approx(0.43), "5 % of what the CPU did of that batch, which was gathered with 0.4"
    balance.note(1.0, 0.5, False, 100, 0.3)
    balance.note(1.0, 0.0, False, 100, 0.3)
    assert balance.share == pytest.approx(0.43), "no batch that was gathered with it has come"
    for _ in range(100):
        balance.note(1.0, 0.0, False, 100, balance.share)
    assert balance.share == pytest.approx(0.43), "it stays"
    balance.note(1.0, 0.0, False, 100, balance.share)
    assert balance.share == pytest.approx(0.42), "and then goes by one image"
    balance.note(1.0, 0.9, False, 100, balance.share)
    assert balance.share == pytest.approx(0.42 - 0.0575 / 2), "by half a step, as it turns"


def test_a_fixed_share_stays():
    balance = Balance(0.3, fixed=True)
    balance.note(1.0, 0.9, True, 10, 0.3)
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


@pytest.mark.parametrize("device, goes", [("cuda", True), ("cpu", False)])
def test_what_a_candidate_had_of_the_device_is_let_go_of_before_the_next(monkeypatch, device, goes):
    """Each has streams of its own, and torch gives what one stream had to no other: they would add up."""
    happened = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: happened.append("let go"))

    def measure(choice):
        happened.append(str(choice))
        return machine(1000, {"nvjpeg": 3000, "dali": 1000})(choice)

    choose.choose(measure, ["nvjpeg", "dali"], torch.device(device))
    candidates = ["cpu", "nvjpeg", "nvjpeg 75%", "dali", "dali 50%"]
    assert happened == [what for name in candidates for what in (name, *["let go"] * goes)]


def test_nor_does_one_that_fails_keep_any(monkeypatch):
    """Its error holds the frames that it went through, and the batches that they hold, which hold the error."""

    class Batches:
        pass

    there, at_the_end = [], []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: at_the_end.append([ref() for ref in there]))

    def measure(choice):
        if choice.decoder is None:
            return 1000.0
        batches = Batches()
        there.append(weakref.ref(batches))
        try:
            raise torch.OutOfMemoryError("no memory left")
        except torch.OutOfMemoryError as error:
            batches.error = error
            raise

    gc.disable()
    try:
        assert choose.choose(measure, ["nvjpeg"], torch.device("cuda")).decoder is None
    finally:
        gc.enable()
    assert at_the_end == [[], [None]]


def test_that_the_cpu_alone_fails_is_no_reason_to_go_on():
    def measure(choice):
        raise RuntimeError("the device is full")

    with pytest.raises(RuntimeError, match="the device is full"):
        choose.choose(measure, ["nvjpeg"], CPU)


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


def proc_stat(monkeypatch, *moments):
    """What /proc/stat says, moment by moment: the fields of CPUs 0, 1 ..."""
    left = iter(moments)

    def file(path: str) -> io.StringIO:
        assert path == "/proc/stat"
        cpus = next(left)
        lines = ["cpu " + " ".join(str(sum(fields)) for fields in zip(*cpus, strict=True))]
        lines += [f"cpu{number} " + " ".join(map(str, fields)) for number, fields in enumerate(cpus)]
        return io.StringIO("\n".join([*lines, "intr 5 0 0", "ctxt 7"]) + "\n")

    monkeypatch.setattr(choose, "open", file, raising=False)


@pytest.mark.parametrize("later, busy", [("0 0 0 30 -15", 0.0), ("10 0 0 5 5", 0.5), ("0 0 0 0 0", None)])
def test_how_busy_the_cpu_is_where_the_time_of_waiting_runs_backwards(monkeypatch, later, busy):
    """As proc(5) says that it may."""
    proc_stat(monkeypatch, [[100] * 5], [[100 + int(number) for number in later.split()]])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert choose._cpu_busy(0.0) == busy


@pytest.mark.parametrize("mine, busy", [({0}, 0.0), ({1}, 1.0), ({2}, 0.5), ({10, 11}, 0.25), ({0, 1, 2}, 0.5)])
def test_only_cpus_that_the_process_may_use_are_looked_at(monkeypatch, mine, busy):
    """Of a machine of 12, where others keep 1 busy, and 2, 10 and 11 in part; cpu1 is not cpu10."""
    work = {1: 20, 2: 10, 10: 10}
    before = [[100, 0, 0, 1000, 0, 0, 0, 0, 0, 0] for _ in range(12)]
    after = [[100 + work.get(i, 0), 0, 0, 1020 - work.get(i, 0), 0, 0, 0, 0, 0, 0] for i in range(12)]
    proc_stat(monkeypatch, before, after)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: mine)
    assert choose._cpu_busy(0.0) == busy


def test_how_busy_they_are_is_not_known_where_the_system_names_other_cpus(monkeypatch):
    """As in a container that numbers its own from 0."""
    proc_stat(monkeypatch, [[1, 0, 0, 1, 0]], [[2, 0, 0, 2, 0]])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {64})
    assert choose._cpu_busy(0.0) is None
