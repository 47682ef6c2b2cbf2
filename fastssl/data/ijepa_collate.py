"""Batches of images with the masks of I-JEPA."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from fastssl.transforms import _draw_masks as draw
from fastssl.transforms import masks
from fastssl.transforms._checks import check_range, check_sides, check_whole
from fastssl.transforms.keys import Keys

__all__ = ["IJEPAMaskCollator"]

_SIZES_SEED = 0  # every process of every rank draws the same sizes for the same step


class IJEPAMaskCollator:
    """Collates images and draws what an I-JEPA encoder sees of each and what its predictor predicts.

    The places of blocks follow torch's generator, and so `torch.manual_seed` and the seeds of DataLoader workers; their
    sizes follow a counter of batches that all workers share, and so agree on all ranks. All masks of a batch are cut to the
    length of its shortest, as in the paper. It collates on the CPU; `fastssl.transforms.masks.multi_block` draws the same as a
    function of the samples' indices, on any device, and `fastssl.transforms.masks.positions` cuts, which waits for a GPU.

    lightly's class repeats slips of I-JEPA's published code, which this one does not: there, the last row and column of
    patches are never seen nor predicted, one number decides both the scale and the aspect of the targets, and `min_keep` is to
    be exceeded; and it never returns where a block is drawn that is not larger than `min_keep`.

    Args:
        input_size: Side, or height and width, of the images in pixels.
        patch_size: Side of a patch in pixels.
        enc_mask_scale: Least and greatest part of the image that the encoder's block covers, before the targets are
            taken out of it; it is square.
        pred_mask_scale: Least and greatest part of the image that a target covers.
        aspect_ratio: Least and greatest height over width of a target.
        nenc: Blocks to see, each image.
        npred: Targets, each image; they may overlap each other.
        min_keep: Least number of patches that a block to see keeps.
        allow_overlap: Whether targets stay in the encoder's block.

    Raises:
        ValueError: An argument is out of its range, or `min_keep` is more than the smallest block has.

    Source: Assran et al., I-JEPA, 2023, arXiv:2301.08243, section 3.

    >>> import torch
    >>> batch, seen, predicted = IJEPAMaskCollator(64, patch_size=16)([torch.zeros(3, 64, 64)] * 2)
    >>> batch.shape, len(seen), len(predicted), seen[0].dtype
    (torch.Size([2, 3, 64, 64]), 1, 2, torch.int64)
    """

    def __init__(
        self,
        input_size: int | tuple[int, int] = (224, 224),
        patch_size: int = 16,
        enc_mask_scale: tuple[float, float] = (0.2, 0.8),
        pred_mask_scale: tuple[float, float] = (0.2, 0.8),
        aspect_ratio: tuple[float, float] = (0.3, 3.0),
        nenc: int = 1,
        npred: int = 2,
        min_keep: int = 4,
        allow_overlap: bool = False,
    ) -> None:
        who = type(self).__name__
        self.patch_size = check_whole(who, "patch_size", patch_size, 1)
        pair = input_size if isinstance(input_size, Sequence) else (input_size, input_size)
        sides = check_sides(who, "input_size", pair, (self.patch_size,) * 2, "a side or (height, width) in pixels")
        self.height, self.width = (side // self.patch_size for side in sides)
        check_whole(who, "patches of input_size", self.height * self.width, 1, 2**draw.CELLS_BITS)
        self.enc_mask_scale = check_range(who, "enc_mask_scale", enc_mask_scale)
        self.pred_mask_scale = check_range(who, "pred_mask_scale", pred_mask_scale)
        self.aspect_ratio = check_range(who, "aspect_ratio", aspect_ratio, 0, draw.MAX_ASPECT, open_low=True)
        self.nenc = check_whole(who, "nenc", nenc, 1, draw.MAX_CONTEXTS)
        self.npred = check_whole(who, "npred", npred, 1, draw.MAX_TARGETS)
        self.min_keep = check_whole(who, "min_keep", min_keep, 0)
        self.allow_overlap = bool(allow_overlap)
        self._rules().check(who, "min_keep", "enc_mask_scale", (self.height, self.width))
        self._itr_counter = multiprocessing.Value("q", -1)  # shared with the workers that a DataLoader starts

    def _rules(self) -> draw.MultiBlockRules:
        return draw.MultiBlockRules(
            context_scale=self.enc_mask_scale,
            target_scale=self.pred_mask_scale,
            target_aspect=self.aspect_ratio,
            contexts=self.nenc,
            targets=self.npred,
            min_keep=self.min_keep,
            allow_overlap=self.allow_overlap,
            as_published=False,
        )

    def step(self) -> int:
        """Counts one batch more, over all workers, and returns its number; the first is 0."""
        with self._itr_counter.get_lock():
            self._itr_counter.value += 1
            return self._itr_counter.value

    def __call__(self, batch: list[Any]) -> tuple[Any, list[Tensor], list[Tensor]]:
        """Collates a batch.

        Args:
            batch: B samples, at least one, of anything that torch's default_collate takes.

        Returns:
            What default_collate makes of the batch; `nenc` tensors of the patches to see, each (B, K); `npred` tensors
            of the patches to predict, each (B, T); int64, ascending.

        Raises:
            ValueError: batch is empty.
        """
        if len(batch) == 0:
            raise ValueError(f"{type(self).__name__}: batch is empty; it must hold at least one sample.")
        collated = default_collate(batch)
        grid, rules = (self.height, self.width), self._rules()
        keys = Keys.from_torch(draw.MULTI_BLOCK, len(batch), None)
        sizes = rules.sizes(_SIZES_SEED, 0, keys.stream, self.step(), grid)
        contexts, targets = draw.multi_block(keys, grid, rules, *sizes)
        return collated, _indices(contexts), _indices(targets)


def _indices(mask: Tensor) -> list[Tensor]:
    """The patches of each of N masks, (B, N, H, W), cut to the least number that any has; N tensors (B, K)."""
    together = masks.positions(mask.flatten(0, 1))
    return list(together.view(*mask.shape[:2], -1).unbind(1))
