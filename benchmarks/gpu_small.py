"""Small batches on the GPU, for compute-sanitizer: all recipes, what recipes leave out, Loaders, masks, contrastive losses.

Every allocation is one of the driver's own, so that the sanitizer sees where each ends, and only copies and fastssl's kernels
run on the device. The results are compared with the CPU's, bit for bit, those of losses with float64; exit 1 where they differ.
Recipes with a step in torch's own kernels are left out, and named.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python benchmarks/gpu_small.py
    python benchmarks/gpu_small.py --device cpu        the same with the kernels emulated
    python benchmarks/gpu_small.py --only losses       one of views, loaders, masks, losses
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

# Before torch is imported: it reads this once.
os.environ.setdefault("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")

import torch
from contenders.ours import by_kernels, encoded_source
from gpu_small_losses import wrong_losses
from PIL import Image

import fastssl
from fastssl import ops, recipes
from fastssl._native import _C
from fastssl.data.making import Device
from fastssl.ops import masks
from fastssl.pipelines import Choice
from fastssl.pipelines import device as device_pipeline
from fastssl.pipelines.balance import Balance
from fastssl.pipelines.streams import HostStreams
from fastssl.transforms import (
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Jitter,
    Plan,
    Posterize,
    QuarterTurn,
    Resize,
    Rotate,
    Solarize,
    View,
)

SMALLER = {"size": 37, "local_size": 20, "views": 2, "local_views": 1}
FORMS = list(
    itertools.product((torch.float32, torch.bfloat16, torch.float16, torch.uint8), (False, True))  # type, channels last
)
ALL = Jitter(p=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)


def named_recipes() -> Iterator[tuple[str, Any]]:
    for name in recipes.__all__:
        make = getattr(recipes, name)
        parameters = inspect.signature(make).parameters
        if "recipe" in parameters:
            yield name, make(recipes.simclr(SMALLER["size"]))
        else:
            yield name, make(**{key: value for key, value in SMALLER.items() if key in parameters})


def more_recipes() -> dict[str, Any]:
    """Each has a pass that no recipe has, or a view whose rows can be stored four pixels at once."""
    return {
        "wide rows": recipes.simclr(64),
        "turned and rotated": (
            # Of a turned frame the last pixels of a row are read with those beside them, which nobody wrote and nobody uses;
            # initcheck would name them. With a multiple of four there are none.
            View(crop=Crop(size=40), turn=QuarterTurn(p=1.0), jitter=ALL),
            View(crop=Crop(size=33), rotate=Rotate(p=1.0, interpolation="bilinear"), blur=Blur(p=1.0)),
        ),
        "a blur beyond a tile": (View(crop=Crop(size=45), blur=Blur(p=1.0, sigma_px=(14.0, 16.0))),),
        "colours before the crop": (
            View(crop=Crop(size=36), jitter=ALL, blur=Blur(p=1.0), order=("jitter", "blur", "crop")),
        ),
        "bicubic, posterized, erased": (
            View(
                crop=CenterCrop(size=40, interpolation="bicubic"),
                flip=Flip(p=1.0),
                solarize=Solarize(p=1.0),
                posterize=Posterize(p=1.0),
                erase=Erase(p=1.0),
                normalize=None,
            ),
        ),
        "enlarged": (View(crop=Resize(size=70)),),
    }


def pictures(kind: torch.dtype, channels: int, planes: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for height, width in ((53, 41), (29, 77), (64, 48)):
        values = torch.rand((channels, height, width) if planes else (height, width, channels), generator=generator)
        scale = {torch.uint8: 255, torch.uint16: 65535}.get(kind, 1)
        image = (values * scale).round().to(kind) if scale > 1 else values
        made.append(image.permute(1, 2, 0) if planes else image)
    return made


def on_device(image: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copied with what fills its last 16 bytes: bytes are read by whole words (crop_kernel.h), which end where memory does."""
    planes = image.stride(2) != 1 and image.shape[2] > 1
    flat = (image.permute(2, 0, 1) if planes else image).contiguous().flatten().view(torch.uint8)
    filled = torch.nn.functional.pad(flat, (0, -len(flat) % 16)).to(device)[: len(flat)].view(image.dtype)
    height, width, channels = image.shape
    return filled.view(channels, height, width).permute(1, 2, 0) if planes else filled.view(height, width, channels)


