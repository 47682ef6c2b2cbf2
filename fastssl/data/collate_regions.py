"""Collate functions that give more than views: puzzles and grids; `fastssl.data.collate` has their names too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastssl.data.collate_base import CollateFunction
from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization
from fastssl.transforms.image_grid_transform import grid_view, grids_of
from fastssl.transforms.jigsaw import render_puzzles
from fastssl.transforms.multi_view_transform import draw_plan, render_drawn
from fastssl.transforms.pirl_transform import pirl_views
from fastssl.transforms.vicregl_transform import vicregl_pair

__all__ = ["PIRLCollateFunction", "VICRegLCollateFunction"]


@dataclass(eq=False, repr=False)
class PIRLCollateFunction(CollateFunction):
    """Makes a crop and a puzzle of every image of a batch, as in PIRL (arXiv:1912.01991), in one render call.

    Arguments and what differs from lightly as for `fastssl.transforms.PIRLTransform`, dtype and channels_last as for
    `ImageCollateFunction`; tiles are never stored channels last.

    >>> import numpy as np
    >>> (view, tiles), targets, filenames = PIRLCollateFunction()([(np.zeros((40, 60, 3), np.uint8), 7)])
    >>> view.shape, tiles.shape
    (torch.Size([1, 3, 64, 64]), torch.Size([1, 9, 3, 21, 21]))
    """

    input_size: int = 64
    cj_prob: float = 0.8
    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.4
    cj_hue: float = 0.4
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    hf_prob: float = 0.5
    n_grid: int = 3
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False

    def __post_init__(self) -> None:
        self._views = pirl_views(self)
        super().__init__(self._views, self.dtype, self.channels_last)

    def forward(self, batch: Sequence[Any]) -> tuple[tuple[Tensor, Tensor], Tensor, list[str]]:
        """Renders a batch, as `BaseCollateFunction.forward`, to (B, 3, S, S) and (B, n_grid * n_grid, 3, T, T)."""
        images, targets, filenames = self.split(batch)
        pixels = self.pixels(images, filenames)
        return render_puzzles(pixels, *self._views, self.n_grid, **self.format), targets, filenames


@dataclass(eq=False, repr=False)
class VICRegLCollateFunction(CollateFunction):
    """Makes a global and a local view of every image of a batch, and their grids, as in VICRegL (arXiv:2210.01571).

    Two things differ from lightly 1.5, and are mistakes there: targets are the samples' targets, where it returns memory that was
    never written; and no view is mirrored upside down, where it does that half of the time and cannot be told not to. Grids are
    spaced as lightly's; see `fastssl.transforms.crop_grids`.

    Arguments as for `fastssl.transforms.VICRegLTransform`; those on kernel sizes are ignored, with a warning. dtype,
    channels_last and blur_kind as for `ImageCollateFunction`.

    >>> import numpy as np
    >>> collate = VICRegLCollateFunction(32, 16)
    >>> parts, targets, filenames = collate([(np.zeros((40, 60, 3), np.uint8), 7)])
    >>> [tuple(part.shape) for part in parts], targets
    ([(1, 3, 32, 32), (1, 3, 16, 16), (1, 7, 7, 2), (1, 3, 3, 2)], tensor([7]))
    """

    global_crop_size: int = 224
    local_crop_size: int = 96
    global_crop_scale: tuple[float, float] = (0.2, 1.0)
    local_crop_scale: tuple[float, float] = (0.05, 0.2)
    global_grid_size: int = 7
    local_grid_size: int = 3
    global_gaussian_blur_prob: float = 0.5
    local_gaussian_blur_prob: float = 0.1
    global_gaussian_blur_kernel_size: float | None = None
    local_gaussian_blur_kernel_size: float | None = None
    global_gaussian_blur_sigmas: tuple[float, float] = (0.2, 2)
    local_gaussian_blur_sigmas: tuple[float, float] = (0.2, 2)
    global_solarize_prob: float = 0.0
    local_solarize_prob: float = 0.2
    hf_prob: float = 0.5
    cj_prob: float = 1.0
    cj_strength: float = 0.5
    random_gray_scale: float = 0.2
    normalize: Normalization = NORMALIZE
    dtype: torch.dtype | None = torch.float32
    channels_last: bool = False
    blur_kind: BlurKind = "gaussian"

    def __post_init__(self) -> None:
        colours = {"cj_bright": 0.8, "cj_contrast": 0.8, "cj_sat": 0.4, "cj_hue": 0.2}
        views = []
        for kind in ("global", "local"):
            size = vars(self)[f"{kind}_gaussian_blur_kernel_size"]
            views.append(grid_view(*vicregl_pair(self, kind, {**colours, "kernel_size": size})))
        self._recipe = tuple(view for view in views if view is not None)
        super().__init__(self._recipe, self.dtype, self.channels_last)

    def forward(self, batch: Sequence[Any]) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor, list[str]]:
        """Renders a batch, as `BaseCollateFunction.forward`.

        Returns:
            The global views (B, 3, S, S), the local ones, and their grids (B, N, N, 2), float32; targets; filenames.
        """
        images, targets, filenames = self.split(batch)
        pixels = self.pixels(images, filenames)
        plan = draw_plan(pixels, self._recipe)
        large, small = render_drawn(pixels, self._recipe, plan=plan, **self.format)
        grids = grids_of(plan, (self.global_grid_size, self.local_grid_size))
        return (large, small, grids[0], grids[1]), targets, filenames
