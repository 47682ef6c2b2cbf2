"""Terms that are added to a loss."""

from fastssl.loss.regularizer.co2 import CO2Regularizer, co2

__all__ = ["CO2Regularizer", "co2"]
