"""Memory for batches, where it saves a copy: a DataLoader's worker hands its batch over in shared memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["empty_batch"]


def empty_batch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialized tensor on the CPU; in a DataLoader's worker process, in shared memory, as torch's default_collate does."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape, dtype=dtype, device="cpu")
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype, device="cpu").set_(storage, 0, shape)  # type: ignore[call-overload]
