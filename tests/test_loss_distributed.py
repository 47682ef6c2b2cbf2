"""The contrastive losses over two, three and four processes: what they give is what one process does on the whole batch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loss_cases import gradient
from process_groups import backends, eps_of_logit, load, run_processes
from torch import Tensor, nn

from fastssl.loss import NTXentLoss, SupConLoss, clip_loss, info_nce, nnclr, ntxent, siglip_loss, supcon

WIDTH = 5
EVEN = {2: (3, 3), 3: (4, 4, 4), 4: (3, 3, 3, 3)}
UNEVEN = {2: (3, 1), 3: (2, 5, 1), 4: (1, 4, 2, 3)}
HAS_LIGHTLY = importlib.util.find_spec("lightly") is not None


def of_views(views: Tensor) -> Tensor:
    """(V, B, D) as (V * B, D), rows i, i + B, ... of one image."""
    return views.flatten(0, 1)


# Functions of views (3, B, WIDTH), labels (B,), weights (B,), a temperature, and whether processes exchange rows.
# bfloat16 is tried at one of the temperatures only: what differs is the rounding.
TYPES = [
    (torch.float32, 0.01),
    (torch.float32, 0.1),
    (torch.float64, 0.01),
    (torch.float64, 0.1),
    (torch.bfloat16, 0.1),
]
COMPILED = ("ntxent", "supcon", "clip", "siglip")

LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, bool], Tensor]] = {
    "ntxent": lambda v, y, w, t, g: ntxent(of_views(v[:2]), t, weights=w.repeat(2), gather_distributed=g),
    "three views": lambda v, y, w, t, g: ntxent(of_views(v), t, views=3, gather_distributed=g),
    "supcon": lambda v, y, w, t, g: supcon(of_views(v[:2]), y.repeat(2), t, weights=w.repeat(2), gather_distributed=g),
    "views beside each other": lambda v, y, w, t, g: SupConLoss(t, gather_distributed=g)(v.transpose(0, 1)),
    "labels": lambda v, y, w, t, g: supcon(v[0], y, t, gather_distributed=g),
    "info_nce": lambda v, y, w, t, g: info_nce(v[0], v[1], None, t, weights=w, gather_distributed=g),
    "nnclr": lambda v, y, w, t, g: nnclr(v[0], v[1], t, gather_distributed=g),
    "query only": lambda v, y, w, t, g: info_nce(v[0], v[1].detach(), None, t, gather_distributed=g),
    "key only": lambda v, y, w, t, g: clip_loss(v[0].detach(), v[1], 1 / t, gather_distributed=g),
    "clip": lambda v, y, w, t, g: clip_loss(v[0], v[1], 1 / t, weights=w, gather_distributed=g),
    "siglip": lambda v, y, w, t, g: siglip_loss(v[0], v[1], 1 / t, -10 * t, weights=w, gather_distributed=g),
}


def batch(
    images: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Three views, (3, B, WIDTH), labels, (B,), some of them of one image only, and weights, (B,)."""
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(3, images, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, 1 + images // 2, (images,), generator=generator)
    return views.to(device), labels.to(device), torch.rand(images, generator=generator).to(device)


def share(x: Tensor, images: tuple[int, ...], rank: int, dim: int = 0) -> Tensor:
    return x.split(images, dim)[rank].clone()


def error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except (ValueError, RuntimeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


class Encoder(nn.Module):
    """A layer, and the temperature as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(WIDTH, 4)
        self.temperature = nn.Parameter(torch.tensor(0.2))

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(views), self.temperature * 1


def ten_steps(encoder: nn.Module, loss: Callable[..., Tensor], views: Tensor, labels: Tensor, gather: bool) -> None:
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.02, momentum=0.9)
    for step in range(10):
        optimizer.zero_grad()
        embeddings, temperature = encoder(views.roll(step, dims=2))
        loss(embeddings, labels, torch.ones(len(labels), device=views.device), temperature, gather).backward()
        optimizer.step()


def compute(rank: int, processes: int, device: torch.device) -> dict[Any, Any]:
    """Everything the tests look at, computed by one process."""
    results: dict[Any, Any] = {}
    for images in (EVEN[processes], UNEVEN[processes]):
        for dtype, temperature in TYPES:
            views, labels, weights = batch(sum(images), dtype, device)
            t = torch.tensor(temperature, device=device)
            own = share(views, images, rank, dim=1), share(labels, images, rank), share(weights, images, rank)
            for name, loss in LOSSES.items():
                results[name, images, dtype, temperature] = gradient(
                    lambda v, t, loss=loss, own=own: loss(v, *own[1:], t, True), own[0], t
                )
    images = UNEVEN[processes]
    views, labels, _ = batch(sum(images), device=device)
    for name, loss in LOSSES.items():
        model = nn.parallel.DistributedDataParallel(Encoder().to(device))
        ten_steps(model, loss, share(views, images, rank, dim=1), share(labels, images, rank), True)
        results["model", name] = model.module.state_dict()

    views, _, _ = batch(sum(images), torch.float64, device)
    query, key = share(views, images, rank, dim=1)[:2]
    results["unlike types"] = gradient(lambda q, k: clip_loss(q, k, 10.0, gather_distributed=True), query, key.float())

    images = EVEN[processes]
    own_views = share(batch(sum(images), device=device)[0], images, rank, dim=1)
    if HAS_LIGHTLY and processes < 4:  # its import takes as long as all of ours
        from lightly.loss import NTXentLoss as LightlyLoss

        results["lightly"] = [
            gradient(loss(0.1, gather_distributed=True), *own_views[:2]) for loss in (LightlyLoss, NTXentLoss)
        ]

    bank = NTXentLoss(memory_bank_size=(7, WIDTH), gather_distributed=True).to(device)
    bank(own_views[0].clone().requires_grad_(), own_views[1]).backward()
    results["bank"] = bank.memory_bank.bank.clone(), bank.memory_bank.bank_ptr.clone()

    if processes == 2:
        results["compiled"] = compiled(share(batch(4, device=device)[0], UNEVEN[2], rank, dim=1))

    loss = NTXentLoss(gather_distributed=True)
    wide, empty = torch.ones(2, 3 + rank, device=device), torch.ones(rank, 3, device=device)
    no_labels = torch.ones(rank, device=device).long()
    results["width"] = error_of(lambda: loss(wide, wide))
    results["empty"] = error_of(lambda: loss(empty, empty))
    results["empty class"] = error_of(lambda: SupConLoss(gather_distributed=True)(empty, no_labels))
    short = own_views.half()
    short[:, 0] = 0
    leaf = own_views.requires_grad_()
    ones = torch.ones(leaf.shape[1], device=device)
    others = torch.zeros_like(ones).long(), ones
    sharp, usual = torch.tensor([0.01, 0.1], device=device)
    for name, function in LOSSES.items():
        value = function(leaf, *others, usual, True)
        (first,) = torch.autograd.grad(value, leaf, create_graph=True)
        results["second derivative", name] = error_of(lambda first=first: first.sum().backward())
        results["zeros", name] = gradient(lambda v, f=function: f(v, *others, sharp, True), short)[1]
    return results


def compiled(views: Tensor) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """Eager and compiled, without a graph break."""
    weights = torch.ones(views.shape[1], device=views.device)
    labels = torch.arange(len(weights), device=views.device) % 2
    found = {}
    for name in COMPILED:

        def call(v: Tensor, t: Tensor, loss: Callable[..., Tensor] = LOSSES[name]) -> Tensor:
            return loss(v, labels, weights, t, True)

        arguments = views, torch.tensor(0.1, device=views.device)
        whole = torch.compile(call, fullgraph=True, backend="aot_eager")
        found[name] = gradient(call, *arguments), gradient(whole, *arguments)
    return found


@pytest.fixture(params=backends(), scope="module")
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes wrote what they computed."""
    folder: Path = tmp_path_factory.mktemp("processes")
    run_processes(compute, folder, backend)
    return folder


@pytest.fixture(params=[2, 3, 4], scope="module")
def processes(request: pytest.FixtureRequest, folder: Path, backend: str) -> list[dict[Any, Any]]:
    """What each of 2, 3 or 4 processes computed."""
    return load(folder, backend, request.param)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("split", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("dtype, temperature", TYPES)
def test_mean_over_processes_is_the_loss_of_the_whole_batch(
    processes: list[dict[Any, Any]],
    name: str,
    split: dict[int, tuple[int, ...]],
    dtype: torch.dtype,
    temperature: float,
    backend: str,
) -> None:
    """Which one process computes on the CPU, in plain torch."""
    images = split[len(processes)]
    views, labels, weights = batch(sum(images), dtype)
    value, grad, grad_temperature = gradient(
        lambda v, t: LOSSES[name](v, labels, weights, t, False), views, torch.tensor(temperature)
    )
    results = [result[name, images, dtype, temperature] for result in processes]
    # Both sides round to dtype; a logit of 1 / t carries an error of as much.
    of_logit = eps_of_logit(backend, dtype) / temperature
    tolerance = max({torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2**-7}[dtype], of_logit)
    mean = torch.stack([result[0] for result in results]).mean()
    torch.testing.assert_close(mean, value, rtol=tolerance, atol=tolerance)
    # DistributedDataParallel divides the sum of the gradients by the number of processes.
    ours = torch.cat([result[1] for result in results], dim=1) / len(processes)
    assert ((ours - grad).abs().max() / grad.abs().max()).item() <= tolerance
    ours = torch.stack([result[2] for result in results]).mean()
    # The temperature is float32, and its gradient a difference of terms of up to 1 / t^2.
    least = max(tolerance, 1e-6)
    torch.testing.assert_close(ours, grad_temperature, rtol=least, atol=least * temperature**-2)


def test_towers_of_unlike_types_are_computed_as_by_one_process(processes: list[dict[Any, Any]]) -> None:
    query, key = batch(sum(UNEVEN[len(processes)]), torch.float64)[0][:2]
    value, grad_query, grad_key = gradient(lambda q, k: clip_loss(q, k, 10.0), query, key.float())
    results = [result["unlike types"] for result in processes]
    torch.testing.assert_close(torch.stack([r[0] for r in results]).mean(), value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([r[1] for r in results]) / len(processes), grad_query, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([r[2] for r in results]) / len(processes), grad_key, rtol=1e-6, atol=1e-7)


def test_rows_of_zeros_have_finite_gradients_in_float16(processes: list[dict[Any, Any]]) -> None:
    for result in processes:
        for name in LOSSES:
            assert result["zeros", name].isfinite().all(), name


@pytest.mark.skipif(not HAS_LIGHTLY, reason="lightly is not installed")
@pytest.mark.parametrize("count", [2, 3])
def test_numbers_are_those_of_lightly(folder: Path, count: int, backend: str) -> None:
    for result in load(folder, backend, count):
        theirs, ours = result["lightly"]
        for a, b in zip(ours, theirs, strict=True):
            atol = max(1e-6, eps_of_logit(backend, torch.float32) / 0.1)
            torch.testing.assert_close(a, b, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("name", LOSSES)
def test_ten_steps_under_ddp_are_those_of_one_process(processes: list[dict[Any, Any]], name: str, backend: str) -> None:
    views, labels, _ = batch(sum(UNEVEN[len(processes)]))
    model = Encoder()
    ten_steps(model, LOSSES[name], views, labels, False)
    # A few roundings of float32, as of the gradients; or a logit's, since the steps are 0.8 times the mean of the gradients.
    tolerance = max(1e-6, eps_of_logit(backend, torch.float32) / 0.2)
    for result in processes:
        for key, value in model.state_dict().items():
            ours = result["model", name][key]
            assert ((ours - value).abs().max() / value.abs().max()).item() <= tolerance, key


def test_compiles_without_a_graph_break(folder: Path, backend: str) -> None:
    for result in load(folder, backend, 2):
        for name, (eager, whole) in result["compiled"].items():
            for a, b in zip(eager, whole, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_bank_takes_the_keys_of_all_processes(processes: list[dict[Any, Any]]) -> None:
    keys = torch.nn.functional.normalize(batch(sum(EVEN[len(processes)]))[0][1], dim=1)
    for result in processes:
        bank, pointer = result["bank"]
        assert pointer.item() == len(keys) % 7
        places = torch.arange(len(keys)) % 7
        for place, key in dict(zip(places.tolist(), keys, strict=True)).items():  # the last of a place stays
            torch.testing.assert_close(bank[place], key)


def test_processes_that_do_not_fit_together_are_told_so(processes: list[dict[Any, Any]]) -> None:
    for result in processes:
        for case in ("width", "empty", "empty class"):
            assert result[case].startswith("ValueError: gather_distributed: the processes hold rows of"), case
        for name in LOSSES:
            assert "first derivatives only" in result["second derivative", name]
