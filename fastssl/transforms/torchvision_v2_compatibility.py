"""torchvision's transforms, as lightly's code imports them from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

__all__ = [
    "DeprecatedShim",
    "ToTensor",
    "functional",
    "torchvision_transforms",
    "torchvision_transforms_v2_available",
]


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


class DeprecatedShim:
    """torchvision.transforms.v2, with some names replaced.

    Args:
        custom_transforms: What takes the place of each name.

    >>> DeprecatedShim({"Resize": ToTensor}).Resize is ToTensor
    True
    """

    def __init__(self, custom_transforms: dict[str, Callable[..., Any]]) -> None:
        self._custom_transforms = custom_transforms

    def __getattr__(self, name: str) -> Any:
        custom = vars(self).get("_custom_transforms", {})  # a copy that is being made has none yet
        return custom[name] if name in custom else getattr(v2, name)

    def __dir__(self) -> list[str]:
        return dir(v2)


torchvision_transforms: Any = DeprecatedShim({"ToTensor": ToTensor})  # torchvision's own is deprecated


def torchvision_transforms_v2_available() -> bool:
    """Whether torchvision has its transforms v2: always, for any torchvision that this package installs with."""
    return True
