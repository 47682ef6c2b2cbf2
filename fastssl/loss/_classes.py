"""Rows grouped by their labels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Classes", "others_with"]


class Classes:
    """Rows of the same label, in O(R D), and without a wait for the device.

    Args:
        labels: Of the rows, (R,), of an integer type.
    """

    def __init__(self, labels: Tensor) -> None:
        # The place of a label's first row in the order of the labels serves as the number of its class.
        self._number = torch.searchsorted(labels.sort().values, labels)

    def sums(self, rows: Tensor) -> Tensor:
        """Sum of all rows of the same label, itself included, for each row of rows, (R, D): (R, D)."""
        return torch.zeros_like(rows).index_add(0, self._number, rows)[self._number]


def others_with(labels: Tensor, among: Tensor) -> Tensor:
    """How many others with its label each of the labels, (N,), has among those of all rows, (R,): (N,), int64."""
    ordered = among.sort().values
    return torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels) - 1
