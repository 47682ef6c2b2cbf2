"""Decoupled contrastive loss (DCL), and its weighted form (DCLW): NT-Xent without the positive in the denominator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from fastssl.loss._checks import (
    check_floats,
    check_gather,
    check_pairs,
    check_temperature,
    check_weights,
    inverse,
    weighted,
)
from fastssl.loss._distributed import gathered_sums, softmax_of_all
from fastssl.loss._gather_gradient import gather_with_gradient
from fastssl.loss._operators import contrastive_sums, unit
from fastssl.models._gather import world_size

__all__ = ["DCLLoss", "DCLWLoss", "dcl", "dclw", "negative_mises_fisher_weights"]


def dcl(
    z: Tensor,
    temperature: Tensor | float = 0.1,
    weights: Tensor | None = None,
    gather_distributed: bool = False,
) -> Tensor:
    """Decoupled contrastive loss (DCL) over the two views of each image.

    A row's denominator holds the views of all other images, and neither of its own. Fused: the (2B, 2B) similarity
    matrix is never stored, so memory is O(BD) and not O(B^2).

    Args:
        z: Embeddings, (2B, D), float16, bfloat16, float32 or float64; rows i and i + B are views of one image. Normalized
            here, so pass the raw output of the projection head.
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number may be learned.
        weights: Of the rows' positives, (2B,); None: 1.
        gather_distributed: Whether the images of all processes are negatives; see `DCLLoss`.

    Returns:
        Mean loss, (), float32; float64 for float64. Differentiable once. A single image has no other, so that its loss
        is -inf, the logarithm of nothing; its gradient is that of the positive alone.

    Raises:
        ValueError: z has an odd number of rows, no row or no column, weights are not one a row, or temperature <= 0.
        TypeError: z is of another type, or temperature is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Yeh et al., DCL, 2022, arXiv:2110.06848, equation 6.

    >>> import torch
    >>> round(dcl(torch.eye(4), temperature=1.0).item(), 4)  # orthogonal rows, two of other images: log 2
    0.6931
    """
    distributed = gather_distributed and world_size() > 1
    _check_rows("dcl", z, temperature, may_be_empty=distributed)
    check_weights("dcl", weights, z.shape[0])
    scale = inverse(temperature, z)
    if distributed:
        sums = gathered_sums(z, None, scale, views=2)
        return (sums.rows - weighted(sums.products * scale, weights)).sum() / sums.share
    images = z.shape[0] // 2
    ids = torch.arange(images, device=z.device).repeat(2)
    rows, positives, _ = contrastive_sums(z, None, scale, query_ids=ids, positive=images)
    return (rows - weighted(positives, weights)).mean()


def dclw(z: Tensor, temperature: Tensor | float = 0.1, sigma: float = 0.5, gather_distributed: bool = False) -> Tensor:
    """Weighted decoupled contrastive loss (DCLW): `dcl` with `negative_mises_fisher_weights`.

    Args:
        z: Embeddings, (2B, D), as for `dcl`.
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number may be learned.
        sigma: Divides them in the weights; > 0, no unit.
        gather_distributed: Whether the images of all processes are negatives, and share the mean of the weights.

    Returns:
        Mean loss, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: As for `dcl`, and where sigma <= 0.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Yeh et al., DCL, 2022, arXiv:2110.06848, equation 6 and section 3.

    >>> import torch
    >>> round(dclw(torch.eye(4), temperature=1.0).item(), 4)  # all positives alike: weights of 1
    0.6931
    """
    distributed = gather_distributed and world_size() > 1
    _check_rows("dclw", z, temperature, may_be_empty=distributed)
    _check_sigma("dclw", sigma)
    weigh = partial(negative_mises_fisher_weights, sigma=sigma)
    first, second = z.detach().chunk(2)
    return dcl(z, temperature, _weights("dclw", weigh, first, second, distributed), gather_distributed)


def negative_mises_fisher_weights(out0: Tensor, out1: Tensor, sigma: float = 0.5) -> Tensor:
    """Weights of the positives that rise where the views of an image are unlike: 2 - exp(s / sigma) over its mean.

    Args:
        out0: Rows of unit length, (B, D): the first views.
        out1: Rows of unit length, (B, D): the second views.
        sigma: Divides the similarities s; > 0, no unit.

    Returns:
        (B,), with a mean of 1 and below 2; without gradient.

    Source: Yeh et al., DCL, 2022, arXiv:2110.06848, section 3.

    >>> import torch
    >>> negative_mises_fisher_weights(torch.eye(2), torch.eye(2))  # all alike
    tensor([1., 1.])
    """
    similarity = (out0.detach() * out1.detach()).sum(dim=1) / sigma
    return 2 - len(similarity) * similarity.softmax(dim=0)


def _of_all_processes(out0: Tensor, out1: Tensor, sigma: float = 0.5) -> Tensor:
    """The same for this process's rows, (B,), among those of all processes."""
    part, count = softmax_of_all((out0.detach() * out1.detach()).sum(dim=1) / sigma)
    return 2 - count * part


