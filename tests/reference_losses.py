"""Contrastive losses by definition, in float64 and with loops over pairs, written from the papers.

Gradients come from autograd through the loops. `plain_*` is what one would write in PyTorch, in the type of the input:
it says how exact a loss in that type can be expected to be.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_rows(z: Tensor) -> list[Tensor]:
    """Rows of z over their length, or over 1e-12 where they are shorter."""
    rows = []
    for row in z:
        length = (row * row).sum()
        rows.append(row / (length.sqrt() if length > 1e-24 else 1e-12))
    return rows


def ntxent(z: Tensor, temperature: float) -> Tensor:
    """SimCLR, arXiv:2002.05709, equation 1: mean over the ordered pairs (i, j) of views of an image; z is (2B, D)."""
    assert z.dtype == torch.float64
    rows, count = cosine_rows(z), len(z)
    losses = []
    for i in range(count):
        j = (i + count // 2) % count
        similarities = torch.stack([torch.dot(rows[i], rows[k]) for k in range(count) if k != i])
        losses.append(torch.logsumexp(similarities / temperature, dim=0) - torch.dot(rows[i], rows[j]) / temperature)
    return torch.stack(losses).mean()


def infonce(query: Tensor, key: Tensor, bank: Tensor, temperature: float) -> Tensor:
    """MoCo, arXiv:1911.05722, equation 1: query i has key i as its positive and the rows of the bank as negatives."""
    assert query.dtype == torch.float64
    losses = []
    for q, k in zip(cosine_rows(query), cosine_rows(key), strict=True):
        logits = torch.stack([torch.dot(q, row) for row in (k, *bank)]) / temperature
        losses.append(torch.logsumexp(logits, dim=0) - logits[0])
    return torch.stack(losses).mean()


def plain_ntxent(z: Tensor, temperature: float) -> Tensor:
    unit = F.normalize(z, dim=1)
    logits = unit @ unit.T / temperature
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z) // 2))


def plain_infonce(query: Tensor, key: Tensor, bank: Tensor, temperature: float) -> Tensor:
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
    logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ bank.to(q.dtype).T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))
