"""What a method of self-supervised learning is to the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from fastssl.transforms.view import Recipe

__all__ = ["SMALL_IMAGE", "Method", "Settings"]

# Sides up to this are trained and evaluated like CIFAR: no blur, weaker colours, no margin cut off.
SMALL_IMAGE = 64


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `pretrain` takes for a method where its caller says nothing.

    Args:
        lr: Learning rate for a batch of 256; scaled linearly with the batch (Goyal et al., 2017, arXiv:1706.02677).
        weight_decay: Of weight matrices and filters; biases and normalizations have none.
        temperature: Of the loss.
        warmup_epochs: Over which the learning rate rises linearly; a tenth of the run, if that is less.
    """

    lr: float
    weight_decay: float
    temperature: float
    warmup_epochs: int


class Method(nn.Module):
    """A backbone with what trains it: `forward` takes the views of a batch and returns the loss.

    A subclass has a `settings` and a `recipe`, and takes `(backbone, num_features, temperature=...)`.

    Attributes:
        backbone: What remains after training; maps (B, 3, S, S) to (B, num_features).
    """

    settings: ClassVar[Settings]
    backbone: nn.Module

    def __init__(self, backbone: nn.Module, num_features: int, *, temperature: float) -> None:
        super().__init__()
        self.backbone = backbone

    @staticmethod
    def recipe(size: int) -> Recipe:
        """The views of an image, of side `size` pixels."""
        raise NotImplementedError

    def forward(self, views: list[Tensor]) -> Tensor:
        """Loss, (), of a batch of views, (B, 3, S, S) each."""
        raise NotImplementedError
