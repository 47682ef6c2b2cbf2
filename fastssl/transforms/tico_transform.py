"""TiCo's views under lightly's names and arguments."""

from __future__ import annotations

from fastssl.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform

__all__ = ["TiCoTransform", "TiCoView1Transform", "TiCoView2Transform"]


class TiCoTransform(BYOLTransform):
    """Two views of an image as in TiCo (arXiv:2206.10698), which takes BYOL's."""


class TiCoView1Transform(BYOLView1Transform):
    """The first view of an image as in TiCo; arguments as for `BYOLView1Transform`."""


class TiCoView2Transform(BYOLView2Transform):
    """The second view of an image as in TiCo; arguments as for `BYOLView1Transform`."""
