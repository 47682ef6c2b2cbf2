"""Solarization of single images, under lightly's name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

__all__ = ["RandomSolarization"]


class RandomSolarization:
    """Inverts each channel at or above the threshold, with some probability; of PIL images and, not so in lightly, tensors.

    What is drawn follows torch's generator, in lightly numpy's.

    Args:
        prob: Probability.
        threshold: On the scale of 8 bits.

    >>> RandomSolarization(prob=1.0)(torch.tensor([[[127, 128]]], dtype=torch.uint8)).tolist()
    [[[127, 127]]]
    """

    def __init__(self, prob: float = 0.5, threshold: int = 128) -> None:
        self.prob, self.threshold = prob, threshold

    def __call__(self, sample: Any) -> Any:
        """The image, solarized or not, of the kind that was given."""
        if torch.rand(()).item() >= self.prob:
            return sample
        floats = isinstance(sample, Tensor) and sample.is_floating_point()
        return functional.solarize(sample, self.threshold / 255 if floats else self.threshold)
