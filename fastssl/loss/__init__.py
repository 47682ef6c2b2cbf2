"""Losses of self-supervised learning."""

from fastssl.loss.clip import CLIPLoss, clip_loss
from fastssl.loss.dcl_loss import DCLLoss, DCLWLoss, dcl, dclw
from fastssl.loss.densecl import densecl
from fastssl.loss.detcon_loss import DetConBLoss, DetConSLoss, detcon_b, detcon_s
from fastssl.loss.directclr_loss import DirectCLRLoss, directclr
from fastssl.loss.infonce import info_nce
from fastssl.loss.macl_loss import MACLLoss, macl
from fastssl.loss.nnclr import nnclr
from fastssl.loss.ntxent import NTXentLoss, ntxent
from fastssl.loss.regularizer import CO2Regularizer, co2
from fastssl.loss.siglip import SigLIPLoss, siglip_loss
from fastssl.loss.supcon import SupConLoss, supcon

__all__ = [
    "CLIPLoss",
    "CO2Regularizer",
    "DCLLoss",
    "DCLWLoss",
    "DetConBLoss",
    "DetConSLoss",
    "DirectCLRLoss",
    "MACLLoss",
    "NTXentLoss",
    "SigLIPLoss",
    "SupConLoss",
    "clip_loss",
    "co2",
    "dcl",
    "dclw",
    "densecl",
    "detcon_b",
    "detcon_s",
    "directclr",
    "info_nce",
    "macl",
    "nnclr",
    "ntxent",
    "siglip_loss",
    "supcon",
]
