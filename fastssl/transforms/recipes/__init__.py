"""Recipes: what the views of a method are. Functions that return tuples of View; every number has a source.

The numbers are lightly's, where it has the method, so that results compare; where they are not the paper's, the recipe says so.
"""

from fastssl.transforms.recipes.multi_crop import dino, dinov2, ibot, lejepa, msn, smog, swav, vicregl
from fastssl.transforms.recipes.pairs import (
    barlow_twins,
    byol,
    densecl,
    detcon,
    fastsiam,
    mmcr,
    moco_v1,
    moco_v2,
    simclr,
    simsiam,
    tico,
    vicreg,
    wmse,
)
from fastssl.transforms.recipes.plain import aim, box_blur, capi, evaluation, ijepa, mae, probe, resize
from fastssl.transforms.recipes.special import fda, pirl

__all__ = [
    "aim",
    "barlow_twins",
    "box_blur",
    "byol",
    "capi",
    "densecl",
    "detcon",
    "dino",
    "dinov2",
    "evaluation",
    "fastsiam",
    "fda",
    "ibot",
    "ijepa",
    "lejepa",
    "mae",
    "mmcr",
    "moco_v1",
    "moco_v2",
    "msn",
    "pirl",
    "probe",
    "resize",
    "simclr",
    "simsiam",
    "smog",
    "swav",
    "tico",
    "vicreg",
    "vicregl",
    "wmse",
]
