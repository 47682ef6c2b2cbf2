"""NT-Xent of R = 2B embeddings of D numbers: fastssl, lightly, plain torch, and what else computes it.

Counted: normalization, the loss, and with `forward + backward` the gradients in both views' embeddings; on a GPU to the end of
the device's work, steps after each other without a wait in between. Not counted: the embeddings, compilation, the optimizer.
Memory is what a step takes at most beyond the embeddings: on a CPU the growth of a process of its own, on a GPU what torch's
allocator hands out. Value and gradients of every contender are checked against a float64 reference before it is timed.
F.linear_cross_entropy, Inf-CL and OpenCLIP keep a row's product with itself in its sum, which changes the value and no cost.

On a CPU: R = 8,192, D = 128, two threads, and R = 65,536 by fastssl alone, in a process whose whole memory is measured. On a GPU:
R from 4,096 to 65,536, D = 128, 256 and 512, R = 16,100, which is no multiple of a tile, and R = 262,144 by fastssl alone;
bfloat16 where a contender's name does not say float32 or it is lightly's own; and fastssl in a CUDA graph, which takes the
host's time out of its own.

    python benchmarks/losses.py                on the GPU where there is one, else on the CPU
    python benchmarks/losses.py --quick        on a GPU R = 16,384, D = 128 and 512, and R = 262,144; on a CPU R = 1,024
    python benchmarks/losses.py --ours         on a GPU: fastssl alone, R = 16,384, D = 128 and 256
    python benchmarks/losses.py --device cpu
    python benchmarks/losses.py --once         one step on a GPU by fastssl and nothing else, for a profiler
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import loss_targets
import torch
from loss_targets import CPU_LARGE, CPU_SIZE, GPU_COLUMNS, GPU_LARGE, GPU_RAGGED, GPU_ROWS
from loss_tasks import BOTH, OURS, Inputs, Loss, LossTask, Way, exact_ntxent, steps, title, ways

CPU_THREADS = 2
QUICK_SIZE = (1024, 128)
OURS_SIZES = [(16384, 128), (16384, 256)]
# Of a GPU: steps that are timed together at most, and the seconds that they are to take, so that what the host does before the
# first kernel, and at the end, is little of it.
STEPS, SECONDS = 50, 0.1


def of_size(
    rows: int, columns: int, device: torch.device, contenders: Sequence[Way], rounds: int, slow_rounds: int
) -> list[dict[str, Any]]:
    """The records of both passes."""
    inputs, built = Inputs.drawn(rows, columns, device), dict[str, Loss]()
    calls, seconds = (1, math.inf) if device.type == "cpu" else (STEPS, SECONDS)
    records = []
    for backward in (False, True):
        task = LossTask(inputs, backward, contenders, built, calls, seconds)
        records += task.records(rounds=rounds, slow_rounds=slow_rounds)
    torch.compiler.reset()  # else the compiler gives up on a function that it has seen with many shapes
    return records


# Memory on a CPU


def alone(name: str, rows: int, columns: int) -> dict[str, float]:
    """One step of forward + backward, in this process; the memory that it took, in MiB, its seconds and its value."""
    torch.set_num_threads(CPU_THREADS)
    (way,) = (way for way in ways(torch.device("cpu")) if way.name == name)
    inputs = Inputs.drawn(rows, columns, torch.device("cpu"))
    loss = way.build()
    warm_rows = rows if "compiled" in name else 64  # libraries, threads; what is compiled is so for its shape
    for _ in steps(Inputs(inputs.z[:warm_rows]), way, loss, True, 1)():
        pass
    run = steps(inputs, way, loss, True, 1)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the first step freed is given back, so that it counts again
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status_mib("VmRSS")
    begin = time.perf_counter()
    ((value, _),) = run()
    seconds = time.perf_counter() - begin
    peak = status_mib("VmHWM")
    return {"extra_mib": peak - before, "process_mib": peak, "seconds": seconds, "value": value.item()}


def status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def in_a_process(name: str, rows: int, columns: int) -> dict[str, Any]:
    """What `alone` gives, or {"status": why there is nothing}."""
    command = [sys.executable, __file__, "--alone", name, "--rows", str(rows), "--columns", str(columns)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"status": "failed: " + (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def on_cpu(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    device = torch.device("cpu")
    torch.set_num_threads(CPU_THREADS)
    size = QUICK_SIZE if arguments.quick else CPU_SIZE
    peaks = {
        way.name: in_a_process(way.name, *size).get("extra_mib")
        for way in ways(device)
        if Path("/proc/self/clear_refs").exists() and all(map(harness.importable, way.needs))
    }
    records = of_size(*size, device, ways(device), arguments.rounds, arguments.slow_rounds)
    for record in records:
        if "median_s" in record and record["settings"]["pass"] == BOTH:
            record["peak_mib"] = peaks.get(record["contender"])
    return records if arguments.quick else [*records, large_on_cpu()]


def large_on_cpu() -> dict[str, Any]:
    """fastssl's loss of many rows, in a process of its own, checked against the float64 reference."""
    rows, columns = CPU_LARGE
    settings = {"rows": rows, "columns": columns, "pass": BOTH, "device": "cpu", "threads": CPU_THREADS}
    result = harness.Result(title(rows, columns), OURS, "rows", rows, settings)
    found = in_a_process(OURS, rows, columns)
    if "status" in found:
        result.status = found["status"]
        return result.to_json()
    exact, _ = exact_ntxent(Inputs.drawn(rows, columns, torch.device("cpu")).z, with_gradient=False)
    error = abs(found["value"] - exact) / exact
    if not error <= 1e-5:  # float32, as for the others
        result.status = f"failed its check: a loss of {found['value']:.6f} where it is {exact:.6f}"
        return result.to_json()
    result.check = {"value": found["value"], "value_error": error}
    result.seconds, result.peak_mib = [found["seconds"]], found["extra_mib"]
    return {**result.to_json(), "step_ms": 1e3 * found["seconds"], "process_mib": found["process_mib"]}


