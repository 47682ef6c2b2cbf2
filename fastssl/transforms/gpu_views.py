"""Views of batches that are already on the device, for loops that have their own loader."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastssl import ops
from fastssl.ops.render import check_format, encode_recipe
from fastssl.transforms.keys import seed_from_torch
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Recipe

__all__ = ["GPUViews"]

_FLOATS = torch.float16, torch.bfloat16


class GPUViews(nn.Module):
    """Makes the views of a batch of images where they lie: on a GPU by the CUDA kernels, on the CPU by the engine.

    A module for an existing loop, or for Lightning's `on_after_batch_transfer`, in the place of kornia's: it takes images of one
    or of many sizes, draws a plan with a key from torch's default generator (`torch.manual_seed` governs it, and nothing is
    asked of the GPU), and renders all views in a few launches on the current stream, without waiting for the device. The same
    plan gives the same bits on the CPU and on every GPU.

        views = fastssl.transforms.GPUViews(fastssl.recipes.simclr(224), dtype=torch.bfloat16, channels_last=True)
        for images, targets in loader:                     # uint8, (B, 3, H, W)
            view0, view1 = views(images.to("cuda", non_blocking=True))

    It has no parameters and no state, does the same in `train()` and `eval()`, passes no gradient, and is left alone by
    `torch.compile` (its work is native already). In a CUDA graph take `fastssl.ops.PreparedRender`.

    Args:
        recipe: V views, from `fastssl.recipes` or of your own.
        dtype: Of the views: float32, float16, bfloat16, or uint8 (which needs views that are not normalized).
        channels_last: Whether the memory of the views is in the order (B, S, S, C).

    Raises:
        TypeError, ValueError: recipe is no recipe, or its views cannot be had in this type.

    >>> from fastssl import recipes
    >>> views = GPUViews(recipes.simclr(32))
    >>> [view.shape for view in views(torch.zeros(4, 3, 50, 60, dtype=torch.uint8))]
    [torch.Size([4, 3, 32, 32]), torch.Size([4, 3, 32, 32])]
    """

    def __init__(self, recipe: Recipe, *, dtype: torch.dtype = torch.float32, channels_last: bool = False) -> None:
        super().__init__()
        check_format("GPUViews", encode_recipe(recipe), dtype)
        self.recipe = tuple(recipe)
        self.dtype = dtype
        self.channels_last = channels_last

    def draw(self, images: Tensor | Sequence[Tensor]) -> Plan:
        """What `forward` draws for these images, on the host: to keep, to edit, or to know the crops.

        >>> from fastssl import recipes
        >>> views, images = GPUViews(recipes.simclr(32)), torch.zeros(4, 3, 50, 60, dtype=torch.uint8)
        >>> plan = views.draw(images)
        >>> plan.flip_h = 0
        >>> first, second = views(images, plan)
        """
        return self._draw(_rows_first(images))

    @torch.compiler.disable
    def forward(self, images: Tensor | Sequence[Tensor], plan: Plan | None = None) -> list[Tensor]:
        """The views of the images.

        Args:
            images: (B, C, H, W), or B tensors (C, H, W) of any sizes, all on one device; uint8, uint16 (65535 is 1), or floats in
                [0, 1] (not checked on a GPU), in either memory format. float16 and bfloat16 are copied to float32 first.
            plan: What was drawn, for instance by `draw`; None to draw.

        Returns:
            V tensors, (B, C, S, S), S being the view's size, on the images' device.

        Raises:
            TypeError: The images are no such tensors.
            ValueError: The images lie on several devices, or differ in channels, or the plan does not fit them.
            RuntimeError: They are on a GPU, and this build has no CUDA.
        """
        rows = _rows_first(images)
        plan = self._draw(rows) if plan is None else plan
        return ops.render(rows, plan, self.recipe, dtype=self.dtype, channels_last=self.channels_last)

    def extra_repr(self) -> str:
        sizes = ", ".join(str(view.size) for view in self.recipe)
        return f"{len(self.recipe)} views of {sizes} px, dtype={self.dtype}, channels_last={self.channels_last}"

    def _draw(self, rows: Tensor | Sequence[Tensor]) -> Plan:
        if isinstance(rows, Tensor):
            sizes = torch.tensor(rows.shape[1:3], device="cpu").expand(len(rows), 2)
        else:
            sizes = torch.tensor([image.shape[:2] for image in rows], dtype=torch.int64, device="cpu").reshape(-1, 2)
        return Plan.draw(self.recipe, sizes, seed=seed_from_torch())


def _rows_first(images: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
    """(B, C, H, W) as (B, H, W, C), and each (C, H, W) as (H, W, C), without copying."""
    if isinstance(images, Tensor):
        if images.dim() != 4:
            raise TypeError(
                f"GPUViews: images is {tuple(images.shape)}; it must be (B, C, H, W), or a list of (C, H, W) tensors of any "
                "sizes."
            )
        _check_order(images.shape[1:])
        return _usable(images).permute(0, 2, 3, 1)
    if not isinstance(images, Sequence) or not all(isinstance(image, Tensor) and image.dim() == 3 for image in images):
        raise TypeError("GPUViews: images must be a tensor, (B, C, H, W), or a list of tensors (C, H, W) of any sizes.")
    for image in images[:1]:
        _check_order(image.shape)
    return [_usable(image).permute(1, 2, 0) for image in images]


def _check_order(shape: Sequence[int]) -> None:
    """Raises ValueError where (H, W, C) was given for (C, H, W): many channels, three pixels wide."""
    if shape[0] > 16 and shape[2] in (1, 3, 4):
        raise ValueError(
            f"GPUViews: an image is {tuple(shape)}, read as (C, H, W); one that is (H, W, C) becomes so by permute(2, 0, 1), "
            "a batch by permute(0, 3, 1, 2)."
        )


def _usable(images: Tensor) -> Tensor:
    return images.float() if images.dtype in _FLOATS else images
