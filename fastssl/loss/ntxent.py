"""NT-Xent, the loss of SimCLR, over any number of views; the similarity matrix is never stored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastssl.loss import _two_views
from fastssl.loss._checks import (
    check_floats,
    check_gather,
    check_pairs,
    check_temperature,
    check_weights,
    inverse,
    weighted,
)
from fastssl.loss._distributed import gathered_sums
from fastssl.loss._operators import contrastive_sums, softplus, unit
from fastssl.loss.infonce import info_nce
from fastssl.models._gather import world_size
from fastssl.models.modules.memory_bank import MemoryBankModule

__all__ = ["NTXentLoss", "ntxent"]


def ntxent(
    z: Tensor,
    temperature: Tensor | float = 0.1,
    views: int = 2,
    weights: Tensor | None = None,
    gather_distributed: bool = False,
) -> Tensor:
    """Normalized temperature-scaled cross entropy (NT-Xent) over the views of each image.

    Fused: the (R, R) similarity matrix is never stored, so memory is O(R D) and not O(R^2).

    Args:
        z: Embeddings, (views * B, D), float16, bfloat16, float32 or float64; rows i, i + B, i + 2 B, ... are views of
            one image. Normalized here, as by torch.nn.functional.normalize, so pass the raw output of the projection
            head.
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number may be learned.
        views: Of each image, at least 2. With more, a row's loss is the mean over its positives, and all other rows
            are in its denominator.
        weights: Of the rows' losses, (views * B,), before their mean; None: 1.
        gather_distributed: Whether the rows of all processes are negatives; see NTXentLoss.

    Returns:
        Mean loss, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: z has rows that are no multiple of views, no row or no column, weights are not one a row, views < 2,
            or temperature <= 0.
        TypeError: z is of another type, or temperature is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Chen et al., SimCLR, 2020, arXiv:2002.05709, equation 1.

    >>> import torch
    >>> round(ntxent(torch.eye(4), temperature=1.0).item(), 4)  # orthogonal rows: log 3
    1.0986
    """
    check_temperature("ntxent", temperature)
    check_floats("ntxent", "z", z)
    check_gather("ntxent", gather_distributed)
    if views < 2:
        raise ValueError(f"ntxent: views={views} must be 2 or more; a loss between views needs two of each image.")
    distributed = gather_distributed and world_size() > 1
    # With gather_distributed an empty batch is an error of all processes, once they know each other's shapes.
    if z.dim() != 2 or z.shape[0] % views or (z.shape[0] == 0 and not distributed) or z.shape[1] == 0:
        raise ValueError(
            f"ntxent: z has shape {tuple(z.shape)} and must be ({views} B, D) with B and D at least 1, rows i and i + B "
            "views of one image; write torch.cat([view0, view1])."
        )
    check_weights("ntxent", weights, z.shape[0])
    if views == 2 and weights is None and not distributed and _two_views.usable(z, None, temperature):
        return _two_views.two_views(z, None, temperature)
    scale = inverse(temperature, z)
    row = torch.arange(z.shape[0], device=z.device)
    images = z.shape[0] // views
    # Of two views, the sum without the positive: a small loss, log((N + p) / p), then keeps its relative accuracy.
    alone = views == 2
    share: float
    if distributed:
        rows, _, products, share, _ = gathered_sums(z, None, scale, views=views)
        positives = products * scale / (views - 1)
    elif alone:
        share = z.shape[0]
        rows, positives, _ = contrastive_sums(z, None, scale, query_ids=row % images, positive=images)
    else:
        share = z.shape[0]
        rows, _, _ = contrastive_sums(z, None, scale, query_ids=row)
        positives = _mean_positives(z, views) * scale
    losses = softplus(rows - positives) if alone else rows - positives
    return weighted(losses, weights).sum() / share


def _mean_positives(z: Tensor, views: int) -> Tensor:
    """Mean of each row's cosine similarities with the other views of its image, (R,)."""
    own = unit(z)
    others = own.view(views, -1, own.shape[1]).sum(dim=0).repeat(views, 1) - own
    return (own * others).sum(dim=1) / (views - 1)


class NTXentLoss(nn.Module):
    """NT-Xent between two batches of views (SimCLR), or InfoNCE against a memory bank (MoCo), without the similarity
    matrix.

    Args:
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number, such as a torch.nn.Parameter,
            may be learned.
        memory_bank_size: (rows, columns) of a bank of negatives, such as (65536, 128); 0: the other images of the batch
            are the negatives.
        gather_distributed: Whether the images of all processes are negatives, or, with a bank, go into it. Without a
            bank the mean over the processes, as DistributedDataParallel takes it, is exactly the gradient of the loss
            over the whole batch, also where processes hold unlike numbers of images (then a process's own value is
            weighted by its share). Both passes exchange rows or sums, so every process must take both.

    Raises:
        ValueError: temperature <= 0, memory_bank_size is neither 0 nor two whole numbers, or gather_distributed where
            torch.distributed is not available.
        TypeError: temperature is no number.

    Differs from lightly's: the value is never less than float32 and logits are float32 also under autocast, the bank
    is a true ring and part of the state_dict (see MemoryBankModule), and a negative temperature is an error.
    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Chen et al., SimCLR, 2020, arXiv:2002.05709, equation 1; with a bank He et al., MoCo, 2020,
    arXiv:1911.05722, equation 1.

    >>> import torch
    >>> views = torch.eye(4)
    >>> round(NTXentLoss(temperature=1.0)(views[:2], views[2:]).item(), 4)  # orthogonal rows: log 3
    1.0986
    """

    def __init__(
        self,
        temperature: Tensor | float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        who = type(self).__name__  # DirectCLRLoss is one
        check_temperature(who, temperature)
        check_gather(who, gather_distributed)
        self.temperature = temperature
        self.gather_distributed = gather_distributed
        self.memory_bank = MemoryBankModule(size=memory_bank_size, gather_distributed=gather_distributed)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """Mean loss, (), float32 (float64 for float64).

        Args:
            out0: Embeddings of the first views, (B, D), not normalized. With a bank, the queries; the bank is updated
                where they require a gradient, so a validation step leaves it as it is.
            out1: Embeddings of the second views, (B, D). With a bank, the keys.

        Raises:
            ValueError: Shapes differ, or there is no row or column, or the width is not that of the bank.
            TypeError: An embedding is not of a floating-point type.
        """
        who = type(self).__name__
        check_temperature(who, self.temperature)
        distributed = self.gather_distributed and world_size() > 1
        check_pairs(who, ("out0", "out1"), out0, out1, may_be_empty=distributed)
        if self.memory_bank.size[0] > 0:
            self.memory_bank.check_columns(out1)
            loss = info_nce(out0, out1, self.memory_bank.bank.to(out0.device), self.temperature)
            if out0.requires_grad:
                self.memory_bank.enqueue(nn.functional.normalize(out1.detach(), dim=1))
            return loss
        if not distributed and _two_views.usable(out0, out1, self.temperature):
            return _two_views.two_views(out0, out1, self.temperature)
        z = torch.cat([out0, out1])
        return ntxent(z, self.temperature, gather_distributed=self.gather_distributed)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather_distributed={self.gather_distributed}"
