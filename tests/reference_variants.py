"""The variants of the contrastive loss by definition, in float64 and with loops over pairs, written from the papers.

Gradients come from autograd through the loops. `plain_*` is what one would write in PyTorch, in the type of the input:
it says how exact a loss in that type can be expected to be.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from reference_losses import cosine_rows
from torch import Tensor


def dcl(z: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    """DCL, arXiv:2110.06848, equations 4 to 6: the mean over all 2B rows; the other view's term, and all but the image.

    z is (2B, D); weights, (2B,), are those of the positives.
    """
    assert z.dtype == torch.float64
    rows, count = cosine_rows(z), len(z)
    losses = []
    for i in range(count):
        j = (i + count // 2) % count
        others = [torch.dot(rows[i], rows[m]) / temperature for m in range(count) if m not in (i, j)]
        negatives = torch.logsumexp(torch.stack(others), dim=0) if others else z.new_tensor(-torch.inf)
        weight = 1 if weights is None else weights[i]
        losses.append(negatives - weight * torch.dot(rows[i], rows[j]) / temperature)
    return torch.stack(losses).mean()


def mises_fisher_weights(z: Tensor, sigma: float) -> Tensor:
    """DCLW, arXiv:2110.06848, section 3: 2 - exp(s_i / sigma) / mean_j exp(s_j / sigma), of the B pairs: (2B,)."""
    rows, half = cosine_rows(z.detach()), len(z) // 2
    similar = torch.stack([torch.exp(torch.dot(rows[i], rows[i + half]) / sigma) for i in range(half)])
    return (2 - similar / similar.mean()).repeat(2)


def macl(z: Tensor, temperature: float, alpha: float, threshold: float, eps: float = 1e-8) -> Tensor:
    """MACL, arXiv:2207.07874: NT-Xent at the temperature that the mean similarity of positives sets, weights 1 / (1 - P).

    Neither the temperature nor the weights are differentiated. A loss near 0 keeps its digits: its weight is 1 / loss there, but
    for eps, so that an error of the loss would become one of the order of error / loss.
    """
    rows, count = cosine_rows(z), len(z)
    half = count // 2
    alignment = torch.stack([torch.dot(rows[i], rows[i + half]) for i in range(half)]).mean().detach()
    t = temperature * (1 + alpha * (alignment - threshold))
    losses = []
    for i in range(count):
        partner = (i + half) % count
        positive = torch.dot(rows[i], rows[partner]) / t
        others = [torch.dot(rows[i], rows[j]) / t - positive for j in range(count) if j not in (i, partner)]
        ahead = torch.logsumexp(torch.stack(others), dim=0) if others else 0 * positive - torch.inf
        loss = torch.logaddexp(ahead, torch.zeros_like(ahead))
        losses.append(loss / (-torch.expm1(-loss) + eps).detach())
    return torch.stack(losses).mean()


def detcon(
    predictions: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    masks: tuple[Tensor, Tensor],
    temperature: float,
) -> Tensor:
    """DetCon, arXiv:2103.10957, equations 2 and 3, with the weights and the exclusions of its published pseudocode.

    Region m of image i in one view meets all regions of all images in both views of the targets, but not those of its own
    view that have its mask in its image. Positives, averaged, are the regions of the other view with its mask in its
    image; a region without any has no loss. The loss of a region is divided by how often its mask was drawn in its view.
    """
    images, regions, _ = predictions[0].shape
    total = 0 * sum(x.sum() for x in (*predictions, *targets))
    for view in (0, 1):
        other = 1 - view
        queries = cosine_rows(predictions[view].flatten(0, 1))
        same_view, cross_view = (cosine_rows(targets[v].flatten(0, 1)) for v in (view, other))
        for a, query in enumerate(queries):
            image, mask = a // regions, masks[view].flatten()[a]
            cross = torch.stack([torch.dot(query, key) for key in cross_view]) / temperature
            own = torch.stack([torch.dot(query, key) for key in same_view]) / temperature
            of_image = torch.arange(images * regions, device=query.device) // regions == image
            allowed = ~(of_image & (masks[view].flatten() == mask))
            positives = of_image & (masks[other].flatten() == mask)
            if not positives.any():
                continue
            denominator = torch.logsumexp(torch.cat([cross, own[allowed]]), dim=0)
            drawn = (masks[view][image] == mask).sum()
            total = total + (denominator - cross[positives].mean()) / drawn
    return total / (images * regions)


def co2(query: Tensor, key: Tensor, bank: Tensor | None, temperature: float) -> Tensor:
    """CO2, arXiv:2010.02217, equations 4 to 6: the mean of (KL(P, Q) + KL(Q, P)) / 2, with the pair among the classes."""
    queries, keys = cosine_rows(query), cosine_rows(key)
    divergences = []
    for i, (q, k) in enumerate(zip(queries, keys, strict=True)):
        of_query = list(bank) if bank is not None else [row for j, row in enumerate(keys) if j != i]
        of_key = list(bank) if bank is not None else [row for j, row in enumerate(queries) if j != i]
        log_p = torch.log_softmax(torch.stack([torch.dot(q, row) for row in (k, *of_query)]) / temperature, dim=0)
        log_q = torch.log_softmax(torch.stack([torch.dot(k, row) for row in (q, *of_key)]) / temperature, dim=0)
        forward = (log_p.exp() * (log_p - log_q)).sum()
        backward = (log_q.exp() * (log_q - log_p)).sum()
        divergences.append((forward + backward) / 2)
    return torch.stack(divergences).mean()


def densecl(
    query: Tensor, key: Tensor, query_features: Tensor, key_features: Tensor, bank: Tensor, temperature: float
) -> Tensor:
    """DenseCL, arXiv:2011.09157, equations 2 and 3: each cell's key is the one whose backbone features are most alike."""
    losses = []
    for q, k, of_query, of_key in zip(query, key, query_features, key_features, strict=True):
        q_rows, k_rows = cosine_rows(q), cosine_rows(k)
        for cell, features in zip(q_rows, cosine_rows(of_query), strict=True):
            match = max(range(len(of_key)), key=lambda c: torch.dot(features, cosine_rows(of_key)[c]).item())
            logits = torch.stack([torch.dot(cell, row) for row in (k_rows[match], *bank)]) / temperature
            losses.append(torch.logsumexp(logits, dim=0) - logits[0])
    return torch.stack(losses).mean()


