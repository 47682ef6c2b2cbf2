"""Pixels and a plan become views."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fastssl._native import _C, PLAN_FIELDS
from fastssl.ops.threads import check_threads, get_num_threads

__all__ = ["DTYPES", "Encodable", "check_format", "encode_recipe", "native_views", "render"]

DTYPES = {
    torch.float32: _C.DType.float32,
    torch.float16: _C.DType.float16,
    torch.bfloat16: _C.DType.bfloat16,
    torch.uint8: _C.DType.uint8,
}


class Encodable(Protocol):
    """A view that can say what it is in JSON; `fastssl.transforms.View`."""

    def encode(self) -> str: ...


def encode_recipe(recipe: Sequence[Encodable]) -> str:
    """A recipe as JSON, which the operators take because an operator's arguments are tensors, numbers and strings."""
    if isinstance(recipe, str) or not isinstance(recipe, Sequence) or not recipe:
        raise TypeError(f"recipe: got {recipe!r}; it is a tuple of View, such as fastssl.recipes.simclr(224).")
    for view in recipe:
        if not hasattr(view, "encode"):
            raise TypeError(f"recipe: got {type(view).__name__} in it; a recipe is a tuple of View.")
    return "[" + ",".join(view.encode() for view in recipe) + "]"


_ENUMS = {
    "crop": _C.CropKind,
    "filter": _C.Filter,
    "rotate_filter": _C.RotateFilter,
    "blur": _C.BlurKind,
    "part": _C.Part,
}


@functools.lru_cache(maxsize=256)
def native_views(encoded: str) -> tuple[Any, ...]:
    """The native form of an encoded recipe."""
    specs = []
    for fields in json.loads(encoded):
        spec = _C.ViewSpec()
        for name, value in fields.items():
            if name == "steps":
                value = [getattr(_C.Step, step) for step in value]
            elif name in _ENUMS:
                value = getattr(_ENUMS[name], value)
            setattr(spec, name, value)
        specs.append(spec)
    return tuple(specs)


def check_format(who: str, encoded: str, dtype: torch.dtype) -> None:
    """Raises ValueError where views of `dtype` cannot be had."""
    if dtype not in DTYPES:
        raise ValueError(f"{who}: dtype={dtype} must be one of {', '.join(str(d) for d in DTYPES)}.")
    if dtype == torch.uint8 and any(view.mean for view in native_views(encoded)):
        raise ValueError(
            f"{who}: dtype=torch.uint8 cannot hold normalized values; write View(..., normalize=None), or ask for a float type."
        )


