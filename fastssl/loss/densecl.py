"""DenseCL: InfoNCE between the cells of two views, matched by what the backbone sees there."""

from __future__ import annotations

import torch
from torch import Tensor

from fastssl.loss._checks import check_bank, check_floats, check_temperature, check_weights
from fastssl.loss._rows import rows_at
from fastssl.loss.infonce import info_nce

__all__ = ["densecl"]

# Similarities between the cells of images that are held at a time.
SIMILARITIES_AT_ONCE = 2**24


def densecl(
    query: Tensor,
    key: Tensor,
    query_features: Tensor,
    key_features: Tensor,
    bank: Tensor,
    temperature: Tensor | float = 0.2,
    weights: Tensor | None = None,
) -> Tensor:
    """InfoNCE of every cell of a view, its positive the cell of the other view whose features are most alike.

    The (B N, M) similarities with the bank are never stored. What goes into the bank is yours: the paper's negatives
    are the keys of an image averaged over its cells, normalized.

    Args:
        query: Projected cells of one view, (B, N, D), float16, bfloat16, float32 or float64. Normalized here.
        key: Projected cells of the other view, (B, K, D), usually of a momentum encoder, without gradient. Normalized
            here.
        query_features: The backbone's features of the query's cells, (B, N, C); they only match, so without gradient.
        key_features: The backbone's features of the key's cells, (B, K, C).
        bank: Negatives of all cells, (M, D), taken as they are, such as `MemoryBankModule.bank`. It may change before
            the backward pass.
        temperature: Divides the similarities; > 0, no unit. A tensor of one number may be learned.
        weights: Of the losses of the query's cells, (B, N), before their mean; None: 1.

    Returns:
        Mean loss over all B N cells, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: Shapes do not fit together, a dimension is empty, weights are not one a cell, or temperature <= 0.
        TypeError: A tensor is of another type, or temperature is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Wang et al., DenseCL, 2021, arXiv:2011.09157, equations 2 and 4.

    >>> import torch
    >>> cells = torch.eye(2)[None]  # two cells of one image, each its own match
    >>> loss = densecl(cells, cells, cells, cells, bank=-torch.eye(2), temperature=1.0)
    >>> round(loss.item(), 4)  # logits 1, -1, 0: log(e + 1/e + 1) - 1
    0.4076
    """
    check_temperature("densecl", temperature)
    named = {"query": query, "key": key, "query_features": query_features, "key_features": key_features}
    for name, x in named.items():
        check_floats("densecl", name, x)
    shapes = {name: tuple(x.shape) for name, x in named.items()}
    if any(len(shape) != 3 or 0 in shape for shape in shapes.values()) or not (
        query.shape[::2] == key.shape[::2]
        and query.shape[:2] == query_features.shape[:2]
        and key.shape[:2] == key_features.shape[:2]
        and query_features.shape[2] == key_features.shape[2]
    ):
        raise ValueError(
            f"densecl: got the shapes {shapes}; query must be (B, N, D), key (B, K, D), their features (B, N, C) and "
            "(B, K, C), all at least 1, so flatten maps (B, C, H, W) by x.flatten(2).transpose(1, 2)."
        )
    check_bank("densecl", bank, query.shape[2])
    check_weights("densecl", weights, *query.shape[:2])
    matches = _matches(query_features, key_features)
    places = matches + key.shape[1] * torch.arange(len(key), device=key.device)[:, None]
    positives = rows_at(key.flatten(0, 1), places.flatten())
    of_cells = None if weights is None else weights.flatten()
    return info_nce(query.flatten(0, 1), positives, bank, temperature, of_cells)


@torch.no_grad()
def _matches(query: Tensor, key: Tensor) -> Tensor:
    """For each cell of the query the most similar cell of the same image's key: (B, N)."""
    q, k = (torch.nn.functional.normalize(x.float(), dim=2) for x in (query, key))
    images = max(1, SIMILARITIES_AT_ONCE // (q.shape[1] * k.shape[1]))
    with torch.autocast(q.device.type, enabled=False):
        return torch.cat([(a @ b.mT).argmax(dim=2) for a, b in zip(q.split(images), k.split(images), strict=True)])
