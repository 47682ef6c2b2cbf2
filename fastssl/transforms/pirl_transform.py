"""PIRL's views under lightly's name and arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fastssl import ops
from fastssl.transforms._arguments import NORMALIZE, Normalization, lightly_view
from fastssl.transforms.jigsaw import Jigsaw, render_puzzles
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.view import View

__all__ = ["PIRLTransform", "pirl_views", "Jigsaw"]


@dataclass(eq=False, repr=False)
class PIRLTransform(MultiViewTransform):
    """A crop of an image, and the shuffled tiles of another, as in PIRL (arXiv:1912.01991), rendered in one call.

    The tiles come from a random resized crop of the image, as in the paper; lightly's from its upper left corner, unresized,
    which fails for images that are smaller. Each tile is mirrored and jittered by itself.

    Args:
        n_grid: Rows and columns of tiles.

    The other arguments are those of `SimCLRTransform`. What comes out: a list of (3, S, S) and (n_grid * n_grid, 3, T, T), with
    T = S // n_grid.

    >>> import torch
    >>> view, tiles = PIRLTransform(64)(torch.zeros(3, 60, 40, dtype=torch.uint8))
    >>> view.shape, tiles.shape
    (torch.Size([3, 64, 64]), torch.Size([9, 3, 21, 21]))
    """

    input_size: int | tuple[int, int] = 64
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.4
    cj_hue: float = 0.4
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    hf_prob: float = 0.5
    n_grid: int = 3
    normalize: Normalization = NORMALIZE

    def __post_init__(self) -> None:
        self._views = pirl_views(self)
        super().__init__([ViewTransform(view) for view in self._views])

    def __call__(self, image: Any) -> list[Tensor]:
        """A view and a puzzle of the image, which is as for `ViewTransform`."""
        view, tiles = render_puzzles([ops.to_image(image)], *self._views, self.n_grid)
        return [view[0], tiles[0]]


def pirl_views(owner: object) -> tuple[View, View]:
    """The plain view and the tile that PIRL's arguments describe, which its collate has too."""
    given, who = vars(owner), type(owner).__name__
    tile = lightly_view(owner, stacklevel=5)
    n_grid = given["n_grid"]
    if not isinstance(n_grid, int) or isinstance(n_grid, bool) or not 1 <= n_grid <= tile.size:
        raise ValueError(f"{who}: n_grid={n_grid!r} must be a whole number from 1 to input_size={tile.size}.")
    plain = View(crop=tile.crop, normalize=tile.normalize)
    return plain, tile.with_(crop=replace(tile.crop, size=tile.size // n_grid))
