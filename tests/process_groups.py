"""Groups of processes for the tests of distributed losses, and how exact a logit is in them.

By gloo on the CPU, and by NCCL, where each process has a GPU of its own and losses take the kernels.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing

MOST = 4  # processes
SECONDS = 120  # after which what waits for another process has failed


def backends() -> list:
    """For `params`: "gloo" and "nccl".

    NCCL is skipped below two GPUs, also with FASTSSL_REQUIRE_CUDA=1, since a machine with one cannot have it; without any,
    that variable turns the skip into a failure, as conftest.devices() says. FASTSSL_TEST_DEVICES=cuda leaves out gloo.
    """
    distributed = torch.distributed.is_available()
    gloo = distributed and torch.distributed.is_gloo_available()
    nccl = distributed and torch.distributed.is_nccl_available()
    required = os.environ.get("FASTSSL_REQUIRE_CUDA", "0") not in ("", "0")
    gpus = torch.cuda.device_count()
    no_gloo = pytest.mark.skipif(not gloo, reason="torch has no gloo")
    few = pytest.mark.skipif(
        gpus == 1 or (gpus == 0 and not required),
        reason=f"NCCL needs a GPU for each process, two at least; here: {gpus}",
    )
    no_nccl = pytest.mark.skipif(gpus > 1 and not nccl and not required, reason="torch has no NCCL")
    of_nccl = pytest.param("nccl", marks=[few, no_nccl])
    if os.environ.get("FASTSSL_TEST_DEVICES") == "cuda":
        return [of_nccl]
    return [pytest.param("gloo", marks=no_gloo), of_nccl]


def most_processes(backend: str) -> int:
    return min(MOST, torch.cuda.device_count()) if backend == "nccl" else MOST


def device_of(backend: str, rank: int) -> torch.device:
    return torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")


def eps_of_logit(backend: str, dtype: torch.dtype) -> float:
    """The largest rounding of a logit of unit rows, in proportion to 1 / t, the largest that there can be.

    In plain torch half of eps of float32, as which rows of 16 bits are computed with, or of float64. The kernels round both of
    the rows: those of 16 bits to 2^-11, each, and float32 to 22 bits, 2^-22 (_operators.py, Note [Sixteen bits]); they do not
    take float64.
    """
    if dtype == torch.float64 or backend == "gloo":
        return torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps / 2
    return 2 * (2**-22 if dtype == torch.float32 else 2**-11)


def run_processes(compute: Callable[[int, int, torch.device], Any], folder: Path, backend: str) -> None:
    """Groups of four, three and two processes, one after the other; not of more than there are GPUs.

    What compute(rank, number of processes, device) returns is for `load`.
    """
    spawn(_run_process, (compute, str(folder), backend), most_processes(backend))


def spawn(run: Callable[..., None], arguments: tuple[Any, ...], processes: int) -> None:
    """Runs run(rank, *arguments) in so many processes, until all of them end."""
    context = torch.multiprocessing.spawn(run, args=arguments, nprocs=processes, join=False)
    deadline = time.monotonic() + 300
    while not context.join(timeout=1):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            pytest.fail("the processes did not end within 300 seconds")


def join_group(rank: int, processes: int, folder: str, backend: str = "gloo") -> None:
    """Makes this process one of a group of so many, on the device that is its own."""
    device = device_of(backend, rank)
    torch.distributed.init_process_group(
        backend,
        init_method=f"file://{folder}/rendezvous{processes}",
        rank=rank,
        world_size=processes,
        timeout=datetime.timedelta(seconds=SECONDS),
        device_id=device if device.type == "cuda" else None,
    )


def load(folder: Path, backend: str, processes: int) -> list[Any]:
    """What each process of a group computed, on the CPU."""
    if processes > most_processes(backend):
        pytest.skip(f"{processes} processes by NCCL need as many GPUs; here: {most_processes(backend)}")
    return [torch.load(folder / f"{rank}_of_{processes}.pt", map_location="cpu") for rank in range(processes)]


def _run_process(rank: int, compute: Callable[[int, int, torch.device], Any], folder: str, backend: str) -> None:
    torch.set_num_threads(1)
    device = device_of(backend, rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    for processes in range(most_processes(backend), 1, -1):
        if rank >= processes:
            continue
        join_group(rank, processes, folder, backend)
        torch.save(compute(rank, processes, device), f"{folder}/{rank}_of_{processes}.pt")
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