# What one would write in PyTorch


def plain_logits(z: Tensor, temperature: float | Tensor) -> Tensor:
    unit = F.normalize(z, dim=1)
    return unit @ unit.T / temperature


def plain_dcl(z: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    half = len(z) // 2
    logits = plain_logits(z, temperature)
    positives = torch.cat([logits.diagonal(half), logits.diagonal(-half)])
    same = torch.arange(len(z), device=z.device) % half
    negatives = logits.masked_fill(same[:, None] == same, -torch.inf).logsumexp(dim=1)
    return (negatives - positives * (1 if weights is None else weights.to(positives.dtype))).mean()


def plain_macl(z: Tensor, temperature: float, alpha: float, threshold: float, eps: float = 1e-8) -> Tensor:
    half = len(z) // 2
    unit = F.normalize(z, dim=1)
    alignment = (unit[:half] * unit[half:]).sum(dim=1).mean().detach()
    logits = plain_logits(z, temperature * (1 + alpha * (alignment - threshold)))
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    labels = torch.arange(len(z), device=z.device).roll(half)
    log_p = logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    return (-log_p / (1 - log_p.exp() + eps).detach()).mean()


def plain_co2(query: Tensor, key: Tensor, bank: Tensor | None, temperature: float) -> Tensor:
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
    if bank is None:  # the pair is on the diagonal
        p_logits, q_logits = q @ k.T / temperature, k @ q.T / temperature
    else:
        pair, bank = (q * k).sum(dim=1, keepdim=True), bank.to(q.dtype)
        p_logits = torch.cat([pair, q @ bank.T], dim=1) / temperature
        q_logits = torch.cat([pair, k @ bank.T], dim=1) / temperature
    log_p, log_q = p_logits.log_softmax(dim=1), q_logits.log_softmax(dim=1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).mean() / 2


def plain_detcon(
    predictions: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    masks: tuple[Tensor, Tensor],
    temperature: float,
) -> Tensor:
    images, regions, _ = predictions[0].shape
    image = torch.arange(images, device=predictions[0].device).repeat_interleave(regions)
    same_image = image[:, None] == image
    total: Tensor = 0  # type: ignore[assignment]
    for view in (0, 1):
        other = 1 - view
        query = F.normalize(predictions[view].flatten(0, 1), dim=1)
        own, cross = (F.normalize(targets[v].flatten(0, 1), dim=1) for v in (view, other))
        mask, other_mask = masks[view].flatten(), masks[other].flatten()
        excluded = same_image & (mask[:, None] == mask)
        positives = same_image & (mask[:, None] == other_mask)
        logits = torch.cat([query @ cross.T, query @ own.T], dim=1) / temperature
        logits = logits.masked_fill(torch.cat([torch.zeros_like(excluded), excluded], dim=1), -torch.inf)
        log_p = logits.log_softmax(dim=1)[:, : len(query)]
        counts = positives.sum(dim=1)
        loss = -(log_p * positives).sum(dim=1) / counts.clamp(min=1)
        total = total + ((counts > 0) * loss / excluded.sum(dim=1)).mean()
    return total
