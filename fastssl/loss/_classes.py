"""Rows grouped by their labels."""

from __future__ import annotations

from typing import Any

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
        return _sums_of_classes(rows, self._number)


@torch.library.custom_op("fastssl::sums_of_classes", mutates_args=())
def _sums_of_classes(rows: Tensor, numbers: Tensor) -> Tensor:
    """Always the same bits: a GPU adds by index in any order, and puts by index in the order of a sort; a CPU has it the other
    way round."""
    zeros = torch.zeros_like(rows)
    if rows.device.type == "cpu":
        return zeros.index_add_(0, numbers, rows)[numbers]
    return zeros.index_put_((numbers,), rows, accumulate=True)[numbers]


@_sums_of_classes.register_fake
def _(rows: Tensor, numbers: Tensor) -> Tensor:
    return torch.empty_like(rows)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    """Who is in a row's sum has that row in its own: the gradient is summed as the rows are."""
    return _sums_of_classes(grad, *ctx.saved_tensors), None


_sums_of_classes.register_autograd(_differentiate, setup_context=_keep)


def others_with(labels: Tensor, among: Tensor) -> Tensor:
    """How many others with its label each of the labels, (N,), has among those of all rows, (R,): (N,), int64."""
    ordered = among.sort().values
    return torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels) - 1
