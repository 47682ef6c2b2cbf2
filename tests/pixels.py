"""What the tests of pixels share: plans edited by hand, and the declared bounds against the reference.

The bounds are those the project declares: largest error 1/255, mean error 0.1/255, in units of a channel in [0, 1]; beyond
them is only what bands.py excuses, and how much a test excuses in the mean is bounded too.
"""

from __future__ import annotations

from typing import Any

import bands
import images
import numpy as np
import torch
from torch import Tensor

from fastssl import ops
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Jitter, Resize, View

LARGEST = 1 / 255
MEAN = 0.1 / 255
KINDS = sorted(images.KINDS)

PLAIN: dict[str, Any] = {"normalize": None}
FULL_JITTER = Jitter(p=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)


def plan_for(image: np.ndarray, view: View, **fields: float) -> Plan:
    """The identity on the whole image, save for these fields."""
    height, width = image.shape[:2]
    plan = Plan.draw((View(crop=Resize(size=view.size), normalize=None),), [(height, width)], seed=0)
    for name, value in fields.items():
        getattr(plan, name)[...] = value
    return plan


def row(plan: Plan, i: int = 0, v: int = 0) -> dict[str, float]:
    return dict(zip(Plan.FIELDS, plan.data[i, v].double().tolist(), strict=True))


def render(image: np.ndarray, plan: Plan, view: View, **options: Any) -> Tensor:
    """(C, S, S)."""
    (out,) = ops.render([torch.from_numpy(image)], plan, (view,), **options)
    return out[0]


def off(got: Tensor, want: np.ndarray, view: View, slack: np.ndarray | float = 0.0) -> tuple[float, float]:
    """Largest and mean error in units of a channel in [0, 1], that is before normalization; less what is excused."""
    assert tuple(got.shape) == want.shape
    unit = 1.0 if view.normalize is None else np.reshape(view.normalize.std, (-1, 1, 1))
    error = np.maximum(np.abs(got.double().numpy() - want) * unit - slack, 0)
    assert not np.isnan(error).any()
    return float(error.max()), float(error.mean())


def check_pixels(got: Tensor, image: np.ndarray, numbers: dict[str, float], view: View) -> float:
    """Asserts both bounds against the reference; returns how much is excused, in the mean over the view."""
    want, slack = bands.render_with_slack(image, numbers, view)
    largest, mean = off(got, want, view, slack)
    assert largest <= LARGEST and mean <= MEAN, f"{largest * 255:.3f}/255, mean {mean * 255:.4f}/255: {numbers}"
    return float(slack.mean())


def check(image: np.ndarray, plan: Plan, view: View) -> float:
    """As check_pixels, of a batch of one."""
    return check_pixels(render(image, plan, view), image, row(plan), view)
