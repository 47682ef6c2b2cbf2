"""Losses of self-supervised learning."""

from fastssl.loss.ntxent import NTXentLoss, ntxent

__all__ = ["NTXentLoss", "ntxent"]
