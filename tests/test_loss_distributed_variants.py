"""DCL, DetCon, DirectCLR and banks over two, three and four processes: as one process with the whole batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loss_cases import gradient, rows
from process_groups import backends, eps_of_logit, load, run_processes
from torch import Tensor, nn

import fastssl.loss
from fastssl.models.modules import MemoryBankModule, NNMemoryBankModule

WIDTH, MASKS = 5, 3
EVEN = {2: (3, 3), 3: (4, 4, 4), 4: (2, 2, 2, 2)}
UNEVEN = {2: (3, 1), 3: (2, 5, 1), 4: (1, 3, 2, 2)}


def relative_weights(first: Tensor, second: Tensor) -> Tensor:
    """Weights that depend on all rows, and have a gradient."""
    distance = (first - second).square().sum(dim=1)
    return distance / distance.mean()


Make = Callable[[Any, bool], nn.Module]

# What is made of a library, whether it gathers, and the number of views it takes.
OF_VIEWS: dict[str, Make] = {
    "dcl": lambda library, gather: library.DCLLoss(0.1, gather_distributed=gather),
    "dcl, sharp": lambda library, gather: library.DCLLoss(0.01, gather_distributed=gather),
    "dclw": lambda library, gather: library.DCLWLoss(0.1, gather_distributed=gather),
    "dcl, weights of all": lambda library, gather: library.DCLLoss(0.1, relative_weights, gather_distributed=gather),
    "directclr": lambda library, gather: library.DirectCLRLoss(3, 0.1, gather_distributed=gather),
}
OF_REGIONS: dict[str, Make] = {
    "detcon_s": lambda library, gather: library.DetConSLoss(0.1, gather_distributed=gather),
    "detcon_b": lambda library, gather: library.DetConBLoss(0.1, gather_distributed=gather),
}
AS_LIGHTLY = ["dcl", "directclr", *OF_REGIONS]
NAMES = [*OF_VIEWS, *OF_REGIONS]


def inputs_of(name: str, images: int, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Embeddings, and masks where the loss takes any, of a whole batch."""
    if name in OF_VIEWS:
        return [rows(images, WIDTH, dtype, seed=s) for s in (1, 2)], []
    count = 2 if name == "detcon_s" else 4
    views = [rows(images * MASKS, WIDTH, dtype, seed=s).view(images, MASKS, WIDTH) for s in range(count)]
    generator = torch.Generator().manual_seed(9)
    return views, [torch.randint(2, (images, MASKS), generator=generator) for _ in range(2)]


def results_of(library: Any, name: str, gather: bool, inputs: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
    loss = (OF_VIEWS | OF_REGIONS)[name](library, gather)
    return gradient(lambda *x: loss(*x, *masks), *inputs)


def share(tensors: list[Tensor], counts: tuple[int, ...], rank: int, device: torch.device) -> list[Tensor]:
    return [x.split(counts)[rank].clone().to(device) for x in tensors]


def error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except (ValueError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def compute(rank: int, processes: int, device: torch.device) -> dict[Any, Any]:
    """Everything the tests look at, computed by one process."""
    results: dict[Any, Any] = {}
    for name in NAMES:
        for counts in (EVEN[processes], UNEVEN[processes]):
            for dtype in (torch.float32, torch.float64, torch.bfloat16):
                inputs, masks = (share(x, counts, rank, device) for x in inputs_of(name, sum(counts), dtype))
                results[name, counts, dtype] = results_of(fastssl.loss, name, True, inputs, masks)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it imports deprecates this and that
            import lightly.loss
    except ModuleNotFoundError:
        pass
    else:
        for name in AS_LIGHTLY:
            counts = EVEN[processes]
            inputs, masks = (share(x, counts, rank, device) for x in inputs_of(name, sum(counts), torch.float32))
            results["lightly", name] = results_of(lightly.loss, name, True, inputs, masks)

    own = share([rows(sum(UNEVEN[processes]), WIDTH)], UNEVEN[processes], rank, device)[0]
    for make in (MemoryBankModule, NNMemoryBankModule):
        bank = make((7, WIDTH), gather_distributed=True).to(device)
        bank(own, update=True)
        results[make.__name__] = bank.bank.clone(), bank.bank_ptr.clone()

    # The targets of all processes have no gradient: nothing is exchanged in the backward pass.
    whole = inputs_of("detcon_b", sum(EVEN[processes]), torch.float32)
    (a, b, c, d), masks = (share(x, EVEN[processes], rank, device) for x in whole)
    loss = fastssl.loss.DetConBLoss(0.1)
    results["no target gradient"] = gradient(lambda a, b: loss(a, b, c, d, *masks), a, b)

    wide, empty = torch.ones(2, 3 + rank, device=device), torch.ones(rank, 3, device=device)
    for name in ("dcl", "dcl, weights of all"):
        loss = OF_VIEWS[name](fastssl.loss, True)
        results["width", name] = error_of(lambda loss=loss: loss(wide, wide))
        results["empty", name] = error_of(lambda loss=loss: loss(empty, empty))
    regions, masks_of_none = empty[:, None], [torch.zeros(rank, 1, dtype=torch.long, device=device)] * 2
    results["empty", "detcon_s"] = error_of(lambda: fastssl.loss.DetConSLoss()(regions, regions, *masks_of_none))
    leaf = c.requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf[:, 0], leaf[:, 1]), leaf, create_graph=True)
    results["second derivative"] = error_of(lambda: first.sum().backward())
    return results