def cases() -> Iterator[tuple[str, Any, list[torch.Tensor]]]:
    usual = pictures(torch.uint8, 3, planes=False)
    for name, recipe in [*named_recipes(), *more_recipes().items()]:
        yield name, recipe, usual
    for kind, planes in itertools.product((torch.uint8, torch.uint16, torch.float32), (False, True)):
        yield f"{kind}, {'planes' if planes else 'mixed'}", recipes.simclr(40), pictures(kind, 3, planes)
        gray = (View(crop=Crop(size=40), blur=Blur(p=1.0), normalize=None),)
        for channels in (1, 4):
            yield f"{kind}, {channels} channels", gray, pictures(kind, channels, planes)


# Bytes an image of a Loader's blocks: with as many each image lies in them, with as few each has memory of its own.
LARGE, SMALL = 1 << 16, 16


def jpegs() -> list[bytes]:
    made = []
    for image in pictures(torch.uint8, 3, planes=False) * 2:
        file = io.BytesIO()
        Image.fromarray(image.numpy()).save(file, "JPEG")
        made.append(file.getvalue())
    return made


class OnHost:
    """What a Loader makes its views on where there is no GPU: the kernels, compiled for the host."""

    def take(self, measure: object, plain: object) -> Device:
        pipeline = device_pipeline.DevicePipeline(HostStreams(), batch_size=2, slots=5)
        return Device(Choice(decoder=None), None, Balance(0.0, fixed=True), pipeline)

    def give_back(self, device: Device) -> None:
        pass


def wrong_loaders(device: torch.device) -> list[str]:
    """The Loaders whose views, of what was gathered on the CPU and copied, differ from the CPU's own."""
    wrong, done = [], 0
    source = encoded_source(jpegs())
    plain = (View(crop=Crop(size=40), normalize=None), View(crop=CenterCrop(size=24), jitter=ALL, normalize=None))
    for first, (number, (dtype, last)) in itertools.product((LARGE, SMALL), enumerate(FORMS)):
        recipe = plain if number % 2 or dtype == torch.uint8 else recipes.simclr(37)
        options = {"batch_size": 2, "epochs": 2, "dtype": dtype, "channels_last": last, "decode": "cpu", "threads": 2}
        exact = fastssl.Loader(source, recipe, **options)
        with mock.patch.object(device_pipeline, "_FIRST_PIXELS", first):
            loader = fastssl.Loader(source, recipe, device=device, **options)
            if device.type == "cpu":
                loader._device_choice = OnHost()
            for batch, other in zip(loader, exact, strict=True):
                done += 1
                if not all(torch.equal(bits(a.cpu()), bits(b)) for a, b in zip(batch.views, other.views, strict=True)):
                    wrong.append(
                        f"a Loader's batch, {dtype}{', channels last' * last}, blocks of {first} bytes an image"
                    )
    print(f"{done} batches of Loaders on {device}; {len(wrong)} differ from the CPU's")
    return wrong


# Rows and columns of cells: in the memory of a block, and beyond it, where kernels take scratch; ranks are 8 bytes a cell, bits
# fill a word a row at least.
GRID, MANY_CELLS, MANY_ROWS = (7, 9), (65, 64), (8200, 3)


