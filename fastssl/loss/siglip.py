"""SigLIP's loss: every pair of an image and a text is a yes or a no; the similarity matrix is never stored."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastssl.loss._checks import check_gather, check_pairs, check_scale, check_weights, weighted
from fastssl.loss._distributed_sigmoid import gathered_pairwise_losses
from fastssl.loss._rows import number
from fastssl.loss._sigmoid import pairwise_losses
from fastssl.models._gather import world_size

__all__ = ["SigLIPLoss", "siglip_loss"]


def siglip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    weights: Tensor | None = None,
    gather_distributed: bool = False,
) -> Tensor:
    """Sigmoid loss over all pairs of an image and a text (SigLIP): sum over the texts, mean over the images.

    Fused: the (B, B) similarity matrix is never stored. On a GPU its tiles are torch's float32 products, also for 16 bits,
    not the kernels on tensor cores.

    Args:
        image_features: (B, D), float16, bfloat16, float32 or float64. Normalized here, which changes nothing where
            they are normalized already.
        text_features: (B, D), row i the text of image i. Normalized here.
        logit_scale: Multiplies the cosine similarities: pass model.logit_scale.exp(). Number or tensor of one.
        logit_bias: Added to the logits, -10 at the start of the paper's training. Number or tensor of one.
        weights: Of the images' losses, (B,), before their mean; None: 1.
        gather_distributed: Whether the pairs of all processes are negatives; exact under DistributedDataParallel, as
            NTXentLoss says.

    Returns:
        Mean loss, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: Shapes differ, or there is no row or column.
        TypeError: Features, scale or bias are of another type.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient.
    Source: Zhai et al., SigLIP, 2023, arXiv:2303.15343, algorithm 1.

    >>> import torch
    >>> round(siglip_loss(torch.eye(2), torch.eye(2), 1.0, 0.0).item(), 4)  # log(1 + 1/e) + log 2
    1.0064
    """
    check_gather("siglip_loss", gather_distributed)
    distributed = gather_distributed and world_size() > 1
    names = ("image_features", "text_features")
    check_pairs("siglip_loss", names, image_features, text_features, may_be_empty=distributed)
    check_scale("siglip_loss", "logit_scale", logit_scale)
    check_scale("siglip_loss", "logit_bias", logit_bias)
    check_weights("siglip_loss", weights, image_features.shape[0])
    scale, bias = number(logit_scale, image_features), number(logit_bias, image_features)
    share: float = image_features.shape[0]
    if distributed:
        losses, share = gathered_pairwise_losses(image_features, text_features, scale, bias)
    else:
        losses = pairwise_losses(image_features, text_features, scale, bias, positive=0)
    return weighted(losses, weights).sum() / share


class SigLIPLoss(nn.Module):
    """SigLIP's loss between two towers, without the similarity matrix.

    Args:
        init_logit_scale: If given, with init_logit_bias, the logarithm of the scale to start from, log 10 in the paper;
            the module then learns both as its parameters `logit_scale` and `logit_bias`. None: they are arguments of
            every call, as where they are part of the model.
        init_logit_bias: The bias to start from, -10 in the paper.
        gather_distributed: Whether the pairs of all processes are negatives; exact under DistributedDataParallel, as
            NTXentLoss says.

    Raises:
        ValueError: One of the two numbers without the other, or gather_distributed where torch.distributed is not
            available.

    Source: Zhai et al., SigLIP, 2023, arXiv:2303.15343, algorithm 1.

    >>> import torch
    >>> loss = SigLIPLoss(init_logit_scale=0.0, init_logit_bias=0.0)
    >>> round(loss(torch.eye(2), torch.eye(2)).item(), 4)  # log(1 + 1/e) + log 2
    1.0064
    """

    logit_scale: nn.Parameter | None
    logit_bias: nn.Parameter | None

    def __init__(
        self,
        init_logit_scale: float | None = None,
        init_logit_bias: float | None = None,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        check_gather("SigLIPLoss", gather_distributed)
        if (init_logit_scale is None) != (init_logit_bias is None):
            raise ValueError(
                f"SigLIPLoss: init_logit_scale={init_logit_scale} and init_logit_bias={init_logit_bias}; give both or "
                "neither, such as math.log(10) and -10.0."
            )
        self.gather_distributed = gather_distributed
        self.logit_scale = None if init_logit_scale is None else nn.Parameter(torch.tensor(float(init_logit_scale)))
        self.logit_bias = None if init_logit_bias is None else nn.Parameter(torch.tensor(float(init_logit_bias)))

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Tensor:
        """Mean loss, (), float32 (float64 for float64).

        Args:
            image_features, text_features: (B, D), row i of one belonging to row i of the other.
            logit_scale: Multiplies the cosine similarities: model.logit_scale.exp(). None: the module's own.
            logit_bias: Added to the logits: model.logit_bias. None: the module's own.

        Raises:
            ValueError: Scale and bias are neither arguments nor parameters, or are both.
        """
        if self.logit_scale is not None and logit_scale is None and logit_bias is None:
            logit_scale, logit_bias = self.logit_scale.exp(), self.logit_bias
        elif self.logit_scale is not None:
            raise ValueError(
                "SigLIPLoss: logit_scale or logit_bias was passed, and the module has its own; leave them out of the "
                "call, or write SigLIPLoss()."
            )
        if logit_scale is None or logit_bias is None:
            raise ValueError(
                "SigLIPLoss: the call has no logit_scale and logit_bias, and the module none of its own; pass "
                "model.logit_scale.exp() and model.logit_bias, or write SigLIPLoss(math.log(10), -10.0)."
            )
        return siglip_loss(
            image_features, text_features, logit_scale, logit_bias, gather_distributed=self.gather_distributed
        )

    def extra_repr(self) -> str:
        return f"gather_distributed={self.gather_distributed}"
