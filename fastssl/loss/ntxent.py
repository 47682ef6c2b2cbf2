"""NT-Xent, the loss of SimCLR, and InfoNCE against a memory bank, that of MoCo; neither stores its similarities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastssl.loss import _distributed
from fastssl.loss._operators import infonce_losses, ntxent_losses
from fastssl.models._gather import world_size
from fastssl.models.modules.memory_bank import MemoryBankModule

__all__ = ["NTXentLoss", "ntxent"]

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def ntxent(z: Tensor, temperature: float = 0.1) -> Tensor:
    """Normalized temperature-scaled cross entropy (NT-Xent) over the two views of each image.

    Fused: the (2B, 2B) similarity matrix is never stored, so memory is O(BD) and not O(B^2).

    Args:
        z: Embeddings, (2B, D), float16, bfloat16, float32 or float64; rows i and i + B are views of one image.
            Normalized here, as by torch.nn.functional.normalize, so pass the raw output of the projection head.
        temperature: Divides the cosine similarities; > 0, no unit.

    Returns:
        Mean loss, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: z has an odd number of rows, no row or no column, or temperature <= 0.
        TypeError: z is of another type, or temperature is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient.
    Source: Chen et al., SimCLR, 2020, arXiv:2002.05709, equation 1.

    >>> import torch
    >>> round(ntxent(torch.eye(4), temperature=1.0).item(), 4)  # orthogonal rows: log 3
    1.0986
    """
    _check_temperature("ntxent", temperature)
    _check_floats("ntxent", "z", z)
    if z.dim() != 2 or z.shape[0] % 2 or z.shape[0] == 0 or z.shape[1] == 0:
        raise ValueError(
            f"ntxent: z has shape {tuple(z.shape)} and must be (2B, D) with B and D at least 1, rows i and i + B the "
            "views of one image; write torch.cat([view0, view1])."
        )
    return ntxent_losses(z, float(temperature)).mean()


class NTXentLoss(nn.Module):
    """NT-Xent between two batches of views (SimCLR), or InfoNCE against a memory bank (MoCo), without the similarity
    matrix.

    Args:
        temperature: Divides the cosine similarities; > 0, no unit.
        memory_bank_size: (rows, columns) of a bank of negatives, such as (65536, 128); 0: the other images of the batch
            are the negatives.
        gather_distributed: Whether the images of all processes are negatives, or, with a bank, go into it. Without a
            bank the mean over the processes, as DistributedDataParallel takes it, is exactly the gradient of the loss
            over the whole batch, also where processes hold unlike numbers of images (then a process's own value is
            weighted by its share).

    Raises:
        ValueError: temperature <= 0, memory_bank_size is neither 0 nor two whole numbers, or gather_distributed where
            torch.distributed is not available.
        TypeError: temperature is no number.

    Differs from lightly's: the value is never less than float32 and logits are float32 also under autocast, the bank
    is a true ring and part of the state_dict (see MemoryBankModule), and a negative temperature is an error.
    Max error: twice that of the plain PyTorch formula against float64, in value and gradient.
    Source: Chen et al., SimCLR, 2020, arXiv:2002.05709, equation 1; with a bank He et al., MoCo, 2020,
    arXiv:1911.05722, equation 1.

    >>> import torch
    >>> views = torch.eye(4)
    >>> round(NTXentLoss(temperature=1.0)(views[:2], views[2:]).item(), 4)  # orthogonal rows: log 3
    1.0986
    """

    def __init__(
        self, temperature: float = 0.5, memory_bank_size: int | Sequence[int] = 0, gather_distributed: bool = False
    ) -> None:
        super().__init__()
        _check_temperature("NTXentLoss", temperature)
        if gather_distributed and not torch.distributed.is_available():
            raise ValueError(
                "NTXentLoss: gather_distributed=True needs torch.distributed, which this build of torch lacks; write "
                "gather_distributed=False, or install a build that has it."
            )
        self.temperature = temperature
        self.gather_distributed = gather_distributed
        self.memory_bank = MemoryBankModule(size=memory_bank_size, gather_distributed=gather_distributed)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """Mean loss, (), float32 (float64 for float64).

        Args:
            out0: Embeddings of the first views, (B, D), not normalized. With a bank, the queries; the bank is updated
                where they require a gradient, so a validation step leaves it as it is.
            out1: Embeddings of the second views, (B, D). With a bank, the keys.

        Raises:
            ValueError: Shapes differ, or there is no row or column, or the width is not that of the bank.
            TypeError: An embedding is not of a floating-point type.
        """
        _check_temperature("NTXentLoss", self.temperature)
        _check_floats("NTXentLoss", "out0", out0)
        _check_floats("NTXentLoss", "out1", out1)
        distributed = self.gather_distributed and world_size() > 1
        # With gather_distributed an empty batch is an error of all processes, once they know each other's shapes.
        if out0.dim() != 2 or out0.shape != out1.shape or out0.shape[1] == 0 or (len(out0) == 0 and not distributed):
            raise ValueError(
                f"NTXentLoss: out0 has shape {tuple(out0.shape)}, out1 {tuple(out1.shape)}; both must be (B, D) with B "
                "and D at least 1, rows i the views of image i, so pass the projections of views[0] and views[1]."
            )
        temperature = float(self.temperature)
        if self.memory_bank.size[0] > 0:
            self.memory_bank.check_columns(out1)
            losses = infonce_losses(out0, out1, self.memory_bank.bank.to(out0.device), temperature)
            if out0.requires_grad:
                self.memory_bank.enqueue(nn.functional.normalize(out1.detach(), dim=1))
            return losses.mean()
        z = torch.cat([out0, out1])
        if distributed:
            return _distributed.ntxent_mean(z, temperature)
        return ntxent_losses(z, temperature).mean()

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather_distributed={self.gather_distributed}"


def _check_temperature(who: str, temperature: float) -> None:
    if not isinstance(temperature, (int, float)):
        raise TypeError(
            f"{who}: temperature={temperature!r} is a {type(temperature).__name__} and must be a number; write 0.1."
        )
    if not 0 < temperature < float("inf"):
        raise ValueError(
            f"{who}: temperature={temperature} must be > 0 and finite; it divides cosine similarities, so write 0.1 "
            "(SimCLR) or 0.5."
        )


def _check_floats(who: str, name: str, z: Tensor) -> None:
    if z.dtype not in FLOATS:
        raise TypeError(
            f"{who}: {name} is of type {z.dtype} and must be float16, bfloat16, float32 or float64; write "
            f"{name}.float()."
        )
