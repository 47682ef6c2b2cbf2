"""Pixels and a plan become views."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from fastssl._native import _C, PLAN_FIELDS
from fastssl.ops import render_cuda
from fastssl.ops.pixels import channels_of, device_of, locate
from fastssl.ops.threads import check_threads, get_num_threads

__all__ = [
    "DTYPES",
    "Encodable",
    "check_format",
    "encode_recipe",
    "check_plan",
    "native_views",
    "new_outputs",
    "render",
    "render_after",
]

DTYPES = {
    torch.float32: _C.DType.float32,
    torch.float16: _C.DType.float16,
    torch.bfloat16: _C.DType.bfloat16,
    torch.uint8: _C.DType.uint8,
}


class Encodable(Protocol):
    """A view that can say what it is in JSON; `fastssl.transforms.View`."""

    @property
    def custom(self) -> Callable[[Tensor], Tensor] | None: ...

    def encode(self) -> str: ...


def encode_recipe(recipe: Sequence[Encodable], only: Sequence[int] | None = None) -> str:
    """A recipe as JSON, which the operators take because an operator's arguments are tensors, numbers and strings.

    `only`: the indices of some of its views, to render what was drawn for all of them.
    """
    if isinstance(recipe, str) or not isinstance(recipe, Sequence) or not recipe:
        raise TypeError(f"recipe: got {recipe!r}; it is a tuple of View, such as fastssl.recipes.simclr(224).")
    for view in recipe:
        if not hasattr(view, "encode"):
            raise TypeError(f"recipe: got {type(view).__name__} in it; a recipe is a tuple of View.")
    views = [view.encode() for view in recipe]
    if only is None and not any('"same"' in view for view in views):
        return "[" + ",".join(views) + "]"
    fields = [json.loads(view) for view in views]
    for i, view in enumerate(fields):
        if view["crop"] == "same" and view["of"] < i:  # rotated as the other view is
            view["rotate_filter"] = fields[view["of"]].get("rotate_filter", "nearest")
    return json.dumps(fields if only is None else [{**fields[v], "of": -1} for v in only])


_ENUMS = {
    "crop": _C.CropKind,
    "filter": _C.Filter,
    "rotate_filter": _C.RotateFilter,
    "blur": _C.BlurKind,
    "part": _C.Part,
}


Part = Literal["all", "before_custom", "after_custom"]


@functools.lru_cache(maxsize=256)
def native_views(encoded: str, part: str = "all") -> tuple[Any, ...]:
    """The native form of an encoded recipe, or of what comes before or after the steps of the user's own."""
    specs: list[Any] = []
    for fields in json.loads(encoded):
        if fields.get("of", -1) >= len(specs):
            raise ValueError(
                f"recipe: view {len(specs)} takes its crop from view {fields['of']}; it must be one of those before it."
            )
        spec = _C.ViewSpec()
        for name, value in fields.items():
            if name == "steps":
                value = [getattr(_C.Step, step) for step in value]
            elif name in _ENUMS:
                value = getattr(_ENUMS[name], value)
            setattr(spec, name, value)
        spec.part = getattr(_C.Part, part)
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
    for view in native_views(encoded) if dtype == torch.uint8 else ():
        if view.erase_p > 0 and not 0 <= view.erase_value <= 1:
            raise ValueError(
                f"{who}: dtype=torch.uint8 cannot hold Erase(value={view.erase_value:g}); take one from 0 to 1, which is white, "
                "or ask for a float type."
            )


