"""Pillow's blur, under lightly's name."""

from __future__ import annotations

from typing import Any

import torch
from PIL import ImageFilter
from torch import Tensor
from torchvision.transforms.v2 import functional

__all__ = ["GaussianBlur"]


class GaussianBlur:
    """Blurs an image with some probability, as lightly's class: by Pillow, of PIL images and tensors.

    A tensor is rounded to 8 bits for it; one that is not blurred comes back as it was. The whole transforms of this package
    blur in their own engine, without rounding. What is drawn follows torch's generator, in lightly numpy's.

    Args:
        prob: Probability.
        sigmas: Smallest and largest deviation, in pixels.

    >>> GaussianBlur(prob=1.0)(torch.ones(3, 8, 8)).min().item()
    1.0
    """

    def __init__(self, *, prob: float = 0.5, sigmas: tuple[float, float] = (0.2, 2)) -> None:
        self.prob, self.sigmas = prob, sigmas

    def __call__(self, sample: Any) -> Any:
        """The image, blurred or not; a tensor (C, H, W) gives a float tensor in [0, 1]."""
        chance, part = torch.rand(2).tolist()
        tensor = isinstance(sample, Tensor)
        if chance >= self.prob:
            return functional.to_dtype(sample, torch.float32, scale=True) if tensor else sample
        sigma = self.sigmas[0] + (self.sigmas[1] - self.sigmas[0]) * part
        image = functional.to_pil_image(sample) if tensor else sample
        blurred = image.filter(ImageFilter.GaussianBlur(radius=sigma))
        return functional.to_dtype(functional.pil_to_tensor(blurred), torch.float32, scale=True) if tensor else blurred
