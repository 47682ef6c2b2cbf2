"""DCL and DCLW of one process: against their definitions, plain torch and lightly."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import reference_variants as reference
import torch
from conftest import devices_and_kernels
from hypothesis import given, settings
from loss_cases import TYPES, gradient, rows, temperatures
from loss_checks import assert_exact_within, pairs
from torch import Tensor, nn

import fastssl.loss.dcl_loss
from fastssl.loss import DCLLoss, DCLWLoss, _tiles, dcl, dclw
from fastssl.loss.dcl_loss import negative_mises_fisher_weights


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Products this small take longer with two, which wait for each other."""
    torch.set_num_threads(1)


def half_weights(first: Tensor, second: Tensor) -> Tensor:
    """Differ by row and by the order of the views."""
    return torch.linspace(0.5, 2, len(first), device=first.device, dtype=first.dtype) + first[:, 0].detach()


@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=15)
@given(z=pairs(2), t=temperatures)
def test_dcl_is_as_exact_as_plain_torch(device: str, dtype: torch.dtype, z: Tensor, t: float) -> None:
    z, weights = z.to(device=device, dtype=dtype), rows(len(z), 1, seed=1, device=device)[:, 0]
    for w in (None, weights):
        most = 1 if w is None else 1 + float(w.abs().max())
        assert_exact_within(
            lambda x, w=w: dcl(x, t, w),
            lambda x, w=w: reference.plain_dcl(x, t, w),
            lambda x, w=w: reference.dcl(x, t, w),
            [z],
            most / t,
            4 * most / (len(z) * t),
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@settings(deadline=None, max_examples=15)
@given(z=pairs(2), t=temperatures)
def test_dclw_weighs_as_the_paper_says(dtype: torch.dtype, z: Tensor, t: float) -> None:
    z = z.to(dtype)

    def plain(x: Tensor) -> Tensor:
        unit = nn.functional.normalize(x.detach(), dim=1)
        similarity = (unit[: len(x) // 2] * unit[len(x) // 2 :]).sum(dim=1) / 0.5
        return reference.plain_dcl(x, t, (2 - similarity.exp() / similarity.exp().mean()).repeat(2))

    assert_exact_within(
        lambda x: dclw(x, t),
        plain,
        lambda x: reference.dcl(x, t, reference.mises_fisher_weights(x, 0.5)),
        [z],
        len(z) / t,  # a weight is 2 - B at least
        4 / t,
    )


@pytest.mark.parametrize("t", [0.01, 0.1])
@pytest.mark.parametrize("pairs, width", [(2, 1), (4, 2), (13, 17)])
def test_dcl_does_not_depend_on_tiles(pairs: int, width: int, t: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "CPU_TILE", (3, 6))
    z, w = rows(2 * pairs, width, torch.float64), rows(2 * pairs, 1, torch.float64, seed=1)[:, 0]
    ours = gradient(lambda x: dcl(x, t, w), z)
    for a, b in zip(ours, gradient(lambda x: reference.dcl(x, t, w), z), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_orthogonal_rows_give_the_logarithm_of_the_other_images_rows() -> None:
    assert dcl(torch.eye(6), temperature=1.0).item() == pytest.approx(math.log(4), abs=1e-6)


def test_a_single_image_has_no_negative() -> None:
    z = rows(2, 3)
    value, grad = gradient(dcl, z)
    assert value.item() == -math.inf
    exact = gradient(lambda x: -nn.functional.cosine_similarity(x[:1], x[1:]).mean() / 0.1, z)[1]
    torch.testing.assert_close(grad, exact, rtol=1e-5, atol=1e-6)


def test_temperature_may_be_learned() -> None:
    z, t = rows(8, 3, torch.float64), torch.tensor(0.2, dtype=torch.float64)
    ours = gradient(lambda x, t: dcl(x, t), z, t)
    for a, b in zip(ours, gradient(reference.plain_dcl, z, t), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    loss = DCLWLoss(nn.Parameter(torch.tensor(0.2)))
    assert [name for name, _ in loss.named_parameters()] == ["temperature"]
    loss(z[:4].float(), z[4:].float()).backward()
    assert loss.temperature.grad is not None and loss.temperature.grad.isfinite()  # type: ignore[union-attr]


def test_weights_may_have_a_gradient_of_their_own() -> None:
    def weigh(first: Tensor, second: Tensor) -> Tensor:
        return (first - second).square().sum(dim=1)

    def plain(a: Tensor, b: Tensor) -> Tensor:
        weights = weigh(*(nn.functional.normalize(x, dim=1) for x in (a, b)))
        return reference.plain_dcl(torch.cat([a, b]), 0.1, weights.repeat(2))

    inputs = rows(5, 3, torch.float64), rows(5, 3, torch.float64, seed=1)
    ours = gradient(DCLLoss(weight_fn=weigh), *inputs)
    for a, b in zip(ours, gradient(plain, *inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_autocast_changes_nothing() -> None:
    plain = gradient(dclw, rows(16, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gradient(dclw, rows(16, 4))
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_compiles_without_a_graph_break() -> None:
    head, x, y = nn.Linear(6, 4), rows(8, 6), rows(8, 6, seed=1)
    loss = DCLWLoss()

    def step(x: Tensor, y: Tensor) -> Tensor:
        return loss(head(x), head(y))

    results = []
    for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        value = run(x, y)
        results.append([value, *torch.autograd.grad(value, list(head.parameters()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


# Beside lightly's


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # lightly's own
@pytest.mark.parametrize("t", [0.07, 0.5])
@pytest.mark.parametrize("pairs, width", [(2, 3), (16, 8), (37, 5)])
@pytest.mark.parametrize(
    "make",
    [
        lambda module, t: module.DCLLoss(t),
        lambda module, t: module.DCLLoss(t, weight_fn=half_weights),
        lambda module, t: module.DCLWLoss(t),
        lambda module, t: module.DCLWLoss(temperature=t, sigma=0.2),
    ],
)
def test_modules_agree_with_lightly(make: Callable[..., nn.Module], pairs: int, width: int, t: float) -> None:
    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    inputs = rows(pairs, width, seed=1), rows(pairs, width, seed=2)
    ours, theirs = (gradient(make(module, t), *inputs) for module in (fastssl.loss, lightly))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # lightly's own
def test_names_and_arguments_are_those_of_lightly() -> None:
    theirs = pytest.importorskip("lightly.loss.dcl_loss", reason="lightly is not installed")
    ours = fastssl.loss.dcl_loss
    pairs = [(getattr(m, c), "__init__") for c in ("DCLLoss", "DCLWLoss") for m in (ours, theirs)]
    signatures = [
        [(p.name, p.default) for p in inspect.signature(getattr(cls, name)).parameters.values()] for cls, name in pairs
    ]
    assert signatures[0::2] == signatures[1::2]
    views = [nn.functional.normalize(rows(5, 3, seed=s), dim=1) for s in (0, 1)]
    torch.testing.assert_close(negative_mises_fisher_weights(*views), theirs.negative_mises_fisher_weights(*views))


# Errors


def right_then_wrong() -> Callable[[Tensor, Tensor], Tensor]:
    shapes = iter([(4,), (4, 1)])
    return lambda a, b: torch.ones(next(shapes))


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: dcl(rows(3, 4)), ValueError, r"dcl: z has shape \(3, 4\).*torch.cat"),
        (lambda: dclw(rows(0, 4)), ValueError, r"dclw: z has shape \(0, 4\)"),
        (lambda: dcl(rows(4, 4), 0.0), ValueError, "dcl: temperature=0.0 must be > 0"),
        (lambda: dcl(rows(4, 4), weights=torch.ones(2)), ValueError, r"dcl: weights has shape \(2,\)"),
        (lambda: dclw(rows(4, 4), sigma=0.0), ValueError, "dclw: sigma=0.0 must be > 0"),
        (lambda: dcl(torch.ones(4, 4).int()), TypeError, "dcl: z is of type torch.int32"),
        (lambda: DCLLoss(temperature=-1.0), ValueError, "DCLLoss: temperature=-1.0"),
        (lambda: DCLWLoss(temperature=0), ValueError, "DCLWLoss: temperature=0"),
        (lambda: DCLWLoss(sigma=-1), ValueError, "DCLWLoss: sigma=-1"),
        (lambda: DCLLoss()(rows(4, 3), rows(4, 2)), ValueError, r"DCLLoss: out0 has shape \(4, 3\), out1 \(4, 2\)"),
        (lambda: DCLWLoss()(rows(0, 3), rows(0, 3)), ValueError, r"DCLWLoss: out0 has shape \(0, 3\)"),
        (
            lambda: DCLLoss(weight_fn=lambda a, b: a.sum())(rows(4, 3), rows(4, 3)),
            ValueError,
            r"DCLLoss: weight_fn\(out0, out1\) returned weights of shape \(\) and type torch.float32 for 4 rows.*dim=1",
        ),
        (
            lambda: DCLLoss(weight_fn=right_then_wrong())(rows(4, 3), rows(4, 3)),
            ValueError,
            r"DCLLoss: weight_fn\(out1, out0\) returned weights of shape \(4, 1\)",
        ),
        (
            lambda: DCLLoss(weight_fn=lambda a, b: a.sum(dim=1).long())(rows(4, 3), rows(4, 3)),
            ValueError,
            r"DCLLoss: weight_fn\(out0, out1\) returned weights of shape \(4,\) and type torch.int64",
        ),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_gather_distributed_without_torch_distributed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"DCLLoss: gather_distributed=True needs torch.distributed"):
        DCLLoss(gather_distributed=True)