def mask_cases() -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """What to call and with which arguments, for every kernel of masks."""
    if not (_C.mask_rank_scratch(MANY_CELLS[0] * MANY_CELLS[1]) and _C.mask_bits_scratch(*MANY_ROWS)):
        sys.exit(f"gpu_small.py: grids of {MANY_CELLS} and {MANY_ROWS} take no scratch; write larger ones.")
    key = torch.tensor([0, 7, 7, 2**63 - 1]), 2**64 - 3, 5, 0xFF00
    for grid in (GRID, MANY_CELLS):
        yield f"cells, {grid}", masks.cells, (*key, *grid, 2, 20)
        yield f"tokens, {grid}", masks.tokens, (*key, *grid, 2, 20, 1)
    yield "prefix", masks.prefix, (*key, 197, 0, 196)
    for either in (False, True):
        yield f"inverse_block, roll={either}", masks.inverse_block, (*key, *GRID, 20, 0.3, 3.0, either, either)
        yield f"counts, exact_share={either}", masks.counts, (*key, 0.1, 0.6, 0.9, 63, either)
    for grid, aspect in ((GRID, (0.3, 3.0)), (MANY_ROWS, (100.0, 1e4))):
        cells = grid[0] * grid[1]
        counts = torch.tensor([0, cells // 3, cells // 2, cells])
        yield f"blocks, {grid}", masks.blocks, (*key, counts, *grid, 28, 4, cells, *aspect, 10)
        context, target = (grid[0] * 3 // 4, grid[1]), (grid[0] // 2, 2)
        yield f"multi_block, {grid}", masks.multi_block, (*key, grid, grid, context, target, 2, 3, cells // 8, False)
    # As a view of bytes: every one but 0 is true.
    some = torch.tensor([0, 0, 1, 2, 255], dtype=torch.uint8)[torch.arange(6 * 197).view(6, 197) * 7 % 11 % 5]
    for rest in (False, True):
        yield f"partition, rest={rest}", masks.partition, (some.view(torch.bool), 50, 1, rest)


def wrong_masks(device: torch.device) -> list[str]:
    """The cases whose masks differ from the CPU's; on the CPU the kernels are emulated."""
    emulated = mock.patch.object(masks, "_executor", lambda device, work: _C.MaskExecutor.emulated())
    kernels = emulated if device.type == "cpu" else contextlib.nullcontext()
    wrong, kinds = [], set()
    for name, draw, arguments in mask_cases():
        there = [a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments]
        with kernels:
            got = draw(*there)
        exact = draw(*arguments)
        pairs = [(got, exact)] if isinstance(got, torch.Tensor) else zip(got, exact, strict=True)
        if not all(a.shape == b.shape and torch.equal(bits(a.cpu()), bits(b)) for a, b in pairs):
            wrong.append(name)
        kinds.add(draw.__name__)
    print(f"masks drawn on {device}: {', '.join(sorted(kinds))}; {len(wrong)} batches differ from the CPU's")
    return wrong


def wrong_views(device: torch.device) -> list[str]:
    """The views that differ from the CPU's."""
    wrong, done = [], 0
    for number, (name, recipe, images) in enumerate(cases()):
        if any(view.custom is not None for view in recipe):
            print(f"left out: {name}, which has a step in torch's own kernels")
            continue
        dtype, last = FORMS[number % len(FORMS)]
        if dtype == torch.uint8 and any(view.normalize is not None for view in recipe):
            dtype = torch.bfloat16
        plan = Plan.draw(recipe, [tuple(image.shape[:2]) for image in images], seed=number)
        there = [on_device(image, device) for image in images]
        got = by_kernels(there, plan, recipe, dtype, last, workspace_bytes=1 << 20)
        exact = ops.render(images, plan, recipe, dtype=dtype, channels_last=last)
        for v, (a, b) in enumerate(zip(got, exact, strict=True)):
            if not torch.equal(bits(a.cpu()), bits(b)):
                wrong.append(f"{name}, view {v}, {dtype}{', channels last' * last}")
        done += 1
    print(f"{done} batches rendered on {device}; {len(wrong)} views differ from the CPU's")
    return wrong


PARTS = {"views": wrong_views, "loaders": wrong_loaders, "masks": wrong_masks, "losses": wrong_losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", choices=list(PARTS))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_small.py: torch finds no GPU here; --device cpu runs the kernels emulated.")
    wrong = []
    for part in [arguments.only] if arguments.only else PARTS:
        wrong += PARTS[part](device)
    if wrong:
        sys.exit("\n".join(wrong))


def bits(views: torch.Tensor) -> torch.Tensor:
    return views.contiguous().flatten().view(torch.uint8)


if __name__ == "__main__":
    main()
