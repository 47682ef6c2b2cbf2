"""A weight a row, in the losses that are variants of others: against plain formulas in float64, of one process and of two."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from conftest import devices, devices_and_kernels
from loss_cases import gradient, rows
from process_groups import join_group, spawn
from torch import Tensor

from fastssl.loss import densecl, detcon_b, detcon_s, directclr, info_nce, macl, nnclr, ntxent
from fastssl.loss.regularizer import co2

T = 0.2
IMAGES, CELLS, WIDTH = 5, 3, 4  # an image's cells, or its regions


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Products this small take longer with two, which wait for each other."""
    torch.set_num_threads(1)


# What one would write in PyTorch: the loss of every row


def ntxent_rows(z: Tensor, t: Tensor | float) -> Tensor:
    unit = F.normalize(z, dim=1)
    logits = (unit @ unit.T / t).masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    return F.cross_entropy(logits, partner, reduction="none")


def macl_rows(z: Tensor) -> Tensor:
    unit, half = F.normalize(z, dim=1), len(z) // 2
    alignment = (unit[:half] * unit[half:]).sum(dim=1).mean().detach()
    losses = ntxent_rows(z, T * (1 + 0.5 * alignment))
    return losses / (1 - (-losses).exp() + 1e-8).detach()


def detcon_rows(predictions: list[Tensor], targets: list[Tensor], masks: list[Tensor]) -> Tensor:
    """(2B, M)."""
    query, key = (F.normalize(torch.cat(x).flatten(0, 1), dim=1) for x in (predictions, targets))
    count = len(query) // 2
    place = torch.arange(2 * count, device=query.device)
    view, image, mask = place // count, place % count // CELLS, torch.cat(masks).flatten()
    alike = (image[:, None] == image) & (mask[:, None] == mask)
    same_view = view[:, None] == view
    log_p = (query @ key.T / T).masked_fill(alike & same_view, -torch.inf).log_softmax(dim=1)
    positives = alike & ~same_view
    found = positives.sum(dim=1)
    losses = -log_p.where(positives, 0).sum(dim=1) / found.clamp(min=1)
    return (losses / (alike & same_view).sum(dim=1)).where(found > 0, 0).view(-1, CELLS)


def densecl_rows(query: Tensor, key: Tensor, query_features: Tensor, key_features: Tensor, bank: Tensor) -> Tensor:
    """(B, N)."""
    a, b, q, k = (F.normalize(x, dim=2) for x in (query_features, key_features, query, key))
    images = torch.arange(len(q), device=q.device)[:, None]
    positives = (q * k[images, (a @ b.mT).argmax(dim=2)]).sum(dim=2, keepdim=True)
    logits = torch.cat([positives, q @ bank.T], dim=2) / T
    return -logits.log_softmax(dim=2)[:, :, 0]


def co2_rows(query: Tensor, key: Tensor, bank: Tensor | None) -> Tensor:
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
    if bank is None:
        of_query, of_key = q @ k.T, k @ q.T  # the pair is on the diagonal
    else:
        pair = (q * k).sum(dim=1, keepdim=True)
        of_query, of_key = torch.cat([pair, q @ bank.T], dim=1), torch.cat([pair, k @ bank.T], dim=1)
    log_p, log_q = (of_query / T).log_softmax(dim=1), (of_key / T).log_softmax(dim=1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1) / 2


# Cases


def masks_of(views: list[Tensor]) -> list[Tensor]:
    """Of both views, (B, M): some drawn twice in a view, some without a counterpart."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(4, views[0].shape[:2], generator=generator).to(views[0].device) for _ in range(2)]


def bank(like: Tensor) -> Tensor:
    return F.normalize(rows(9, WIDTH, torch.float64, seed=9), dim=1).to(like)


def features(like: Tensor) -> list[Tensor]:
    return [rows(IMAGES * CELLS, 6, torch.float64, seed=s).view(IMAGES, CELLS, 6).to(like) for s in (7, 8)]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loss of embeddings and weights, and what its rows add to the mean."""

    loss: Callable[[list[Tensor], Tensor | None], Tensor]
    plain: Callable[[list[Tensor]], Tensor]  # in the shape of the weights
    shape: tuple[int, ...] = (IMAGES, WIDTH)  # of the embeddings
    count: int = 2  # how many there are of them
    weights: tuple[int, ...] = (2 * IMAGES,)  # shape


