"""What a Loader yields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastssl.transforms.plan import Plan

__all__ = ["Batch"]


@dataclass
class Batch:
    """A batch of views; unpacks as `views, targets, filenames`.

    Its memory is the caller's for as long as any tensor of it is in use.

    Args:
        views: V tensors, (B, 3, S, S).
        targets: (B,), int64.
        filenames: B names.
        indices: Of the samples in their source, (B,), int64.
        params: What was drawn, for `fastssl.ops.render` and for methods that need the crops.
        epoch: The epoch that the draws belong to.
    """

    views: list[Tensor]
    targets: Tensor
    filenames: list[str]
    indices: Tensor
    params: Plan
    epoch: int

    def __iter__(self) -> Iterator[Any]:
        yield self.views
        yield self.targets
        yield self.filenames

    def __len__(self) -> int:
        return len(self.filenames)

    def to(self, device: str | torch.device, non_blocking: bool = False) -> Batch:
        """The same batch with views and targets on `device`."""
        return replace(
            self,
            views=[view.to(device, non_blocking=non_blocking) for view in self.views],
            targets=self.targets.to(device, non_blocking=non_blocking),
        )

    def select(self, keep: list[int]) -> Batch:
        """The samples at these positions, copied."""
        which = torch.tensor(keep, dtype=torch.int64, device="cpu")

        def of(rows: Tensor) -> Tensor:
            if rows.device.type != "cpu":
                return rows[which]
            return torch.from_numpy(rows.numpy()[which.numpy()])  # numpy: Note [Torch's threads]

        return Batch(
            views=[view[which] for view in self.views],
            targets=of(self.targets),
            filenames=[self.filenames[i] for i in keep],
            indices=of(self.indices),
            params=Plan(of(self.params.data)),
            epoch=self.epoch,
        )