# The report


def sizes_on_gpu(quick: bool) -> list[tuple[int, int]]:
    """Those of which a time is required, and the largest, come first, so that a time limit loses only what came after them."""
    first = [(16384, 128), (16384, 512), GPU_LARGE]
    if quick:
        return first
    return [*first, GPU_RAGGED, *((r, c) for r in GPU_ROWS for c in GPU_COLUMNS if (r, c) not in first)]


def on_gpu(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The report is written after each size."""
    device, records = torch.device("cuda"), list[dict[str, Any]]()
    ours = [way for way in ways(device) if way.name == OURS]
    contenders = ours if arguments.ours else ways(device)
    for size in OURS_SIZES if arguments.ours else sizes_on_gpu(arguments.quick):
        large = size == GPU_LARGE
        rounds, slow_rounds = (3, 3) if large else (arguments.rounds, arguments.slow_rounds)
        found = of_size(*size, device, ours if large else contenders, rounds, slow_rounds)
        records += found
        show(found)
        write(records, arguments.out)
    return records


def once() -> None:
    """One step of the first size, forward and backward."""
    device = torch.device("cuda")
    inputs = Inputs.drawn(*sizes_on_gpu(quick=True)[0], device)
    way = ways(device)[0]
    for _ in steps(inputs, way, way.build(), True, 1)():
        pass


def write(records: list[dict[str, Any]], out: Path | None) -> None:
    more = {"targets": loss_targets.measured(records), "temperature": 0.1}
    harness.write(harness.report("losses", records, **more), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--slow-rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="the report (default: benchmarks/results/losses-<device>.json)")
    parser.add_argument(
        "--alone", metavar="CONTENDER", help="one step of one contender on the CPU, as JSON: for its memory"
    )
    parser.add_argument("--once", action="store_true", help="one step on a GPU by fastssl, then exit")
    parser.add_argument("--rows", type=int, default=CPU_SIZE[0])
    parser.add_argument("--columns", type=int, default=CPU_SIZE[1])
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(alone(arguments.alone, arguments.rows, arguments.columns)))
        return
    if (arguments.device == "cuda" or arguments.once) and not torch.cuda.is_available():
        sys.exit("losses.py: torch finds no GPU here; leave --device out, or write --device cpu.")
    if arguments.once:
        once()
        return
    if arguments.device == "cpu" or not torch.cuda.is_available():
        records = on_cpu(arguments)
        show(records)
        write(records, arguments.out)
    else:
        records = on_gpu(arguments)
        if arguments.ours:
            return
    print(f"\n{loss_targets.requirements(loss_targets.measured(records))}")


def show(records: list[dict[str, Any]]) -> None:
    for task in dict.fromkeys(r["task"] for r in records):
        print(f"\n{task}\n\n{loss_targets.table([r for r in records if r['task'] == task])}", flush=True)


if __name__ == "__main__":
    main()
