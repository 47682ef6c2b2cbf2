"""Compiles what benchmarks on a GPU will ask torch.compile for, in processes side by side, so that they find it in its cache.

Without it they compile one thing after the other, for some minutes, the GPU idle. Of losses.py: every compiled contender of every
size, both passes; of stall.py: the network. What cannot be compiled here is said, and the benchmark says why.

    python benchmarks/compile_ahead.py --stall --losses=           all that stall.py and losses.py compile
    python benchmarks/compile_ahead.py --losses=--quick            what losses.py --quick does
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import torch
from harness import importable
from loss_targets import GPU_LARGE
from loss_tasks import Inputs, steps, ways
from losses import sizes_on_gpu
from stall import BATCH, NETWORK, SIZE, Training

JOBS = 4  # processes; each compiles with threads of its own


def compile_losses(rows: int, columns: int) -> None:
    """Both passes of every compiled contender, as `losses.py` calls them; of those that fail the last one's error."""
    inputs, failed = Inputs.drawn(rows, columns, torch.device("cuda")), None
    for way in ways(inputs.z.device):
        if "compiled" not in way.name or not all(map(importable, way.needs)):
            continue
        try:
            loss = way.build()
            for backward in (False, True):
                for _ in steps(inputs, way, loss, backward, 1)():
                    pass
        except Exception as error:  # noqa: BLE001 - such as too little memory, which the benchmark lists
            failed = error
    if failed is not None:
        raise failed


def compile_network() -> None:
    """One step of `stall.py`'s network."""
    device = torch.device("cuda", torch.cuda.current_device())
    shape = (BATCH, 3, SIZE, SIZE)
    view = torch.randn(shape, device=device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    Training(NETWORK, device, compiled=True).step([view, view])
    torch.cuda.synchronize()


def in_processes(tasks: list[str]) -> bool:
    """Whether all of them, names of this file's own options, went well."""
    threads = max(1, (os.cpu_count() or 1) // JOBS)
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": str(threads)}

    def of(task: str) -> bool:
        begin = time.perf_counter()
        command = [sys.executable, __file__, "--task", task]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        said = "compiled" if not done.returncode else (done.stderr.strip().splitlines() or ["failed"])[-1]
        print(f"ahead: {task}: {said}, {time.perf_counter() - begin:.0f} s", flush=True)
        return not done.returncode

    with ThreadPoolExecutor(JOBS) as pool:
        return all(list(pool.map(of, tasks)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stall", action="store_true", help="what stall.py compiles")
    parser.add_argument("--losses", metavar="OPTIONS", help="what losses.py compiles with these options")
    parser.add_argument("--task", help="one of them in this process: stall, or rows x columns, as 16384x128")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("compile_ahead.py: torch finds none here, and these benchmarks compile for a GPU.")
    if arguments.task == "stall":
        compile_network()
    elif arguments.task:
        rows, columns = map(int, arguments.task.split("x"))
        compile_losses(rows, columns)
    else:
        tasks = ["stall"] if arguments.stall else []
        if arguments.losses is not None and "--ours" not in arguments.losses:
            # Of the largest size nothing is compiled.
            tasks += [f"{r}x{c}" for r, c in sizes_on_gpu("--quick" in arguments.losses) if (r, c) != GPU_LARGE]
        sys.exit(0 if in_processes(tasks) else 1)


if __name__ == "__main__":
    main()
