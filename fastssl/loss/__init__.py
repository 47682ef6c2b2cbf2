"""Losses of self-supervised learning."""

from fastssl.loss.dcl_loss import DCLLoss, DCLWLoss, dcl, dclw
from fastssl.loss.densecl import densecl
from fastssl.loss.detcon_loss import DetConBLoss, DetConSLoss, detcon_b, detcon_s
from fastssl.loss.directclr_loss import DirectCLRLoss, directclr
from fastssl.loss.infonce import info_nce
from fastssl.loss.macl_loss import MACLLoss, macl
from fastssl.loss.ntxent import NTXentLoss, ntxent
from fastssl.loss.regularizer import CO2Regularizer, co2

__all__ = [
    "CO2Regularizer",
    "DCLLoss",
    "DCLWLoss",
    "DetConBLoss",
    "DetConSLoss",
    "DirectCLRLoss",
    "MACLLoss",
    "NTXentLoss",
    "co2",
    "dcl",
    "dclw",
    "densecl",
    "detcon_b",
    "detcon_s",
    "directclr",
    "info_nce",
    "macl",
    "ntxent",
]
