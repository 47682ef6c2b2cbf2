"""What the tests of the contrastive losses share: embeddings of every kind, and what "as exact as plain torch" means."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor

from fastssl.loss import _cuda

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

temperatures = st.sampled_from([0.01, 0.0239, 0.024, 0.07, 0.1, 0.5, 1.0])

# Off and on the tiles' sizes and the blocks of a kernel, and up to what still compares in a moment.
widths = st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 129, 255, 256, 257, 512, 1030]))


def rows(count: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)


@st.composite
def embeddings(draw: st.DrawFn, counts: st.SearchStrategy[int], widths: st.SearchStrategy[int]) -> Tensor:
    """(count, width) in float64, with duplicates, opposites, rows of zeros and rows of lengths from 1e-3 to 1e3."""
    count, width = draw(counts), draw(widths)
    z = rows(count, width, torch.float64, seed=draw(st.integers(0, 2**31)))
    for i in draw(st.lists(st.integers(0, count - 1), max_size=3)):
        kind = draw(st.sampled_from(["zero", "duplicate", "opposite", "long", "short"]))
        other = z[draw(st.integers(0, count - 1))].clone()
        made = {"zero": 0 * other, "duplicate": other, "opposite": -other, "long": 1e3 * z[i], "short": 1e-3 * z[i]}
        z[i] = made[kind].clamp(-6e4, 6e4)  # within float16
    return z


def gradient(loss: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """Value and gradients in all inputs, zeros where it does not depend on one."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves, materialize_grads=True)]


def assert_as_exact_as_plain(
    loss: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    exact: Callable[..., Tensor],
    inputs: list[Tensor],
    scale: float,
    terms: float = 1,
) -> None:
    """Value and gradients: at most twice the error of plain torch in float32, and what one rounding can do.

    Types of 16 bits are converted for plain torch: whatever the type of the rows, we compute in float32 at least, and
    only gradients are rounded to it. (float64 is compared in float64.) Where the kernels take them, unit rows and weights
    are rounded to float16, and one rounding is one of float16: _operators.py, Note [Sixteen bits].

    Inputs are embeddings, and numbers: the scale of the logits, or its inverse, and a bias. One rounding is, for the
    value, eps of the value and of a logit, which is at most scale; for the gradient in a unit row, which is at most
    4 scale / n, eps of a logit too, and twice eps of the type that it is rounded to, as a sum of what several operators
    have rounded. A gradient is compared times the length of its row, because it is inverse to it, and where it cannot
    leave the type: in rows so short that float16 overflows, GradScaler has to see that, whatever it sees. The gradient
    in the scale is at most 2, in its inverse scale^2 times as much.

    Args:
        loss, plain, exact: Functions of the inputs; exact is given them in float64.
        scale: What multiplies the cosines.
        terms: How many losses of a pair are added up in a row's, where it is no mean.
    """
    dtype, count = inputs[0].dtype, len(inputs[0])
    working = torch.float64 if dtype == torch.float64 else torch.float32
    inputs = [x if x.dim() else x.to(working) for x in inputs]
    results = (
        gradient(loss, *inputs),
        gradient(plain, *[x.to(working) for x in inputs]),
        gradient(exact, *[x.double() for x in inputs]),
    )
    eps = torch.finfo(working).eps * (8 if dtype == torch.float64 else 1)  # the exact one is rounded to float64 itself
    of_type = torch.finfo(dtype)
    by_halves = dtype in (torch.bfloat16, torch.float16) and _cuda.usable(inputs[0], None)
    of_logit = (torch.finfo(torch.float16).eps if by_halves else eps) * terms * (1 + scale)
    for k, (ours, theirs, truth) in enumerate(zip(*results, strict=True)):
        error, plain_error = ((y.double() - truth).abs() for y in (ours, theirs))
        floor = eps * truth.abs() + of_logit * (1 if k == 0 else 4 * max(1, scale**2))
        if k > 0 and inputs[k - 1].dim() == 2:
            length = inputs[k - 1].double().norm(dim=1, keepdim=True).clamp(min=1e-12)
            largest = 4 * scale * terms / count
            finite = largest / length <= of_type.max
            error, plain_error = ((x * length).where(finite, 0) for x in (error, plain_error))
            floor = (of_logit + 2 * of_type.eps) * largest + 2 * of_type.smallest_normal * of_type.eps * length
        plain_error = plain_error.amax().nan_to_num(nan=math.inf)
        excess = (error - floor).amax()
        assert excess <= 2 * plain_error, f"output {k}: off by {error.max():.2e}, plain torch by {plain_error:.2e}"