def render(
    images: Sequence[Tensor],
    plan: Any,
    recipe: Sequence[Encodable],
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    threads: int | None = None,
    out: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Makes the views of a batch of images, as a plan says.

    The same images, plan and recipe give the same bytes, whatever the number of threads.

    Args:
        images: B images of any sizes, (H, W, 3), uint8, on the CPU, each with contiguous rows.
        plan: What was drawn, for B images and V views: a `Plan` or its `data`.
        recipe: V views.
        dtype: float32, float16, bfloat16, or uint8 (which needs views that are not normalized).
        channels_last: Whether the memory of the result is in the order (B, S, S, 3).
        threads: At most so many threads; None for `fastssl.get_num_threads()`.
        out: V tensors to write into, of the result's shapes, type and memory format; None for new ones.

    Returns:
        V tensors, (B, 3, S, S), S being the view's size; `out` if that was given.

    Raises:
        ValueError: The plan does not fit the images or the recipe, or the type cannot be had.
        TypeError: An image is not (H, W, 3) uint8.

    Max error: 1/255 of the range of a channel before normalization, against float64.
    """
    encoded = encode_recipe(recipe)
    data: Tensor = getattr(plan, "data", plan)
    if not isinstance(data, Tensor) or data.dtype != torch.float32:
        raise TypeError("render: plan must be a Plan, or its data, a float32 tensor.")
    if data.shape != (len(images), len(recipe), len(PLAN_FIELDS)):
        raise ValueError(
            f"render: the plan has shape {tuple(data.shape)}; {len(images)} images, {len(recipe)} views and "
            f"{len(PLAN_FIELDS)} numbers a view need {(len(images), len(recipe), len(PLAN_FIELDS))}."
        )
    count = 0 if threads is None else check_threads("render", threads)  # 0: decided when it runs
    if out is not None:
        check_format("render", encoded, dtype)
        _check_out(out, len(images), encoded, dtype, channels_last)
        _render_into(list(images), data, encoded, dtype, channels_last, count, out)
        return list(out)
    call = _render_op if torch.compiler.is_compiling() else _render
    return call(list(images), data, encoded, dtype, channels_last, count)


def _check_out(out: Sequence[Tensor], n: int, encoded: str, dtype: torch.dtype, channels_last: bool) -> None:
    views = native_views(encoded)
    if len(out) != len(views):
        raise ValueError(f"render: out has {len(out)} tensors; the recipe has {len(views)} views.")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for i, (tensor, view) in enumerate(zip(out, views, strict=True)):
        shape = (n, 3, view.size, view.size)
        right = tensor.shape == shape and tensor.dtype == dtype and tensor.device.type == "cpu"
        if not right or not tensor.is_contiguous(memory_format=layout):
            raise ValueError(
                f"render: out[{i}] is {tuple(tensor.shape)}, {tensor.dtype}, on {tensor.device}, with strides {tensor.stride()}; "
                f"it must be {shape}, {dtype}, on the CPU, in {layout}."
            )


def _outputs(n: int, encoded: str, dtype: torch.dtype, channels_last: bool) -> list[Tensor]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.empty((n, 3, view.size, view.size), dtype=dtype, memory_format=layout) for view in native_views(encoded)
    ]


def _render(
    images: list[Tensor], plan: Tensor, recipe: str, dtype: torch.dtype, channels_last: bool, threads: int
) -> list[Tensor]:
    check_format("render", recipe, dtype)
    out = _outputs(len(images), recipe, dtype, channels_last)
    _render_into(images, plan, recipe, dtype, channels_last, threads, out)
    return out


def _render_into(
    images: list[Tensor],
    plan: Tensor,
    recipe: str,
    dtype: torch.dtype,
    channels_last: bool,
    threads: int,
    out: Sequence[Tensor],
) -> None:
    table = []
    for i, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise TypeError(
                f"render: image {i} is a {type(image).__name__}; images are uint8 tensors, (H, W, 3), which "
                "fastssl.ops.to_image makes."
            )
        if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[2] != 3 or image.device.type != "cpu":
            raise TypeError(
                f"render: image {i} is {image.dtype}, {tuple(image.shape)}, on {image.device}; images are uint8, (H, W, 3), on "
                "the CPU. fastssl.ops.to_image makes them from arrays, PIL images, bytes and paths."
            )
        if image.stride(2) != 1 or image.stride(1) != 3:
            image = images[i] = image.contiguous()
        table.append((image.data_ptr(), image.shape[0], image.shape[1], image.stride(0), 3, _C.PixelType.uint8))
    plan = plan.contiguous()
    _C.render(
        native_views(recipe),
        table,
        plan.data_ptr(),
        [t.data_ptr() for t in out],
        DTYPES[dtype],
        channels_last,
        threads or get_num_threads(),
    )


@torch.library.custom_op("fastssl::render", mutates_args=())
def _render_op(
    images: list[Tensor], plan: Tensor, recipe: str, dtype: torch.dtype, channels_last: bool, threads: int
) -> list[Tensor]:
    return _render(list(images), plan, recipe, dtype, channels_last, threads)


@_render_op.register_fake
def _(
    images: list[Tensor], plan: Tensor, recipe: str, dtype: torch.dtype, channels_last: bool, threads: int
) -> list[Tensor]:
    return _outputs(len(images), recipe, dtype, channels_last)
