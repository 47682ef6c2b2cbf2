"""InfoNCE, the loss of MoCo: a query finds its key among those of the batch or the rows of a bank."""

from __future__ import annotations

import torch
from torch import Tensor

from fastssl.loss._checks import (
    check_bank,
    check_gather,
    check_pairs,
    check_temperature,
    check_weights,
    inverse,
    weighted,
)
from fastssl.loss._distributed import gathered_sums
from fastssl.loss._operators import contrastive_sums, softplus, unit
from fastssl.models._gather import world_size

__all__ = ["info_nce"]


def info_nce(
    query: Tensor,
    key: Tensor,
    bank: Tensor | None = None,
    temperature: Tensor | float = 0.1,
    weights: Tensor | None = None,
    gather_distributed: bool = False,
) -> Tensor:
    """InfoNCE: cross entropy of each query over its own key and negatives, which are never multiplied out at once.

    Args:
        query: Embeddings, (B, D), float16, bfloat16, float32 or float64. Normalized here.
        key: Embeddings, (B, D); row i is the positive of query i. Normalized here.
        bank: Negatives of all queries, (M, D), taken as they are: normalize them when you store them. Without a
            gradient it may change after this call, before the backward pass. None: the keys of the other queries are
            the negatives.
        temperature: Divides the similarities; > 0, no unit. A tensor of one number may be learned.
        weights: Of the queries' losses, (B,), before their mean; None: 1.
        gather_distributed: Without a bank, whether the keys of all processes are negatives; see NTXentLoss.

    Returns:
        Mean loss, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: Shapes do not fit together, there is no row or column, temperature <= 0, or gather_distributed with a bank.
        TypeError: Embeddings are of another type, or temperature is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: He et al., MoCo, 2020, arXiv:1911.05722, equation 1; van den Oord et al., CPC, 2018, arXiv:1807.03748,
    equation 4.

    >>> import torch
    >>> query, bank = torch.eye(2), -torch.eye(2)
    >>> loss = info_nce(query, query, bank, temperature=1.0)
    >>> round(loss.item(), 4)  # logits 1, -1, 0: log(e + 1/e + 1) - 1
    0.4076
    """
    check_temperature("info_nce", temperature)
    check_gather("info_nce", gather_distributed)
    distributed = gather_distributed and world_size() > 1
    if gather_distributed and bank is not None:
        raise ValueError(
            "info_nce: gather_distributed=True with a bank; no process needs another's rows then, so leave it out, and "
            "store the keys of all processes in the bank."
        )
    check_pairs("info_nce", ("query", "key"), query, key, may_be_empty=distributed)
    if bank is not None:
        check_bank("info_nce", bank, query.shape[1])
    check_weights("info_nce", weights, query.shape[0])
    scale = inverse(temperature, query)
    share: float = query.shape[0]
    if bank is None and not distributed:
        row = torch.arange(query.shape[0], device=query.device)
        rows, positives, _ = contrastive_sums(query, key, scale, query_ids=row, key_ids=row, positive=0)
    elif bank is None:
        rows, _, products, share, _ = gathered_sums(query, key, scale)
        positives = products * scale
    else:
        rows, _, _ = contrastive_sums(query, bank, scale, normalize_key=False)
        positives = (unit(query) * unit(key)).sum(dim=1) * scale
    # Sums without the positive: a small loss, log((N + p) / p), then keeps its relative accuracy.
    return weighted(softplus(rows - positives), weights).sum() / share
