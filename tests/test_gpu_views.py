"""Views of batches that are already on the device."""

import pytest
import torch
from conftest import devices

from fastssl import Plan, ops, recipes
from fastssl.transforms import Crop, GPUViews, Normalize, View

BATCH = torch.randint(0, 256, (5, 3, 41, 53), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
RAGGED = [BATCH[i, :, : 41 - 7 * i, : 20 + 8 * i] for i in range(5)]
RECIPE = recipes.simclr(32)


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x.cpu(), y.cpu()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("images", [BATCH, RAGGED, BATCH.float() / 255], ids=["batch", "ragged", "float"])
def test_the_views_are_those_of_render(images, device):
    views = GPUViews(RECIPE)
    moved = images.to(device) if isinstance(images, torch.Tensor) else [image.to(device) for image in images]
    plan = views.draw(moved)
    got = views(moved, plan)
    assert all(view.device.type == device and view.shape == (5, 3, 32, 32) for view in got)
    assert same(got, ops.render([image.permute(1, 2, 0).contiguous() for image in images], plan, RECIPE))


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_taken_as_the_floats_they_are(dtype, device):
    images = (BATCH.float() / 255).to(dtype)
    views = GPUViews(RECIPE)
    plan = views.draw(images)
    assert same(views(images.to(device), plan), views(images.float(), plan))


def test_torchs_generator_governs_the_draws():
    views = GPUViews(RECIPE)
    torch.manual_seed(3)
    first = views(BATCH)
    second = views(BATCH)
    torch.manual_seed(3)
    assert same(first, views(BATCH))
    assert not same(first, second)
    torch.manual_seed(3)
    plan = views.draw(BATCH)
    assert isinstance(plan, Plan) and same(first, views(BATCH, plan))


@pytest.mark.parametrize("last", [False, True])
def test_the_batch_has_the_type_and_layout_asked_for(last):
    (view,) = GPUViews((View(crop=Crop(size=8)),), dtype=torch.bfloat16, channels_last=last)(BATCH)
    assert view.dtype == torch.bfloat16
    assert view.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def test_batches_in_channels_last_are_read_as_they_are():
    views = GPUViews(RECIPE)
    plan = views.draw(BATCH)
    assert same(views(BATCH, plan), views(BATCH.contiguous(memory_format=torch.channels_last), plan))


def test_it_is_a_module_without_state_that_compile_leaves_alone():
    views = GPUViews(RECIPE)
    assert not list(views.parameters()) and not views.state_dict()
    assert "2 views of 32, 32 px" in repr(views)
    plan = views.draw(BATCH)
    compiled = torch.compile(lambda images: [view.mean() for view in views(images, plan)], backend="eager")
    assert same(compiled(BATCH), [view.mean() for view in views(BATCH, plan)])
    assert same(torch.nn.Sequential(views).eval()(BATCH), torch.nn.Sequential(views)(BATCH)) is False  # drawn anew


def test_custom_steps_and_other_channels_work():
    view = View(crop=Crop(size=8), custom=lambda batch: 1 - batch, normalize=None)
    plain = View(crop=Crop(size=8), normalize=None)
    plan = GPUViews((plain,)).draw(BATCH)
    assert torch.allclose(GPUViews((view,))(BATCH, plan)[0], 1 - GPUViews((plain,))(BATCH, plan)[0])
    five = torch.zeros((2, 5, 20, 30), dtype=torch.uint16)
    statistics = Normalize(mean=[0.5] * 5, std=[0.5] * 5)
    (out,) = GPUViews((View(crop=Crop(size=8), normalize=statistics),))(five)
    assert out.shape == (2, 5, 8, 8) and bool((out == -1).all())


def test_an_empty_batch_gives_empty_views():
    assert [tuple(view.shape) for view in GPUViews(RECIPE)([])] == [(0, 3, 32, 32)] * 2
    assert [tuple(view.shape) for view in GPUViews(RECIPE)(BATCH[:0])] == [(0, 3, 32, 32)] * 2


WRONG = [
    (lambda: GPUViews([]), r"recipe"),
    (lambda: GPUViews(RECIPE, dtype=torch.float64), r"dtype=torch.float64"),
    (lambda: GPUViews(RECIPE, dtype=torch.uint8), r"normalize=None"),
    (lambda: GPUViews(RECIPE)(BATCH[0]), r"\(3, 41, 53\).*\(B, C, H, W\)"),
    (lambda: GPUViews(RECIPE)("photos"), r"\(B, C, H, W\)"),
    (lambda: GPUViews(RECIPE)([BATCH]), r"\(C, H, W\)"),
    (lambda: GPUViews(RECIPE)(BATCH.permute(0, 2, 3, 1)), r"\(41, 53, 3\).*permute"),
    (lambda: GPUViews(RECIPE)([BATCH[0].permute(1, 2, 0)]), r"\(41, 53, 3\).*permute"),
    (lambda: GPUViews(RECIPE)(BATCH.double()), r"image 0.*float64"),
    (lambda: GPUViews(RECIPE)(BATCH.float()), r"image 0.*\[0, 1\]"),
    (lambda: GPUViews(RECIPE)([BATCH[0], BATCH[0, :1]]), r"image 1 has 1 channels"),
    (lambda: GPUViews(RECIPE)(BATCH.to("meta")), r"meta"),
    (lambda: GPUViews(RECIPE)([BATCH[0], BATCH[0].to("meta")]), r"image 1.*meta"),
    (lambda: GPUViews(RECIPE)(BATCH, GPUViews(RECIPE).draw(BATCH[:4])), r"plan has shape"),
    (lambda: GPUViews(RECIPE)(BATCH, GPUViews(RECIPE).draw(BATCH[:, :, :9])), r"drawn for 9 x 53"),
]


@pytest.mark.parametrize("call, says", WRONG, ids=[f"{i:02d}" for i in range(len(WRONG))])
def test_wrong_arguments_are_named(call, says):
    with pytest.raises((TypeError, ValueError), match=f"(?s){says}"):
        call()


def test_torch_may_have_another_default_device():
    views = GPUViews(RECIPE)
    torch.manual_seed(5)
    want = views(BATCH), views(RAGGED)
    before = torch.get_default_device()
    torch.manual_seed(5)
    torch.set_default_device("meta")
    try:
        got = views(BATCH), views(RAGGED)
    finally:
        torch.set_default_device(before)
    assert same(got[0], want[0]) and same(got[1], want[1])
