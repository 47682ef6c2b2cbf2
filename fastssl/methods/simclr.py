"""SimCLR: two views of an image shall be nearer to each other than to any other image of the batch.

Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020, arXiv:2002.05709.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastssl.loss.ntxent import ntxent
from fastssl.methods.method import SMALL_IMAGE, Method, Settings
from fastssl.models.modules.heads import SimCLRProjectionHead
from fastssl.transforms import recipes
from fastssl.transforms.view import Recipe

__all__ = ["SimCLR"]


class SimCLR(Method):
    """SimCLR: recipe, projection head, loss and settings.

    Args:
        backbone: Maps (B, 3, S, S) to (B, num_features).
        num_features: Width of its output.
        temperature: Of NT-Xent; > 0.

    >>> backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> SimCLR(backbone, 3)([torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)]).shape
    torch.Size([])
    """

    # The paper trains batches of 4096 with LARS. For the batches of a single machine plain SGD does as well and every
    # reader knows it: rate 0.06 for a batch of 128 and decay 5e-4, as lightly's CIFAR-10 benchmark has them.
    # Temperature: section 5.1 (0.1 is the best of ImageNet's). Warm-up: appendix B.6, 10 epochs.
    settings = Settings(lr=0.12, weight_decay=5e-4, temperature=0.1, warmup_epochs=10)

    def __init__(self, backbone: nn.Module, num_features: int, *, temperature: float = settings.temperature) -> None:
        super().__init__(backbone, num_features, temperature=temperature)
        self.head = SimCLRProjectionHead(num_features, num_features, output_dim=128)  # section 2.1, appendix B.5
        self.temperature = temperature

    @staticmethod
    def recipe(size: int) -> Recipe:
        """Two views: appendix A; up to 64 px without blur and with half the jitter, as for CIFAR-10, appendix B.9."""
        if size <= SMALL_IMAGE:
            return recipes.simclr(size, strength=0.5, blur=False)
        return recipes.simclr(size)

    def forward(self, views: list[Tensor]) -> Tensor:
        # Both views pass together, so that batch normalization sees one batch of 2B, as in the authors' code.
        features = self.backbone(torch.cat(views))
        return ntxent(self.head(features), self.temperature)
