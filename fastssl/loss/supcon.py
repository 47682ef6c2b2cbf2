"""The supervised contrastive loss; the similarity matrix is never stored."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastssl.loss._checks import (
    check_floats,
    check_gather,
    check_temperature,
    check_weights,
    inverse,
    weighted,
)
from fastssl.loss._classes import Classes, others_with
from fastssl.loss._distributed import gathered_sums
from fastssl.loss._operators import contrastive_sums, unit
from fastssl.loss.ntxent import ntxent
from fastssl.models._gather import world_size

__all__ = ["SupConLoss", "supcon"]


def supcon(
    z: Tensor,
    labels: Tensor,
    temperature: Tensor | float = 0.07,
    weights: Tensor | None = None,
    gather_distributed: bool = False,
) -> Tensor:
    """Supervised contrastive loss: rows of one label are each other's positives, all other rows are negatives.

    Fused: the (R, R) similarity matrix is never stored, so memory is O(R D) and not O(R^2), and positives cost O(R D),
    however many there are.

    Args:
        z: Embeddings, (R, D), float16, bfloat16, float32 or float64; all views of all images. Normalized here.
        labels: Of the rows, (R,), any integer type. A row without another of its label has loss 0.
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number may be learned.
        weights: Of the rows' losses, (R,), before their mean; None: 1.
        gather_distributed: Whether the rows of all processes are positives and negatives; see NTXentLoss.

    Returns:
        Mean loss over all rows, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: Shapes do not fit together, there is no row or column, or temperature <= 0.
        TypeError: z is no float, labels are no integers, or temperature is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Khosla et al., SupCon, 2020, arXiv:2004.11362, equation 2 (L_out).

    >>> import torch
    >>> loss = supcon(torch.eye(4), torch.tensor([0, 0, 1, 1]), temperature=1.0)
    >>> round(loss.item(), 4)  # orthogonal rows: log 3
    1.0986
    """
    check_temperature("supcon", temperature)
    check_floats("supcon", "z", z)
    check_gather("supcon", gather_distributed)
    distributed = gather_distributed and world_size() > 1
    # With gather_distributed an empty batch is an error of all processes, once they know each other's shapes.
    if z.dim() != 2 or z.shape[1] == 0 or (z.shape[0] == 0 and not distributed) or labels.shape != z.shape[:1]:
        raise ValueError(
            f"supcon: z has shape {tuple(z.shape)}, labels {tuple(labels.shape)}; they must be (R, D) and (R,) with R "
            "and D at least 1; write labels.repeat(2) for torch.cat([view0, view1])."
        )
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"supcon: labels are of type {labels.dtype} and must be integers; write labels.long().")
    check_weights("supcon", weights, z.shape[0])
    labels = labels.long()
    scale = inverse(temperature, z)
    share, all_labels = float(z.shape[0]), labels
    if distributed:
        rows, _, products, share, all_labels = gathered_sums(z, None, scale, labels=labels)
    else:
        own = unit(z)
        rows, _, _ = contrastive_sums(z, None, scale, query_ids=torch.arange(z.shape[0], device=z.device))
        products = (own * (Classes(labels).sums(own) - own)).sum(dim=1)
    positives = others_with(labels, all_labels)
    losses = rows - products * scale / positives.clamp(min=1)
    return weighted(torch.where(positives > 0, losses, 0), weights).sum() / share


class SupConLoss(nn.Module):
    """Supervised contrastive loss, without the similarity matrix.

    Args:
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number, such as a torch.nn.Parameter,
            may be learned.
        gather_distributed: Whether the rows of all processes are positives and negatives; exact under
            DistributedDataParallel, as NTXentLoss says.

    Raises:
        ValueError: temperature <= 0, or gather_distributed where torch.distributed is not available.
        TypeError: temperature is no number.

    Source: Khosla et al., SupCon, 2020, arXiv:2004.11362, equation 2 (L_out).

    >>> import torch
    >>> round(SupConLoss(temperature=1.0)(torch.eye(4), torch.tensor([0, 0, 1, 1])).item(), 4)  # orthogonal rows: log 3
    1.0986
    """

    def __init__(self, temperature: Tensor | float = 0.07, gather_distributed: bool = False) -> None:
        super().__init__()
        check_temperature("SupConLoss", temperature)
        check_gather("SupConLoss", gather_distributed)
        self.temperature = temperature
        self.gather_distributed = gather_distributed

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean loss, (), float32 (float64 for float64).

        Args:
            features: Embeddings, (R, D), or (B, V, D) of the V views of B images.
            labels: (R,), or (B,) of the images. None, with (B, V, D): only views of one image are positives.

        Raises:
            ValueError: Neither labels nor, in (B, V, D), two views, or shapes that do not fit together.
            TypeError: features is no float, or labels are no integers.
        """
        if labels is None and (features.dim() != 3 or features.shape[1] < 2):
            raise ValueError(
                f"SupConLoss: features of shape {tuple(features.shape)} without labels; give labels, or features as "
                "(B, V, D) with V at least 2, so that the views of an image are positives."
            )
        if labels is None:  # image i of a process is not image i of another
            views, z = features.shape[1], features.transpose(0, 1).flatten(0, 1)
            return ntxent(z, self.temperature, views, gather_distributed=self.gather_distributed)
        if features.dim() == 3:
            if labels.shape != features.shape[:1]:
                raise ValueError(
                    f"SupConLoss: features has shape {tuple(features.shape)}, labels {tuple(labels.shape)}; features of "
                    f"(B, V, D) have one label an image, so labels must be ({features.shape[0]},)."
                )
            labels = labels.repeat_interleave(features.shape[1])
            features = features.flatten(0, 1)
        return supcon(features, labels, self.temperature, gather_distributed=self.gather_distributed)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather_distributed={self.gather_distributed}"