@pytest.fixture(params=backends(), scope="module")
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes wrote what they computed."""
    folder: Path = tmp_path_factory.mktemp("processes")
    run_processes(compute, folder, backend)
    return folder


@pytest.fixture(scope="module", params=[2, 3, 4])
def processes(request: pytest.FixtureRequest, folder: Path, backend: str) -> list[dict[Any, Any]]:
    """What each of 2, 3 or 4 processes computed."""
    return load(folder, backend, request.param)


def assert_mean_of(results: list[list[Tensor]], whole: list[Tensor], tolerance: float) -> None:
    """The mean of the values, and the gradients as DistributedDataParallel averages them, are those of the whole batch."""
    value, *grads = whole
    mean = torch.stack([result[0] for result in results]).mean()
    assert (mean - value).abs() <= tolerance * value.abs().clamp(min=1)
    for position, grad in enumerate(grads, start=1):
        ours = torch.cat([result[position] for result in results]) / len(results)
        assert ((ours - grad).abs().max() / grad.abs().max()).item() <= tolerance


@pytest.mark.parametrize("batch", [EVEN, UNEVEN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_mean_over_processes_is_the_loss_of_the_whole_batch(
    processes: list[dict[Any, Any]], name: str, dtype: torch.dtype, batch: dict[int, tuple[int, ...]], backend: str
) -> None:
    counts = batch[len(processes)]
    whole = results_of(fastssl.loss, name, False, *inputs_of(name, sum(counts), dtype))
    # Both sides round to dtype; in float32 a logit of 1 / t carries an error of eps / t.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2**-7}[dtype]
    tolerance *= 4 if "sharp" in name else 1
    if backend == "nccl":
        tolerance = max(tolerance, eps_of_logit(backend, dtype) / (0.01 if "sharp" in name else 0.1))
    assert_mean_of([result[name, counts, dtype] for result in processes], whole, tolerance)


@pytest.mark.parametrize("name", AS_LIGHTLY)
def test_numbers_are_those_of_lightly(processes: list[dict[Any, Any]], name: str, backend: str) -> None:
    pytest.importorskip("lightly", reason="lightly is not installed")
    for result in processes:
        ours = result[name, EVEN[len(processes)], torch.float32]
        for a, b in zip(ours, result["lightly", name], strict=True):
            atol = max(1e-6, eps_of_logit(backend, torch.float32) / 0.1)
            torch.testing.assert_close(a, b, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("name", ["MemoryBankModule", "NNMemoryBankModule"])
def test_banks_take_the_rows_of_all_processes_in_their_order(processes: list[dict[Any, Any]], name: str) -> None:
    everyone = rows(sum(UNEVEN[len(processes)]), WIDTH)
    for result in processes:
        bank, pointer = result[name]
        assert pointer.item() == len(everyone) % 7
        for place, row in {i % 7: row for i, row in enumerate(everyone)}.items():  # the last of a place stays
            assert torch.equal(bank[place], row)


def test_targets_without_gradient_are_exact_too(processes: list[dict[Any, Any]], backend: str) -> None:
    (a, b, c, d), masks = inputs_of("detcon_b", sum(EVEN[len(processes)]), torch.float32)
    whole = gradient(lambda a, b: fastssl.loss.detcon_b(a, b, c, d, *masks), a, b)
    tolerance = max(1e-6, eps_of_logit(backend, torch.float32) / 0.1)
    assert_mean_of([result["no target gradient"] for result in processes], whole, tolerance)


def test_processes_that_do_not_fit_together_are_told_so(processes: list[dict[Any, Any]]) -> None:
    for result in processes:
        for key in [key for key in result if key[0] in ("width", "empty")]:
            assert result[key].startswith("ValueError: gather_distributed: the processes hold rows of"), key
        assert "first derivatives only" in result["second derivative"]
