"""The CUDA kernels beside the CPU executor, whose bits theirs must be; on a GPU, or compiled for the host.

`compare` renders with both. Whatever memory the kernels need not touch is filled with what shows: beside the images and
outputs lie numbers that stay or spoil the result, and outputs begin anywhere.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastssl import ops
from fastssl._native import _C
from fastssl.ops import pixels, render_cuda
from fastssl.transforms import (
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Jitter,
    Normalize,
    Plan,
    Posterize,
    QuarterTurn,
    Resize,
    Rotate,
    SameCrop,
    Solarize,
    View,
)

ORDERS = {"forward": 0, "backward": 1, "shuffled": 2}  # of a block's threads; csrc/cuda/emulator.h
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)
_render = importlib.import_module("fastssl.ops.render")  # the module, whose name in `ops` is the function's
TYPES = (np.uint8, np.uint16, np.float32)
LAYOUTS = ("packed", "planes", "padded", "padded planes", "anywhere")


# --- the kernels ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def kernels(workspace_bytes: int = render_cuda.WORKSPACE_BYTES, order: str = "forward") -> Iterator[None]:
    """`ops.render` takes the kernels: for tensors on the CPU as well, in this order of threads; and so much workspace."""

    def render_into(images, plan, recipe, part, dtype, channels_last, threads, out):
        located = pixels.locate(images)
        specs = _render.native_views(recipe, part)
        render_cuda.launch(
            located, plan.contiguous(), specs, out, _render.DTYPES[dtype], channels_last, workspace_bytes
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_render, "_render_into", render_into)
        _C.emulator_order(ORDERS[order])
        try:
            yield
        finally:
            _C.emulator_order(0)


def launches(images: Sequence[Tensor] | Tensor, plan: Plan, recipe: Sequence[View], workspace_bytes: int) -> int:
    """How many launches a float32 batch takes."""
    located = pixels.locate(images)
    outputs = [0] * len(recipe)
    specs = _render.native_views(_render.encode_recipe(recipe))
    prepared = _C.prepare_render(
        specs,
        located.table,
        located.number,
        located.step,
        plan.data.data_ptr(),
        outputs,
        _C.DType.float32,
        False,
        workspace_bytes,
    )
    return prepared.launches


# --- memory -----------------------------------------------------------------------------------------------------------


def place(image: np.ndarray, layout: str, device: str) -> Tensor:
    """The image, (H, W, C), on the device, laid out so; what lies around it is white or not a number."""
    height, width, channels = image.shape
    beside = float("nan") if image.dtype == np.float32 else np.iinfo(image.dtype).max

    def around(shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, beside, image.dtype)

    def send(memory: np.ndarray) -> Tensor:
        return torch.from_numpy(memory).to(device)

    if layout == "packed":
        return send(np.ascontiguousarray(image))
    if layout == "planes":
        return send(np.ascontiguousarray(image.transpose(2, 0, 1))).permute(1, 2, 0)
    if layout == "padded":
        memory = around((height + 2, width + 3, channels))
        memory[1:-1, 1:-2] = image
        return send(memory)[1:-1, 1:-2]
    if layout == "padded planes":
        memory = around((channels + 1, height + 2, width + 5))
        memory[1:, 1:-1, 3:-2] = image.transpose(2, 0, 1)
        return send(memory)[1:, 1:-1, 3:-2].permute(1, 2, 0)
    assert layout == "anywhere"
    start = 1 + image.size % 7
    memory = around((start + image.size + 9,))
    memory[start:-9] = image.ravel()
    return send(memory)[start:-9].view(height, width, channels)


def outputs(
    count: int, channels: int, recipe: Sequence[View], dtype: torch.dtype, channels_last: bool, device: str, offset: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors to render into, `offset` elements from an aligned address, and the whole memory of each."""
    outs, memories = [], []
    for view in recipe:
        number = count * channels * view.size**2
        memory = torch.full((offset + number + 17,), 77, dtype=dtype, device=device)
        inner = memory[offset : offset + number]
        if channels_last:
            outs.append(inner.view(count, view.size, view.size, channels).permute(0, 3, 1, 2))
        else:
            outs.append(inner.view(count, channels, view.size, view.size))
        memories.append(memory)
    return outs, memories


