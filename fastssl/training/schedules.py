"""Learning rates over the steps of a run."""

from __future__ import annotations

import math

__all__ = ["warmup_cosine"]


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Part of the full learning rate at a step: a linear rise, then half a cosine down to 0.

    Args:
        step: The first is 0.
        warmup_steps: Steps of the rise; step `warmup_steps` is the first at the full rate.
        total_steps: Steps of the whole run.

    Returns:
        In [0, 1]; above 0 for every step of the run.

    Source: Loshchilov and Hutter, SGDR, 2017, arXiv:1608.03983, equation 5; the rise: Goyal et al., 2017,
    arXiv:1706.02677, section 2.2.

    >>> [round(warmup_cosine(step, warmup_steps=2, total_steps=6), 2) for step in range(7)]
    [0.33, 0.67, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if step >= total_steps:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps)))
