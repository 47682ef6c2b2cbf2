"""Losses of self-supervised learning."""

from fastssl.loss.infonce import info_nce
from fastssl.loss.ntxent import NTXentLoss, ntxent

__all__ = ["NTXentLoss", "info_nce", "ntxent"]
