"""What benchmarks/losses.py does that needs no GPU: its contenders on small batches, its checks, targets and tables."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import reference_losses
import torch
from conftest import devices
from torch import Tensor

from fastssl._native import _C
from fastssl.loss import _cuda

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gather  # noqa: E402 - of the folder above
import loss_targets  # noqa: E402
import loss_tasks  # noqa: E402
import losses  # noqa: E402
import tables  # noqa: E402
from harness import CheckFailed  # noqa: E402
from loss_tasks import BOTH, FORWARD, OURS, Inputs, LossTask, Way, ways  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return Inputs.drawn(64, 16, CPU)


def not_compiled(device: str) -> list[Way]:
    """Compiling takes longer than all other tests of losses. CUDA graphs are of a GPU: test_a_cuda_graph_is_the_step."""
    return [way for way in ways(torch.device(device)) if "compiled" not in way.name and not way.graph]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_contender_at_hand_passes_its_check(device: str, backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those for a GPU too, on the CPU, unless they are kernels."""
    # Of so few rows a row's product with itself would be almost all of its sum at 0.1, and taking it out leave nothing.
    monkeypatch.setattr(loss_tasks, "TEMPERATURE", 0.5)
    inputs = Inputs.drawn(64, 16, CPU)
    contenders = [way for way in not_compiled(device) if way.name != "Inf-CL"]
    records = LossTask(inputs, backward, contenders, {}, calls=2).records(rounds=2, slow_rounds=1)
    assert records[0]["contender"] == OURS
    for record in records:
        assert record["status"] == "ok" or record["status"].startswith("absent: "), record
        if record["status"] == "ok":
            assert record["step_ms"] == pytest.approx(1e3 * record["median_s"] / 2)
            assert ("gradient_error" in record["check"]) == backward
    done = [record["contender"] for record in records if record["status"] == "ok"]
    assert len(done) >= (3 if device == "cpu" else 2)


def test_what_is_compiled_is_what_is_not() -> None:
    by_name = {way.name: way for way in ways(CPU)}
    for name in ("lightly", "z @ z.T"):
        assert dataclasses.replace(by_name[f"{name}, compiled"], name=name, build=by_name[name].build) == by_name[name]
    with torch.compiler.set_stance("force_eager"):
        views = Inputs.drawn(8, 4, CPU).views(torch.float32)
        assert by_name["z @ z.T, compiled"].build()(*views) == loss_tasks.plain(*views)


def test_the_reference_is_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_tasks, "LOGITS_AT_ONCE", 8 * 5 * 12)  # five rows at a time
    z = Inputs.drawn(12, 5, CPU).z
    value, gradient = loss_tasks.exact_ntxent(z)
    leaf = z.double().requires_grad_()
    exact = reference_losses.ntxent(leaf, loss_tasks.TEMPERATURE)
    assert value == pytest.approx(exact.item(), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(exact, leaf)[0], rtol=1e-10, atol=1e-14)
    assert loss_tasks.exact_ntxent(z, with_gradient=False)[0] == value
    unit = torch.nn.functional.normalize(z.double(), dim=1)
    logits = unit @ unit.T / loss_tasks.TEMPERATURE
    labels = torch.arange(12).roll(6)
    both = (torch.nn.functional.cross_entropy(x, labels) for x in (logits, logits.T))
    assert loss_tasks.exact_with_itself(z)[0] == pytest.approx(sum(both).item() / 2, rel=1e-12)  # type: ignore[union-attr]


def half(first: Tensor, second: Tensor) -> Tensor:
    return loss_tasks.plain(first, second) / 2


def constant(first: Tensor, second: Tensor) -> Tensor:
    """The right value, and no gradient of the first view."""
    return loss_tasks.plain(first.detach(), second) + 0 * first.sum()