def bits(tensor: Tensor) -> Tensor:
    """Its bytes, by which zeros of either sign differ."""
    return tensor.detach().cpu().flatten().clone().view(torch.uint8)


# --- cases ------------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    images: list[np.ndarray]
    recipe: tuple[View, ...]
    plan: Plan
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    layout: str = "packed"
    together: bool = False  # images of one size in one tensor
    offset: int | None = None  # None: the operator makes its own outputs
    workspace_bytes: int = render_cuda.WORKSPACE_BYTES

    def __str__(self) -> str:
        shapes = [(image.shape, str(image.dtype)) for image in self.images]
        others = {name: value for name, value in vars(self).items() if name not in ("images", "plan")}
        return f"{shapes}, {others}, {self.plan.data.tolist()}"

    @property
    def channels(self) -> int:
        return self.images[0].shape[2] if self.images else 3


def batch_of(case: Case, device: str) -> Sequence[Tensor] | Tensor:
    if not case.together:
        return [place(image, case.layout, device) for image in case.images]
    batch = np.stack(case.images)
    if "planes" in case.layout:
        return torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2))).to(device).permute(0, 2, 3, 1)
    if case.layout == "padded":
        wide = np.pad(batch, ((0, 0), (1, 2), (2, 1), (0, 0)), constant_values=1)
        return torch.from_numpy(wide).to(device)[:, 1:-2, 2:-1]
    return torch.from_numpy(batch).to(device)


@functools.lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**16, 1 << 20, dtype=np.uint16)


