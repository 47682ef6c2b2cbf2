"""Rendering whose launches are the same for every plan: by the kernels on the host, and in CUDA graphs on a GPU."""

import dataclasses
import importlib

import emulated
import pytest
import torch
from conftest import devices
from emulated import kernels
from torch._subclasses import FakeTensorMode

from fastssl import Plan, ops, recipes
from fastssl.ops.pixels import locate
from fastssl.ops.render import DTYPES, encode_recipe, native_views
from fastssl.ops.render_cuda import FixedLaunches
from fastssl.transforms import Blur, Crop, Jitter, QuarterTurn, Rotate, SameCrop, View

GPU = devices()[-1:]
SIZES = (17, 11), (37, 51), (60, 45)
MOST = (64, 64)


def images(seed, count=3, type=torch.uint8, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(0, 256, (*SIZES[(i + seed) % 3], channels), generator=generator, dtype=torch.uint8).to(type)
        for i in range(count)
    ]


def sizes(pictures):
    return [tuple(picture.shape[:2]) for picture in pictures]


def small(recipe):
    """The recipe with views of at most 40 pixels."""
    return tuple(
        view.with_(crop=dataclasses.replace(view.crop, size=16 + view.size % 24)) if view.size > 40 else view
        for view in recipe
    )


def fixed(recipe, count=3, dtype=torch.float32, workspace_bytes=1 << 20, most=MOST):
    out = [torch.full((count, 3, view.size, view.size), float("nan"), dtype=dtype) for view in recipe]
    return FixedLaunches(native_views(encode_recipe(recipe)), out, DTYPES[dtype], False, most, workspace_bytes), out


