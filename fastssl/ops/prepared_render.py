"""Rendering for CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastssl.ops.pixels import device_of, locate
from fastssl.ops.render import DTYPES, Encodable, check_format, check_plan, encode_recipe, native_views, new_outputs
from fastssl.ops.render_cuda import FixedLaunches, why_not

__all__ = ["PreparedRender"]


class PreparedRender:
    """A render on a GPU that a CUDA graph can hold: its launches and memory are the same for every plan.

    `update` takes a plan, outside of the graph; `launch`, which may be captured, renders by the plan last taken. A graph holds
    the addresses of this object's memory: keep it for as long as the graph, and update and replay on one stream. What the recipe
    may draw but a plan did not is launched for nothing, so that outside of graphs `fastssl.ops.render` is a little faster.

        prepared = fastssl.ops.PreparedRender(images, recipe, dtype=torch.bfloat16)
        prepared.update(Plan.draw(recipe, sizes, seed=0))
        with torch.cuda.graph(graph):
            prepared.launch()
        for epoch in range(epochs):
            prepared.update(Plan.draw(recipe, sizes, seed=0, epoch=epoch))
            graph.replay()                      # prepared.out holds the views

    Args:
        images: As for `fastssl.ops.render`, on a GPU.
        recipe: V views, without custom steps.
        dtype, channels_last: As for `fastssl.ops.render`.
        max_size: Height and width that no image will exceed; None for those of `images`.

    Attributes:
        out: V tensors, (B, C, S, S), which every launch fills anew.

    Raises:
        ValueError: There are no images, or they are not on a GPU, or max_size is no size, or a view has a custom
            step, or the type cannot be had.
    """

    def __init__(
        self,
        images: Sequence[Tensor] | Tensor,
        recipe: Sequence[Encodable],
        *,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        max_size: tuple[int, int] | None = None,
    ) -> None:
        encoded = encode_recipe(recipe)
        check_format("PreparedRender", encoded, dtype)
        if any(view.custom is not None for view in recipe):
            raise ValueError("PreparedRender: a view has a custom step, which it cannot hold; take fastssl.ops.render.")
        device = device_of(images)
        if device.type != "cuda":
            raise ValueError(f"PreparedRender: the images are on {device}; it serves GPUs. Take fastssl.ops.render.")
        if (reason := why_not(device)) is not None:
            raise RuntimeError(f"PreparedRender: {reason}.")
        self._recipe = recipe
        self._images = images
        self.out = new_outputs(images, encoded, dtype, channels_last)
        if not len(images):
            raise ValueError("PreparedRender: there are no images; an empty batch needs no graph.")
        most = max_size or tuple(max(size) for size in zip(*(image.shape[:2] for image in images), strict=True))
        if len(most) != 2 or not all(isinstance(side, int) and 1 <= side < 2**24 for side in most):
            raise ValueError(f"PreparedRender: max_size={max_size!r} must be (height, width), in pixels, at least 1.")
        self._fixed = FixedLaunches(native_views(encoded), self.out, DTYPES[dtype], channels_last, (most[0], most[1]))

    def update(self, plan: Any, images: Sequence[Tensor] | Tensor | None = None) -> None:
        """Takes a plan for the launches to come, in the order of torch's current stream, which must not be capturing.

        Args:
            plan: For these images and this recipe: a `Plan` or its `data`.
            images: Others than before, as many, of the same type and number of channels, each at most `max_size`.

        Raises:
            ValueError: The plan does not fit, or holds what the recipe never draws, or the images differ from the first ones.
            RuntimeError: The current stream is capturing a graph, which would hold this one plan.
        """
        images = self._images if images is None else images
        if device_of(images) != self.out[0].device:
            raise ValueError(
                f"PreparedRender: the images are on {device_of(images)}, and it was made for {self.out[0].device}; move "
                "them there."
            )
        data = check_plan(plan, images, self._recipe)
        self._fixed.update(locate(images), data)
        self._images = images  # the launches read them

    def launch(self) -> list[Tensor]:
        """Renders into `out`, in the order of torch's current stream, by the plan last taken.

        Raises:
            RuntimeError: There was no plan yet.
        """
        self._fixed.launch()
        return self.out
