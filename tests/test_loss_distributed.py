"""NT-Xent over two and three processes: its gradient is that of one process with the whole batch."""

from __future__ import annotations

import datetime
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn

from fastssl.loss import NTXentLoss

WIDTH = 5
EVEN = {2: (3, 3), 3: (4, 4, 4)}
UNEVEN = {2: (3, 1), 3: (2, 5, 1)}
HAS_LIGHTLY = importlib.util.find_spec("lightly") is not None

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch has no gloo"
)


def views(pairs: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    both = torch.randn(2, pairs, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    return both[0], both[1]


def share(x: Tensor, pairs: tuple[int, ...], rank: int) -> Tensor:
    return x.split(pairs)[rank].clone()


def value_and_gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def in_one_process(temperature: float, pairs: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    return value_and_gradients(NTXentLoss(temperature), *views(sum(pairs), dtype))


def error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except (ValueError, RuntimeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def run_process(rank: int, folder: str) -> None:
    """One process of a group of three, then, but for the last, of a group of two."""
    torch.set_num_threads(1)
    run_in_group(rank, 3, folder)
    if rank < 2:
        run_in_group(rank, 2, folder)


def run_in_group(rank: int, processes: int, folder: str) -> None:
    """Everything the tests look at, computed by one process and written to a file."""
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous{processes}",
        rank=rank,
        world_size=processes,
        timeout=datetime.timedelta(seconds=60),
    )
    results: dict[Any, Any] = {}
    for pairs in (EVEN[processes], UNEVEN[processes]):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            for temperature in (0.01, 0.1):
                loss = NTXentLoss(temperature, gather_distributed=True)
                own = [share(x, pairs, rank) for x in views(sum(pairs), dtype)]
                results[pairs, dtype, temperature] = value_and_gradients(loss, *own)
    own = [share(x, EVEN[processes], rank) for x in views(sum(EVEN[processes]))]
    if HAS_LIGHTLY:
        from lightly.loss import NTXentLoss as LightlyLoss

        results["lightly"] = value_and_gradients(LightlyLoss(0.1, gather_distributed=True), *own)

    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(WIDTH, 4))
    uneven = [share(x, UNEVEN[processes], rank) for x in views(sum(UNEVEN[processes]))]
    NTXentLoss(0.1, gather_distributed=True)(model(uneven[0]), model(uneven[1])).backward()
    results["model"] = model.module.weight.grad

    bank = NTXentLoss(memory_bank_size=(7, WIDTH), gather_distributed=True)
    bank(own[0].requires_grad_(), own[1]).backward()
    results["bank"] = bank.memory_bank.bank.clone(), bank.memory_bank.bank_ptr.clone()

    loss = NTXentLoss(gather_distributed=True)
    wide, empty = torch.ones(2, 3 + rank), torch.ones(rank, 3)
    results["width"] = error_of(lambda: loss(wide, wide))
    results["empty"] = error_of(lambda: loss(empty, empty))
    leaf = own[0].detach().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf, own[1]), leaf, create_graph=True)
    results["second derivative"] = error_of(lambda: first.sum().backward())
    torch.save(results, f"{folder}/{rank}_of_{processes}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes wrote what they computed."""
    folder: Path = tmp_path_factory.mktemp("processes")
    context = torch.multiprocessing.spawn(run_process, args=(str(folder),), nprocs=3, join=False)
    deadline = time.monotonic() + 120
    while not context.join(timeout=1):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            pytest.fail("the processes did not end within 120 seconds")
    return folder


@pytest.fixture(params=[2, 3])
def processes(request: pytest.FixtureRequest, folder: Path) -> list[dict[Any, Any]]:
    """What each of 2 or 3 processes computed."""
    return [torch.load(folder / f"{rank}_of_{request.param}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("batch", [EVEN, UNEVEN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_mean_over_processes_is_the_loss_of_the_whole_batch(
    processes: list[dict[Any, Any]], batch: dict[int, tuple[int, ...]], dtype: torch.dtype, temperature: float
) -> None:
    pairs = batch[len(processes)]
    value, *grads = in_one_process(temperature, pairs, dtype)
    results = [result[pairs, dtype, temperature] for result in processes]
    mean = torch.stack([result[0] for result in results]).mean()
    # Both sides round to dtype; in float32 a logit of 1 / t carries an error of eps / t.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2**-7}[dtype] * max(1, 0.02 / temperature)
    torch.testing.assert_close(mean, value, rtol=tolerance, atol=0)
    for position, grad in enumerate(grads, start=1):
        # DistributedDataParallel divides the sum of the gradients by the number of processes.
        ours = torch.cat([result[position] for result in results]) / len(processes)
        assert ((ours - grad).abs().max() / grad.abs().max()).item() <= tolerance


@pytest.mark.skipif(not HAS_LIGHTLY, reason="lightly is not installed")
def test_numbers_are_those_of_lightly(processes: list[dict[Any, Any]]) -> None:
    for result in processes:
        ours = result[EVEN[len(processes)], torch.float32, 0.1]
        for a, b in zip(ours, result["lightly"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_parameters_under_ddp_get_the_gradient_of_the_whole_batch(processes: list[dict[Any, Any]]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(WIDTH, 4)
    first, second = views(sum(UNEVEN[len(processes)]))
    NTXentLoss(0.1)(model(first), model(second)).backward()
    for result in processes:
        assert ((result["model"] - model.weight.grad).abs().max() / model.weight.grad.abs().max()).item() <= 1e-6


def test_bank_takes_the_keys_of_all_processes(processes: list[dict[Any, Any]]) -> None:
    keys = torch.nn.functional.normalize(views(sum(EVEN[len(processes)]))[1], dim=1)
    for result in processes:
        bank, pointer = result["bank"]
        assert pointer.item() == len(keys) % 7
        places = torch.arange(len(keys)) % 7
        for place, key in dict(zip(places.tolist(), keys, strict=True)).items():  # the last of a place stays
            torch.testing.assert_close(bank[place], key)


def test_processes_that_do_not_fit_together_are_told_so(processes: list[dict[Any, Any]]) -> None:
    for result in processes:
        assert result["width"].startswith("ValueError: gather_distributed: the processes hold rows of")
        assert result["empty"].startswith("ValueError: gather_distributed: the processes hold rows of")
        assert "first derivatives only" in result["second derivative"]
