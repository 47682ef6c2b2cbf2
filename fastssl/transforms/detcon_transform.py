"""DetCon's views of images and masks, under lightly's names and arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import BoundingBoxes, Mask

from fastssl import ops
from fastssl.transforms._arguments import NORMALIZE, BlurKind, Checker, Normalization, lightly_view
from fastssl.transforms.add_grid_transform import AddGridTransform, grid_mask
from fastssl.transforms.grids import warp_masks
from fastssl.transforms.multi_view_transform import ViewTransform, draw_plan
from fastssl.transforms.multi_view_transform_v2 import MultiViewTransformV2
from fastssl.transforms.view import Recipe

__all__ = ["DetConSTransform", "DetConSViewTransform", "AddGridTransform"]


@dataclass(eq=False, repr=False)
class DetConSTransform(MultiViewTransformV2):
    """Two views of an image and of its mask as in DetCon-S (arXiv:2103.10957); both views are rendered in one call.

    Crop, flips and rotation are the same for an image and its mask, in which each pixel takes the nearest label.

    Args:
        grid_size: Rows and columns of a grid whose cells are the labels, in place of those of the mask that is given; or None.
        mask_fn: Makes the mask of an image, a tensor (H, W) or (1, H, W) or a PIL image; or None. Not beside grid_size.
        gaussian_blur_t1, gaussian_blur_t2: Probability of the blur of the first and the second view.
        kernel_size: Taken for lightly's sake; the blur reaches as far as its sigma needs, for which 23 is always enough here.
        rr_degrees: A number or two; 0 does not rotate.

    The other arguments are those of `SimCLRTransform`.

    >>> views = DetConSTransform(grid_size=(2, 2), input_size=16)(
    ...     torch.zeros(3, 60, 40, dtype=torch.uint8), torch.zeros(60, 40, dtype=torch.int64)
    ... )
    >>> [(image.shape, mask.shape) for image, mask in views]
    [(torch.Size([3, 16, 16]), torch.Size([1, 16, 16])), (torch.Size([3, 16, 16]), torch.Size([1, 16, 16]))]
    """

    grid_size: tuple[int, int] | None = None
    mask_fn: Callable[[Any], Any] | None = None
    gaussian_blur_t1: float = 1.0
    gaussian_blur_t2: float = 0.0
    input_size: int | tuple[int, int] = 224
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.8
    cj_hue: float = 0.2
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    kernel_size: tuple[float, float] = (23, 23)
    sigmas: tuple[float, float] = (0.1, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] = 0.0
    normalize: Normalization = NORMALIZE
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        who = type(self).__name__
        if self.grid_size is not None and self.mask_fn is not None:
            raise ValueError(
                f"{who}: got both grid_size and mask_fn; the labels come from one of them, so leave the other out."
            )
        if self.grid_size is not None:
            rows, columns = (int(n) for n in Checker(who, {}).numbers("grid_size", self.grid_size, 2, "(5, 5)"))
            if min(rows, columns) < 1:
                raise ValueError(f"{who}: grid_size={self.grid_size} must hold rows and columns, from 1 up.")
        replaced = {"kernel_size": None}
        self._recipe = tuple(
            lightly_view(self, {**replaced, "gaussian_blur": p}) for p in (self.gaussian_blur_t1, self.gaussian_blur_t2)
        )
        super().__init__([ViewTransform(view) for view in self._recipe])

    def __call__(self, *args: Any) -> list[Any]:
        """The two views.

        Args:
            args: An image, as for `ViewTransform`, or an image and its mask: a tensor (H, W) or (N, H, W) or a PIL image. They
                may also come as one tuple.

        Returns:
            For each view its tensor (3, S, S), float32; with a mask the tuple of that and a `torchvision.tv_tensors.Mask`
            (N, S, S) of the mask's type.
        """
        image, mask = _image_and_mask(type(self).__name__, args)
        if self.mask_fn is not None:
            mask = _as_mask(type(self).__name__, self.mask_fn(image))
        return _render_with_mask(image, mask, self._recipe, self.grid_size)


@dataclass(eq=False, repr=False)
class DetConSViewTransform(ViewTransform):
    """One view of an image and its mask as in DetCon-S; arguments as for `DetConSTransform`, but those of one view.

    >>> image, mask = DetConSViewTransform(16)(torch.zeros(3, 60, 40, dtype=torch.uint8), torch.ones(60, 40))
    >>> image.shape, mask.unique()
    (torch.Size([3, 16, 16]), tensor([1.]))
    """

    input_size: int | tuple[int, int] = 224
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.8
    cj_hue: float = 0.2
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    gaussian_blur: float = 1.0
    kernel_size: tuple[float, float] = (23, 23)
    sigmas: tuple[float, float] = (0.1, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] = 0.0
    normalize: Normalization = NORMALIZE
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(lightly_view(self, {"kernel_size": None}))

    def __call__(self, *args: Any) -> Any:
        """The view, and with a mask the tuple of both; arguments as for `DetConSTransform`."""
        return _render_with_mask(*_image_and_mask(type(self).__name__, args), (self.view,), None)[0]


def _image_and_mask(who: str, args: tuple[Any, ...]) -> tuple[Any, Tensor | None]:
    if len(args) == 1 and isinstance(args[0], tuple | list):
        args = tuple(args[0])
    if len(args) not in (1, 2):
        raise TypeError(f"{who}: got {len(args)} things, and needs an image, or an image and its mask.")
    return args[0], None if len(args) == 1 else _as_mask(who, args[1])


def _as_mask(who: str, mask: Any) -> Tensor:
    """A mask as a tensor (N, H, W)."""
    if isinstance(mask, Image.Image):
        mask = functional.pil_to_tensor(mask)
    elif isinstance(mask, np.ndarray):
        mask = torch.from_numpy(mask)
    if not isinstance(mask, Tensor) or isinstance(mask, BoundingBoxes) or mask.dim() not in (2, 3):
        got = f"{tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{who}: the mask is {got}, and must be a tensor (H, W) or (N, H, W), or a PIL image.")
    mask = mask.as_subclass(Tensor)
    return mask[None] if mask.dim() == 2 else mask


def _render_with_mask(image: Any, mask: Tensor | None, recipe: Recipe, grid_size: tuple[int, int] | None) -> list[Any]:
    pixels = [ops.to_image(image)]
    plan = draw_plan(pixels, recipe)
    views = [view[0] for view in ops.render(pixels, plan, recipe)]
    if mask is None:
        return views
    if grid_size is not None:
        mask = grid_mask(int(grid_size[0]), int(grid_size[1]), (mask.shape[1], mask.shape[2]))[None].to(mask.dtype)
    masks = warp_masks([mask], plan, recipe)
    return [(view, Mask(warped[0])) for view, warped in zip(views, masks, strict=True)]
