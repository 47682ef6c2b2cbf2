"""MACL: NT-Xent whose temperature follows how well the views agree, each row weighted by what it has left to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastssl.loss._checks import (
    check_floats,
    check_pairs,
    check_temperature,
    check_weights,
    inverse,
    weighted,
)
from fastssl.loss._operators import contrastive_sums, softplus, unit

__all__ = ["MACLLoss", "macl"]

# Keeps the weight of a row without any loss finite: a single image, whose positive is its only class.
EPS = 1e-8

# The temperature stays positive: at least this part of the one that was set, reached only by views that are opposites.
LEAST_PART = 1e-3


def macl(
    z: Tensor,
    temperature: Tensor | float = 0.1,
    alpha: float = 0.5,
    A_0: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Model-aware contrastive loss (MACL) over the two views of each image.

    NT-Xent at the temperature t (1 + alpha (A - A_0)), A the mean cosine of the positives, and a row whose positive has
    probability P counts 1 / (1 - P). Neither t nor that weight is differentiated. The (2B, 2B) similarity matrix is
    never stored, so memory is O(BD) and not O(B^2).

    Args:
        z: Embeddings, (2B, D), float16, bfloat16, float32 or float64; rows i and i + B are views of one image. Normalized
            here.
        temperature: Where A is A_0; > 0, no unit. A tensor of one number may be learned.
        alpha: How far the temperature follows A, in [0, 1].
        A_0: The mean cosine at which nothing changes, in [0, 1].
        weights: Of the rows' losses, (2B,), before their mean, beside 1 / (1 - P); A is the mean without them. None: 1.

    Returns:
        Mean loss, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: z has an odd number of rows, no row or no column, weights are not one a row, temperature <= 0, or alpha or
            A_0 is not in [0, 1].
        TypeError: z is of another type, or temperature is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Huang et al., MACL, 2023, arXiv:2207.07874.

    >>> import torch
    >>> round(macl(torch.eye(4), temperature=1.0).item(), 4)  # A = 0, P = 1/3: log 3 / (2/3)
    1.6479
    """
    check_temperature("macl", temperature)
    _check_part("macl", "alpha", alpha)
    _check_part("macl", "A_0", A_0)
    check_floats("macl", "z", z)
    if z.dim() != 2 or z.shape[0] % 2 or z.shape[0] == 0 or z.shape[1] == 0:
        raise ValueError(
            f"macl: z has shape {tuple(z.shape)} and must be (2B, D) with B and D at least 1, rows i and i + B the views "
            "of one image; write torch.cat([view0, view1])."
        )
    check_weights("macl", weights, z.shape[0])
    images = z.shape[0] // 2
    own = unit(z.detach())
    alignment = (own[:images] * own[images:]).sum(dim=1).mean()
    part = (1 + alpha * (alignment - A_0)).clamp(min=LEAST_PART)
    scale = inverse(temperature, z) / part
    ids = torch.arange(images, device=z.device).repeat(2)
    rows, positives, _ = contrastive_sums(z, None, scale, query_ids=ids, positive=images)
    losses = softplus(rows - positives)
    left = -torch.expm1(-losses.detach())  # 1 - P, with all its digits
    return weighted(losses / (left + EPS), weights).mean()


class MACLLoss(nn.Module):
    """MACL between two batches of views; see `macl`.

    Args:
        temperature: Where the mean cosine of the positives is A_0; > 0, no unit. A tensor of one number, such as a
            torch.nn.Parameter, may be learned.
        alpha: How far the temperature follows that mean, in [0, 1].
        A_0: The mean at which nothing changes, in [0, 1].

    Raises:
        ValueError: temperature <= 0, or alpha or A_0 is not in [0, 1].
        TypeError: temperature is no number.

    Differs from lightly's: 1 - P keeps its digits where P is near 1, and the temperature stays above a thousandth of the
    one that was set, where lightly's reaches 0 or below for views that are opposites.
    Source: Huang et al., MACL, 2023, arXiv:2207.07874.

    >>> import torch
    >>> views = torch.eye(4)
    >>> round(MACLLoss(temperature=1.0)(views[:2], views[2:]).item(), 4)
    1.6479
    """

    def __init__(self, temperature: Tensor | float = 0.1, alpha: float = 0.5, A_0: float = 0.0) -> None:
        super().__init__()
        check_temperature("MACLLoss", temperature)
        _check_part("MACLLoss", "alpha", alpha)
        _check_part("MACLLoss", "A_0", A_0)
        self.temperature = temperature
        self.alpha = alpha
        self.A_0 = A_0

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:
        """Mean loss, (), float32 (float64 for float64).

        Args:
            z0: Embeddings of the first views, (B, D), not normalized.
            z1: Embeddings of the second views, (B, D).

        Raises:
            ValueError: Shapes differ, or there is no row or column.
            TypeError: An embedding is not of a floating-point type.
        """
        check_pairs("MACLLoss", ("z0", "z1"), z0, z1, may_be_empty=False)
        return macl(torch.cat([z0, z1]), self.temperature, self.alpha, self.A_0)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, alpha={self.alpha}, A_0={self.A_0}"


def _check_part(who: str, name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{who}: {name}={value} must be in [0, 1]; write alpha=0.5 and A_0=0.0.")
