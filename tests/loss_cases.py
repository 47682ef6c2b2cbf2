"""What the tests of the contrastive losses share: embeddings of every kind, and what "as exact as plain torch" means."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor

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
    """Value and gradients: at most twice the error of plain torch in the same type, and what one rounding can do.

    Inputs are embeddings, and numbers: the scale of the logits, or its inverse, and a bias. One rounding is, for the
    value, eps of the value and of a logit, which is at most scale; for the gradient in a unit row, which is at most
    4 scale / n, eps of a logit too. A gradient is compared times the length of its row, because it is inverse to it. The
    gradient in the scale is at most 2, in its inverse scale^2 times as much.

    Args:
        loss, plain, exact: Functions of the inputs; exact is given them in float64.
        scale: What multiplies the cosines.
        terms: How many losses of a pair are added up in a row's, where it is no mean.
    """
    dtype, count = inputs[0].dtype, len(inputs[0])
    results = gradient(loss, *inputs), gradient(plain, *inputs), gradient(exact, *[x.double() for x in inputs])
    eps = torch.finfo(dtype).eps * (8 if dtype == torch.float64 else 1)  # the exact one is rounded to float64 itself
    of_logit = eps * terms * (1 + scale)
    for k, (ours, theirs, truth) in enumerate(zip(*results, strict=True)):
        x = None if k == 0 else inputs[k - 1].double()
        finite = truth.abs() <= torch.finfo(dtype).max
        length = x.norm(dim=1, keepdim=True).clamp(min=1e-12) if x is not None and x.dim() == 2 else 1.0
        error, plain_error = (((y.double() - truth) * length).abs().where(finite, 0).amax() for y in (ours, theirs))
        plain_error = plain_error.nan_to_num(nan=math.inf)
        if x is None:
            floor = eps * truth.abs() + of_logit
        elif x.dim() == 2:
            floor = of_logit * 4 * scale / count
        else:
            floor = of_logit * 4 * max(1, scale**2) + eps * truth.abs()
        assert error <= 2 * plain_error + floor, f"output {k}: off by {error:.2e}, plain torch by {plain_error:.2e}"