REGIONS = (IMAGES, CELLS, WIDTH)
CASES = {
    "macl": Case(loss=lambda x, w: macl(torch.cat(x), T, weights=w), plain=lambda x: macl_rows(torch.cat(x))),
    "directclr": Case(
        loss=lambda x, w: directclr(torch.cat(x), 7, T, w),
        plain=lambda x: ntxent_rows(torch.cat(x).flatten(1)[:, :7], T),
        shape=REGIONS,
    ),
    "detcon_s": Case(
        loss=lambda x, w: detcon_s(*x, *masks_of(x), T, w),
        plain=lambda x: 2 * detcon_rows(x, x, masks_of(x)),  # the sum of both views' means
        shape=REGIONS,
        weights=(2 * IMAGES, CELLS),
    ),
    "detcon_b": Case(
        loss=lambda x, w: detcon_b(*x, *masks_of(x), T, w),
        plain=lambda x: 2 * detcon_rows(x[:2], x[2:], masks_of(x)),
        shape=REGIONS,
        count=4,
        weights=(2 * IMAGES, CELLS),
    ),
    "densecl": Case(
        loss=lambda x, w: densecl(*x, *features(x[0]), bank(x[0]), T, w),
        plain=lambda x: densecl_rows(*x, *features(x[0]), bank(x[0])),
        shape=REGIONS,
        weights=(IMAGES, CELLS),
    ),
    "co2, batch": Case(
        loss=lambda x, w: co2(*x, None, 0.7, T, w), plain=lambda x: 0.7 * co2_rows(*x, None), weights=(IMAGES,)
    ),
    "co2, bank": Case(
        loss=lambda x, w: co2(*x, bank(x[0]), 0.7, T, w),
        plain=lambda x: 0.7 * co2_rows(*x, bank(x[0])),
        weights=(IMAGES,),
    ),
}


def inputs_of(name: str, dtype: torch.dtype, device: str = "cpu") -> tuple[list[Tensor], Tensor]:
    """Embeddings, and weights of which every third is 0."""
    case = CASES[name]
    views = [
        rows(IMAGES, math.prod(case.shape[1:]), dtype, seed=s, device=device).view(case.shape)
        for s in range(case.count)
    ]
    weights = rows(1, math.prod(case.weights), dtype, seed=20, device=device)[0].abs()
    weights[::3] = 0
    return views, weights.view(case.weights)


@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients_are_those_of_the_weighted_mean(name: str, dtype: torch.dtype, device: str) -> None:
    case = CASES[name]
    views, weights = inputs_of(name, dtype, device)
    ours = gradient(lambda *x: case.loss(list(x[:-1]), x[-1]), *views, weights)
    exact = gradient(lambda *x: (case.plain(list(x[:-1])) * x[-1]).mean(), *(x.double() for x in (*views, weights)))
    assert all(x.any() for x in exact)
    # A few eps of a logit, 1 / T, in what is of the order of 1 / T; losses of 22 bits on a GPU.
    tolerance = (16 * torch.finfo(dtype).eps if dtype == torch.float64 else 4 * 2.0**-22) / T**2
    for a, b in zip(ours, exact, strict=True):
        assert (a.double() - b).abs().max() <= tolerance


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("name", CASES)
def test_weights_of_1_change_nothing_and_weights_of_0_leave_nothing(name: str, device: str) -> None:
    case = CASES[name]
    views, weights = inputs_of(name, torch.float32, device)
    without = gradient(lambda *x: case.loss(list(x), None), *views)
    ones = gradient(lambda *x: case.loss(list(x), torch.ones_like(weights)), *views)
    # On a GPU NT-Xent without weights takes kernels of its own.
    for a, b in zip(without, ones, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5 if device == "cuda" else 0, atol=1e-6 if device == "cuda" else 0)
    assert not any(x.any() for x in gradient(lambda *x: case.loss(list(x), torch.zeros_like(weights)), *views))


@pytest.mark.parametrize("name", CASES)
def test_weights_may_be_of_another_type(name: str) -> None:
    case = CASES[name]
    views, weights = inputs_of(name, torch.float32)
    low = [view.bfloat16() for view in views]
    assert case.loss(low, weights).dtype == torch.float32
    assert torch.equal(case.loss(views, weights.double()), case.loss(views, weights))


