"""What happens to a view after its crop, as a transform of its own: for images of any shape, or for a crop to be put before."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torchvision.transforms import v2

from fastssl import ops
from fastssl.transforms.geometry import Crop, Flip, Resize
from fastssl.transforms.rotation import RandomRotate
from fastssl.transforms.view import View

__all__ = ["UncroppedTransform"]


class UncroppedTransform:
    """Flips, turns and colours of a view, and its normalization, at the image's own size.

    `cropped` makes a `View` of it, and that is how the transforms of whole recipes render it. Called by itself, it goes through
    torchvision, as the engine makes square views.

    Args:
        view: Its crop, of whatever kind, is not used.

    >>> import torch
    >>> UncroppedTransform(View(crop=Resize(size=1), flip=Flip()))(torch.zeros(3, 5, 7, dtype=torch.uint8)).shape
    torch.Size([3, 5, 7])
    """

    def __init__(self, view: View) -> None:
        self._view = view.with_(crop=Resize(size=1))

    def cropped(self, crop: Crop, flip: Flip | None = None, vflip: Flip | None = None) -> View:
        """The view with this crop; flips that are given take the place of its own."""
        view = self._view.with_(crop=crop)
        return view.with_(flip=flip, vflip=vflip) if flip or vflip else view

    def __call__(self, image: Any) -> Tensor:
        """The image after these steps.

        Args:
            image: As for `ViewTransform`.

        Returns:
            (3, H, W), float32, of the image's own height and width.
        """
        pixels = ops.to_image(image).permute(2, 0, 1).float() / 255
        view, side = self._view, min(pixels.shape[1:])
        steps: list[Any] = []
        if view.flip is not None:
            steps.append(v2.RandomHorizontalFlip(view.flip.p))
        if view.vflip is not None:
            steps.append(v2.RandomVerticalFlip(view.vflip.p))
        if view.turn is not None:
            steps.append(RandomRotate(view.turn.p))  # the corners that the turned image leaves are black, as in lightly
        if view.rotate is not None:
            steps.append(v2.RandomApply([v2.RandomRotation(view.rotate.degrees)], view.rotate.p))
        steps += [_step(view, name, side) for name in view.order if getattr(view, name) is not None and name != "crop"]
        if view.normalize is not None:
            steps.append(v2.Normalize(list(view.normalize.mean), list(view.normalize.std)))
        return v2.Compose(steps)(pixels) if steps else pixels

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _step(view: View, name: str, side: int) -> Any:
    """A step of a view as torchvision has it, for images (3, H, W) in [0, 1] whose shorter side is `side`."""
    if name == "jitter" and view.jitter is not None:
        jitter = view.jitter
        parts = v2.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        return v2.RandomApply([parts], jitter.p)
    if name == "grayscale" and view.grayscale is not None:
        return v2.RandomGrayscale(view.grayscale.p)
    if name == "blur" and view.blur is not None:
        low, high = view.blur.sigma_px
        reach = min(math.ceil(4 * high), side - 1)  # a reflected border is at most as wide as the image but one
        return v2.RandomApply([v2.GaussianBlur(2 * reach + 1, (max(low, 1e-3), high))], view.blur.p)
    if name == "solarize" and view.solarize is not None:
        return v2.RandomSolarize(view.solarize.threshold / 255, view.solarize.p)
    raise ValueError(f"{name} has no counterpart in torchvision here; put a crop before, which renders it.")
