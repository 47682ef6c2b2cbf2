"""MMCR's views under lightly's name and arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastssl.transforms._arguments import NORMALIZE, BlurKind, Normalization, check_views, lightly_view
from fastssl.transforms.byol_transform import BYOLView1Transform
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform

__all__ = ["MMCRTransform", "BYOLView1Transform"]


@dataclass(eq=False, repr=False)
class MMCRTransform(MultiViewTransform):
    """Several views of an image as in MMCR (arXiv:2303.03307), each as BYOL's first.

    Args:
        k: Number of views.

    The other arguments are those of `BYOLView1Transform`.

    >>> len(MMCRTransform(k=3).transforms)
    3
    """

    k: int = 8
    input_size: int = 224
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.2
    cj_hue: float = 0.1
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    gaussian_blur: float = 1.0
    solarization_prob: float = 0.0
    sigmas: tuple[float, float] = (0.1, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: float | tuple[float, float] | None = None
    normalize: Normalization = NORMALIZE
    kernel_size: float | None = field(default=None, kw_only=True)
    blur_kind: BlurKind = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__([ViewTransform(lightly_view(self))] * check_views(self, "k"))