def render(
    images: Sequence[Tensor] | Tensor,
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
        images: B images of any sizes, (H, W, C), uint8, uint16 (65535 is 1), or float32 in [0, 1], which is not checked on a
            GPU, as the call would have to wait; or one tensor, (B, H, W, C).
            All on one device, the CPU or a GPU, with as many channels; contrast, saturation, hue and grayscale need three.
            The channels of a pixel lie side by side, or are planes, as in (C, H, W) tensors seen through `permute(1, 2, 0)`.
        plan: What was drawn, for B images and V views: a `Plan` or its `data`, on the CPU.
        recipe: V views.
        dtype: float32, float16, bfloat16, or uint8 (which needs views that are not normalized).
        channels_last: Whether the memory of the result is in the order (B, S, S, C).
        threads: At most so many threads; None for `fastssl.get_num_threads()`.
        out: V tensors to write into, of the result's shapes, type and memory format; None for new ones.

    Returns:
        V tensors, (B, C, S, S), S being the view's size, on the images' device; `out` if that was given. A GPU makes them in the
        order of torch's current stream on it, and the call does not wait; its values are those of the CPU, bit for bit. Beside
        the result it takes up to 96 MiB from torch's allocator for a while, and some pinned memory, also where `out` is given.

    Raises:
        ValueError: The plan does not fit the images or the recipe, or the type cannot be had.
        TypeError: An image is not (H, W, C), uint8, uint16 or float32.
        RuntimeError: The images are on a GPU, and this build has no CUDA, or a CUDA graph is being captured.

    Max error: 1/255 of the range of a channel before normalization, against float64, but where a value lies at a threshold of
        solarize or posterize, or a rotation's nearest pixel is undecided, to 1e-3 of a channel and 1e-4 pixels.
    """
    encoded = encode_recipe(recipe)
    data = check_plan(plan, images, recipe)
    count = 0 if threads is None else check_threads("render", threads)  # 0: decided when it runs
    check_format("render", encoded, dtype)
    if out is not None:
        _check_out(out, images, encoded, dtype, channels_last)
    if any(view.custom is not None for view in recipe):
        return _render_custom(images, data, recipe, dtype, channels_last, count, out)
    if out is not None:
        _render_into(images, data, encoded, "all", dtype, channels_last, count, out)
        return list(out)
    return _call(images, data, encoded, "all", dtype, channels_last, count)


def check_plan(plan: Any, images: Sequence[Tensor] | Tensor, recipe: Sequence[Encodable]) -> Tensor:
    """A plan's numbers, contiguous. Raises TypeError or ValueError where they do not fit the number of images and views."""
    data: Tensor = getattr(plan, "data", plan)
    if not isinstance(data, Tensor) or data.dtype != torch.float32 or data.device.type != "cpu":
        got = f"{data.dtype}, on {data.device}" if isinstance(data, Tensor) else type(data).__name__
        raise TypeError(f"render: plan must be a Plan, or its data, a float32 tensor on the CPU; got {got}.")
    if data.shape != (len(images), len(recipe), len(PLAN_FIELDS)):
        raise ValueError(
            f"render: the plan has shape {tuple(data.shape)}; {len(images)} images, {len(recipe)} views and "
            f"{len(PLAN_FIELDS)} numbers a view need {(len(images), len(recipe), len(PLAN_FIELDS))}."
        )
    return data.contiguous()


def render_after(
    view: Encodable,
    batch: Tensor,
    plan: Tensor,
    *,
    dtype: torch.dtype,
    channels_last: bool,
    threads: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Applies a view's custom step to a batch rendered up to it, then the steps after it.

    Args:
        view: Has a custom step.
        batch: (B, C, S, S), float32 in [0, 1], contiguous.
        plan: (B, len(PLAN_FIELDS)), this view's part of the plan.
        dtype, channels_last, threads, out: As for `render`.

    Raises:
        ValueError: The step returned another shape or type, or values that are not finite. What lies outside [0, 1] is clamped.
    """
    assert view.custom is not None
    result = view.custom(batch)
    if not isinstance(result, Tensor) or result.shape != batch.shape or result.dtype != torch.float32:
        got = f"{result.dtype}, {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(
            f"View: the custom step returned {got}; it must return what it was given, float32, {tuple(batch.shape)}, in [0, 1]."
        )
    if not torch.compiler.is_compiling() and not bool(result.isfinite().all()):
        raise ValueError("View: the custom step returned values that are infinite or not a number.")
    images = result.detach().to(batch.device).clamp(0, 1).contiguous().permute(0, 2, 3, 1)
    count = 0 if threads is None else check_threads("render", threads)
    arguments = (images, plan[:, None], encode_recipe([view], [0]), "after_custom", dtype, channels_last, count)
    if out is not None:
        _render_into(*arguments, [out])
        return out
    return _call(*arguments)[0]


def _render_custom(
    images: Sequence[Tensor] | Tensor,
    plan: Tensor,
    recipe: Sequence[Encodable],
    dtype: torch.dtype,
    channels_last: bool,
    threads: int,
    out: Sequence[Tensor] | None,
) -> list[Tensor]:
    """Views with a step of the user's own in two parts around it, the others at once."""
    results: list[Tensor | None] = [None] * len(recipe) if out is None else list(out)
    for own, part in ((False, "all"), (True, "before_custom")):
        which = [v for v, view in enumerate(recipe) if (view.custom is not None) == own]
        if not which:
            continue
        encoded = encode_recipe(recipe, which)
        form = (torch.float32, False) if own else (dtype, channels_last)
        arguments = (images, plan[:, which], encoded, part, *form, threads)
        if own or out is None:
            rendered = _call(*arguments)
        else:
            rendered = [out[v] for v in which]
            _render_into(*arguments, rendered)
        for v, batch in zip(which, rendered, strict=True):
            results[v] = batch
            if own:
                results[v] = render_after(
                    recipe[v],
                    batch,
                    plan[:, v],
                    dtype=dtype,
                    channels_last=channels_last,
                    threads=threads or None,
                    out=None if out is None else out[v],
                )
    return results  # type: ignore[return-value]


def _check_out(
    out: Sequence[Tensor], images: Sequence[Tensor] | Tensor, encoded: str, dtype: torch.dtype, channels_last: bool
) -> None:
    views = native_views(encoded)
    if len(out) != len(views):
        raise ValueError(f"render: out has {len(out)} tensors; the recipe has {len(views)} views.")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for i, (tensor, view) in enumerate(zip(out, views, strict=True)):
        shape, device = (len(images), channels_of(images), view.size, view.size), device_of(images)
        right = tensor.shape == shape and tensor.dtype == dtype and tensor.device == device
        if not right or not tensor.is_contiguous(memory_format=layout):
            raise ValueError(
                f"render: out[{i}] is {tuple(tensor.shape)}, {tensor.dtype}, on {tensor.device}, with strides {tensor.stride()}; "
                f"it must be {shape}, {dtype}, on {device}, in {layout}."
            )


def new_outputs(
    images: Sequence[Tensor] | Tensor, encoded: str, dtype: torch.dtype, channels_last: bool
) -> list[Tensor]:
    """Tensors for the views of these images, on their device."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    form: dict[str, Any] = {"dtype": dtype, "memory_format": layout, "device": device_of(images)}
    shape = (len(images), channels_of(images))
    return [torch.empty((*shape, view.size, view.size), **form) for view in native_views(encoded)]


def _render(
    images: Sequence[Tensor] | Tensor,
    plan: Tensor,
    recipe: str,
    part: str,
    dtype: torch.dtype,
    channels_last: bool,
    threads: int,
) -> list[Tensor]:
    out = new_outputs(images, recipe, dtype, channels_last)
    _render_into(images, plan, recipe, part, dtype, channels_last, threads, out)
    return out


def _call(images: Sequence[Tensor] | Tensor, *arguments: Any) -> list[Tensor]:
    # An operator takes no tensor in place of a list. It costs more than the call itself.
    return _render_op(list(images), *arguments) if torch.compiler.is_compiling() else _render(images, *arguments)


def _check_range(images: Sequence[Tensor] | Tensor) -> None:
    for i, image in enumerate(images):
        if image.dtype != torch.float32 or not image.numel():
            continue
        low, high = (float(v) for v in image.aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"render: image {i} has values from {low:g} to {high:g}; float32 images are in [0, 1]: divide one that "
                "counts to 255 by 255, or give it as uint8."
            )


def _render_into(
    images: Sequence[Tensor] | Tensor,
    plan: Tensor,
    recipe: str,
    part: str,
    dtype: torch.dtype,
    channels_last: bool,
    threads: int,
    out: Sequence[Tensor],
) -> None:
    pixels = locate(images)
    plan = plan.contiguous()
    specs = native_views(recipe, part)
    if out and out[0].device.type == "cuda":
        render_cuda.launch(pixels, plan, specs, out, DTYPES[dtype], channels_last)
        return
    if part != "after_custom":
        _check_range(images)
    _C.render(
        specs,
        pixels.table,
        pixels.number,
        pixels.step,
        plan.data_ptr(),
        [t.data_ptr() for t in out],
        DTYPES[dtype],
        channels_last,
        threads or get_num_threads(),
    )


@torch.library.custom_op("fastssl::render", mutates_args=())
def _render_op(
    images: list[Tensor], plan: Tensor, recipe: str, part: str, dtype: torch.dtype, channels_last: bool, threads: int
) -> list[Tensor]:
    return _render(list(images), plan, recipe, part, dtype, channels_last, threads)


@_render_op.register_fake
def _(
    images: list[Tensor], plan: Tensor, recipe: str, part: str, dtype: torch.dtype, channels_last: bool, threads: int
) -> list[Tensor]:
    return new_outputs(images, recipe, dtype, channels_last)
