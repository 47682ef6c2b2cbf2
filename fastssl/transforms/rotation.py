"""Rotations of single images, under lightly's names."""

from __future__ import annotations

from typing import Any

import torch
from torchvision.transforms import v2

__all__ = ["RandomRotate", "RandomRotateDegrees", "random_rotation_transform"]


class RandomRotate:
    """Rotates an image by a fixed angle with some probability; what is drawn follows torch's generator, in lightly numpy's.

    Args:
        prob: Probability.
        angle: In degrees, counter-clockwise.

    >>> RandomRotate(prob=1.0)(torch.tensor([[[1, 2], [3, 4]]])).tolist()
    [[[2, 4], [1, 3]]]
    """

    def __init__(self, prob: float = 0.5, angle: int = 90) -> None:
        self.prob, self.angle = prob, angle

    def __call__(self, image: Any) -> Any:
        """The image, rotated or not, of the kind and size that were given."""
        return v2.functional.rotate(image, self.angle) if torch.rand(()).item() < self.prob else image


class RandomRotateDegrees:
    """Rotates an image by an angle that is drawn, with some probability.

    Args:
        prob: Probability.
        degrees: Smallest and largest angle, counter-clockwise; a number d stands for (-d, d).

    >>> RandomRotateDegrees(prob=1.0, degrees=(180, 180))(torch.tensor([[[1, 2], [3, 4]]])).tolist()
    [[[4, 3], [2, 1]]]
    """

    def __init__(self, prob: float, degrees: float | tuple[float, float]) -> None:
        self.transform = v2.RandomApply([v2.RandomRotation(degrees=degrees)], p=prob)

    def __call__(self, image: Any) -> Any:
        """The image, rotated or not, of the kind and size that were given."""
        return self.transform(image)


def random_rotation_transform(
    rr_prob: float, rr_degrees: float | tuple[float, float] | None
) -> RandomRotate | RandomRotateDegrees:
    """The rotation that lightly's rr_prob and rr_degrees describe: by 90 degrees where rr_degrees is None.

    >>> random_rotation_transform(0.5, None).angle
    90
    """
    return RandomRotate(prob=rr_prob) if rr_degrees is None else RandomRotateDegrees(rr_prob, rr_degrees)
