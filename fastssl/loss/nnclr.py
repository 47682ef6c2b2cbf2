"""NNCLR's loss: the neighbour of one view finds the prediction of the other."""

from __future__ import annotations

from torch import Tensor

from fastssl.loss._checks import check_gather, check_pairs, check_temperature, check_weights
from fastssl.loss.infonce import info_nce
from fastssl.models._gather import world_size

__all__ = ["nnclr"]


def nnclr(
    neighbors: Tensor,
    predictions: Tensor,
    temperature: Tensor | float = 0.1,
    weights: Tensor | None = None,
    gather_distributed: bool = False,
) -> Tensor:
    """Cross entropy of each nearest neighbour over the predictions of the batch, which are never multiplied out at once.

    The paper's loss is the mean of both directions: nnclr(neighbours of z0, p1) and nnclr(neighbours of z1, p0).

    Args:
        neighbors: Of the projections of the first views in the support set, (B, D), float16, bfloat16, float32 or
            float64. Normalized here.
        predictions: The predictor's output for the second views, (B, D). Normalized here.
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number may be learned.
        weights: Of the rows' losses, (B,), before their mean; None: 1.
        gather_distributed: Whether the predictions of all processes are negatives; see NTXentLoss.

    Returns:
        Mean loss, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: Shapes differ, there is no row or column, weights are not one a row, or temperature <= 0.
        TypeError: Embeddings are of another type, or temperature is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Dwibedi et al., NNCLR, 2021, arXiv:2104.14548, equation 3.

    >>> import torch
    >>> round(nnclr(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)  # logits 1 and 0: log(1 + 1/e)
    0.3133
    """
    check_temperature("nnclr", temperature)
    check_gather("nnclr", gather_distributed)
    distributed = gather_distributed and world_size() > 1
    check_pairs("nnclr", ("neighbors", "predictions"), neighbors, predictions, may_be_empty=distributed)
    check_weights("nnclr", weights, neighbors.shape[0])
    return info_nce(neighbors, predictions, None, temperature, weights, gather_distributed)
