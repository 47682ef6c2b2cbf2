"""DirectCLR: NT-Xent on the first numbers of a representation, without a projection head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastssl.loss._checks import check_floats, check_gather, check_temperature, check_weights
from fastssl.loss.ntxent import NTXentLoss, ntxent
from fastssl.models._gather import world_size

__all__ = ["DirectCLRLoss", "directclr"]


def directclr(
    z: Tensor,
    loss_dim: int = 64,
    temperature: Tensor | float = 0.1,
    weights: Tensor | None = None,
    gather_distributed: bool = False,
) -> Tensor:
    """NT-Xent over the first loss_dim numbers of each representation; see `fastssl.loss.ntxent`.

    Args:
        z: Representations, (2B, ...), flattened to (2B, D); rows i and i + B are views of one image. Normalized here,
            after the rest is left out.
        loss_dim: How many numbers of each count; those beyond D do not.
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number may be learned.
        weights: Of the rows' losses, (2B,), before their mean; None: 1.
        gather_distributed: Whether the rows of all processes are negatives; see NTXentLoss.

    Returns:
        Mean loss, (), float32; float64 for float64. Differentiable once; the gradient of what is left out is 0.

    Raises:
        ValueError: loss_dim < 1, or as for `ntxent`.
        TypeError: z is of another type, or temperature is no number.

    Source: Jing et al., DirectCLR, 2022, arXiv:2110.09348, section 6.

    >>> import torch
    >>> round(directclr(torch.eye(4, 6), loss_dim=4, temperature=1.0).item(), 4)  # orthogonal rows: log 3
    1.0986
    """
    _check_loss_dim("directclr", loss_dim)
    check_temperature("directclr", temperature)
    check_floats("directclr", "z", z)
    check_gather("directclr", gather_distributed)
    may_be_empty = gather_distributed and world_size() > 1
    if z.dim() < 2 or z.shape[0] % 2 or (z.shape[0] == 0 and not may_be_empty) or 0 in z.shape[1:]:
        raise ValueError(
            f"directclr: z has shape {tuple(z.shape)} and must be (2B, ...) with no dimension empty, rows i and i + B "
            "the views of one image; write torch.cat([view0, view1])."
        )
    check_weights("directclr", weights, z.shape[0])
    own = z.flatten(start_dim=1)[:, :loss_dim]
    return ntxent(own, temperature, weights=weights, gather_distributed=gather_distributed)


class DirectCLRLoss(NTXentLoss):
    """NT-Xent between the first loss_dim numbers of two batches of representations (DirectCLR).

    Args:
        loss_dim: How many numbers of each representation count; a memory bank must have as many columns.
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number, such as a torch.nn.Parameter,
            may be learned.
        memory_bank_size: (rows, columns) of a bank of negatives; 0: the other images of the batch are the negatives.
        gather_distributed: Whether the images of all processes are negatives, or, with a bank, go into it.

    Raises:
        ValueError: loss_dim < 1, or as for `NTXentLoss`.
        TypeError: temperature is no number.

    Differs from lightly's as `NTXentLoss` does, and representations of unlike shapes are an error, also where what counts
    of them is alike.
    Source: Jing et al., DirectCLR, 2022, arXiv:2110.09348, section 6.

    >>> import torch
    >>> views = torch.eye(4, 6)
    >>> round(DirectCLRLoss(loss_dim=4, temperature=1.0)(views[:2], views[2:]).item(), 4)
    1.0986
    """

    def __init__(
        self,
        loss_dim: int = 64,
        temperature: Tensor | float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
    ) -> None:
        _check_loss_dim("DirectCLRLoss", loss_dim)
        super().__init__(temperature, memory_bank_size, gather_distributed)
        self.loss_dim = loss_dim

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """Mean loss, (), float32 (float64 for float64).

        Args:
            out0: Representations of the first views, (B, ...), flattened to (B, D); not normalized.
            out1: Representations of the second views, the same shape.

        Raises:
            ValueError: Shapes differ, or there is no row or column, or loss_dim is not the width of the bank.
            TypeError: A representation is not of a floating-point type.
        """
        if out0.shape != out1.shape or out0.dim() < 2:
            raise ValueError(
                f"{type(self).__name__}: out0 has shape {tuple(out0.shape)}, out1 {tuple(out1.shape)}; both must be "
                "(B, ...) of one shape, row i of one belonging to row i of the other."
            )
        first, second = (out.flatten(start_dim=1)[:, : self.loss_dim] for out in (out0, out1))
        return super().forward(first, second)

    def extra_repr(self) -> str:
        return f"loss_dim={self.loss_dim}, {super().extra_repr()}"


def _check_loss_dim(who: str, loss_dim: int) -> None:
    if not isinstance(loss_dim, int) or loss_dim < 1:
        raise ValueError(f"{who}: loss_dim={loss_dim!r} must be a whole number from 1; write 64.")