@pytest.mark.parametrize("wrong, words", [(half, "a loss of"), (constant, "gradients off by")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_loss_is_never_timed(inputs: Inputs, wrong: Any, words: str, dtype: torch.dtype) -> None:
    task = LossTask(inputs, True, [Way("wrong", dtype, lambda: wrong, coarse=dtype == torch.bfloat16)], {}, calls=1)
    (record,) = task.records(rounds=1, slow_rounds=1)
    assert record["status"].startswith(f"failed its check: {words}") and not record["seconds"]


def test_a_tile_that_is_left_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the 512 of 65,536 rows, in the value or in the gradients, of 16 bits as well; roundings are less than that."""
    inputs, way = Inputs.drawn(1024, 128, CPU), ways(torch.device("cuda"))[0]
    assert way.name == OURS and way.dtype == torch.bfloat16
    monkeypatch.setattr(_cuda, "emulated_grid", _C.GridSize(multiprocessors=3, shared_bytes=228 * 1024))
    ((value, grads),) = loss_tasks.steps(inputs, way, way.build(), True, 1)()
    check = loss_tasks.checking(inputs, way, backward=True)
    found = check([(value, grads)])
    assert found["value_error"] < 2e-5 and found["gradient_error"] < 3e-3
    with pytest.raises(CheckFailed, match="a loss of"):
        check([(value + math.log(511 / 512), grads)])
    with pytest.raises(CheckFailed, match="gradients off by"):
        check([(value, (grads[0], grads[1].index_fill(0, torch.tensor([5, 6]), 0)))])


@pytest.mark.parametrize("device", devices()[-1:])
def test_a_cuda_graph_is_the_step(device: str) -> None:
    inputs = Inputs.drawn(1024, 128, torch.device(device))
    plain, graph = (way for way in ways(inputs.z.device) if way.name in (OURS, f"{OURS}, in a CUDA graph"))
    records = LossTask(inputs, True, [plain, graph], {}, calls=3).records(rounds=2, slow_rounds=1)
    assert [r["status"] for r in records] == ["ok", "ok"]
    assert records[0]["check"] == records[1]["check"]
    assert records[0]["peak_mib"] > 0 and records[1]["peak_mib"] is None


def record(
    contender: str, step_ms: float | None, size: tuple[int, int], device: str = "cpu", **more: Any
) -> dict[str, Any]:
    settings = {"rows": size[0], "columns": size[1], "pass": BOTH, "device": device}
    line = {"task": loss_tasks.title(*size), "contender": contender, "settings": settings, "peak_mib": None, **more}
    if step_ms is None:
        return {**line, "status": "failed: OutOfMemoryError"}
    return {**line, "status": "ok", "median_s": step_ms / 1e3, "step_ms": step_ms}


def test_targets_say_what_was_reached_and_why_not() -> None:
    records = [
        record(OURS, 100, loss_targets.CPU_SIZE, peak_mib=30),
        record("lightly", 700, loss_targets.CPU_SIZE, peak_mib=900),
        record(OURS, 5000, loss_targets.CPU_LARGE, peak_mib=300, process_mib=2100),
        record(OURS, 0.4, (16384, 128), "cuda", peak_mib=30),
        record("lightly", None, (16384, 128), "cuda"),
        record("z @ z.T, compiled, bfloat16", 2.0, (16384, 128), "cuda"),
        record("lightly, compiled, bfloat16", 0.9, (16384, 128), "cuda"),
        record(OURS, 1.0, (16384, 512), "cuda"),
        record(f"{OURS}, float32", 0.5, (16384, 512), "cuda"),  # no contender of ours
        record("Inf-CL", 1.5, (16384, 512), "cuda"),
        record(OURS, 9.0, (65536, 128), "cuda", peak_mib=16.5 * 32),
    ]
    found = {(line["task"], line["required"]): line for line in loss_targets.measured(records)}
    assert found["8192 x 128", ">= 6 times lightly"]["value"] == 7
    assert found["8192 x 128", "<= 0.05 of the memory of lightly"]["met"]
    assert not found["65536 x 128", "a process of <= 2048 MiB"]["met"]
    assert found["16384 x 128", "<= 0.5 ms"]["met"]
    assert found["16384 x 128", ">= 25 times lightly"]["reason"] == "lightly failed: OutOfMemoryError"
    compiled = found["16384 x 128", ">= 2.5 times the best compiled one"]
    assert compiled["value"] == 2.25 and not compiled["met"]
    assert found["16384 x 512", ">= 1.3 times the best other"]["value"] == 1.5
    matrices = "memory of <= 16 matrices of rows x columns in float32"
    assert found["65536 x 128", matrices]["value"] == 16.5 and not found["65536 x 128", matrices]["met"]
    assert found["262144 x 128", matrices]["reason"] == "not in this run"
    assert len(found) == len(loss_targets.TARGETS)
    only_cpu = loss_targets.measured(records[:3])
    assert {line["device"] for line in only_cpu} == {"cpu"}


def test_tables_hold_every_contender_and_every_target(inputs: Inputs) -> None:
    records = [
        *LossTask(inputs, False, not_compiled("cpu")[:1], {}, calls=1).records(rounds=1, slow_rounds=1),
        record("lightly", None, (64, 16)),
    ]
    report = {"benchmark": "losses", "results": records, "targets": loss_targets.measured(records), "command": "python"}
    text = loss_targets.section(report, "64x16")
    assert "| fastssl |" in text and "| lightly | failed: OutOfMemoryError |" in text
    assert loss_targets.section(report, "") == text
    with pytest.raises(SystemExit, match=r"no size '1x1'.*64 x 16"):
        loss_targets.section(report, "1x1")
    assert ">= 6 times lightly | - | not in this run |" in loss_targets.section(report, "requirements")
    full = {**report, "date": "2026-01-01 00:00 UTC", "commit": "abc", "versions": {}}
    full["machine"] = {"gpu": None, "cores": 2, "cpu": "CPU", "memory_gib": 4}
    joined = gather.tables([full])
    assert text in joined and loss_targets.section(report, "requirements") in joined
    assert tables.rendered("losses 64x16", [full]).startswith(text)
    assert tables.rendered("losses", []) == "Not measured yet: `python benchmarks/losses.py`\n"


def test_forward_and_backward_stand_side_by_side() -> None:
    both = record(OURS, 2.0, (64, 16), peak_mib=3.2)
    alone = {**record(OURS, 0.5, (64, 16)), "settings": {**both["settings"], "pass": FORWARD}}
    slower = record("lightly", 123.0, (64, 16), peak_mib=1234.5)
    assert "| fastssl | 0.500 | 2.00 | 1.0 | 3 |" in loss_targets.table([alone, both, slower])
    assert "| lightly |  | 123 | 61.5 | 1,234 |" in loss_targets.table([alone, both, slower])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell a process's peak")
def test_memory_is_that_of_one_step_alone() -> None:
    """A plain loss of 2048 rows stores matrices of 16 MiB; ours stores none."""
    found = {}
    for name in (OURS, "z @ z.T"):
        found[name] = losses.in_a_process(name, 2048, 32)
        assert found[name]["value"] == pytest.approx(
            loss_tasks.exact_ntxent(Inputs.drawn(2048, 32, CPU).z)[0], rel=1e-4
        )
        assert found[name]["process_mib"] > found[name]["extra_mib"]
    assert found["z @ z.T"]["extra_mib"] > 2 * 16 > found[OURS]["extra_mib"]
    failed = losses.in_a_process("OpenCLIP", 64, 8)
    assert "value" in failed or failed["status"].startswith("failed: ")  # where it is not installed


def test_on_a_cpu_memory_and_the_large_batch_come_from_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("CPU_SIZE", (128, 16)), ("CPU_LARGE", (512, 16))):
        monkeypatch.setattr(losses, name, size)
    monkeypatch.setattr(losses, "ways", lambda device: not_compiled("cpu")[:1])
    records = losses.on_cpu(argparse.Namespace(quick=False, rounds=2, slow_rounds=1))
    assert [(r["task"], r["settings"]["pass"]) for r in records] == [
        ("128 x 16", FORWARD),
        ("128 x 16", BOTH),
        ("512 x 16", BOTH),
    ]
    assert all(r["status"] == "ok" and r["settings"]["threads"] == 2 for r in records)
    if Path("/proc/self/clear_refs").exists():
        assert records[0]["peak_mib"] is None and records[1]["peak_mib"] >= 0
        assert records[2]["process_mib"] > 100  # torch alone
        assert records[2]["check"]["value_error"] < 1e-6


def test_on_a_gpu_required_sizes_come_first() -> None:
    timed = {(t.rows, t.columns) for t in loss_targets.TARGETS if t.device == "cuda" and t.measure in ("time", "speed")}
    quick = losses.sizes_on_gpu(quick=True)
    assert set(quick) == {*timed, loss_targets.GPU_LARGE}
    sizes = losses.sizes_on_gpu(quick=False)
    assert sizes[:3] == quick and len(set(sizes)) == len(sizes) == 17
    assert {(t.rows, t.columns) for t in loss_targets.TARGETS if t.device == "cuda"} <= set(sizes)
    assert any(rows % 128 and rows // 2 % 128 for rows, _ in sizes)


@pytest.mark.parametrize(("seconds", "calls"), [(math.inf, 7), (100.0, 7), (1.0, 4), (1e-9, 1)])
def test_as_many_steps_are_timed_together_as_take_so_long(
    inputs: Inputs, seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_tasks, "seconds_of", lambda run: 0.25)
    task = LossTask(inputs, True, not_compiled("cpu")[:1], {}, 7, seconds)
    (record,) = task.records(rounds=2, slow_rounds=1)
    assert task.at_once == {OURS: calls} and record["count"] == 64 * calls
    assert record["step_ms"] == pytest.approx(1e3 * record["median_s"] / calls)


def test_memory_is_that_of_one_step_however_many_are_timed(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def counting(*views: Tensor) -> Tensor:
        begun.append(1)
        return loss_tasks.fastssl_loss()(*views)

    def steps_of(run: Any) -> float:
        before = len(begun)
        for _ in run():
            pass
        return float(len(begun) - before)

    monkeypatch.setattr(loss_tasks, "allocated_mib", steps_of)
    task = LossTask(inputs, True, [Way("counting", torch.float32, lambda: counting)], {}, 5)
    task.settings["device"] = "cuda"  # where memory is torch's to tell
    (record,) = task.records(rounds=1, slow_rounds=1)
    assert record["status"] == "ok" and record["peak_mib"] == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "losses.py"), "--device", "cuda", "--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "torch finds no GPU here" in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_a_report_can_be_written_and_read(inputs: Inputs, tmp_path: Path) -> None:
    records = LossTask(inputs, True, not_compiled("cpu")[:1], {}, calls=1).records(rounds=1, slow_rounds=1)
    losses.write(records, tmp_path / "losses.json")
    (report,) = tables.reports(tmp_path)
    assert report["benchmark"] == "losses" and report["results"][0]["contender"] == OURS
    assert json.dumps(report["targets"])