RECIPES = {
    "simclr": small(recipes.simclr(32)),
    "dino": small(recipes.dino()),
    "colours before the crop": small(recipes.wmse(32)),
    "turned, rotated, blurred by boxes": (
        View(
            crop=Crop(size=36), turn=QuarterTurn(p=0.5), rotate=Rotate(p=0.5, degrees=40), jitter=Jitter(contrast=0.5),
            blur=Blur(p=0.5, sigma_px=(0.5, 4.0), kind="box"),
        ),
    ),
    "blurred beyond what a tile holds": (View(crop=Crop(size=36), blur=Blur(p=0.5, sigma_px=(1.0, 12.0))),),
    "turned as another view is": (
        View(crop=Crop(size=32), turn=QuarterTurn(p=0.5), rotate=Rotate(p=0.5, degrees=40)), View(crop=SameCrop(size=30, of=0)),
    ),
    "no colours": (View(crop=Crop(size=33)),),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("workspace_bytes", [1, 1 << 22])
def test_one_set_of_launches_serves_every_plan(name, workspace_bytes):
    recipe = RECIPES[name]
    prepared, out = fixed(recipe, workspace_bytes=workspace_bytes)
    for seed in range(5):
        pictures = images(seed)
        plan = Plan.draw(recipe, sizes(pictures), seed=seed)
        prepared.update(locate(pictures), plan.data)
        for batch in out:
            batch.fill_(float("nan"))
        prepared.launch()
        for got, want in zip(out, ops.render(pictures, plan, recipe), strict=True):
            assert torch.equal(got, want)


def test_what_does_not_fit_what_was_prepared_is_named():
    recipe = RECIPES["simclr"]
    prepared, _ = fixed(recipe)
    pictures = images(0)
    plan = Plan.draw(recipe, sizes(pictures), seed=0)
    with pytest.raises(RuntimeError, match="before the first update"):
        prepared.launch()
    prepared.update(locate(pictures), plan.data)
    with pytest.raises(ValueError, match=r"image 0: it has 65 x 20 pixels, more than .* 64 x 64"):
        large = [torch.zeros((65, 20, 3), dtype=torch.uint8)] * 3
        prepared.update(locate(large), Plan.draw(recipe, sizes(large), seed=0).data)
    with pytest.raises(ValueError, match="differ from the first ones"):
        prepared.update(locate(pictures[:2]), plan.data[:2])
    with pytest.raises(ValueError, match="differ from the first ones"):
        wide = images(0, type=torch.uint16)
        prepared.update(locate(wide), plan.data)
    edited = Plan(plan.data.clone())
    edited.sigma_px = 30
    with pytest.raises(ValueError, match="image 0: its plan holds what the recipe never draws"):
        prepared.update(locate(pictures), edited.data)
    edited = Plan(plan.data.clone())
    edited.turns = 1
    edited.contrast, edited.sigma_px = 0.5, 1.0
    with pytest.raises(ValueError, match="never draws"):
        prepared.update(locate(pictures), edited.data)


def test_the_public_class_serves_gpus_and_says_so(monkeypatch):
    monkeypatch.setattr(importlib.import_module("fastssl.ops.prepared_render"), "why_not", lambda device: None)
    pictures, recipe = images(0), RECIPES["simclr"]
    with pytest.raises(ValueError, match="on cpu; it serves GPUs"):
        ops.PreparedRender(pictures, recipe)
    with FakeTensorMode():
        fake = torch.empty((1, 8, 9, 3), dtype=torch.uint8, device="cuda:0")
        for size in ((0, 0), (-1, 5), (8,), "large"):
            with pytest.raises(ValueError, match="max_size"):
                ops.PreparedRender(fake, recipe, max_size=size)
        with pytest.raises(ValueError, match="no images"):
            ops.PreparedRender(fake[:0], recipe)
        with pytest.raises(ValueError, match="on cpu, and it was made for cuda:0"):
            ops.PreparedRender(fake, recipe).update(None, pictures)
    with pytest.raises(ValueError, match="custom step"):
        ops.PreparedRender(pictures, (recipe[0].with_(custom=emulated.negative),))
    with pytest.raises(ValueError, match=r"dtype=torch\.float64"):
        ops.PreparedRender(pictures, recipe, dtype=torch.float64)


@pytest.mark.parametrize("device", GPU)
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_graph_renders_by_the_plan_last_taken(dtype, name, device):
    recipe = RECIPES[name]
    prepared = ops.PreparedRender(
        [picture.to(device) for picture in images(0)], recipe, dtype=dtype, channels_last=True, max_size=MOST
    )
    prepared.update(Plan.draw(recipe, sizes(images(0)), seed=0))
    prepared.launch()  # so that the kernels are loaded
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        prepared.launch()
    for seed in range(6):
        pictures = images(seed)
        plan = Plan.draw(recipe, sizes(pictures), seed=seed)
        prepared.update(plan, [picture.to(device) for picture in pictures])
        graph.replay()
        for got, want in zip(prepared.out, ops.render(pictures, plan, recipe, dtype=dtype), strict=True):
            assert torch.equal(got.cpu(), want)


@pytest.mark.parametrize("device", GPU)
def test_a_plan_is_not_taken_within_a_capture(device):
    recipe, pictures = RECIPES["simclr"], [picture.to(device) for picture in images(0)]
    plan = Plan.draw(recipe, sizes(pictures), seed=0)
    prepared = ops.PreparedRender(pictures, recipe)
    prepared.update(plan)
    prepared.launch()
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        prepared.launch()
        with pytest.raises(RuntimeError, match="capture launch"):
            prepared.update(plan)


def test_as_few_launches_as_views_differ_in_size():
    pictures = images(0, count=20)
    with kernels():
        recipe = small(recipes.dino())
        plan = Plan.draw(recipe, sizes(pictures), seed=0)
        whole, parts = (emulated.launches(pictures, plan, recipe, budget) for budget in (1 << 30, 1 << 18))
    # Taps; of each of two sizes: crops, frames or blurs behind them, blurs behind those.
    assert whole <= 1 + 2 * 4 < parts
