"""DetCon: contrastive losses between the regions of two views, matched by the masks they were pooled under.

Note [DetCon's sums]
    A region meets the regions of all images in both views, but not those of its own view that have its mask in its
    image. With one number for each (view, image, mask) as the id of queries and keys, that is what `contrastive_sums`
    leaves out, for both views in one call. The positives of a region, those of the other view with its mask in its
    image, enter as their mean, (B, M, D), since a mean of products is the product with a mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastssl.loss._checks import check_floats, check_gather, check_temperature, check_weights, inverse, weighted
from fastssl.loss._distributed import gathered_sums
from fastssl.loss._gather_gradient import gather_with_gradient
from fastssl.loss._operators import contrastive_sums, unit
from fastssl.models._gather import world_size

__all__ = ["DetConBLoss", "DetConSLoss", "detcon_b", "detcon_s"]


def detcon_s(
    view0: Tensor,
    view1: Tensor,
    mask_view0: Tensor,
    mask_view1: Tensor,
    temperature: Tensor | float = 0.1,
    weights: Tensor | None = None,
    gather_distributed: bool = False,
) -> Tensor:
    """DetCon's loss between the regions of two views that one network has embedded (as SimCLR's).

    A region's positives are the regions of the other view of its image with its mask; all others of both views are
    negatives. The similarities of all regions are never stored: memory is O(B M (D + M)).

    Args:
        view0: Embeddings of the first views' regions, (B, M, D): B images, M masks of each. float16, bfloat16, float32 or
            float64. Normalized here.
        view1: Embeddings of the second views' regions, (B, M, D).
        mask_view0: Which mask each region of the first views was pooled under, (B, M), whole numbers, repeated or not.
        mask_view1: The same of the second views.
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number may be learned.
        weights: Of the regions' losses, (2B, M), before their means: those of the first views' regions, then those of the
            second's, as torch.cat([weights0, weights1]). None: 1.
        gather_distributed: Whether the regions of all processes are negatives; see `DetConBLoss`.

    Returns:
        The sum of both views' mean losses over all regions, (), float32; float64 for float64. A region whose mask is not
        in the other view counts as 0, one whose mask was drawn n times in its view as 1 / n. Differentiable once.

    Raises:
        ValueError: Shapes differ, a dimension is empty, weights are not one a region, or temperature <= 0.
        TypeError: An embedding or mask is of another type, or temperature is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Henaff et al., DetCon, 2021, arXiv:2103.10957, section 3, and its published pseudocode.

    >>> import torch
    >>> regions, masks = torch.eye(2)[None], torch.tensor([[0, 1]])
    >>> loss = detcon_s(regions, regions, masks, masks, temperature=1.0)
    >>> round(loss.item(), 4)  # logits 1 (its own mask), 0 (the other, there), 0 (the other, here): 2 (log(e + 2) - 1)
    1.1029
    """
    return _detcon("detcon_s", (view0, view1), None, (mask_view0, mask_view1), temperature, weights, gather_distributed)


def detcon_b(
    pred_view0: Tensor,
    pred_view1: Tensor,
    target_view0: Tensor,
    target_view1: Tensor,
    mask_view0: Tensor,
    mask_view1: Tensor,
    temperature: Tensor | float = 0.1,
    weights: Tensor | None = None,
    gather_distributed: bool = False,
) -> Tensor:
    """DetCon's loss between predictions of one network and targets of another (as BYOL's); else as `detcon_s`.

    Args:
        pred_view0: Predictions for the first views' regions, (B, M, D). Normalized here, as the others are.
        pred_view1: Predictions for the second views' regions, (B, M, D).
        target_view0: Targets of the first views' regions, (B, M, D); usually without gradient.
        target_view1: Targets of the second views' regions, (B, M, D).
        mask_view0: Which mask each region of the first views was pooled under, (B, M), whole numbers, repeated or not.
        mask_view1: The same of the second views.
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number may be learned.
        weights: Of the regions' losses, (2B, M), before their means: those of the first views' regions, then those of the
            second's, as torch.cat([weights0, weights1]). None: 1.
        gather_distributed: Whether the regions of all processes are negatives; see `DetConBLoss`.

    Returns:
        The sum of both views' mean losses over all regions, (), float32; float64 for float64. Differentiable once.

    Raises:
        ValueError: Shapes differ, a dimension is empty, weights are not one a region, or temperature <= 0.
        TypeError: An embedding or mask is of another type, or temperature is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; of 16 bits on a GPU besides
    2^-10 of a logit, since unit rows are rounded to float16 there.
    Source: Henaff et al., DetCon, 2021, arXiv:2103.10957, section 3, and its published pseudocode.

    >>> import torch
    >>> regions, masks = torch.eye(2)[None], torch.tensor([[0, 1]])
    >>> loss = detcon_b(regions, regions, regions, regions, masks, masks, temperature=1.0)
    >>> round(loss.item(), 4)  # as detcon_s
    1.1029
    """
    targets = (target_view0, target_view1)
    masks = (mask_view0, mask_view1)
    return _detcon("detcon_b", (pred_view0, pred_view1), targets, masks, temperature, weights, gather_distributed)


def _detcon(
    who: str,
    predictions: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor] | None,
    masks: tuple[Tensor, Tensor],
    temperature: Tensor | float,
    weights: Tensor | None,
    gather_distributed: bool,
) -> Tensor:
    """The loss; targets=None: the predictions themselves, for half of the work in one process."""
    check_temperature(who, temperature)
    distributed = gather_distributed and world_size() > 1
    _check(who, predictions, targets, masks, may_be_empty=distributed)
    images, regions, width = predictions[0].shape
    check_weights(who, weights, 2 * images, regions)
    scale = inverse(temperature, predictions[0])
    query = torch.cat(predictions).view(-1, width)
    target = query if targets is None else torch.cat(targets).view(-1, width)
    mask, other = torch.cat(masks), torch.cat(masks[::-1])  # (2B, M)
    same = mask[:, :, None] == mask[:, None, :]
    # A region's id is the place of the first region of its view, image and mask.
    first = same.to(torch.uint8).argmax(dim=2)
    ids = (first + torch.arange(2 * images, device=query.device)[:, None] * regions).view(-1)
    share = float(images * regions)
    if distributed and (targets is None or (torch.is_grad_enabled() and target.requires_grad)):
        gathered = gathered_sums(query, None if targets is None else target, scale, ids=ids)
        rows, share = gathered.rows, gathered.share / 2
    elif distributed:  # the targets alone travel
        keys, places = gather_with_gradient(target)
        key_ids = torch.full_like(keys[:, 0], -1, dtype=torch.int64).index_copy(0, places, ids)
        rows = contrastive_sums(query, keys, scale, query_ids=ids, key_ids=key_ids).rows
        share = keys.shape[0] / world_size() / 2
    elif targets is None:
        rows = contrastive_sums(query, None, scale, query_ids=ids).rows
    else:
        rows = contrastive_sums(query, target, scale, query_ids=ids, key_ids=ids).rows
    pred = unit(query).view(2 * images, regions, width)
    there = unit(target).view(2, images, regions, width).flip(0).view_as(pred)  # the other views' regions
    matches = (mask[:, :, None] == other[:, None, :]).to(pred.dtype)
    found = matches.sum(dim=2)
    with torch.autocast(query.device.type, enabled=False):
        means = (matches / found.clamp(min=1)[:, :, None]) @ there
    positives = (pred * means).sum(dim=2) * scale
    losses = torch.where(found > 0, rows.view_as(positives) - positives, 0) / same.sum(dim=2)
    return weighted(losses, weights).sum() / share


class DetConSLoss(nn.Module):
    """DetCon between the regions of two batches of views that one network has embedded; see `detcon_s`.

    Args:
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number, such as a torch.nn.Parameter,
            may be learned.
        gather_distributed: Whether the regions of all processes are negatives; see `DetConBLoss`.

    Raises:
        ValueError: temperature <= 0, or gather_distributed where torch.distributed is not available.
        TypeError: temperature is no number.

    Source: Henaff et al., DetCon, 2021, arXiv:2103.10957.

    >>> import torch
    >>> regions, masks = torch.eye(2)[None], torch.tensor([[0, 1]])
    >>> round(DetConSLoss(temperature=1.0)(regions, regions, masks, masks).item(), 4)
    1.1029
    """

    def __init__(self, temperature: Tensor | float = 0.1, gather_distributed: bool = True) -> None:
        super().__init__()
        check_temperature("DetConSLoss", temperature)
        check_gather("DetConSLoss", gather_distributed)
        self.temperature = temperature
        self.gather_distributed = gather_distributed

    def forward(self, view0: Tensor, view1: Tensor, mask_view0: Tensor, mask_view1: Tensor) -> Tensor:
        """The loss, (), float32 (float64 for float64); the arguments are those of `detcon_s`."""
        masks = (mask_view0, mask_view1)
        return _detcon("DetConSLoss", (view0, view1), None, masks, self.temperature, None, self.gather_distributed)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather_distributed={self.gather_distributed}"


class DetConBLoss(nn.Module):
    """DetCon between predictions of one network and targets of another; see `detcon_b`.

    Args:
        temperature: Divides the cosine similarities; > 0, no unit. A tensor of one number, such as a torch.nn.Parameter,
            may be learned.
        gather_distributed: Whether the regions of all processes are negatives. The mean over the processes, as
            DistributedDataParallel takes it, is then exactly the gradient of the loss over the whole batch, also where
            processes hold unlike numbers of images.

    Raises:
        ValueError: temperature <= 0, or gather_distributed where torch.distributed is not available.
        TypeError: temperature is no number.

    Differs from lightly's: the value is never less than float32, and logits are float32 also under autocast.
    Source: Henaff et al., DetCon, 2021, arXiv:2103.10957.

    >>> import torch
    >>> regions, masks = torch.eye(2)[None], torch.tensor([[0, 1]])
    >>> round(DetConBLoss(temperature=1.0)(regions, regions, regions, regions, masks, masks).item(), 4)
    1.1029
    """

    def __init__(self, temperature: Tensor | float = 0.1, gather_distributed: bool = True) -> None:
        super().__init__()
        check_temperature("DetConBLoss", temperature)
        check_gather("DetConBLoss", gather_distributed)
        self.temperature = temperature
        self.gather_distributed = gather_distributed

    def forward(
        self,
        pred_view0: Tensor,
        pred_view1: Tensor,
        target_view0: Tensor,
        target_view1: Tensor,
        mask_view0: Tensor,
        mask_view1: Tensor,
    ) -> Tensor:
        """The loss, (), float32 (float64 for float64); the arguments are those of `detcon_b`."""
        predictions, targets = (pred_view0, pred_view1), (target_view0, target_view1)
        masks = (mask_view0, mask_view1)
        return _detcon("DetConBLoss", predictions, targets, masks, self.temperature, None, self.gather_distributed)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather_distributed={self.gather_distributed}"


def _check(
    who: str,
    predictions: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor] | None,
    masks: tuple[Tensor, Tensor],
    may_be_empty: bool,
) -> None:
    names: tuple[str, ...] = ("view0", "view1")
    if targets is not None:
        names = ("pred_view0", "pred_view1", "target_view0", "target_view1")
    embeddings = (*predictions, *(targets or ()))
    for name, x in zip(names, embeddings, strict=True):
        check_floats(who, name, x)
    for name, mask in zip(("mask_view0", "mask_view1"), masks, strict=True):
        if mask.is_floating_point() or mask.is_complex():
            raise TypeError(f"{who}: {name} is of type {mask.dtype} and must hold whole numbers; write {name}.long().")
    shape = predictions[0].shape
    empty = len(shape) == 3 and (0 in shape[1:] or (shape[0] == 0 and not may_be_empty))
    fits = all(x.shape == shape for x in embeddings) and all(mask.shape == shape[:2] for mask in masks)
    if len(shape) != 3 or empty or not fits:
        raise ValueError(
            f"{who}: got views of shapes {[tuple(x.shape) for x in embeddings]} and masks of shapes "
            f"{[tuple(mask.shape) for mask in masks]}; views must be (B, M, D) and masks (B, M), all at least 1, so pool "
            "the features of B images under M masks of each."
        )
