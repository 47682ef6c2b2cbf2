"""How exact a loss has to be that is no mean of cross entropies, and the largest tensor that is made on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from loss_cases import embeddings, gradient
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def pairs(least: int = 1) -> st.SearchStrategy[Tensor]:
    """Views of `least` to 9 images, (2B, D)."""
    return st.integers(least, 9).flatmap(lambda images: embeddings(st.just(2 * images), st.integers(1, 20)))


def assert_exact_within(
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

    Args:
        loss, plain, exact: Functions of the inputs; exact is given them in float64.
        inputs: Embeddings, (..., D).
        largest_logit: In size, of what the value is a sum of.
        largest_gradient: In size, in a unit row.
    """
    dtype = inputs[0].dtype
    results = gradient(loss, *inputs), gradient(plain, *inputs), gradient(exact, *[x.double() for x in inputs])
    eps = torch.finfo(dtype).eps * (8 if dtype == torch.float64 else 1)  # the exact one is rounded to float64 itself
    for k, (ours, theirs, truth) in enumerate(zip(*results, strict=True)):
        length = 1.0 if k == 0 else inputs[k - 1].double().norm(dim=-1, keepdim=True).clamp(min=1e-12)
        finite = torch.ones_like(truth, dtype=torch.bool) if k == 0 else truth.abs() <= torch.finfo(dtype).max
        error, plain_error = (((x.double() - truth) * length).abs().where(finite, 0).amax() for x in (ours, theirs))
        plain_error = plain_error.nan_to_num(nan=math.inf)
        floor = eps * (truth.abs() + largest_logit) if k == 0 else eps * (1 + largest_logit) * largest_gradient
        assert error <= 2 * plain_error + floor, f"output {k}: off by {error:.2e}, plain torch by {plain_error:.2e}"


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements of any tensor that an operation returned, beside those `given`."""

    elements = 0

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self._given = {tensor.data_ptr() for tensor in given}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self._given:
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result
