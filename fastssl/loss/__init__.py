"""Losses of self-supervised learning."""

from fastssl.loss.clip import CLIPLoss, clip_loss
from fastssl.loss.infonce import info_nce
from fastssl.loss.nnclr import nnclr
from fastssl.loss.ntxent import NTXentLoss, ntxent
from fastssl.loss.siglip import SigLIPLoss, siglip_loss
from fastssl.loss.supcon import SupConLoss, supcon

__all__ = [
    "CLIPLoss",
    "NTXentLoss",
    "SigLIPLoss",
    "SupConLoss",
    "clip_loss",
    "info_nce",
    "nnclr",
    "ntxent",
    "siglip_loss",
    "supcon",
]
