"""Transforms of an image with what belongs to it, under lightly's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["MultiViewTransformV2"]


class MultiViewTransformV2:
    """Several views of an image and of what comes with it, such as a mask: one for each transform.

    Args:
        transforms: Callables that take these things together, such as those of torchvision's v2.

    >>> MultiViewTransformV2([max, min])(1, 2)
    [2, 1]
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = transforms

    def __call__(self, *args: Any) -> list[Any]:
        """What each transform makes of the arguments."""
        return [transform(*args) for transform in self.transforms]
