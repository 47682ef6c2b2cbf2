"""Types, layouts and inputs: what render takes and gives, whatever the view."""

from __future__ import annotations

import images
import numpy as np
import pytest
import reference
import torch
from pixels import FULL_JITTER, LARGEST, MEAN, PLAIN, off, plan_for, render, row
from sample_views import RECIPES
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fastssl import ops, recipes
from fastssl.ops.render import encode_recipe
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import IMAGENET, Crop, Normalize, View

# --- output -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Tensor], Plan, View]:
    view = RECIPES["simclr"](33)
    batch = [torch.from_numpy(images.photo(70, 90 + i, seed=i)) for i in range(9)]
    return batch, Plan.draw((view,), [tuple(image.shape[:2]) for image in batch], seed=4), view


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_are_the_float32_rounded_once(dtype, drawn):
    batch, plan, view = drawn
    (exact,) = ops.render(batch, plan, (view,))
    (got,) = ops.render(batch, plan, (view,), dtype=dtype)
    assert got.dtype == dtype
    assert torch.equal(got, exact.to(dtype))


def test_uint8_is_the_float32_rounded_once(drawn):
    batch, plan, view = drawn
    view = RECIPES["simclr"](33)
    view = View(crop=view.crop, flip=view.flip, jitter=view.jitter, blur=view.blur, grayscale=view.grayscale, **PLAIN)
    (exact,) = ops.render(batch, plan, (view,))
    (got,) = ops.render(batch, plan, (view,), dtype=torch.uint8)
    assert got.dtype == torch.uint8
    assert (got.double() - exact.double() * 255).abs().max() <= 0.5 + 1e-4  # 1e-4 for values that lie between two


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
def test_channels_last_holds_the_same_values(dtype, drawn):
    batch, plan, view = drawn
    view = View(
        crop=view.crop, jitter=view.jitter, blur=view.blur, normalize=None if dtype == torch.uint8 else IMAGENET
    )
    (plain,) = ops.render(batch, plan, (view,), dtype=dtype)
    (last,) = ops.render(batch, plan, (view,), dtype=dtype, channels_last=True)
    assert plain.is_contiguous()
    assert last.shape == plain.shape and last.stride() == (33 * 33 * 3, 1, 33 * 3, 3)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, plain)


@pytest.mark.parametrize("size", [1, 7])
def test_channels_last_of_small_views(size):
    image = images.photo(20, 20)
    view = View(crop=Crop(size=size))
    plan = plan_for(image, view)
    (plain,) = ops.render([torch.from_numpy(image)] * 2, Plan.cat([plan, plan]), (view,))
    (last,) = ops.render([torch.from_numpy(image)] * 2, Plan.cat([plan, plan]), (view,), channels_last=True)
    assert torch.equal(last, plain)


def test_normalize_is_the_last_step():
    image = images.photo(40, 40)
    mean, std = (0.1, 0.5, 0.7), (0.5, 0.25, 2.0)
    plain = View(crop=Crop(size=24), jitter=FULL_JITTER, **PLAIN)
    scaled = View(crop=Crop(size=24), jitter=FULL_JITTER, normalize=Normalize(mean=mean, std=std))
    plan = Plan.draw((plain,), [(40, 40)], seed=0)
    want = F.normalize(render(image, plan, plain), list(mean), list(std))
    assert (render(image, plan, scaled) - want).abs().max() < 1e-5  # float32 rounding at values up to 3.6


# --- input ------------------------------------------------------------------------------------------------------------


def test_an_image_renders_alike_alone_and_in_a_batch(drawn):
    batch, plan, view = drawn
    (together,) = ops.render(batch, plan, (view,))
    for i, image in enumerate(batch):
        (alone,) = ops.render([image], plan[i : i + 1], (view,))
        assert torch.equal(alone[0], together[i])


def test_images_of_any_strides():
    image = torch.from_numpy(images.photo(80, 60))
    view = View(crop=Crop(size=32), **PLAIN)
    planes = image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    gray = image[:, :, :1].contiguous().expand(-1, -1, 3)  # one plane, which is every channel
    flat = image[:1, :1].expand(80, 60, 3)
    for strided in (planes, image[::2, 5:50], image[:, ::3], gray, flat):
        plan = Plan.draw((view,), [tuple(strided.shape[:2])], seed=0)
        (want,) = ops.render([strided.contiguous()], plan, (view,))
        (got,) = ops.render([strided], plan, (view,))
        assert torch.equal(got, want)


def test_render_leaves_images_and_plan_as_they_are(drawn):
    batch, plan, view = drawn
    before = [image.clone() for image in batch], plan.data.clone()
    ops.render(batch, plan, (view,))
    assert all(torch.equal(a, b) for a, b in zip(batch, before[0], strict=True))
    assert torch.equal(plan.data, before[1])


def test_an_empty_batch_renders_to_empty_views():
    view = View(crop=Crop(size=8))
    (out,) = ops.render([], Plan.draw((view,), [], seed=0), (view,))
    assert out.shape == (0, 3, 8, 8)


def test_render_is_a_well_formed_operator(drawn):
    """Schema, fake tensors and tracing agree with what it does."""
    batch, plan, view = drawn
    arguments = (
        [image.contiguous() for image in batch],
        plan.data,
        encode_recipe((view,)),
        "all",
        torch.float32,
        False,
        1,
    )
    torch.library.opcheck(torch.ops.fastssl.render.default, arguments)


def test_the_error_bound_would_catch_rounding_between_operations():
    """A negative control: 8-bit rounding after each operation, as Pillow has it, breaks the bound."""
    image = images.photo(90, 70)
    view = View(crop=Crop(size=64), jitter=FULL_JITTER, **PLAIN)
    numbers = row(plan_for(image, view, brightness=0.4, contrast=1.8, saturation=1.8, hue=0.1))
    exact = reference.render(image, numbers, view)
    x = reference.resize(image.transpose(2, 0, 1) / 255, 64, "bilinear")
    for operation, factor in [("brightness", 0.4), ("contrast", 1.8), ("saturation", 1.8), ("hue", 0.1)]:
        x = np.round(x * 255) / 255
        x = getattr(reference, f"adjust_{operation}")(x, factor)
    largest, mean = off(torch.from_numpy(x), exact, view)
    assert largest > LARGEST and mean > MEAN


def test_render_compiles_without_a_graph_break():
    image = torch.from_numpy(images.photo(40, 50, seed=0))
    recipe = recipes.simclr(16)
    plan = Plan.draw(recipe, [(40, 50)], seed=0)
    compiled = torch.compile(lambda image, data: ops.render([image], data, recipe), fullgraph=True, backend="aot_eager")
    for ours, eager in zip(compiled(image, plan.data), ops.render([image], plan, recipe), strict=True):
        assert torch.equal(ours, eager)
