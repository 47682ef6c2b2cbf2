"""Projection heads: what stands between the backbone and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

__all__ = ["ProjectionHead", "SimCLRProjectionHead"]

Block = tuple[int, int, nn.Module | None, nn.Module | None] | tuple[int, int, nn.Module | None, nn.Module | None, bool]


class ProjectionHead(nn.Module):
    """Linear layers, each with an optional normalization and non-linearity.

    Layers and parameter names are those of lightly's heads, so their checkpoints load.

    Args:
        blocks: For each layer (width in, width out, normalization or None, non-linearity or None[, bias]). Without the
            last, a layer has a bias where it has no normalization.

    Raises:
        ValueError: A block has not 4 or 5 entries.

    >>> head = ProjectionHead([(512, 256, nn.BatchNorm1d(256), nn.ReLU()), (256, 128, None, None)])
    >>> [name for name, _ in head.named_parameters()]
    ['layers.0.weight', 'layers.1.weight', 'layers.1.bias', 'layers.3.weight', 'layers.3.bias']
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in blocks:
            if len(block) not in (4, 5):
                raise ValueError(
                    f"ProjectionHead: block {block} has {len(block)} entries and needs 4 or 5; write (512, 128, "
                    "nn.BatchNorm1d(128), nn.ReLU()) for width in, width out, normalization, non-linearity[, bias]."
                )
            width_in, width_out, normalization, non_linearity, *bias = block
            has_bias = bias[0] if bias else normalization is None
            layers.append(nn.Linear(width_in, width_out, bias=has_bias))
            layers.extend(layer for layer in (normalization, non_linearity) if layer is not None)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Projection, (B, width out), of features, (B, width in)."""
        projection: Tensor = self.layers(x)
        return projection


class SimCLRProjectionHead(ProjectionHead):
    """Projection head of SimCLR: linear layers with batch normalization, ReLU between them.

    Args:
        input_dim: Width of the features.
        hidden_dim: Width of the layers between.
        output_dim: Width of the projection.
        num_layers: Number of linear layers, 2 at least: 2 for SimCLR, 3 for its second version.
        batch_norm: Whether every layer, the last too, is normalized.

    Source: Chen et al., SimCLR, 2020, arXiv:2002.05709, section 2.1; version 2: arXiv:2006.10029.

    >>> import torch
    >>> SimCLRProjectionHead(512, 512, 128)(torch.zeros(4, 512)).shape
    torch.Size([4, 128])
    """

    def __init__(
        self,
        input_dim: int = 2048,
        hidden_dim: int = 2048,
        output_dim: int = 128,
        num_layers: int = 2,
        batch_norm: bool = True,
    ) -> None:
        widths = [input_dim, *[hidden_dim] * max(num_layers - 1, 1)]
        hidden: list[Block] = [
            (a, b, nn.BatchNorm1d(b) if batch_norm else None, nn.ReLU()) for a, b in pairwise(widths)
        ]
        last: Block = (hidden_dim, output_dim, nn.BatchNorm1d(output_dim) if batch_norm else None, None)
        super().__init__([*hidden, last])
