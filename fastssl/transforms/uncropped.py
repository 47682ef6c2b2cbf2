"""What happens to a view after its crop, as a transform of its own: for images of any shape, or for a crop to be put before."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad
from torchvision.transforms import v2

from fastssl import ops
from fastssl.transforms.geometry import Crop, Flip, Resize
from fastssl.transforms.view import QuarterTurn, Rotate, View

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

        Raises:
            ValueError: The view has a step that torchvision lacks or has only for 8 bits: posterize, or one of the user's own.
        """
        pixels = ops.to_image(image).permute(2, 0, 1).float() / 255
        view, side = self._view, min(pixels.shape[1:])
        steps: list[Any] = []
        if view.flip is not None:
            steps.append(v2.RandomHorizontalFlip(view.flip.p))
        if view.vflip is not None:
            steps.append(v2.RandomVerticalFlip(view.vflip.p))
        if view.turn is not None:
            steps.append(_turn(view.turn))
        if view.rotate is not None:
            steps.append(_rotation(view.rotate))
        steps += [_step(view, name, side) for name in view.order if getattr(view, name) is not None and name != "crop"]
        if view.normalize is not None:
            steps.append(v2.Normalize(list(view.normalize.mean), list(view.normalize.std)))
        if view.erase is not None:
            erase = view.erase
            steps.append(v2.RandomErasing(erase.p, erase.area, erase.aspect, erase.value))
        return v2.Compose(steps)(pixels) if steps else pixels

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _turn(turn: QuarterTurn) -> Any:
    """One of the turns, drawn; the corners that a turned image of unequal sides leaves are black, as in lightly."""
    turns: tuple[int, ...] = turn.turns  # type: ignore[assignment]  # a number was made a tuple of one
    choice = v2.RandomChoice([partial(v2.functional.rotate, angle=90.0 * count) for count in turns])
    return v2.RandomApply([choice], turn.p)


def _rotation(rotate: Rotate) -> Any:
    mode = v2.InterpolationMode(rotate.interpolation)
    # fill=None is black too, but blends with the border once; torchvision's fill=0 does so twice, and darkens it.
    return v2.RandomApply([v2.RandomRotation(rotate.degrees, interpolation=mode, fill=None)], rotate.p)


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
        if view.blur.kind == "box":
            return v2.RandomApply([_RandomBoxBlur(low, high)], view.blur.p)
        reach = min(math.ceil(4 * high), side - 1)  # a reflected border is at most as wide as the image but one
        return v2.RandomApply([v2.GaussianBlur(2 * reach + 1, (max(low, 1e-3), max(high, 1e-3)))], view.blur.p)
    if name == "solarize" and view.solarize is not None:
        return v2.RandomSolarize(view.solarize.threshold / 255, view.solarize.p)
    raise ValueError(f"{name} has no counterpart in torchvision here; put a crop before, which renders it.")


class _RandomBoxBlur(torch.nn.Module):
    """Pillow's blur, unrounded, with a deviation that is drawn, in pixels; see box_half_kernel in csrc/core/blur.h."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, pixels: Tensor) -> Tensor:
        return _box_blur(pixels, self.low + (self.high - self.low) * torch.rand(()).item())


def _box_blur(pixels: Tensor, sigma_px: float) -> Tensor:
    """Three extended box filters along each axis of (C, H, W), the outermost pixels repeated beyond the border."""
    variance = sigma_px**2 / 3  # of each pass
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    edge = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    weights = [edge, *[1.0] * (2 * whole + 1), edge]
    kernel = torch.tensor(weights, dtype=pixels.dtype, device=pixels.device) / (2 * (whole + edge) + 1)
    reach = whole + 1
    channels = pixels.unsqueeze(1)
    for sides, shape in (((reach, reach, 0, 0), (1, 1, 1, -1)), ((0, 0, reach, reach), (1, 1, -1, 1))):
        for _ in range(3):
            channels = conv2d(pad(channels, sides, mode="replicate"), kernel.view(shape))
    return channels.squeeze(1)
