"""NTXentLoss under the path that lightly has for it."""

from fastssl.loss.ntxent import NTXentLoss

__all__ = ["NTXentLoss"]
