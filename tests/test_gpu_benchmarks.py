"""What benchmarks/gpu_views.py does that needs no GPU: its tasks with the kernels emulated, its checks, targets and tables."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import images
import pytest
import torch

from fastssl.ops import masks

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu_report  # noqa: E402 - of the folder above
import gpu_stages  # noqa: E402
import gpu_tasks  # noqa: E402
import view_recipes  # noqa: E402
from harness import CheckFailed  # noqa: E402

SMALL = view_recipes.Recipe("simclr", tuple(dataclasses.replace(v, size=24) for v in view_recipes.SIMCLR.views))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)  # the peers draw from torch's generator


@pytest.fixture(scope="module")
def pixels() -> gpu_tasks.Pixels:
    made = [images.photo(60 + i, 50 + 2 * i, seed=i) for i in range(12)]
    return gpu_tasks.pixels_of([torch.from_numpy(image) for image in made], torch.device("cpu"), size=(56, 64))


@pytest.mark.parametrize("half, uniform", [(True, False), (False, True)])
def test_every_contender_at_hand_passes_its_check(pixels, half: bool, uniform: bool):
    task = gpu_tasks.make_task("simclr", gpu_tasks.Inputs(pixels, SMALL, 2, half, uniform))
    records = task.records(rounds=1, slow_rounds=1)
    assert records[0]["contender"] == gpu_tasks.OURS
    for record in records:
        assert record["status"] == "ok" or record["status"].startswith("absent: "), record
    ours = {r["contender"]: r["status"] for r in records}
    assert ours[gpu_tasks.OURS] == ours["torchvision v2"] == "ok"


def wrong_type(views):
    return [v.float() for v in views]


def wrong_layout(views):
    return [v.contiguous() for v in views]


def too_dark(views):
    return [v - 3 for v in views]  # of so few views, little less may be chance


def one_missing(views):
    return views[:1]


@pytest.mark.parametrize("spoil", [wrong_type, wrong_layout, too_dark, one_missing])
def test_a_wrong_result_fails_its_check(pixels, spoil):
    inputs = gpu_tasks.Inputs(pixels, SMALL, 1)
    run = gpu_tasks.ours.rendered(SMALL, pixels.ragged, 1, torch.bfloat16, True, workspace_bytes=1 << 20)
    check = gpu_tasks.checking(inputs, uniform=False)
    check(run())
    with pytest.raises(CheckFailed):
        check((spoil(views),) for (views,) in run())


def test_the_least_bytes_of_an_image_are_its_pixels_and_views(pixels):
    inputs = gpu_tasks.Inputs(pixels, SMALL, 1, uniform=True)
    assert inputs.bytes_of_an_image() == 56 * 64 * 3 + 2 * 3 * 24 * 24 * 2


def record(contender: str, per_second: float | None, task: str = "simclr") -> dict:
    common = {"task": task, "contender": contender, "settings": {"batch": 256, "type": "float32"}, "count": 256}
    if per_second is None:
        return {**common, "status": "absent: kornia not installed"}
    timed = {"per_second": per_second, "median_s": 256 / per_second, "spread": 0.1, "bytes_an_image": 1e6}
    return {**common, **timed, "status": "ok", "device_median_s": 256 / per_second}


def test_targets_compare_with_the_fastest_of_a_peers_contenders():
    records = [record("fastssl", 200_000), record("DALI", 50_000), record("DALI, steps blended", 30_000)]
    target = gpu_report.Target("simclr", 5, "DALI")
    assert target.measured(records) == {
        "task": "simclr",
        "bound": ">= 5 x DALI",
        "value": 4.0,
        "met": False,
    }
    assert gpu_report.Target("simclr", 150_000).measured(records)["met"]


def test_a_target_without_its_peer_says_why():
    line = gpu_report.Target("simclr", 20, "kornia").measured([record("fastssl", 1e5), record("kornia", None)])
    assert line["met"] is None
    assert line["reason"] == "kornia absent: kornia not installed"


def test_tables_hold_every_contender_and_every_target():
    records = [record("fastssl", 200_000), record("kornia", 5_000), record("DALI", None)]
    report = {
        "results": records,
        "copy_bytes_per_s": 2e12,
        "targets": [target.measured(records) for target in gpu_report.TARGETS],
        "stages": {"simclr": {"CropKernel<3, unsigned char>": 1.5}, "dino": {"others": 0.5}},
        "host": {"simclr": {"Plan.draw": 0.5}},
        "workspace": {"96": 2e5},
    }
    text = gpu_report.tables(report)
    assert "| fastssl | 200,000 | 5.00 | 5.00 | 10% | 10.0% | 40.0 |" in text
    assert "| DALI | absent: kornia not installed |" in text
    assert ">= 150,000 images/s | 200,000 | met |" in text
    assert "| CropKernel<3, unsigned char> | 1.500 |  |" in text


def test_ncu_output_becomes_a_row_a_kernel():
    lines = ['==PROF== Connected to process 1\n"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"']
    name = "void fastssl::cuda::grid::run<fastssl::cuda::FrameKernel<3>>(T1)"
    for number, (ns, percent) in enumerate([("1,000", "50.0"), ("3000", "90.0")]):
        lines.append(f'"{number}","{name}","gpu__time_duration.sum","ns","{ns}"')
        lines.append(f'"{number}","{name}","dram__throughput.avg.pct_of_peak_sustained_elapsed","%","{percent}"')
    head, row = gpu_stages.read_ncu("\n".join(lines))
    assert dict(zip(head, row, strict=True)) == {
        "kernel": "FrameKernel<3>",
        "launches": "2",
        "us": "4.0",
        "memory, %": "80.0",
        **dict.fromkeys(list(gpu_stages.NCU_METRICS.values())[2:], ""),
    }
    with pytest.raises(ValueError, match="no table"):
        gpu_stages.read_ncu("==ERROR== ERR_NVGPUCTRPERM")


def test_kernels_are_told_apart():
    times = [("Memset (Device)", 1.0), ("void at::native::fill<int>()", 2.0), ("run<fastssl::TapsKernel>(T1)", 3.0)]
    assert gpu_stages.by_kind([*times, *times]) == {"copies and fills": 2.0, "others": 4.0, "TapsKernel": 6.0}


def test_the_small_batches_are_those_of_the_cpu():
    command = [sys.executable, BENCHMARKS / "gpu_small.py", "--device", "cpu"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 views differ" in done.stdout
    assert "96 batches of Loaders on cpu; 0 differ" in done.stdout
    drawn = ", ".join(sorted({*masks.__all__} - {"least_set"}))  # which on a GPU is torch's own sum
    assert f"masks drawn on cpu: {drawn}; 0 batches differ" in done.stdout


@pytest.mark.parametrize("wrong", ["PART=nonsense", "PART=tests nonsense"])
def test_gpu_check_knows_its_parts(wrong: str):
    command = ["env", wrong, "bash", str(BENCHMARKS / "gpu-check.sh")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "PART=nonsense is none of" in done.stderr


@pytest.mark.parametrize("wrong", ["LIMIT=soon", "JOBS=0", "JOBS=-2"])
def test_gpu_check_takes_whole_numbers(wrong: str):
    command = ["env", wrong, "bash", str(BENCHMARKS / "gpu-check.sh")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{wrong.split('=')[0]}={wrong.split('=')[1]}" in done.stderr


def test_gpu_check_keeps_to_its_limit(tmp_path):
    """Of 1 s nothing is left for any part; what there was no time for is said, and the check fails."""
    for name in ("nvidia-smi", "nvcc"):
        (tmp_path / name).write_text("#!/bin/sh\necho a GPU\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable}
    environment |= {"LIMIT": "1", "PART": "tests decode"}
    command = ["bash", str(BENCHMARKS / "gpu-check.sh")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "no time left for: " in done.stderr and "gpu_decode.py" in done.stderr
    assert "gpu-check: failed: tests decode" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", ["gpu_views.py", "compile_ahead.py"])
def test_without_a_gpu_it_says_so(command):
    done = subprocess.run([sys.executable, BENCHMARKS / command], capture_output=True, text=True)
    assert done.returncode == 1
    assert "torch finds none here" in done.stderr
