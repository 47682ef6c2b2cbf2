"""What a view is, recipes of views, and lightly's transform classes."""

from fastssl.transforms import masks
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.plan import Plan
from fastssl.transforms.simclr_transform import SimCLRTransform, SimCLRViewTransform
from fastssl.transforms.view import (
    IMAGENET,
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Jitter,
    Normalize,
    Posterize,
    QuarterTurn,
    Recipe,
    Resize,
    Rotate,
    SameCrop,
    Solarize,
    View,
)

__all__ = [
    "IMAGENET",
    "Blur",
    "CenterCrop",
    "Crop",
    "Erase",
    "Flip",
    "Grayscale",
    "Jitter",
    "MultiViewTransform",
    "Normalize",
    "Plan",
    "Posterize",
    "QuarterTurn",
    "Recipe",
    "Resize",
    "Rotate",
    "SameCrop",
    "SimCLRTransform",
    "SimCLRViewTransform",
    "Solarize",
    "View",
    "ViewTransform",
    "masks",
]
