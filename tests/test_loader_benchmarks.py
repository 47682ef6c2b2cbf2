"""What benchmarks/stall.py and gpu_decode.py do that needs no GPU: their contenders on the CPU, checks, targets and tables."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import images
import numpy as np
import PIL.Image
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gather  # noqa: E402 - of the folder above
import gpu_decode  # noqa: E402
import stall  # noqa: E402
import stall_feeds  # noqa: E402
import tables  # noqa: E402
import view_recipes  # noqa: E402
from harness import CheckFailed, report  # noqa: E402
from view_tasks import linked  # noqa: E402

CPU = torch.device("cpu")
SMALL = view_recipes.Recipe("simclr", tuple(dataclasses.replace(v, size=24) for v in view_recipes.SIMCLR.views))

# What the peers call of torchvision; and DataLoader, where there are fewer cores than workers.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, list[Path]]:
    """A folder of 48 links to 24 files, and these."""
    root = tmp_path_factory.mktemp("benchmarks")
    paths = []
    for i in range(24):
        paths.append(root / f"{i:02d}.jpg")
        paths[-1].write_bytes(images.jpeg(images.photo(60 + i, 50 + 2 * i, seed=i)))
    return linked(paths * 2, root / "images"), paths


# --- stall.py ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def inputs(files) -> stall_feeds.Inputs:
    torch.manual_seed(0)
    return stall_feeds.Inputs(*files, SMALL, 12, 1, CPU, torch.bfloat16)


@pytest.mark.parametrize("contender", stall_feeds.CONTENDERS, ids=lambda c: c.name)
def test_every_way_of_feeding_trains_and_is_told(inputs, contender):
    training = stall.Training("small", CPU, compiled=False)
    alone, _ = stall.resident(inputs)
    record = stall.measure(contender, training, inputs, alone, rounds=1, seconds=0.05)
    assert record["status"] == "ok", record
    assert 0 <= record["lost"] < 1 and record["per_second"] > 0 and len(record["resident_rates"]) == 1
    assert set(record["check"]) == {f"{name}_24" for name in ("mean", "deviation", "detail", "gray", "spread")}


def test_training_learns_and_does_not_wait(inputs):
    training = stall.Training("small", CPU, compiled=False)
    alone, _ = stall.resident(inputs)
    losses = [training.step(next(alone)) for _ in range(12)]
    assert losses[-1] < losses[0] and not losses[0].requires_grad


def spoilt(feed, how):
    for views in feed:
        yield how(views)


@pytest.mark.parametrize("how, says", [
    (lambda views: [v.float() for v in views], "float32"),
    (lambda views: [v.contiguous() for v in views], "strides"),
    (lambda views: [v[:-1] for v in views], r"\(11, 3"),
    (lambda views: views[:1], "1 views"),
    (lambda views: [v - 3 for v in views], "mean"),
])  # fmt: skip
def test_a_wrong_batch_fails_its_check(inputs, how, says):
    feed, _ = stall.from_loader(inputs, "cpu")
    stall.check(feed, inputs)
    with pytest.raises(CheckFailed, match=says):
        stall.check(spoilt(feed, how), inputs)


def test_one_batch_twice_is_no_feed(inputs):
    alone, _ = stall.resident(inputs)
    with pytest.raises(CheckFailed, match="twice"):
        stall.check(alone, inputs)


def test_what_fails_is_listed(inputs):
    def broken(inputs):
        raise OSError("the disk is gone")

    training, (alone, _) = stall.Training("small", CPU, compiled=False), stall.resident(inputs)
    for contender, status in (
        (stall_feeds.Contender("broken", broken), "failed: OSError: the disk is gone"),
        (stall_feeds.Contender("absent", broken, ("no_such_module",)), "absent: no_such_module not installed"),
    ):
        assert stall.measure(contender, training, inputs, alone, 1, 0.01)["status"] == status


def of_stall(name, threads, lost):
    common = {"task": "stall", "contender": name, "settings": {"threads": threads}}
    if lost is None:
        return {**common, "status": "absent: lightly not installed"}
    rates = {"per_second": 1000 * (1 - lost), "lost": lost, "worst": lost, "resident_rates": [1000.0]}
    return {**common, "status": "ok", **rates, "told": {"decoding": {"by": "nvjpeg 40%", "share": 0.42}}}


def test_the_targets_of_stall():
    records = [of_stall("fastssl.Loader", 16, 0.015), of_stall("fastssl.Loader", 4, 0.03)]
    records += [of_stall("lightly + DataLoader", n, None) for n in (16, 4)]
    lines = stall.targets(records, {'decode="auto"': 1500.0, 'decode="cpu"': 2100.0})
    assert [(line["met"], line["value"]) for line in lines] == [
        (True, 0.015),
        (False, 0.03),
        (True, 1500.0),
        (False, 2100.0),
    ]
    text = stall.tables({"results": records, "targets": lines})
    assert "| resident | 1,000 |  |  | 1,000 |  |  |" in text
    assert "| fastssl.Loader | 985 | 1.5% | 1.5% | 970 | 3.0% | 3.0% |" in text
    assert "| lightly + DataLoader | absent: lightly not installed |" in text
    assert "| lost to data, 4 threads | <= 2% | 3.0% | missed |" in text
    assert "1,500 MiB | met |" in text and "decoded by nvjpeg 40%, in the end a share of 42%" in text


MIB = 2**20


class Memory:
    """Of a device, whose Loader takes 3 GiB until its first batch is there, and 1,000 MiB from then on, 400 not by torch."""

    def __init__(self, monkeypatch):
        self.reserved = self.peak = 70 * MIB  # by others, before
        self.elsewhere = 0
        for name, what in {
            "synchronize": lambda device: None,
            "empty_cache": lambda: None,
            "reset_peak_memory_stats": self.reset,
            "memory_reserved": lambda device: self.reserved,
            "max_memory_reserved": lambda device: self.peak,
            "mem_get_info": lambda device: (2**36 - self.reserved - self.elsewhere, 2**36),
            "_sleep": lambda cycles: None,
        }.items():
            monkeypatch.setattr(torch.cuda, name, what)
        self.peak = 2**35  # of what was done before
        monkeypatch.setattr(stall, "from_loader", self.from_loader)

    def reset(self, device):
        self.peak = self.reserved

    def take(self, mib, elsewhere=0):
        self.reserved += mib * MIB
        self.elsewhere += elsewhere * MIB
        self.peak = max(self.peak, self.reserved)

    def from_loader(self, inputs, decode):
        self.take(2048)  # as the ways to decode are compared,
        self.take(-2048)  # and lets go of it
        return self.feed(), dict

    def feed(self):
        self.take(3072)
        self.take(-2972)
        for _ in range(100):
            yield []
            self.take(500, elsewhere=400)
            yield []
            self.take(-500, elsewhere=-400)


def test_memory_is_that_of_the_start_and_that_from_then_on(inputs, monkeypatch):
    assert stall.pipeline_memory_mib(inputs, "cpu") == {
        'decode="cpu"': None,
        'decode="cpu", until the first batch': None,
    }
    Memory(monkeypatch)
    there = dataclasses.replace(inputs, device=torch.device("cuda", 0))
    memory = stall.pipeline_memory_mib(there, "auto")
    assert memory == {'decode="auto"': 1000.0, 'decode="auto", until the first batch': 3072.0}
    lines = stall.targets([], memory)
    assert [(line["bound"], line["met"]) for line in lines] == [("< 2048 MiB", True), ("< 2048 MiB", False)]


def test_without_a_figure_a_target_says_why():
    failed = {**of_stall("fastssl.Loader", 4, None), "status": "failed: RuntimeError: no"}
    lost, memory = stall.targets([failed], {'decode="cpu"': None})
    assert (lost["met"], lost["reason"]) == (None, "failed: RuntimeError: no")
    assert (memory["met"], memory["reason"]) == (None, "the device is the CPU")


# --- gpu_decode.py ----------------------------------------------------------------------------------------------------


@pytest.fixture
def decoding(files) -> gpu_decode.Inputs:
    folder, paths = files
    return gpu_decode.Inputs(folder, paths, 48, SMALL, 16, 2, CPU)


def test_every_decoder_at_hand_passes_its_check(decoding):
    records = [result.to_json() for result in gpu_decode.decode_task(decoding).run(rounds=1, slow_rounds=1)]
    status = {r["contender"]: r["status"] for r in records}
    assert [status[name] for name in ("CPU, fastssl.ops.decode", "CPU, torchvision.io.decode_jpeg", "nvJPEG")] == [
        "ok"
    ] * 3
    for name, said in status.items():
        if name.startswith("DALI alone"):
            assert said == "ok" or said.startswith("absent: "), said
    assert status["DALI"].startswith(("absent: ", "failed: ")), "it is the device's, and there is none"


def test_views_are_checked_and_what_needs_a_gpu_is_listed(decoding):
    torch.manual_seed(0)
    records = [result.to_json() for result in gpu_decode.views_task(decoding).run(rounds=1, slow_rounds=1)]
    status = {r["contender"]: r["status"] for r in records}
    assert status["fastssl.Loader"] == status["fastssl.Loader, cpu"] == "ok"
    assert "decodes on a GPU" in status["fastssl.Loader, nvjpeg"]


BT_601, BT_709 = (0.299, 0.114), (0.2126, 0.0722)  # what red and blue weigh in luma


def recoded(image, matrix=BT_601, chroma=lambda c: c):
    """(H, W, 3) as it is when its YCbCr is taken for that of this matrix, its chroma changed."""
    red, green, blue = image.double().unbind(2)
    r, b = BT_601
    y = r * red + (1 - r - b) * green + b * blue
    cb, cr = chroma((blue - y) / (2 * (1 - b))), chroma((red - y) / (2 * (1 - r)))
    r, b = matrix
    red, blue = y + 2 * (1 - r) * cr, y + 2 * (1 - b) * cb
    green = (y - r * red - b * blue) / (1 - r - b)
    return torch.stack([red, green, blue], 2).round().clamp(0, 255).to(torch.uint8)


def repeated(plane):
    """Chroma that is subsampled and not interpolated."""
    half = torch.nn.functional.avg_pool2d(plane[None], 2, ceil_mode=True, count_include_pad=False)[0]
    height, width = plane.shape
    return half.repeat_interleave(2, 0)[:height].repeat_interleave(2, 1)[:, :width]


def test_chroma_may_be_repeated_where_it_is_subsampled(decoding):
    from fastssl import ops

    batches = [[recoded(ops.decode(jpeg), chroma=repeated) for jpeg in batch] for batch in decoding.batches()]
    found = gpu_decode.check_decoded(decoding)(batches)
    assert 0.1 < found["luma"] < 0.5 and 0.05 < found["chroma"] < 0.2 and found["levels"] == 0.0
    exact = ops.decode(next(decoding.batches())[-1])
    assert (batches[0][-1].float() - exact.float()).abs().mean() > 2.5, "while red, green and blue differ by much"


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_cmyk_are_compared_as_they_come(mode):
    data = images.jpeg(PIL.Image.fromarray(images.photo(20, 30)).convert(mode))
    pixels = np.array(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
    assert gpu_decode.differences(pixels, data) == {"levels": 0.0}
    assert gpu_decode.differences(pixels ^ 1, data) == {"levels": 1.0}


@pytest.mark.parametrize("spoil, says", [
    (lambda batch: batch[:-1], "47 images of 48|is "),
    (lambda batch: [image[:-1] for image in batch], "is "),
    (lambda batch: [image.float() for image in batch], "float32"),
    (lambda batch: [image.flip(1) for image in batch], "luma"),
    (lambda batch: [image.flip(2) for image in batch], "luma"),  # BGR
    (lambda batch: [image.roll(1, 0) for image in batch], "luma"),
    (lambda batch: [image.roll(1, 1) for image in batch], "luma"),
    (lambda batch: [*batch[:-1], batch[0].roll(batch[0].shape[0] // 2, 0)], "luma|is "),
    (lambda batch: [recoded(image, chroma=lambda c: 0.9 * c) for image in batch], "chroma"),
    (lambda batch: [recoded(image, matrix=BT_709) for image in batch], "luma"),
])  # fmt: skip
def test_a_wrong_picture_fails_its_check(decoding, spoil, says):
    from fastssl import ops

    batches = [[ops.decode(jpeg) for jpeg in batch] for batch in decoding.batches()]
    check = gpu_decode.check_decoded(decoding)
    assert check(batches) == {"luma": 0.0, "chroma": 0.0, "levels": 0.0}
    with pytest.raises(CheckFailed, match=says):
        check(spoil(batch) for batch in batches)


def test_a_refused_image_fails_its_check():
    with pytest.raises(CheckFailed, match="refused"):
        gpu_decode.pixels_of(None)


def of_decode(task, name, threads, per_second):
    common = {"task": task, "contender": name, "settings": {"threads": threads}, "count": 256}
    if per_second is None:
        return {**common, "status": "absent: nvidia.dali not installed"}
    return {**common, "status": "ok", "per_second": per_second}


def test_the_target_of_decoding_is_the_best_decoder_with_as_many_threads():
    records = [
        of_decode("decode", "nvJPEG", 16, 5000.0),
        of_decode("decode", "DALI", 16, None),
        of_decode("decode", "CPU, fastssl.ops.decode", 16, 8000.0),
        of_decode("decode", "nvJPEG", 4, 4000.0),
        of_decode("decode + 2 x 224", "fastssl.Loader", 16, 7600.0),
        of_decode("decode + 2 x 224", "fastssl.Loader, cpu", 16, 9000.0),
        of_decode("decode + 2 x 224", "fastssl.Loader", 4, 3000.0),
    ]
    lines = gpu_decode.targets(records)
    assert [(line["value"], line["met"]) for line in lines] == [(0.95, True), (0.75, False)]
    assert lines[0]["best"] == "CPU, fastssl.ops.decode"
    text = gpu_decode.tables({"results": records, "targets": lines, "inputs": {"megapixels": 0.2}})
    assert "| nvJPEG | 5,000 | 1,000 | 4,000 | 800 |" in text
    assert "| DALI | absent: nvidia.dali not installed |" in text
    (line,) = gpu_decode.targets(records[:2])
    assert line["met"] is None and line["reason"] == "not in this run"


# --- both -------------------------------------------------------------------------------------------------------------


def test_the_reports_become_tables_wherever_they_are_gathered():
    records = [of_stall("fastssl.Loader", 16, 0.015)]
    said = {"images": "24 JPEGs of images"}
    of_stalls = report("stall", records, inputs=said, targets=stall.targets(records, {}))
    decoded = [of_decode("decode", "nvJPEG", 16, 5000.0)]
    of_decoders = report("gpu_decode", decoded, inputs={**said, "megapixels": 0.2}, targets=gpu_decode.targets(decoded))
    both = json.loads(json.dumps([of_stalls, of_decoders]))
    text = gather.tables(both)
    assert "| fastssl.Loader | 985 |" in text and "| nvJPEG | 5,000 | 1,000 |" in text
    assert "| fastssl.Loader | 985 |" in tables.rendered("stall", both)
    assert "<= 2% | 1.5% | met" in tables.rendered("stall requirements", both)
    assert "| nvJPEG | 5,000 |" in tables.rendered("gpu_decode", both)
    assert "24 JPEGs of images (mean 0.20 megapixel)" in tables.rendered("gpu_decode decode", both)


def test_stall_runs_as_it_is_called(files, tmp_path):
    command = [
        sys.executable,
        BENCHMARKS / "stall.py",
        "--device",
        "cpu",
        "--network",
        "small",
        "--no-compile",
        "--threads",
        "1",
    ]
    command += [
        "--size",
        "24",
        "--batch",
        "12",
        "--files",
        "48",
        "--rounds",
        "1",
        "--seconds",
        "0.05",
        "--data",
        files[0].parent,
    ]
    command += ["--only", "fastssl.Loader", "--out", tmp_path / "stall.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "stall.json").read_text())
    assert found["benchmark"] == "stall" and [r["status"] for r in found["results"]] == ["ok"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["stall.py", "gpu_decode.py"])
def test_without_a_gpu_they_say_so(name):
    done = subprocess.run([sys.executable, BENCHMARKS / name], capture_output=True, text=True)
    assert done.returncode == 1 and "torch finds none here" in done.stderr
