"""torchvision's transforms, as lightly's code imports them from here."""

from __future__ import annotations

from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

__all__ = ["ToTensor", "functional", "torchvision_transforms", "torchvision_transforms_v2_available"]


class ToTensor:
    """A PIL image or array as a float tensor in [0, 1]; of masks and boxes beside it nothing changes.

    >>> from PIL import Image
    >>> ToTensor()(Image.new("RGB", (4, 2), "white")).shape
    torch.Size([3, 2, 4])
    """

    def __init__(self) -> None:
        self.transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])

    def __call__(self, *args: Any) -> Any:
        """What `torchvision.transforms.v2` makes of the arguments."""
        return self.transform(*args)


class _Transforms:
    """torchvision.transforms.v2, with a ToTensor that is not deprecated."""

    ToTensor = ToTensor

    def __getattr__(self, name: str) -> Any:
        return getattr(v2, name)

    def __dir__(self) -> list[str]:
        return dir(v2)


torchvision_transforms: Any = _Transforms()


def torchvision_transforms_v2_available() -> bool:
    """Whether torchvision has its transforms v2: always, for any torchvision that this package installs with."""
    return True