class DCLLoss(nn.Module):
    """DCL between two batches of views, without the similarity matrix.

    Args:
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number, such as a torch.nn.Parameter,
            may be learned.
        weight_fn: Takes both batches, rows of unit length, (B, D), and returns the weights of the first one's positives,
            (B,); then the same with the batches in the other order. None: 1.
        gather_distributed: Whether the images of all processes are negatives. The mean over the processes, as
            DistributedDataParallel takes it, is then exactly the gradient of the loss over the whole batch, also where
            processes hold unlike numbers of images; weight_fn is given the rows of all processes.

    Raises:
        ValueError: temperature <= 0, or gather_distributed where torch.distributed is not available.
        TypeError: temperature is no number.

    Differs from lightly's: the value is never less than float32, logits are float32 also under autocast, and with
    gather_distributed the weights are those of the whole batch (lightly's are of each process's own, so that its DCLW
    depends on the number of processes).
    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Yeh et al., DCL, 2022, arXiv:2110.06848, equation 6.

    >>> import torch
    >>> views = torch.eye(4)
    >>> round(DCLLoss(temperature=1.0)(views[:2], views[2:]).item(), 4)
    0.6931
    """

    def __init__(
        self,
        temperature: Tensor | float = 0.1,
        weight_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        check_temperature(who, temperature)
        check_gather(who, gather_distributed)
        self.temperature = temperature
        self.weight_fn = weight_fn
        self.gather_distributed = gather_distributed

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """Mean loss, (), float32 (float64 for float64); -inf for a single image, which has no negative.

        Args:
            out0: Embeddings of the first views, (B, D), not normalized.
            out1: Embeddings of the second views, (B, D).

        Raises:
            ValueError: Shapes differ, there is no row or column, or weight_fn does not return one weight a row.
            TypeError: An embedding is not of a floating-point type.
        """
        who = type(self).__name__
        check_temperature(who, self.temperature)
        distributed = self.gather_distributed and world_size() > 1
        check_pairs(who, ("out0", "out1"), out0, out1, may_be_empty=distributed)
        weights = None if self.weight_fn is None else _weights(who, self.weight_fn, out0, out1, distributed)
        return dcl(torch.cat([out0, out1]), self.temperature, weights, self.gather_distributed)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather_distributed={self.gather_distributed}"


class DCLWLoss(DCLLoss):
    """DCLW between two batches of views: `DCLLoss` with `negative_mises_fisher_weights`.

    Args:
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number, such as a torch.nn.Parameter,
            may be learned.
        sigma: Divides them in the weights; > 0, no unit.
        gather_distributed: Whether the images of all processes are negatives, and share the mean of the weights.

    Raises:
        ValueError: temperature or sigma <= 0, or gather_distributed where torch.distributed is not available.
        TypeError: temperature is no number.

    Source: Yeh et al., DCL, 2022, arXiv:2110.06848, equation 6 and section 3.

    >>> import torch
    >>> views = torch.eye(4)
    >>> round(DCLWLoss(temperature=1.0)(views[:2], views[2:]).item(), 4)
    0.6931
    """

    def __init__(self, temperature: Tensor | float = 0.1, sigma: float = 0.5, gather_distributed: bool = False) -> None:
        _check_sigma("DCLWLoss", sigma)
        super().__init__(temperature, partial(negative_mises_fisher_weights, sigma=sigma), gather_distributed)


def _weights(
    who: str, weight_fn: Callable[[Tensor, Tensor], Tensor], out0: Tensor, out1: Tensor, distributed: bool
) -> Tensor:
    """The weights of this process's rows, (2B,), among those of the rows of all processes."""
    first, second, own = unit(out0), unit(out1), None
    if distributed and isinstance(weight_fn, partial) and weight_fn.func is negative_mises_fisher_weights:
        # Of the rows of the others their similarities alone count.
        return _of_all_processes(first, second, **weight_fn.keywords).repeat(2)  # alike in both orders
    if distributed:
        everyone, own = gather_with_gradient(torch.cat([first, second], dim=1))
        first, second = everyone.chunk(2, dim=1)
    both = weight_fn(first, second), weight_fn(second, first)
    for weights, order in zip(both, ("out0, out1", "out1, out0"), strict=True):
        if weights.shape != first.shape[:1] or not weights.is_floating_point():
            raise ValueError(
                f"{who}: weight_fn({order}) returned weights of shape {tuple(weights.shape)} and type {weights.dtype} for "
                f"{len(first)} rows; it must return one floating-point weight a row, so reduce over dim=1."
            )
    return torch.cat([weights if own is None else weights[own] for weights in both])


def _check_rows(who: str, z: Tensor, temperature: Tensor | float, may_be_empty: bool) -> None:
    check_temperature(who, temperature)
    check_floats(who, "z", z)
    if z.dim() != 2 or z.shape[0] % 2 or (z.shape[0] == 0 and not may_be_empty) or z.shape[1] == 0:
        raise ValueError(
            f"{who}: z has shape {tuple(z.shape)} and must be (2B, D) with B and D at least 1, rows i and i + B the views "
            "of one image; write torch.cat([view0, view1])."
        )


def _check_sigma(who: str, sigma: float) -> None:
    if not 0 < sigma < float("inf"):
        raise ValueError(f"{who}: sigma={sigma} must be > 0 and finite; it divides cosine similarities, so write 0.5.")