def picture(shape: tuple[int, int, int], type: Any, seed: int = 0) -> np.ndarray:
    """(H, W, C): noise, with both ends of the type's range."""
    number = int(np.prod(shape))
    values = np.resize(np.roll(_noise(), 7919 * seed), number)
    values[7 :: 11 + number // 9] = (0, 65535)[seed % 2]
    if type == np.uint8:
        values = values >> 8
    return (values / np.float32(65535) if type == np.float32 else values).astype(type).reshape(shape)


def negative(batch: Tensor) -> Tensor:
    return 1 - batch


def draw_view(draw: random.Random, size: int, channels: int, dtype: torch.dtype, earlier: int) -> View:
    """A view in which much happens, of which any part may be left out."""
    steps = ["crop", "blur", "solarize", "posterize"] + (["jitter", "grayscale"] if channels == 3 else [])
    draw.shuffle(steps)
    if draw.random() < 0.6:  # as most recipes have it
        steps.remove("crop")
        steps.insert(0, "crop")
    custom = draw.random() < 0.2
    if custom:
        steps.insert(draw.randint(steps.index("crop") + 1, len(steps)), "custom")

    def maybe(part: Any, p: float) -> Any:
        return part if draw.random() < p else None

    filter = draw.choice(("bilinear", "bicubic"))
    area = draw.choice(((0.08, 1.0), (0.001, 0.05), (0.9, 1.0)))
    crop: Any = draw.choice((Crop, Crop, Crop, CenterCrop, Resize, SameCrop))
    parts: dict[str, Any] = {}
    if crop is SameCrop and earlier:
        parts["crop"] = SameCrop(size=size, of=draw.randrange(earlier), interpolation=filter)
    else:
        inside = draw.randrange(earlier) if earlier and draw.random() < 0.3 else None
        own = {"area": area, "inside": inside} if crop in (Crop, SameCrop) else {}
        parts["crop"] = (Crop if crop is SameCrop else crop)(size=size, interpolation=filter, **own)
        rotation = draw.choice(("nearest", "bilinear"))
        parts |= {
            "flip": maybe(Flip(), 0.7),
            "vflip": maybe(Flip(), 0.5),
            "turn": maybe(QuarterTurn(p=0.8, turns=(1, 2, 3)), 0.5),
            "rotate": maybe(Rotate(p=0.8, degrees=draw.choice((10, 180)), interpolation=rotation), 0.4),
        }
    if channels == 3:
        jitter = Jitter(p=0.9, brightness=0.8, contrast=draw.choice((0, 0.8)), saturation=0.8, hue=0.5)
        parts |= {"jitter": maybe(jitter, 0.8), "grayscale": maybe(Grayscale(p=0.3), 0.5)}
    sigma = draw.choice(((0.1, 2.0), (0.1, 2.0), (3.0, 9.0), (12.0, 60.0)))
    parts |= {
        "blur": maybe(Blur(p=0.8, sigma_px=sigma, kind=draw.choice(("gaussian", "box"))), 0.6),
        "solarize": maybe(Solarize(p=0.6, threshold=draw.choice((0, 100, 128, 256))), 0.4),
        "posterize": maybe(Posterize(p=0.6, bits=draw.randint(0, 8)), 0.3),
        "erase": maybe(Erase(p=0.8, value=draw.choice((0.0, -0.0, 0.5, 1.0))), 0.4),
        "custom": negative if custom else None,
        "normalize": None,
    }
    if dtype != torch.uint8 and draw.random() < 0.6:
        mean = [draw.choice((0.0, 0.3, 0.5)) for _ in range(channels)]
        parts["normalize"] = Normalize(mean=mean, std=[draw.choice((0.2, 1.0)) for _ in range(channels)])
    return View(**parts, order=tuple(steps))


def draw_case(draw: random.Random, largest: int = 70) -> Case:
    """Any; sides of views and images up to about `largest`."""
    channels = draw.choice((1, 2, 3, 3, 3, 3, 4, 5))
    dtype = draw.choice(DTYPES)
    count = draw.choice((0, 1, 1, 2, 3, 5))
    together = draw.random() < 0.3

    def side() -> int:
        return draw.choice((draw.randint(1, 8), draw.randint(1, largest), 4 * draw.randint(1, max(1, largest // 4))))

    recipe: list[View] = []
    for _ in range(draw.choice((1, 1, 2, 3))):
        recipe.append(draw_view(draw, side(), channels, dtype, len(recipe)))
    sizes = [(side(), side()) for _ in range(count)]
    if together and sizes:
        sizes = sizes[:1] * count
    images = []
    type = draw.choice(TYPES)
    mixed = not together and draw.random() < 0.2
    for i, size in enumerate(sizes):
        images.append(picture((*size, channels), draw.choice(TYPES) if mixed else type, seed=i))
    return Case(
        images=images,
        recipe=tuple(recipe),
        plan=Plan.draw(tuple(recipe), sizes, seed=draw.getrandbits(64), epoch=draw.randrange(100)),
        dtype=dtype,
        channels_last=draw.random() < 0.5,
        layout=draw.choice(LAYOUTS),
        together=together and bool(images),
        offset=draw.choice((None, 0, 1, 2, 4, 6)) if images else None,
        workspace_bytes=draw.choice((0, 5_000, 100_000, render_cuda.WORKSPACE_BYTES)),
    )


def compare(case: Case, device: str, orders: Sequence[str] = ("forward",)) -> None:
    """Asserts that the kernels give the CPU executor's bits and touch nothing beside the outputs."""
    form: dict[str, Any] = {"dtype": case.dtype, "channels_last": case.channels_last}
    want = ops.render(batch_of(case, "cpu"), case.plan, case.recipe, **form)
    batch = batch_of(case, device)
    for order in orders:
        outs, memories = None, []
        if case.offset is not None:
            arguments = (len(case.images), case.channels, case.recipe, case.dtype, case.channels_last, device)
            outs, memories = outputs(*arguments, case.offset)
        with kernels(case.workspace_bytes, order):
            got = ops.render(batch, case.plan, case.recipe, **form, out=outs)
        assert len(got) == len(want)
        for v, (a, b) in enumerate(zip(got, want, strict=True)):
            # No image says no device.
            assert a.device.type == (device if len(case.images) else "cpu") and a.dtype == b.dtype
            assert a.shape == b.shape and a.stride() == b.stride(), f"view {v}"
            off = torch.nonzero(bits(a) != bits(b)).flatten() // case.dtype.itemsize
            assert not len(off), f"view {v}, {order}: {len(off)} bytes differ, the first of value {int(off[0])}: {case}"
        for memory, out in zip(memories, outs or (), strict=True):
            beside = torch.cat([memory[: case.offset], memory[case.offset + out.numel() :]])
            assert (beside == 77).all(), f"written beside the output, {order}: {case}"
