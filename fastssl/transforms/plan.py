"""What was drawn for a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastssl._native import _C, PLAN_FIELDS
from fastssl.ops.render import encode_recipe, native_views
from fastssl.transforms.view import Recipe

__all__ = ["Plan", "check_key"]

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.uint8)
_COLUMN = {name: i for i, name in enumerate(PLAN_FIELDS)}


class Plan:
    """What was drawn for V views of each of B images: crops, flips, colours, blur.

    Each field is a (B, V) tensor that shares the plan's memory, so `plan.hue.zero_()` edits the plan, as `plan.hue = 0` does;
    `fastssl.ops.render` takes an edited or stored plan.

    Fields: `top`, `left`, `height`, `width` of the crop in pixels of the source; `flip_h`, `flip_v` (0 or 1); `turns`
    (quarter turns counter-clockwise); `angle` (degrees counter-clockwise about the middle); `brightness`, `contrast`,
    `saturation` (1: unchanged); `hue` (part of the circle, 0: unchanged); `order0` to `order3` (0 brightness, 1 contrast, 2
    saturation, 3 hue); `grayscale` (0 or 1); `sigma_px` (0: not blurred); `solarize` (threshold in [0, 1], infinity: not
    solarized); `posterize` (bits kept, 8: all); `erase_top`, `erase_left`, `erase_height`, `erase_width` (in pixels of the
    view; 0 high: nothing erased); `source_height`, `source_width`.

    Args:
        data: (B, V, len(Plan.FIELDS)), float32.
    """

    FIELDS = PLAN_FIELDS
    data: Tensor

    def __init__(self, data: Tensor) -> None:
        if (
            not isinstance(data, Tensor)
            or data.dtype != torch.float32
            or data.dim() != 3
            or data.shape[2] != len(PLAN_FIELDS)
        ):
            shape = tuple(data.shape) if isinstance(data, Tensor) else type(data).__name__
            raise ValueError(f"Plan: got {shape}; it wraps a float32 tensor (images, views, {len(PLAN_FIELDS)}).")
        object.__setattr__(self, "data", data)

    @staticmethod
    def draw(
        recipe: Recipe,
        sizes: Sequence[tuple[int, int]] | Tensor | np.ndarray,
        *,
        seed: int,
        epoch: int = 0,
        indices: Sequence[int] | Tensor | None = None,
    ) -> Plan:
        """Draws a plan; a pure function of its arguments, image by image.

        Args:
            recipe: V views.
            sizes: (height, width) of each of B images, in pixels; or a tensor or array of whole numbers, (B, 2).
            seed: 0 to 2^64 - 1.
            epoch: 0 to 2^32 - 1.
            indices: The images' indices in their source; None for 0 to B - 1.

        Raises:
            ValueError: An argument is out of its range.

        >>> from fastssl.recipes import evaluation
        >>> Plan.draw(evaluation(224, keep=1.0), [(300, 400)], seed=0).crop
        tensor([[[  0.,  50., 300., 300.]]])
        """
        views = native_views(encode_recipe(recipe))
        check_key("Plan.draw", seed, epoch)
        if isinstance(sizes, np.ndarray):
            sizes = torch.as_tensor(sizes, device="cpu")
        sizes = _to_array("sizes", sizes, 2) if isinstance(sizes, Tensor) else tuple(sizes)
        if isinstance(indices, Tensor):
            indices = _to_array("indices", indices, 1)
        # Type and device by name: the defaults may be others.
        data = torch.empty((len(sizes), len(recipe), len(PLAN_FIELDS)), dtype=torch.float32, device="cpu")
        _C.draw(views, sizes, seed, epoch, indices, 0, data.data_ptr())
        return Plan(data)

    @staticmethod
    def cat(plans: Iterable[Plan]) -> Plan:
        """One plan for the images of several, in order."""
        return Plan(torch.cat([plan.data for plan in plans]))

    @property
    def crop(self) -> Tensor:
        """Top, left, height and width, (B, V, 4)."""
        return self.data[:, :, :4]

    @property
    def jitter_order(self) -> Tensor:
        """The order of brightness (0), contrast (1), saturation (2) and hue (3), (B, V, 4)."""
        return self.data[:, :, _COLUMN["order0"] : _COLUMN["order3"] + 1]

    def __getattr__(self, name: str) -> Tensor:
        if name not in _COLUMN:
            raise AttributeError(f"Plan has no {name!r}; its fields are {', '.join(PLAN_FIELDS)}.")
        return self.data[:, :, _COLUMN[name]]

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _COLUMN:
            raise AttributeError(f"Plan: {name!r} cannot be set; its fields are {', '.join(PLAN_FIELDS)}.")
        self.data[:, :, _COLUMN[name]] = value

    def __getitem__(self, which: Any) -> Plan:
        """The plan of some of the images: an index, a slice, or a tensor of indices."""
        data = self.data[which]
        return Plan(data[None] if data.dim() == 2 else data)

    def __len__(self) -> int:
        return self.data.shape[0]

    def __reduce__(self) -> tuple[Any, tuple[tuple[str, ...], Tensor]]:
        return _restore, (PLAN_FIELDS, self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and torch.equal(self.data, other.data)

    __hash__ = None  # type: ignore[assignment]  # editable, so not hashable

    def __repr__(self) -> str:
        return f"Plan({self.data.shape[0]} images, {self.data.shape[1]} views)"


def _to_array(name: str, numbers: Tensor, dim: int) -> Any:
    """A tensor of whole numbers as native code takes it, int64 and contiguous."""
    if numbers.dim() != dim or (dim == 2 and numbers.shape[1] != 2) or numbers.dtype not in _WHOLE:
        shape = "(images, 2)" if dim == 2 else "(images,)"
        raise ValueError(
            f"Plan.draw: {name} is {numbers.dtype}, {tuple(numbers.shape)}; a tensor of {name} is of whole numbers, {shape}."
        )
    return numbers.detach().to("cpu", torch.int64).contiguous().numpy()


def _restore(fields: tuple[str, ...], data: Tensor) -> Plan:
    """A stored plan, whose fields may be those of another release."""
    if fields != PLAN_FIELDS:
        raise ValueError(
            f"Plan: it was stored with the fields {fields}, and this release has {PLAN_FIELDS}; draw it again."
        )
    return Plan(data)


def check_key(who: str, seed: Any, epoch: Any) -> None:
    """Raises ValueError where seed or epoch cannot key a draw."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise ValueError(f"{who}: seed={seed!r} must be a whole number from 0 to 2^64 - 1.")
    if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch < 2**32:
        raise ValueError(f"{who}: epoch={epoch!r} must be a whole number from 0 to 2^32 - 1.")
