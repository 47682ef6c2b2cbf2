"""Losses and banks of two processes under torch.compile: one graph, and the numbers of eager mode."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from loss_cases import gradient
from torch import Tensor

from fastssl._native import _C
from fastssl.loss import DCLLoss, DetConBLoss, DetConSLoss, DirectCLRLoss, NTXentLoss, _cuda, dclw
from fastssl.models.modules import MemoryBankModule, NNMemoryBankModule

IMAGES = (2, 3)  # of the two processes
REGIONS, WIDTH = 3, 5

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch has no gloo"
)


def weights_of(first: Tensor, second: Tensor) -> Tensor:
    return 1 + (first * second).sum(dim=1) / 2


def flat(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


# Of x and y, (B, REGIONS, WIDTH), and masks, (B, REGIONS); made anew for eager mode and for the compiler, since banks change.
LOSSES: dict[str, Callable[[], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "DetConS": lambda: lambda x, y, m, loss=DetConSLoss(): loss(x, y, m, m.flip(1)),
    "DetConB": lambda: lambda x, y, m, loss=DetConBLoss(): loss(x, y, y, x, m, m.flip(1)),
    "DetConB of a teacher": lambda: lambda x, y, m, loss=DetConBLoss(): loss(x, y, y.detach(), x.detach(), m, m),
    "dclw": lambda: lambda x, y, m: dclw(torch.cat([flat(x), flat(y)]), gather_distributed=True),
    "DCL": lambda: lambda x, y, m, loss=DCLLoss(0.1, weights_of, True): loss(flat(x), flat(y)),
    "NTXent": lambda: lambda x, y, m, loss=NTXentLoss(gather_distributed=True): loss(flat(x), flat(y)),
    "NTXent with a bank": lambda: of_two_steps(NTXentLoss(memory_bank_size=(7, WIDTH), gather_distributed=True)),
    "DirectCLR with a bank": lambda: of_two_steps(
        DirectCLRLoss(loss_dim=4, memory_bank_size=(7, 4), gather_distributed=True)
    ),
    "neighbours": lambda: of_two_updates(NNMemoryBankModule((7, WIDTH), gather_distributed=True)),
    "bank": lambda: of_two_updates(MemoryBankModule((7, WIDTH), gather_distributed=True)),
}


def of_two_steps(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda x, y, m: loss(flat(x), flat(y)) + loss(flat(y), flat(x))


def of_two_updates(bank: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def call(x: Tensor, y: Tensor, m: Tensor) -> Tensor:
        found = [bank(flat(view), update=True) for view in (x, y)]
        tensors = [t for one in found for t in (one if isinstance(one, tuple) else (one,))]
        return flat(x).sum() + sum((t * torch.arange(t.shape[1])).sum() for t in tensors)

    return call


@contextlib.contextmanager
def kernels(emulated: bool) -> Iterator[None]:
    before = _cuda.emulated_grid
    _cuda.emulated_grid = _C.GridSize(multiprocessors=3, shared_bytes=228 * 1024) if emulated else None
    yield
    _cuda.emulated_grid = before


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=len(IMAGES),
        timeout=datetime.timedelta(seconds=60),
    )
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, sum(IMAGES), REGIONS, WIDTH, generator=generator)
    x, y = (view.split(IMAGES)[rank].clone() for view in draw)
    masks = torch.arange(REGIONS).repeat(sum(IMAGES), 1).split(IMAGES)[rank].clone()
    results: dict[Any, Any] = {}
    for emulated in (False, True):
        with kernels(emulated):
            for name, make in LOSSES.items():
                for compiled in (False, True):
                    torch.manual_seed(0)  # of the banks
                    torch.compiler.reset()
                    loss = make()
                    call = torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss
                    try:
                        results[name, emulated, compiled] = gradient(lambda a, b, f=call: f(a, b, masks), x, y)
                    except Exception as error:  # noqa: BLE001 - of all of them, and none keeps the other process waiting
                        results[name, emulated, compiled] = f"{type(error).__name__}: {error}"[:2000]
    torch.save(results, f"{folder}/results{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    folder = str(tmp_path_factory.mktemp("processes"))
    torch.multiprocessing.spawn(run_process, (folder,), nprocs=len(IMAGES))
    return [torch.load(Path(folder) / f"results{rank}.pt") for rank in range(len(IMAGES))]


@pytest.mark.parametrize("emulated", [False, True], ids=["tiles", "kernels"])
@pytest.mark.parametrize("name", LOSSES)
def test_in_one_graph_they_are_as_in_eager_mode(name: str, emulated: bool, results: list[dict[Any, Any]]) -> None:
    for of_process in results:
        eager, compiled = (of_process[name, emulated, compiled] for compiled in (False, True))
        assert not isinstance(eager, str), eager
        assert not isinstance(compiled, str), compiled
        for a, b in zip(eager, compiled, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
