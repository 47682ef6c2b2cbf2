"""MACL and DirectCLR: against their definitions, plain torch and lightly."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import reference_losses
import reference_variants as reference
import torch
from conftest import devices_and_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import TYPES, gradient, rows, temperatures
from loss_checks import assert_exact_within, pairs
from torch import Tensor, nn

import fastssl.loss
from fastssl.loss import DirectCLRLoss, MACLLoss, NTXentLoss, directclr, macl


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Products this small take longer with two, which wait for each other."""
    torch.set_num_threads(1)


@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=15)
@given(z=pairs(), t=temperatures, alpha=st.sampled_from([0.0, 0.5]), threshold=st.sampled_from([0.0, 0.8]))
def test_macl_is_as_exact_as_plain_torch(
    device: str, dtype: torch.dtype, z: Tensor, t: float, alpha: float, threshold: float
) -> None:
    z = z.to(device=device, dtype=dtype)
    lowest = t * (1 - alpha * (1 + threshold))  # the temperature of views that are opposites, 0.1 t at least
    assert_exact_within(
        lambda x: macl(x, t, alpha, threshold),
        lambda x: reference.plain_macl(x, t, alpha, threshold),
        lambda x: reference.macl(x, t, alpha, threshold),
        [z],
        # The temperature, which divides the logits, is rounded too: as much again for each.
        4 / lowest,
        16 / (len(z) * lowest),
    )


def test_macl_of_views_that_agree_is_hotter() -> None:
    t = 0.1 * (1 + 0.5)  # A is 1
    loss = math.log(1 + 2 * math.exp(-1 / t))  # one positive of cosine 1, two negatives of cosine 0
    value = macl(torch.eye(2, dtype=torch.float64).repeat(2, 1), 0.1, alpha=0.5)
    assert value.item() == pytest.approx(loss / (1 - math.exp(-loss)), rel=1e-4)  # 1 - P is 3e-3, eps 1e-8 of it


def test_macl_of_a_single_image_is_0() -> None:
    value, grad = gradient(macl, rows(2, 5))
    assert value == 0 and not grad.any()


def test_macl_keeps_its_digits_where_views_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.eye(8).repeat(2, 1) + 0.01 * torch.randn(16, 8, generator=generator)
    ours, exact = (
        gradient(macl, z),
        gradient(lambda x: reference.macl(x, 0.1, 0.5, 0.0), z.double()),
    )
    eps_of_logit = torch.finfo(torch.float32).eps / 0.1
    # -log P / (1 - P) with P = 1 - 1e-2 or so: plain float32 loses the digits of 1 - P.
    assert abs(ours[0] - exact[0]) <= 8 * eps_of_logit
    torch.testing.assert_close(
        ours[1].double(), exact[1], rtol=0, atol=(16 * eps_of_logit * exact[1].abs().max()).item()
    )


@pytest.mark.parametrize("alpha, threshold", [(1.0, 0.0), (1.0, 1.0)])
def test_macl_of_opposite_views_stays_finite(alpha: float, threshold: float) -> None:
    z = rows(4, 5)
    value, grad = gradient(lambda x: macl(x, 0.1, alpha, threshold), torch.cat([z, -z]))
    assert value.isfinite() and grad.isfinite().all()


def test_macl_learns_its_temperature() -> None:
    z, t = rows(8, 3, torch.float64), torch.tensor(0.2, dtype=torch.float64)
    ours = gradient(macl, z, t)
    plain = gradient(lambda z, t: reference.plain_macl(z, t, 0.5, 0.0), z, t)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pairs, width", [(1, 3), (16, 8), (37, 5)])
@pytest.mark.parametrize(
    "arguments", [{}, {"temperature": 0.5, "alpha": 0.0}, {"temperature": 0.07, "alpha": 1.0, "A_0": 0.3}]
)
def test_macl_agrees_with_lightly(arguments: dict[str, float], pairs: int, width: int) -> None:
    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    inputs = rows(pairs, width, seed=1), rows(pairs, width, seed=2)
    if "A_0" in arguments:  # else the temperature may reach 0
        inputs = inputs[0], inputs[0] + 0.3 * inputs[1]
    ours, theirs = (gradient(m.MACLLoss(**arguments), *inputs) for m in (fastssl.loss, lightly))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["MACLLoss", "DirectCLRLoss"])
def test_arguments_are_those_of_lightly(name: str) -> None:
    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    for function in ("__init__", "forward"):
        ours, theirs = (
            inspect.signature(getattr(getattr(m, name), function)).parameters for m in (fastssl.loss, lightly)
        )
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


