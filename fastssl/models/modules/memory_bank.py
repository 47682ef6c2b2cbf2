"""A ring of the latest embeddings, to serve as negatives or neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastssl.models._gather import gather_rows, world_size

__all__ = ["MemoryBankModule"]


class MemoryBankModule(nn.Module):
    """Ring of the latest embeddings; starts with random unit rows.

    Call it with a batch to get the batch and the bank; with update=True the batch then replaces the oldest rows. The
    pointer stays on the device: an update waits for nothing. A call returns a copy, as lightly's does; what needs none,
    such as the losses here, reads `bank` itself, (rows, columns), and calls `enqueue`.

    Args:
        size: (rows, columns) of the bank, such as (65536, 128); 0 for no bank.
        gather_distributed: Whether an update takes the batches of all processes, in the order of their ranks.
        feature_dim_first: Whether a call returns the bank as (columns, rows) instead of (rows, columns).

    Raises:
        ValueError: size is neither 0 nor two whole numbers >= 0, or has rows but no column.

    Differs from lightly's: a batch that reaches the end of the ring goes on at its start (lightly drops that part, and
    starts the next batch at 0), a batch longer than the ring leaves its last rows, and a bank is part of the
    state_dict. A state_dict without one, such as lightly's, loads too and leaves the bank as it is; one that holds it as
    (columns, rows), the way lightly and MoCo hand it out, is turned, unless the bank is square.
    Source: He et al., MoCo, 2020, arXiv:1911.05722, section 3.2.

    >>> bank = MemoryBankModule(size=(3, 1), feature_dim_first=False)
    >>> _ = bank(torch.tensor([[1.0], [2.0]]), update=True)
    >>> _ = bank(torch.tensor([[3.0], [4.0]]), update=True)  # 4 replaces 1
    >>> batch, rows = bank(torch.tensor([[5.0]]))
    >>> rows.flatten().tolist()
    [4.0, 2.0, 3.0]
    """

    bank: Tensor
    bank_ptr: Tensor

    def __init__(
        self, size: int | Sequence[int], gather_distributed: bool = False, feature_dim_first: bool = True
    ) -> None:
        super().__init__()
        shape = (size,) if isinstance(size, int) else tuple(size)
        allowed = shape == (0,) or (len(shape) == 2 and min(shape) >= 0 and (shape[0] == 0 or shape[1] > 0))
        if not allowed or not all(isinstance(length, int) for length in shape):
            raise ValueError(
                f"MemoryBankModule: size={size} must be two whole numbers, rows and columns of the bank, or 0 for no "
                "bank; write (65536, 128) for 65536 embeddings of 128 numbers."
            )
        self.size = shape
        self.gather_distributed = gather_distributed
        self.feature_dim_first = feature_dim_first
        stored = shape[0] > 0
        bank = nn.functional.normalize(torch.randn(shape), dim=1) if stored else torch.empty(shape)
        self.register_buffer("bank", bank, persistent=stored)
        self.register_buffer("bank_ptr", torch.zeros(1, dtype=torch.long), persistent=stored)

    def forward(
        self, output: Tensor, labels: Tensor | None = None, update: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The output itself, and a copy of the bank as it was before this call, or None where there is no bank.

        Args:
            output: Embeddings, (B, columns).
            labels: Ignored.
            update: Whether the output then replaces the oldest rows.

        Raises:
            ValueError: output has another number of columns than the bank.
        """
        if self.size[0] == 0:
            return output, None
        self.check_columns(output)
        bank = self.bank.detach().clone()
        if update:
            self.enqueue(output)
        return output, bank.t() if self.feature_dim_first else bank

    @torch.no_grad()
    def enqueue(self, batch: Tensor) -> None:
        """Replaces the oldest rows by those of the batch, (B, columns), or of all processes' batches.

        Waits for nothing; but where the batches of all processes are gathered the host waits for their numbers of rows.
        """
        self.check_columns(batch)
        batch = batch.detach()
        if self.gather_distributed and world_size() > 1:
            _enqueue_gathered(self.bank, self.bank_ptr, batch)
        else:
            _enqueue(self.bank, self.bank_ptr, batch)

    def check_columns(self, batch: Tensor) -> None:
        """Raises ValueError where the batch is not (B, columns of the bank)."""
        if batch.dim() != 2 or batch.shape[1] != self.size[1]:
            raise ValueError(
                f"MemoryBankModule: got embeddings of shape {tuple(batch.shape)} for a bank of size={self.size}; they "
                f"must be (B, {self.size[1]}), so make size[1] the width of the projection head's output."
            )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        *rest: Any,
    ) -> None:
        """As nn.Module's; neither key in the checkpoint (lightly stores none) is not an error, nor is (columns, rows)."""
        missing: list[str] = []
        stored = state_dict.get(f"{prefix}bank")
        if isinstance(stored, Tensor) and stored.shape != self.bank.shape and stored.t().shape == self.bank.shape:
            state_dict = {**state_dict, f"{prefix}bank": stored.t()}
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, *rest)
        if len(missing) < 2:
            missing_keys.extend(missing)


def _enqueue(bank: Tensor, bank_ptr: Tensor, batch: Tensor) -> None:
    length = len(bank)
    latest = batch[-length:].to(bank)
    first = bank_ptr + (len(batch) - len(latest))
    places = (first + torch.arange(len(latest), device=bank.device)) % length
    bank.index_copy_(0, places, latest)
    bank_ptr.add_(len(batch)).remainder_(length)


@torch.library.custom_op("fastssl::enqueue_gathered", mutates_args=("bank", "bank_ptr"))
def _enqueue_gathered(bank: Tensor, bank_ptr: Tensor, batch: Tensor) -> None:
    """One operator: how many rows come is not known to torch.compile."""
    _enqueue(bank, bank_ptr, gather_rows(batch))


@_enqueue_gathered.register_fake
def _(bank: Tensor, bank_ptr: Tensor, batch: Tensor) -> None:
    pass
