"""What the tests of losses share: embeddings, gradients, and how exact a loss has to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

temperatures = st.sampled_from([0.01, 0.0239, 0.024, 0.07, 0.1, 0.5, 1.0])


def rows(count: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)


@st.composite
def embeddings(draw: st.DrawFn, least: int = 1, most: int = 9) -> Tensor:
    """(2B, D) in float64, with duplicates, opposites, rows of zeros and rows of lengths from 1e-3 to 1e3."""
    pairs, width = draw(st.integers(least, most)), draw(st.integers(1, 20))
    z = rows(2 * pairs, width, torch.float64, seed=draw(st.integers(0, 2**31)))
    for i in draw(st.lists(st.integers(0, 2 * pairs - 1), max_size=3)):
        kind = draw(st.sampled_from(["zero", "duplicate", "opposite", "long", "short"]))
        other = z[draw(st.integers(0, 2 * pairs - 1))].clone()
        made = {"zero": 0 * other, "duplicate": other, "opposite": -other, "long": 1e3 * z[i], "short": 1e-3 * z[i]}
        z[i] = made[kind].clamp(-6e4, 6e4)  # within float16
    return z


def value_and_gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def assert_as_exact_as_plain(
    loss: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    exact: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    largest_logit: float,
    largest_gradient: float,
) -> None:
    """Value and gradients: at most twice the error of plain torch in the same type, and what one rounding can do.

    That is, for the value, eps of the value and of a logit; for the gradient in a unit row eps of the largest that there
    can be, and eps of a logit of it, too. A gradient is compared times the length of its row, because it is inverse to it.
    The exact loss is given the inputs in float64.
    """
    dtype = inputs[0].dtype
    results = (
        value_and_gradients(loss, *inputs),
        value_and_gradients(plain, *inputs),
        value_and_gradients(exact, *[x.double() for x in inputs]),
    )
    eps = torch.finfo(dtype).eps * (8 if dtype == torch.float64 else 1)  # the exact one is rounded to float64 itself
    for k, (ours, theirs, truth) in enumerate(zip(*results, strict=True)):
        length = 1.0 if k == 0 else inputs[k - 1].double().norm(dim=-1, keepdim=True).clamp(min=1e-12)
        finite = torch.ones_like(truth, dtype=torch.bool) if k == 0 else truth.abs() <= torch.finfo(dtype).max
        error, plain_error = (((x.double() - truth) * length).abs().where(finite, 0).amax() for x in (ours, theirs))
        plain_error = plain_error.nan_to_num(nan=math.inf)
        floor = eps * (truth.abs() + largest_logit) if k == 0 else eps * (1 + largest_logit) * largest_gradient
        assert error <= 2 * plain_error + floor, f"output {k}: off by {error:.2e}, plain torch by {plain_error:.2e}"


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements of any tensor that an operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result
