"""lightly's name for the normalization of ImageNet."""

from __future__ import annotations

from fastssl.transforms.view import IMAGENET

__all__ = ["IMAGENET_NORMALIZE"]

IMAGENET_NORMALIZE: dict[str, list[float]] = {"mean": list(IMAGENET.mean), "std": list(IMAGENET.std)}
"""Mean and deviation of ImageNet's channels, in [0, 1], as the `normalize` argument of the transforms and collates."""