def test_autocast_changes_nothing() -> None:
    plain = gradient(macl, rows(16, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gradient(macl, rows(16, 4))
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


# DirectCLR


@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=8)
@given(z=pairs(), t=temperatures, loss_dim=st.integers(1, 25))
def test_directclr_is_as_exact_as_plain_torch(dtype: torch.dtype, z: Tensor, t: float, loss_dim: int) -> None:
    assert_exact_within(
        lambda x: directclr(x, loss_dim, t),
        lambda x: reference_losses.plain_ntxent(x[:, :loss_dim], t),
        lambda x: reference_losses.ntxent(x[:, :loss_dim], t),
        # What is left out would make the lengths, with which gradients are compared, too large.
        [z.to(dtype)[:, :loss_dim]],
        1 / t,
        4 / (len(z) * t),
    )


def test_directclr_leaves_the_rest_without_gradient() -> None:
    value, grad = gradient(lambda x: directclr(x, 3), rows(8, 2 * 5).view(8, 2, 5))
    assert value.isfinite() and not grad.flatten(1)[:, 3:].any() and grad.flatten(1)[:, :3].all()


@pytest.mark.parametrize("arguments", [{}, {"loss_dim": 3}, {"loss_dim": 3, "temperature": 0.1}, {"loss_dim": 100}])
def test_directclr_agrees_with_lightly(arguments: dict[str, float]) -> None:
    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    inputs = rows(6, 70, seed=1).view(6, 7, 10), rows(6, 70, seed=2).view(6, 7, 10)
    ours, theirs = (gradient(m.DirectCLRLoss(**arguments), *inputs) for m in (fastssl.loss, lightly))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_directclr_with_a_bank_agrees_with_lightly_step_by_step() -> None:
    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    ours, theirs = (m.DirectCLRLoss(4, memory_bank_size=(20, 4)) for m in (fastssl.loss, lightly))
    ours.memory_bank.bank.copy_(theirs.memory_bank.bank)
    for step in range(4):
        inputs = rows(5, 6, seed=2 * step), rows(5, 6, seed=2 * step + 1)
        for a, b in zip(gradient(ours, *inputs), gradient(theirs, *inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.memory_bank.bank, theirs.memory_bank.bank)
    assert isinstance(ours, NTXentLoss)


def test_both_compile_without_a_graph_break() -> None:
    head, x, y = nn.Linear(6, 4), rows(8, 6), rows(8, 6, seed=1)
    for loss in (MACLLoss(), DirectCLRLoss(3)):

        def step(x: Tensor, y: Tensor, loss: nn.Module = loss) -> Tensor:
            value: Tensor = loss(head(x), head(y))
            return value

        results = []
        for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
            value = run(x, y)
            results.append([value, *torch.autograd.grad(value, list(head.parameters()))])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: macl(rows(3, 4)), ValueError, r"macl: z has shape \(3, 4\).*torch.cat"),
        (lambda: macl(rows(4, 4), 0.0), ValueError, "macl: temperature=0.0 must be > 0"),
        (lambda: macl(rows(4, 4), alpha=1.5), ValueError, r"macl: alpha=1.5 must be in \[0, 1\]"),
        (lambda: macl(torch.ones(4, 4).int()), TypeError, "macl: z is of type torch.int32"),
        (lambda: MACLLoss(A_0=-0.1), ValueError, r"MACLLoss: A_0=-0.1 must be in \[0, 1\]"),
        (lambda: MACLLoss(alpha=math.nan), ValueError, "MACLLoss: alpha=nan"),
        (lambda: MACLLoss(temperature=0), ValueError, "MACLLoss: temperature=0"),
        (lambda: MACLLoss()(rows(4, 3), rows(3, 3)), ValueError, r"MACLLoss: z0 has shape \(4, 3\), z1 \(3, 3\)"),
        (lambda: directclr(rows(4, 4), 0), ValueError, "directclr: loss_dim=0 must be a whole number from 1"),
        (lambda: directclr(rows(4, 4), temperature=0.0), ValueError, "directclr: temperature=0.0 must be > 0"),
        (lambda: directclr(rows(4, 4).int()), TypeError, "directclr: z is of type torch.int32"),
        (
            lambda: directclr(rows(3, 4).view(3, 2, 2), 2),
            ValueError,
            r"directclr: z has shape \(3, 2, 2\).*\(2B, ...\)",
        ),
        (lambda: directclr(rows(4, 4)[0]), ValueError, r"directclr: z has shape \(4,\)"),
        (lambda: directclr(rows(0, 4)), ValueError, r"directclr: z has shape \(0, 4\)"),
        (lambda: DirectCLRLoss(temperature=-1), ValueError, "DirectCLRLoss: temperature=-1"),
        (lambda: DirectCLRLoss(2)(rows(4, 6), rows(4, 5)), ValueError, r"DirectCLRLoss: out0 has shape \(4, 6\), out1"),
        (lambda: DirectCLRLoss(2)(rows(0, 6), rows(0, 6)), ValueError, "DirectCLRLoss: out0 has shape"),
        (
            lambda: DirectCLRLoss(2)(rows(4, 6), rows(4, 6).int()),
            TypeError,
            "DirectCLRLoss: out1 is of type torch.int32",
        ),
        (lambda: DirectCLRLoss(loss_dim=2.5), ValueError, "DirectCLRLoss: loss_dim=2.5"),
        (
            lambda: DirectCLRLoss(3, memory_bank_size=(8, 5))(rows(4, 6), rows(4, 6)),
            ValueError,
            r"shape \(4, 3\) for a bank of size=\(8, 5\)",
        ),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
