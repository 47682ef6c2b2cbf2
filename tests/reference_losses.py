"""Contrastive losses by definition, in float64 and with loops over pairs, written from the papers.

Gradients come from autograd through the loops. `plain_*` is what one would write in PyTorch, in the type of the input:
it says how exact a loss in that type can be expected to be, and, in float64, what a batch too large for loops gives.
"""

from __future__ import annotations

import math

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


def weighted_mean(losses: list[Tensor], weights: Tensor | None) -> Tensor:
    """Sum of the losses times their weights over their number."""
    stacked = torch.stack(losses)
    return (stacked if weights is None else stacked * weights).mean()


def ntxent(z: Tensor, temperature: Tensor | float, views: int = 2, weights: Tensor | None = None) -> Tensor:
    """SimCLR, arXiv:2002.05709, equation 1, for every ordered pair (i, j) of views of an image; z is (views * B, D).

    Mean over the positives j of row i, then over the rows.
    """
    assert z.dtype == torch.float64
    rows, count = cosine_rows(z), len(z)
    images = count // views
    losses = []
    for i in range(count):
        others = [torch.dot(rows[i], rows[k]) / temperature for k in range(count) if k != i]
        log_sum = torch.logsumexp(torch.stack(others), dim=0)
        pairs = [
            log_sum - torch.dot(rows[i], rows[j]) / temperature for j in range(i % images, count, images) if j != i
        ]
        losses.append(torch.stack(pairs).mean())
    return weighted_mean(losses, weights)


def infonce(query: Tensor, key: Tensor, bank: Tensor, temperature: Tensor | float) -> Tensor:
    """MoCo, arXiv:1911.05722, equation 1: query i has key i as its positive and the rows of the bank as negatives."""
    assert query.dtype == torch.float64
    losses = []
    for q, k in zip(cosine_rows(query), cosine_rows(key), strict=True):
        logits = torch.stack([torch.dot(q, row) for row in (k, *bank)]) / temperature
        losses.append(torch.logsumexp(logits, dim=0) - logits[0])
    return torch.stack(losses).mean()


def infonce_of_batch(query: Tensor, key: Tensor, temperature: Tensor | float, weights: Tensor | None = None) -> Tensor:
    """CPC, arXiv:1807.03748, equation 4, and NNCLR, arXiv:2104.14548, equation 3: the other keys are the negatives."""
    assert query.dtype == torch.float64
    keys = cosine_rows(key)
    losses = []
    for i, q in enumerate(cosine_rows(query)):
        logits = torch.stack([torch.dot(q, k) for k in keys]) / temperature
        losses.append(torch.logsumexp(logits, dim=0) - logits[i])
    return weighted_mean(losses, weights)


def supcon(z: Tensor, labels: Tensor, temperature: Tensor | float, weights: Tensor | None = None) -> Tensor:
    """SupCon, arXiv:2004.11362, equation 2; an anchor without positives has loss 0."""
    assert z.dtype == torch.float64
    rows, count = cosine_rows(z), len(z)
    losses = []
    for i in range(count):
        logits = {a: torch.dot(rows[i], rows[a]) / temperature for a in range(count) if a != i}
        positives = [logits[p] for p in logits if labels[p] == labels[i]]
        if positives:
            log_sum = torch.logsumexp(torch.stack(list(logits.values())), dim=0)
            losses.append(-torch.stack([p - log_sum for p in positives]).mean())
        else:
            losses.append(rows[i].sum() * 0)
    return weighted_mean(losses, weights)


def clip(image: Tensor, text: Tensor, scale: Tensor | float, weights: Tensor | None = None) -> Tensor:
    """CLIP, arXiv:2103.00020, figure 3: mean of the cross entropies over rows and over columns."""
    inverse = 1 / scale
    return (infonce_of_batch(image, text, inverse, weights) + infonce_of_batch(text, image, inverse, weights)) / 2


def siglip(
    image: Tensor, text: Tensor, scale: Tensor | float, bias: Tensor | float, weights: Tensor | None = None
) -> Tensor:
    """SigLIP, arXiv:2303.15343, section 3.2: minus the logarithm of the sigmoid of z (t x . y + b) over all pairs."""
    assert image.dtype == torch.float64
    texts = cosine_rows(text)
    losses = []
    for i, x in enumerate(cosine_rows(image)):
        logits = torch.stack([torch.dot(x, y) for y in texts]) * scale + bias
        signs = torch.tensor([1.0 if i == j else -1.0 for j in range(len(texts))], dtype=torch.float64)
        losses.append(torch.logaddexp(-signs * logits, torch.zeros_like(logits)).sum())
    return weighted_mean(losses, weights)


def plain_ntxent(z: Tensor, temperature: Tensor | float, views: int = 2, weights: Tensor | None = None) -> Tensor:
    images = torch.arange(len(z), device=z.device) % (len(z) // views)
    return plain_supcon(z, images, temperature, weights)


def plain_infonce(query: Tensor, key: Tensor, bank: Tensor, temperature: Tensor | float) -> Tensor:
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
    logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ bank.to(q.dtype).T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def plain_infonce_of_batch(
    query: Tensor, key: Tensor, temperature: Tensor | float, weights: Tensor | None = None
) -> Tensor:
    logits = F.normalize(query, dim=1) @ F.normalize(key, dim=1).T / temperature
    losses = F.cross_entropy(logits, torch.arange(len(query), device=query.device), reduction="none")
    return (losses if weights is None else losses * weights).mean()


def plain_supcon(z: Tensor, labels: Tensor, temperature: Tensor | float, weights: Tensor | None = None) -> Tensor:
    unit = F.normalize(z, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (unit @ unit.T / temperature).masked_fill(itself, -math.inf)
    positives = (labels[:, None] == labels) & ~itself
    log_softmax = torch.where(positives, F.log_softmax(logits, dim=1), 0)
    losses = -log_softmax.sum(dim=1) / positives.sum(dim=1).clamp(min=1)
    return (losses if weights is None else losses * weights).mean()


def plain_clip(image: Tensor, text: Tensor, scale: Tensor | float, weights: Tensor | None = None) -> Tensor:
    inverse = 1 / scale
    return (
        plain_infonce_of_batch(image, text, inverse, weights) + plain_infonce_of_batch(text, image, inverse, weights)
    ) / 2


def plain_siglip(
    image: Tensor, text: Tensor, scale: Tensor | float, bias: Tensor | float, weights: Tensor | None = None
) -> Tensor:
    logits = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T * scale + bias
    signs = 2 * torch.eye(len(image), dtype=logits.dtype, device=logits.device) - 1
    losses = -F.logsigmoid(signs * logits).sum(dim=1)
    return (losses if weights is None else losses * weights).mean()