def test_weights_compile_without_a_graph_break() -> None:
    inputs = {name: inputs_of(name, torch.float32) for name in CASES}
    leaves = [view.requires_grad_() for views, _ in inputs.values() for view in views]
    fixed = {"masks": masks_of(leaves[2:]), "features": features(leaves[0]), "bank": bank(leaves[0])}
    w = {name: weights for name, (_, weights) in inputs.items()}

    def step() -> Tensor:
        x = {name: views for name, (views, _) in inputs.items()}
        return (
            macl(torch.cat(x["macl"]), weights=w["macl"])
            + directclr(torch.cat(x["directclr"]), 7, weights=w["directclr"])
            + detcon_s(*x["detcon_s"], *fixed["masks"], weights=w["detcon_s"])
            + densecl(*x["densecl"], *fixed["features"], fixed["bank"], weights=w["densecl"])
            + co2(*x["co2, batch"], weights=w["co2, batch"])
        )

    results = []
    for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        value = run()
        results.append([value, *torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", ["one short", "one for all", "with a dimension more", "whole numbers"])
@pytest.mark.parametrize("name", CASES)
def test_weights_that_do_not_fit_are_named(name: str, wrong: str) -> None:
    case = CASES[name]
    views, weights = inputs_of(name, torch.float32)
    made = {
        "one short": weights[:-1],
        "one for all": weights.sum(),
        "with a dimension more": weights[..., None],
        "whole numbers": weights.long(),
    }[wrong]
    must = str(case.weights).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"^{name.split(',')[0]}: weights has shape .* must be {must}"):
        case.loss(views, made)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda x: info_nce(x, x, weights=torch.ones(2)), r"info_nce: weights has shape \(2,\)"),
        (lambda x: info_nce(x, x, torch.ones(3, 5)), r"info_nce: bank has shape \(3, 5\)"),
        (lambda x: nnclr(x, x, weights=torch.ones(2)), r"nnclr: weights has shape \(2,\)"),
        (lambda x: ntxent(x, weights=torch.ones(2)), r"ntxent: weights has shape \(2,\)"),
    ],
)
def test_errors_name_the_function_that_was_called(make: Callable[[Tensor], object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        make(rows(4, 4))


def test_gathering_without_torch_distributed_names_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    for call in (lambda x: nnclr(x, x, gather_distributed=True), lambda x: directclr(x, gather_distributed=True)):
        with pytest.raises(ValueError, match=r"^(nnclr|directclr): gather_distributed=True needs torch.distributed"):
            call(rows(4, 4))


# Two processes

COUNTS = (3, 2)
GATHERED: dict[str, Callable[[list[Tensor], list[Tensor], Tensor, bool], Tensor]] = {
    "directclr": lambda x, _, w, gather: directclr(torch.cat(x), 7, T, w, gather),
    "detcon_s": lambda x, masks, w, gather: detcon_s(*x, *masks, T, w, gather),
    "detcon_b": lambda x, masks, w, gather: detcon_b(*x, *masks, T, w, gather),
}


def part(name: str, counts: tuple[int, ...], process: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Embeddings, masks and weights of a process."""
    views, weights = inputs_of(name, torch.float64)
    by_view = weights.view(2, IMAGES, *weights.shape[1:])
    own = [[x.split(counts)[process].clone() for x in tensors] for tensors in (views, masks_of(views))]
    return own[0], own[1], by_view.split(counts, dim=1)[process].flatten(0, 1)


def results_of(name: str, counts: tuple[int, ...], process: int, gather: bool) -> list[Tensor]:
    """Value, and gradients in the embeddings and the weights."""
    views, masks, weights = part(name, counts, process)
    return gradient(lambda *x: GATHERED[name](list(x[:-1]), masks, x[-1], gather), *views, weights)


def run_process(process: int, folder: str) -> None:
    torch.set_num_threads(1)
    join_group(process, len(COUNTS), folder)
    results: dict[str, Any] = {name: results_of(name, COUNTS, process, True) for name in GATHERED}
    torch.save(results, f"{folder}/{process}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    """What each process computed."""
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("torch has no gloo")
    folder = tmp_path_factory.mktemp("processes")
    spawn(run_process, (str(folder),), len(COUNTS))
    return [torch.load(Path(folder) / f"{process}.pt") for process in range(len(COUNTS))]


@pytest.mark.parametrize("name", GATHERED)
def test_mean_over_uneven_processes_is_the_weighted_loss_of_the_whole_batch(
    processes: list[dict[str, list[Tensor]]], name: str
) -> None:
    value, *grads, of_weights = results_of(name, (IMAGES,), 0, False)
    results = [process[name] for process in processes]
    torch.testing.assert_close(torch.stack([r[0] for r in results]).mean(), value, rtol=1e-12, atol=1e-12)
    for position, grad in enumerate(grads, start=1):
        ours = torch.cat([r[position] for r in results]) / len(COUNTS)
        torch.testing.assert_close(ours, grad, rtol=1e-10, atol=1e-12)
    by_view = [r[-1].view(2, -1, *r[-1].shape[1:]) for r in results]
    ours = torch.cat(by_view, dim=1).flatten(0, 1) / len(COUNTS)
    torch.testing.assert_close(ours, of_weights, rtol=1e-10, atol=1e-12)
