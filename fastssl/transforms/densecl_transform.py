"""DenseCL's views under lightly's name and arguments."""

from __future__ import annotations

from fastssl.transforms.moco_transform import MoCoV2Transform

__all__ = ["DenseCLTransform"]


class DenseCLTransform(MoCoV2Transform):
    """Two views of an image as in DenseCL (arXiv:2011.09157), which takes MoCo v2's; arguments as for `SimCLRTransform`.

    >>> len(DenseCLTransform(64).transforms)
    2
    """
