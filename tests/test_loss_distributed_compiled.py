"""Losses and banks of two processes under torch.compile: one graph, and the numbers of eager mode."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from loss_cases import gradient
from process_groups import join_group, spawn
from torch import Tensor

from fastssl._native import _C
from fastssl.loss import DCLLoss, DCLWLoss, DetConBLoss, DetConSLoss, DirectCLRLoss, NTXentLoss, _cuda
from fastssl.loss.dcl_loss import negative_mises_fisher_weights
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


def of_two_steps(loss: Any, x: Tensor, y: Tensor, masks: Tensor) -> Tensor:
    return loss(flat(x), flat(y)) + loss(flat(y), flat(x))


def of_two_updates(bank: Any, x: Tensor, y: Tensor, masks: Tensor) -> Tensor:
    found = [bank(flat(view), update=True) for view in (x, y)]
    tensors = [t for one in found for t in (one if isinstance(one, tuple) else (one,))]
    return flat(x).sum() + sum((t * torch.arange(t.shape[1])).sum() for t in tensors)


# What is made, anew for eager mode and for the compiler, as banks change; and what is computed with it of x and y,
# (B, REGIONS, WIDTH), and masks, (B, REGIONS).
LOSSES: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor, Tensor, Tensor], Tensor]]] = {
    "DetConS": (DetConSLoss, lambda loss, x, y, m: loss(x, y, m, m.flip(1))),
    "DetConB": (DetConBLoss, lambda loss, x, y, m: loss(x, y, y, x, m, m.flip(1))),
    "DetConB of a teacher": (DetConBLoss, lambda loss, x, y, m: loss(x, y, y.detach(), x.detach(), m, m)),
    "DCLW": (lambda: DCLWLoss(gather_distributed=True), lambda loss, x, y, m: loss(flat(x), flat(y))),
    "DCL by DCLW's weights": (
        lambda: DCLLoss(0.1, functools.partial(negative_mises_fisher_weights), True),
        lambda loss, x, y, m: loss(flat(x), flat(y)),
    ),
    "DCL": (lambda: DCLLoss(0.1, weights_of, True), lambda loss, x, y, m: loss(flat(x), flat(y))),
    "NTXent": (lambda: NTXentLoss(gather_distributed=True), lambda loss, x, y, m: loss(flat(x), flat(y))),
    "NTXent with a bank": (
        lambda: NTXentLoss(memory_bank_size=(7, WIDTH), gather_distributed=True),
        of_two_steps,
    ),
    "DirectCLR with a bank": (
        lambda: DirectCLRLoss(loss_dim=4, memory_bank_size=(7, 4), gather_distributed=True),
        of_two_steps,
    ),
    "neighbours": (lambda: NNMemoryBankModule((7, WIDTH), gather_distributed=True), of_two_updates),
    "bank": (lambda: MemoryBankModule((7, WIDTH), gather_distributed=True), of_two_updates),
}


@contextlib.contextmanager
def kernels(emulated: bool) -> Iterator[None]:
    before = _cuda.emulated_grid
    _cuda.emulated_grid = _C.GridSize(multiprocessors=3, shared_bytes=228 * 1024) if emulated else None
    yield
    _cuda.emulated_grid = before


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    join_group(rank, len(IMAGES), folder)
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, sum(IMAGES), REGIONS, WIDTH, generator=generator)
    x, y = (view.split(IMAGES)[rank].clone() for view in draw)
    masks = torch.arange(REGIONS).repeat(sum(IMAGES), 1).split(IMAGES)[rank].clone()
    results: dict[Any, Any] = {}
    for emulated in (False, True):
        with kernels(emulated):
            for name, (make, call) in LOSSES.items():
                for compiled in (False, True):
                    torch.manual_seed(0)  # of the banks
                    torch.compiler.reset()
                    step = functools.partial(call, make())
                    if compiled:
                        step = torch.compile(step, fullgraph=True, backend="aot_eager")
                    try:
                        results[name, emulated, compiled] = gradient(lambda a, b, f=step: f(a, b, masks), x, y)
                    except Exception as error:  # noqa: BLE001 - of all of them, and none keeps the other process waiting
                        results[name, emulated, compiled] = f"{type(error).__name__}: {error}"[:2000]
    torch.save(results, f"{folder}/results{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    folder = str(tmp_path_factory.mktemp("processes"))
    spawn(run_process, (folder,), len(IMAGES))
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
