"""CLIP's loss: images find their texts and texts their images; the similarity matrix is never stored."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fastssl.loss._checks import check_gather, check_pairs, check_scale, check_weights, weighted
from fastssl.loss._distributed import gathered_sums
from fastssl.loss._operators import contrastive_sums, softplus
from fastssl.loss._rows import number
from fastssl.models._gather import world_size

__all__ = ["CLIPLoss", "clip_loss"]

# A scale of 100 (Radford et al., section 2.5).
LARGEST_LOGIT_SCALE = math.log(100)


def clip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    weights: Tensor | None = None,
    gather_distributed: bool = False,
) -> Tensor:
    """Symmetric cross entropy over the similarities of images and texts (CLIP): mean of both directions.

    Fused: the (B, B) similarity matrix is never stored, and one exponential a pair serves both directions.

    Args:
        image_features: (B, D), float16, bfloat16, float32 or float64. Normalized here, which changes nothing where
            they are normalized already.
        text_features: (B, D), row i the text of image i. Normalized here.
        logit_scale: Multiplies the cosine similarities, 1 / temperature: pass model.logit_scale.exp(). Number or
            tensor of one.
        weights: Of the pairs' losses, (B,), before their mean; None: 1.
        gather_distributed: Whether the pairs of all processes are negatives; exact under DistributedDataParallel, as
            NTXentLoss says.

    Returns:
        Mean loss, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: Shapes differ, or there is no row or column.
        TypeError: Features or scale are of another type.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Radford et al., CLIP, 2021, arXiv:2103.00020, figure 3.

    >>> import torch
    >>> round(clip_loss(torch.eye(2), torch.eye(2), 1.0).item(), 4)  # logits 1 and 0: log(1 + 1/e)
    0.3133
    """
    check_gather("clip_loss", gather_distributed)
    distributed = gather_distributed and world_size() > 1
    names = ("image_features", "text_features")
    check_pairs("clip_loss", names, image_features, text_features, may_be_empty=distributed)
    check_scale("clip_loss", "logit_scale", logit_scale)
    check_weights("clip_loss", weights, image_features.shape[0])
    scale = number(logit_scale, image_features)
    share: float = image_features.shape[0]
    if distributed:
        rows, columns, products, share, _ = gathered_sums(image_features, text_features, scale, columns=True)
        positives = products * scale
    else:
        pair = torch.arange(image_features.shape[0], device=image_features.device)
        rows, positives, columns = contrastive_sums(
            image_features, text_features, scale, query_ids=pair, key_ids=pair, positive=0, columns=True
        )
    # Sums without the positive: a small loss, log((N + p) / p), then keeps its relative accuracy.
    losses = (softplus(rows - positives) + softplus(columns - positives)) / 2
    return weighted(losses, weights).sum() / share


class CLIPLoss(nn.Module):
    """CLIP's loss between two towers, without the similarity matrix.

    Args:
        init_logit_scale: If given, the logarithm of the scale to start from, such as log(1 / 0.07), which the module
            then learns as its parameter `logit_scale`, and clamps at log 100 as CLIP does. None: the scale is an
            argument of every call, as where it is part of the model.
        gather_distributed: Whether the pairs of all processes are negatives; exact under DistributedDataParallel, as
            NTXentLoss says.

    Raises:
        ValueError: gather_distributed where torch.distributed is not available.

    Source: Radford et al., CLIP, 2021, arXiv:2103.00020, figure 3 and section 2.5.

    >>> import torch
    >>> round(CLIPLoss()(torch.eye(2), torch.eye(2), logit_scale=1.0).item(), 4)  # logits 1 and 0: log(1 + 1/e)
    0.3133
    >>> CLIPLoss(init_logit_scale=0.0).logit_scale.exp().item()
    1.0
    """

    logit_scale: nn.Parameter | None

    def __init__(self, init_logit_scale: float | None = None, gather_distributed: bool = False) -> None:
        super().__init__()
        check_gather("CLIPLoss", gather_distributed)
        self.gather_distributed = gather_distributed
        self.logit_scale = None if init_logit_scale is None else nn.Parameter(torch.tensor(float(init_logit_scale)))

    def forward(
        self, image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float | None = None
    ) -> Tensor:
        """Mean loss, (), float32 (float64 for float64).

        Args:
            image_features, text_features: (B, D), row i of one belonging to row i of the other.
            logit_scale: Multiplies the cosine similarities: model.logit_scale.exp(). None: the module's own.

        Raises:
            ValueError: There is neither an argument nor a parameter for the scale, or both.
        """
        if self.logit_scale is not None and logit_scale is None:
            with (
                torch.no_grad()
            ):  # the parameter itself: else it would have no gradient beyond the bound, and stay there
                self.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
            logit_scale = self.logit_scale.exp()
        elif self.logit_scale is not None or logit_scale is None:
            raise ValueError(
                f"CLIPLoss: logit_scale={logit_scale} and the module has "
                f"{'one of its own' if self.logit_scale is not None else 'none of its own'}; either write "
                "CLIPLoss(init_logit_scale=math.log(1 / 0.07)), or pass model.logit_scale.exp() at each call."
            )
        return clip_loss(image_features, text_features, logit_scale, gather_distributed=self.gather_distributed)

    def extra_repr(self) -> str:
        return f"gather_distributed={self.gather_distributed}"
