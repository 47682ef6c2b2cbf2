"""Collate functions that make the views: a batch of images goes in, a batch of views comes out.

lightly 1.5 had these names, with a Python call for every view; here all views of a batch are rendered by one native
call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastssl import ops
from fastssl._native import DecodeError
from fastssl.data.multi_view_collate import label, split_samples, stack
from fastssl.transforms.multi_view_transform import ViewTransform, render_drawn, view_of
from fastssl.transforms.simclr_transform import simclr_view
from fastssl.transforms.utils import IMAGENET_NORMALIZE

__all__ = ["BaseCollateFunction", "ImageCollateFunction", "SimCLRCollateFunction", "imagenet_normalize"]

imagenet_normalize = IMAGENET_NORMALIZE  # the name it had here in lightly 1.5


class BaseCollateFunction(nn.Module):
    """Makes two views of every image of a batch with one transform.

    What is drawn follows torch's generator: one key is drawn for each batch, so `torch.manual_seed` governs it, and in
    DataLoader workers the seed of the worker.

    Args:
        transform: Makes a view of an image. A `ViewTransform`, such as `SimCLRViewTransform()`, is rendered for the
            whole batch in one call; any other callable that returns a tensor is called for every view.
        dtype: Of the views: float32, float16, bfloat16, or uint8, which needs a transform that does not normalize.
            None: float32 from a `ViewTransform`, and from any other transform what it returns.
        channels_last: Whether the views are stored channels last.

    Raises:
        TypeError: transform is not callable.
        ValueError: dtype is none of these, or uint8 with a normalization.
    """

    def __init__(
        self, transform: Callable[[Any], Any], dtype: torch.dtype | None = None, channels_last: bool = False
    ) -> None:
        super().__init__()
        if not callable(transform):
            raise TypeError(
                f"{type(self).__name__}: transform={transform!r} must be callable; write for example "
                "SimCLRViewTransform(input_size=224)."
            )
        if dtype not in (None, torch.float32, torch.float16, torch.bfloat16, torch.uint8):
            raise ValueError(f"{type(self).__name__}: dtype={dtype} must be float32, float16, bfloat16 or uint8.")
        view = view_of(transform)
        if dtype == torch.uint8 and view is not None and view.normalize is not None:
            raise ValueError(
                f"{type(self).__name__}: dtype=torch.uint8 cannot hold normalized values; write normalize=None, and "
                "normalize on the device."
            )
        self.transform = transform
        self.dtype = dtype
        self.channels_last = channels_last

    def forward(self, batch: Sequence[Any]) -> tuple[tuple[Tensor, Tensor], Tensor, list[str]]:
        """Renders a batch.

        Args:
            batch: B samples `(image, target, filename)` or `(image, target)`. An image is a PIL image, a uint8 array
                (H, W, 3) or (H, W), a uint8 tensor (C, H, W), an encoded image as bytes, or a path; sizes may differ.

        Returns:
            The two views, each (B, 3, S, S); targets (B,) int64; filenames, [] for samples without.

        Raises:
            DecodeError: an image cannot be read.
            TypeError, ValueError: a sample or its image or target is not as above, or the batch is empty. All name the
                sample.
        """
        who = type(self).__name__
        if len(batch) == 0:
            raise ValueError(f"{who}: the batch is empty, and needs at least one sample (image, target, filename).")
        images, targets, filenames = split_samples(who, batch)
        view = view_of(self.transform)
        if view is None:
            x0, x1 = (self._call_transform(images, filenames) for _ in range(2))
        else:
            pixels = [_pixels(who, image, i, filenames) for i, image in enumerate(images)]
            dtype = torch.float32 if self.dtype is None else self.dtype
            x0, x1 = render_drawn(pixels, (view, view), dtype=dtype, channels_last=self.channels_last, batch=True)
        return (x0, x1), targets, filenames

    def _call_transform(self, images: list[Any], filenames: list[str]) -> Tensor:
        who = type(self).__name__
        views = [self.transform(image) for image in images]
        for i, view in enumerate(views):
            if not isinstance(view, Tensor):
                raise TypeError(
                    f"{who}: the transform made a {type(view).__name__} of sample {label(i, filenames)}, and must make "
                    "a tensor; end it with torchvision.transforms.ToTensor()."
                )
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        return stack(views, f"{who}: the view", filenames).to(dtype=self.dtype, memory_format=layout)


class ImageCollateFunction(BaseCollateFunction):
    """Makes two views of every image of a batch: crop, flips, quarter turn, jitter, grayscale, blur, normalization.

    The arguments, their order and their defaults are lightly 1.5's; `SimCLRTransform` describes them.

    Args:
        dtype: Of the views: float32, float16, bfloat16, or uint8, which needs normalize=None.
        channels_last: Whether the views are stored channels last.

    Raises:
        ValueError, TypeError, NotImplementedError: as `SimCLRTransform`; and uint8 with a normalization.

    >>> import numpy as np
    >>> (x0, x1), targets, filenames = ImageCollateFunction(32)([(np.zeros((40, 60, 3), np.uint8), 7, "a.jpg")])
    >>> x0.shape, targets, filenames
    (torch.Size([1, 3, 32, 32]), tensor([7]), ['a.jpg'])
    """

    def __init__(
        self,
        input_size: int = 64,
        cj_prob: float = 0.8,
        cj_bright: float = 0.7,
        cj_contrast: float = 0.7,
        cj_sat: float = 0.7,
        cj_hue: float = 0.2,
        min_scale: float = 0.15,
        random_gray_scale: float = 0.2,
        gaussian_blur: float = 0.5,
        kernel_size: float | None = None,
        sigmas: tuple[float, float] = (0.2, 2),
        vf_prob: float = 0.0,
        hf_prob: float = 0.5,
        rr_prob: float = 0.0,
        rr_degrees: float | tuple[float, float] | None = None,
        normalize: Mapping[str, Sequence[float]] | None = IMAGENET_NORMALIZE,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        view = simclr_view(
            type(self).__name__,
            input_size=input_size,
            cj_prob=cj_prob,
            cj_strength=1.0,
            cj_bright=cj_bright,
            cj_contrast=cj_contrast,
            cj_sat=cj_sat,
            cj_hue=cj_hue,
            min_scale=min_scale,
            random_gray_scale=random_gray_scale,
            gaussian_blur=gaussian_blur,
            kernel_size=kernel_size,
            sigmas=sigmas,
            vf_prob=vf_prob,
            hf_prob=hf_prob,
            rr_prob=rr_prob,
            rr_degrees=rr_degrees,
            normalize=normalize,
        )
        super().__init__(ViewTransform(view), dtype, channels_last)


class SimCLRCollateFunction(ImageCollateFunction):
    """Makes the two views of SimCLR of every image of a batch, for an existing `torch.utils.data.DataLoader`.

    The arguments, their order and their defaults are lightly 1.5's, so cj_strength=0.5 (jitter by 0.4, 0.4, 0.4 and
    0.1) and sigmas from 0.2, where `SimCLRTransform` has 1.0 and from 0.1. `SimCLRTransform` describes the arguments,
    `BaseCollateFunction.forward` what goes in and comes out, `ImageCollateFunction` dtype and channels_last.

    >>> import numpy as np
    >>> collate = SimCLRCollateFunction(input_size=32, normalize=None, dtype=torch.uint8)
    >>> (x0, x1), targets, filenames = collate([(np.zeros((40, 60, 3), np.uint8), 7)])
    >>> x0.shape, x0.dtype, targets, filenames
    (torch.Size([1, 3, 32, 32]), torch.uint8, tensor([7]), [])
    """

    def __init__(
        self,
        input_size: int = 224,
        cj_prob: float = 0.8,
        cj_strength: float = 0.5,
        min_scale: float = 0.08,
        random_gray_scale: float = 0.2,
        gaussian_blur: float = 0.5,
        kernel_size: float | None = None,
        sigmas: tuple[float, float] = (0.2, 2),
        vf_prob: float = 0.0,
        hf_prob: float = 0.5,
        rr_prob: float = 0.0,
        rr_degrees: float | tuple[float, float] | None = None,
        normalize: Mapping[str, Sequence[float]] | None = IMAGENET_NORMALIZE,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        view = simclr_view(
            type(self).__name__,
            input_size=input_size,
            cj_prob=cj_prob,
            cj_strength=cj_strength,
            cj_bright=0.8,
            cj_contrast=0.8,
            cj_sat=0.8,
            cj_hue=0.2,
            min_scale=min_scale,
            random_gray_scale=random_gray_scale,
            gaussian_blur=gaussian_blur,
            kernel_size=kernel_size,
            sigmas=sigmas,
            vf_prob=vf_prob,
            hf_prob=hf_prob,
            rr_prob=rr_prob,
            rr_degrees=rr_degrees,
            normalize=normalize,
        )
        # Not ImageCollateFunction's: that has arguments of its own, and errors should name those given here.
        BaseCollateFunction.__init__(self, ViewTransform(view), dtype, channels_last)


def _pixels(who: str, image: Any, i: int, filenames: list[str]) -> Tensor:
    """The image as (H, W, 3) uint8; an error that names the sample where that fails."""
    try:
        return ops.to_image(image)
    except DecodeError as error:
        raise DecodeError(f"{who}: sample {label(i, filenames)}: {error}") from error
    except TypeError as error:
        raise TypeError(f"{who}: sample {label(i, filenames)}: {error}") from error
