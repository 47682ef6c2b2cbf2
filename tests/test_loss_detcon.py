"""DetCon and DenseCL: against their definitions, plain torch and lightly."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

import pytest
import reference_variants as reference
import torch
from conftest import devices_and_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import TYPES, gradient, rows, temperatures
from loss_checks import LargestTensor, assert_exact_within
from torch import Tensor, nn

import fastssl.loss
from fastssl.loss import DetConBLoss, DetConSLoss, _tiles, densecl, detcon_b, detcon_s


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Products this small take longer with two, which wait for each other."""
    torch.set_num_threads(1)


def regions(
    images: int, masks: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0, device: str = "cpu"
) -> Tensor:
    return rows(images * masks, width, dtype, seed=seed, device=device).view(images, masks, width)


def drawn(images: int, masks: int, kinds: int, seed: int = 0, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(kinds, (images, masks), generator=generator).to(device)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Images, masks of each, columns, kinds of masks (from all alike to hardly any twice) and a seed."""
    return (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 9)),
        draw(st.sampled_from([1, 2, 4, 100])),
        draw(st.integers(0, 2**31)),
    )


@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=12)
@given(shape=shapes(), t=temperatures)
def test_detcon_is_as_exact_as_plain_torch(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int, int, int], t: float
) -> None:
    images, count, width, kinds, seed = shape
    masks = tuple(drawn(images, count, kinds, seed + i, device) for i in (0, 1))
    views = [regions(images, count, width, dtype, seed + i, device) for i in range(4)]
    views[2][0, 0] = 0  # a target of no length
    bounds = 4 / t, 16 / (images * count * t)
    assert_exact_within(
        lambda a, b, c, d: detcon_b(a, b, c, d, *masks, t),
        lambda a, b, c, d: reference.plain_detcon((a, b), (c, d), masks, t),
        lambda a, b, c, d: reference.detcon((a, b), (c, d), masks, t),
        views,
        *bounds,
    )
    assert_exact_within(
        lambda a, b: detcon_s(a, b, *masks, t),
        lambda a, b: reference.plain_detcon((a, b), (a, b), masks, t),
        lambda a, b: reference.detcon((a, b), (a, b), masks, t),
        views[:2],
        *bounds,
    )


@pytest.mark.parametrize("t", [0.01, 0.1])
def test_detcon_does_not_depend_on_tiles(t: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "CPU_TILE", (3, 6))
    masks = drawn(5, 4, 3, seed=1), drawn(5, 4, 3, seed=2)
    views = [regions(5, 4, 3, torch.float64, seed) for seed in range(4)]
    ours = gradient(lambda a, b, c, d: detcon_b(a, b, c, d, *masks, t), *views)
    exact = gradient(lambda a, b, c, d: reference.detcon((a, b), (c, d), masks, t), *views)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_masks_are_names_and_not_numbers() -> None:
    """Any other whole numbers give the same, however large, and of any whole type."""
    masks = drawn(3, 4, 3, seed=1), drawn(3, 4, 3, seed=2)
    views = regions(3, 4, 5), regions(3, 4, 5, seed=1)
    expected = detcon_s(*views, *masks)
    names = torch.tensor([-(2**62), 2**63 - 1, 7])
    assert detcon_s(*views, *(names[mask] for mask in masks)) == expected
    assert detcon_s(*views, *(mask.to(torch.uint8) for mask in masks)) == expected


def test_regions_without_a_counterpart_have_no_loss() -> None:
    masks = torch.tensor([[0, 1]]), torch.tensor([[2, 3]])
    value, *grads = gradient(lambda a, b: detcon_s(a, b, *masks), regions(1, 2, 3), regions(1, 2, 3, seed=1))
    assert value == 0 and not any(grad.any() for grad in grads)


def test_no_tensor_holds_the_similarities_of_all_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "CPU_TILE", (64, 128))
    masks = drawn(128, 4, 3, seed=1), drawn(128, 4, 3, seed=2)
    views = [regions(128, 4, 8, seed=seed).requires_grad_() for seed in (0, 1)]
    with LargestTensor() as largest:
        detcon_s(*views, *masks).backward()
    assert largest.elements <= 64 * 128 < (2 * 128 * 4) ** 2 / 20


def test_targets_without_gradient_are_left_alone() -> None:
    masks = drawn(3, 4, 3, seed=1), drawn(3, 4, 3, seed=2)
    predictions = [regions(3, 4, 5, seed=seed).requires_grad_() for seed in (0, 1)]
    targets = [regions(3, 4, 5, seed=seed) for seed in (2, 3)]
    detcon_b(*predictions, *targets, *masks).backward()
    assert all(p.grad is not None for p in predictions) and all(t.grad is None for t in targets)


def test_temperature_may_be_learned() -> None:
    masks = drawn(3, 4, 3, seed=1), drawn(3, 4, 3, seed=2)
    views = regions(3, 4, 5, torch.float64), regions(3, 4, 5, torch.float64, seed=1)
    t = torch.tensor(0.2, dtype=torch.float64)
    ours = gradient(lambda a, b, t: detcon_s(a, b, *masks, t), *views, t)
    plain = gradient(lambda a, b, t: reference.plain_detcon((a, b), (a, b), masks, t), *views, t)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("t", [0.07, 0.5])
@pytest.mark.parametrize("images, count, width, kinds", [(1, 1, 3, 2), (4, 3, 8, 2), (5, 7, 4, 100), (3, 4, 5, 1)])
def test_modules_agree_with_lightly(images: int, count: int, width: int, kinds: int, t: float) -> None:
    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    masks = [drawn(images, count, kinds, seed) for seed in (1, 2)]
    views = [regions(images, count, width, seed=seed) for seed in range(4)]
    for name, count_of_views in (("DetConSLoss", 2), ("DetConBLoss", 4)):
        ours, theirs = (
            gradient(lambda *v, m=m, name=name: getattr(m, name)(t)(*v, *masks), *views[:count_of_views])
            for m in (fastssl.loss, lightly)
        )
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["DetConSLoss", "DetConBLoss"])
def test_arguments_are_those_of_lightly(name: str) -> None:
    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    for function in ("__init__", "forward"):
        ours, theirs = (
            inspect.signature(getattr(getattr(m, name), function)).parameters for m in (fastssl.loss, lightly)
        )
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


def test_autocast_changes_nothing() -> None:
    masks = drawn(3, 4, 3, seed=1), drawn(3, 4, 3, seed=2)
    views, features = [regions(3, 4, 5, seed=s) for s in (0, 1)], [regions(3, 4, 6, seed=s) for s in (2, 3)]
    bank = nn.functional.normalize(rows(9, 5, seed=4), dim=1)
    for loss in (lambda a, b: detcon_s(a, b, *masks), lambda a, b: densecl(a, b, *features, bank)):
        plain = gradient(loss, *views)
        leaves = [view.clone().requires_grad_() for view in views]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(*leaves)
        cast = [value, *torch.autograd.grad(value, leaves)]  # outside, as torch asks for
        assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_compiles_without_a_graph_break() -> None:
    head, x, y = nn.Linear(6, 4), regions(3, 4, 6), regions(3, 4, 6, seed=1)
    masks = drawn(3, 4, 3, seed=1), drawn(3, 4, 3, seed=2)
    of_one, of_two = DetConSLoss(), DetConBLoss()

    def step(x: Tensor, y: Tensor) -> Tensor:
        a, b = head(x), head(y)
        return of_one(a, b, *masks) + of_two(a, b, x[..., :4], y[..., :4], *masks)

    results = []
    for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        value = run(x, y)
        results.append([value, *torch.autograd.grad(value, list(head.parameters()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


# DenseCL


@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=12)
@given(shape=shapes(), keys=st.integers(1, 6), size=st.integers(1, 20), t=temperatures)
def test_densecl_is_as_exact_as_plain_torch(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int, int, int], keys: int, size: int, t: float
) -> None:
    images, count, width, _, seed = shape
    query, key = (regions(images, n, width, dtype, seed + i, device) for i, n in enumerate((count, keys)))
    features = [regions(images, n, 7, torch.float32, seed + 2 + i, device) for i, n in enumerate((count, keys))]
    bank = nn.functional.normalize(rows(size, width, seed=seed + 4, device=device), dim=1)

    def plain(q: Tensor, k: Tensor) -> Tensor:
        a, b = (nn.functional.normalize(x.double(), dim=2) for x in features)
        matched = k[torch.arange(images, device=device)[:, None], (a @ b.mT).argmax(dim=2)]
        q, p = (nn.functional.normalize(x.flatten(0, 1), dim=1) for x in (q, matched))
        logits = torch.cat([(q * p).sum(dim=1, keepdim=True), q @ bank.to(q.dtype).T], dim=1) / t
        return nn.functional.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))

    assert_exact_within(
        lambda q, k: densecl(q, k, *features, bank, t),
        plain,
        lambda q, k: reference.densecl(q, k, *(x.double() for x in features), bank.double(), t),
        [query, key],
        1 / t,
        4 * count / (images * count * t),  # one key may be the positive of all cells of its image
    )


def test_densecl_matches_by_the_features_whatever_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["fastssl.loss.densecl"]  # fastssl.loss.densecl is the function
    query, features = regions(5, 4, 3), regions(5, 4, 6, seed=1)
    order = torch.tensor([2, 0, 3, 1])
    bank = -nn.functional.normalize(rows(9, 3, seed=2), dim=1)
    expected = densecl(query, query, features, features, bank)
    assert densecl(query, query[:, order], features, 3 * features[:, order], bank) == expected
    monkeypatch.setattr(module, "SIMILARITIES_AT_ONCE", 40)  # two images and a half
    assert densecl(query, query[:, order], features, 3 * features[:, order], bank) == expected


def test_densecl_takes_a_bank_that_changes_before_the_backward_pass() -> None:
    from fastssl.models.modules import MemoryBankModule

    bank = MemoryBankModule(size=(12, 3))
    query, key, features = regions(2, 4, 3).requires_grad_(), regions(2, 4, 3, seed=1), regions(2, 4, 5, seed=2)
    expected = gradient(lambda q: densecl(q, key, features, features, bank.bank.clone()), query)[1]
    value = densecl(query, key, features, features, bank.bank)
    bank.enqueue(nn.functional.normalize(key.mean(dim=1), dim=1))
    value.backward()
    assert torch.equal(query.grad, expected)


# Errors


@pytest.mark.parametrize(
    "make, error, words",
    [
        (
            lambda: detcon_s(regions(2, 3, 4), regions(2, 3, 5), drawn(2, 3, 2), drawn(2, 3, 2)),
            ValueError,
            r"detcon_s: got views of shapes \[\(2, 3, 4\), \(2, 3, 5\).*\(B, M, D\)",
        ),
        (
            lambda: detcon_s(regions(2, 3, 4), regions(2, 3, 4), drawn(2, 3, 2), drawn(2, 2, 2)),
            ValueError,
            r"masks of shapes \[\(2, 3\), \(2, 2\)\]",
        ),
        (lambda: DetConSLoss()(rows(2, 3), rows(2, 3), drawn(2, 3, 2), drawn(2, 3, 2)), ValueError, "DetConSLoss: got"),
        (
            lambda: DetConSLoss()(regions(0, 3, 4), regions(0, 3, 4), drawn(0, 3, 2), drawn(0, 3, 2)),
            ValueError,
            "all at least 1",
        ),
        (
            lambda: DetConBLoss()(*[regions(2, 3, 4)] * 4, rows(2, 3), drawn(2, 3, 2)),
            TypeError,
            r"DetConBLoss: mask_view0 is of type torch.float32.*mask_view0.long\(\)",
        ),
        (
            lambda: DetConBLoss()(*[regions(2, 3, 4)] * 3, regions(2, 3, 4).int(), drawn(2, 3, 2), drawn(2, 3, 2)),
            TypeError,
            "DetConBLoss: target_view1 is of type torch.int32",
        ),
        (
            lambda: DetConBLoss()(regions(2, 3, 4).int(), *[regions(2, 3, 4)] * 3, drawn(2, 3, 2), drawn(2, 3, 2)),
            TypeError,
            r"DetConBLoss: pred_view0 is of type torch.int32.*write pred_view0.float\(\)",
        ),
        (
            lambda: DetConSLoss()(regions(2, 3, 4), regions(2, 3, 4).int(), drawn(2, 3, 2), drawn(2, 3, 2)),
            TypeError,
            "DetConSLoss: view1 is of type torch.int32",
        ),
        (
            lambda: DetConSLoss()(regions(2, 3, 4), regions(2, 3, 5), drawn(2, 3, 2), drawn(2, 3, 2)),
            ValueError,
            r"DetConSLoss: got views of shapes \[\(2, 3, 4\), \(2, 3, 5\)\] and",
        ),
        (lambda: DetConSLoss(temperature=0), ValueError, "DetConSLoss: temperature=0"),
        (lambda: DetConBLoss(temperature=-1), ValueError, "DetConBLoss: temperature=-1"),
        (
            lambda: densecl(*[regions(2, 3, 4)] * 3, regions(2, 4, 4), rows(5, 4)),
            ValueError,
            r"densecl: got the shapes .*'key_features': \(2, 4, 4\).*flatten\(2\)",
        ),
        (lambda: densecl(*[regions(2, 3, 4)] * 4, rows(5, 3)), ValueError, r"densecl: bank has shape \(5, 3\)"),
        (lambda: densecl(*[regions(2, 3, 4)] * 4, rows(5, 4).int()), TypeError, "densecl: bank is of type"),
        (lambda: densecl(*[regions(2, 3, 4)] * 4, rows(5, 4), 0.0), ValueError, "densecl: temperature=0.0"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_gather_distributed_without_torch_distributed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    for loss in (DetConSLoss, DetConBLoss):
        with pytest.raises(ValueError, match=rf"{loss.__name__}: gather_distributed=True needs torch.distributed"):
            loss()
        assert not loss(gather_distributed=False).gather_distributed
