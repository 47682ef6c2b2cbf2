"""The kernels that render on a GPU give the CPU executor's bits: on a GPU where there is one, else on the host."""

from __future__ import annotations

import itertools
import random
import threading

import emulated
import numpy as np
import pytest
import torch
from conftest import devices
from emulated import LAYOUTS, ORDERS, TYPES, Case, bits, compare, draw_case, kernels, picture
from test_recipes import MULTI_CROP, NAMES
from torch import Tensor

from fastssl import ops, recipes
from fastssl._native import _C
from fastssl.ops import render_cuda
from fastssl.ops.pixels import locate
from fastssl.ops.render import encode_recipe, native_views
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

HERE = devices()  # "cpu": the kernels, compiled for the host
GPU = devices()[-1:]
JITTER = Jitter(p=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5)


def case_of(view: View | tuple[View, ...], *shapes: tuple[int, int, int], type: type = np.uint8, **options) -> Case:
    recipe = (view,) if isinstance(view, View) else view
    images = [picture(shape, type, seed=i) for i, shape in enumerate(shapes)]
    return Case(images, recipe, Plan.draw(recipe, [shape[:2] for shape in shapes], seed=len(shapes)), **options)


# --- everything -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("seed", range(20))
def test_any_batch(seed, device):
    draw = random.Random(seed)
    for _ in range(25 if device == "cpu" else 60):
        case = draw_case(draw, 70 if device == "cpu" else 300)
        compare(case, device, orders=[draw.choice(list(ORDERS))])


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe(name, device):
    sizes = (40, 12) if device == "cpu" else (224, 96)
    recipe = getattr(recipes, name)(*(sizes if name in MULTI_CROP else sizes[:1]))
    # In place of steps that draw, or are of torch's own arithmetic, one that gives the same bits everywhere.
    recipe = tuple(view.with_(custom=emulated.negative) if view.custom else view for view in recipe)
    count = 2 if device == "cpu" else 16
    shapes = [(37 + 11 * i, 61 - 5 * i, 3) if device == "cpu" else (300 + 20 * i, 500 - 9 * i, 3) for i in range(count)]
    dtype = (torch.float32, torch.bfloat16)[NAMES.index(name) % 2]
    compare(case_of(recipe, *shapes, dtype=dtype, channels_last=NAMES.index(name) % 3 == 0), device)


# --- one thing at a time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("size", [*range(1, 6), 31, 32, 33, 63, 64, 65, 70])
def test_every_size_of_view_and_type_of_output(size, device):
    view = View(crop=Crop(size=size), flip=Flip(), erase=Erase(p=0.5, value=0.25), normalize=None)
    for number, dtype in enumerate(emulated.DTYPES):
        for last in (False, True):
            for offset in (0, 1, 4):
                case = case_of(view, (9, 20, 3), dtype=dtype, channels_last=last, offset=offset)
                compare(case, device, orders=[list(ORDERS)[number % 3]])


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("type", TYPES)
def test_every_memory_of_images(type, layout, device):
    for channels in (1, 2, 3, 4, 5):
        for order in (("crop", "solarize"), ("solarize", "crop")):
            view = View(crop=Crop(size=23), solarize=Solarize(p=1.0), order=order, normalize=None)
            for together in (False, True):
                shapes = (
                    [(19, 33, channels)] * 3 if together else [(1 + 9 * i, 40 - 13 * i, channels) for i in range(3)]
                )
                compare(case_of(view, *shapes, type=type, layout=layout, together=together), device)


SCALES = [(1000, 1000, 3), (3, 3, 70), (1, 1, 33), (1, 700, 5), (700, 1, 40), (90, 400, 3), (2, 2, 1), (64, 65, 64)]


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("height, width, size", SCALES)
def test_scaled_up_and_down(height, width, size, interpolation, device):
    view = View(crop=Resize(size=size, interpolation=interpolation), turn=QuarterTurn(p=0.5), flip=Flip())
    for layout in ("packed", "planes"):
        compare(case_of(view, *[(height, width, 3)] * 2, layout=layout), device, orders=["forward", "backward"])


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("kind", ["gaussian", "box"])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("sigma", [0.4, 1.5, 8.0, 9.5, 40.0])
def test_every_radius_of_blur(sigma, before, kind, device):
    """Up to a reach of many times the picture; both ways of blurring (csrc/cuda/render_plan.h, kTiledRadius)."""
    order = ("jitter", "blur", "crop") if before else ("crop", "jitter", "blur")
    blur = Blur(p=1.0, sigma_px=(sigma, sigma), kind=kind)
    for size in (1, 2, 34) if sigma < 40 else (1, 33):
        view = View(crop=Crop(size=size), jitter=JITTER, blur=blur, order=order, turn=QuarterTurn(p=1.0))
        compare(case_of(view, (1, 1, 3), (2, 40, 3), (35, 3, 3)), device, orders=[list(ORDERS)[size % 3]])


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_every_turn_and_rotation(interpolation, device):
    view = View(crop=CenterCrop(size=37), rotate=Rotate(p=1.0, interpolation=interpolation), normalize=None)
    angles = [0.0, 1e-4, 13.0, 45.0, 90.0, -90.0, 180.0, 359.9, 720.0]
    case = case_of(view, *[(41, 50, 3)] * len(angles))
    for turns in range(4):
        case.plan.angle[:, 0], case.plan.turns = torch.tensor(angles), turns
        case.plan.flip_h[::2], case.plan.flip_v[::3] = 1, 1
        compare(case, device)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("number", range(24))
def test_every_order_of_jitter_with_every_factor(number, device):
    view = View(crop=Crop(size=34), jitter=JITTER, order=("jitter", "crop") if number % 2 else ("crop", "jitter"))
    case = case_of(view, (40, 33, 3), (5, 70, 3))
    plan, left = case.plan, [0, 1, 2, 3]
    for place, radix in enumerate((6, 2, 1, 1)):
        plan.jitter_order[:, 0, place] = left.pop(number // radix % len(left))
    plan.brightness, plan.hue = (0.0, 1.0, 1.7)[number % 3], (-0.5, 0.0, 0.5)[number // 3 % 3]
    plan.contrast, plan.saturation = (0.0, 1.0, 1.9)[number // 2 % 3], (0.0, 1.0, 3.0)[number // 4 % 3]
    compare(case, device, orders=list(ORDERS))


@pytest.mark.parametrize("device", HERE)
def test_a_small_workspace_takes_more_launches_and_gives_the_same(device):
    recipe = (*recipes.simclr(20), View(crop=Crop(size=33), blur=Blur(p=1.0, sigma_px=(20.0, 20.0))))
    case = case_of(recipe, *[(30, 40, 3)] * 5)
    batch = emulated.batch_of(case, "cpu")
    number = [emulated.launches(batch, case.plan, recipe, size) for size in (0, 60_000, 1 << 30)]
    assert number[0] > number[1] > number[2] > 0
    for size in (0, 60_000, 1 << 30):
        case.workspace_bytes = size
        compare(case, device, orders=["shuffled"])


@pytest.mark.parametrize("device", HERE)
def test_what_the_workspace_held_before_does_not_matter(device, monkeypatch):
    """Frames, weights and sums are written before they are read."""
    parts = {"jitter": JITTER, "blur": Blur(p=1.0), "posterize": Posterize(p=1.0), "turn": QuarterTurn(p=1.0)}
    steps = ("jitter", "blur", "posterize")
    views = tuple(View(crop=Crop(size=size), **parts, order=("crop", *steps)) for size in (5, 33))
    views += tuple(View(crop=Crop(size=size), **parts, order=(*steps, "crop")) for size in (5, 33))
    empty = torch.empty
    for byte in (0, 0x7F, 0xFF):

        def filled(*shape, byte=byte, **options):
            memory = empty(*shape, **options)
            return memory.fill_(byte) if memory.dtype == torch.uint8 else memory

        monkeypatch.setattr(torch, "empty", filled)
        compare(case_of(views, (37, 21, 3), (64, 9, 3)), device)


@pytest.mark.parametrize("device", HERE)
def test_the_far_corner_of_a_large_image(device):
    """Its bytes are more than 2^31; of which nearly all are never touched."""
    side, channels = 16384, 5
    image = torch.from_numpy(np.zeros((side, side, channels), np.uint16)).to(device)
    corner = torch.from_numpy(picture((80, 80, channels), np.uint16))
    image[-80:, -80:] = corner.to(device)
    view = View(crop=Crop(size=33), normalize=None)
    small = Plan.draw((view,), [(80, 80)], seed=3)
    plan = Plan(small.data.clone())
    plan.top, plan.left = small.top + side - 80, small.left + side - 80
    plan.source_height = plan.source_width = side
    (want,) = ops.render([corner], small, (view,))
    with kernels():
        (got,) = ops.render([image], plan, (view,))
    assert torch.equal(bits(got), bits(want))


def test_sizes_that_differ_much_are_launched_apart():
    """The tiles of a launch are as many for each of its views: those of a wide image beside a tall one are too many."""
    row = torch.zeros((1, 2**21, 1), dtype=torch.uint8)
    images = [row, row.permute(1, 0, 2).contiguous()]
    view = View(crop=Crop(size=4), solarize=Solarize(p=1.0), order=("solarize", "crop"), normalize=None)
    plan = Plan.draw((view,), [tuple(image.shape[:2]) for image in images], seed=0)
    alone = [emulated.launches([image], plan[i : i + 1], (view,), 1 << 30) for i, image in enumerate(images)]
    assert alone == [3, 3]  # weights, solarized, cropped
    assert emulated.launches(images, plan, (view,), 1 << 30) == 4


# --- the operator -----------------------------------------------------------------------------------------------------


def small_batch(device: str, count: int = 3) -> tuple[list[Tensor], tuple[View, ...], Plan]:
    recipe = recipes.simclr(16)
    images = [torch.from_numpy(picture((30 + i, 40, 3), np.uint8, seed=i)).to(device) for i in range(count)]
    return images, recipe, Plan.draw(recipe, [tuple(image.shape[:2]) for image in images], seed=5)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("custom", [None, emulated.negative])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_empty_batch_of_one_tensor_keeps_its_device_and_channels(channels, custom, device):
    images = torch.zeros((0, 8, 9, channels), dtype=torch.uint8, device=device)
    view = View(crop=Crop(size=4), custom=custom, normalize=None)
    with kernels():
        (out,) = ops.render(images, Plan.draw((view,), [], seed=0), (view,))
    assert out.shape == (0, channels, 4, 4) and out.device == images.device


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("default", ["meta", *(["cuda"] if torch.cuda.is_available() else [])])
def test_torch_may_have_another_default_device(default, device):
    images, recipe, plan = small_batch(device)
    want = ops.render(images, plan, recipe)
    with torch.device(default), kernels():
        assert Plan.draw(recipe, [tuple(image.shape[:2]) for image in images], seed=5) == plan
        got = ops.render(images, plan, recipe)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("device", HERE)
def test_the_operator_is_well_formed(device):
    images, recipe, plan = small_batch(device)
    torch.library.opcheck(
        torch.ops.fastssl.render.default, (images, plan.data, encode_recipe(recipe), "all", torch.float32, False, 1)
    )


@pytest.mark.parametrize("device", HERE)
def test_it_compiles_without_a_graph_break(device):
    images, recipe, plan = small_batch(device)
    compiled = torch.compile(lambda images, data: ops.render(images, data, recipe), fullgraph=True, backend="aot_eager")
    for ours, eager in zip(compiled(images, plan.data), ops.render(images, plan, recipe), strict=True):
        assert ours.device == images[0].device and torch.equal(ours, eager)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_fake_result_is_on_the_images_device(device):
    images, recipe, plan = small_batch("cpu")
    images = [image.to(device) for image in images]
    with torch._subclasses.FakeTensorMode() as mode:
        fakes = [mode.from_tensor(image) for image in images]
        got = torch.ops.fastssl.render(
            fakes, mode.from_tensor(plan.data), encode_recipe(recipe), "all", torch.float16, True, 1
        )
    assert [(view.device.type, view.shape, view.dtype) for view in got] == [(device, (3, 3, 16, 16), torch.float16)] * 2
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in got)


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.fixture
def no_launch(monkeypatch):
    """Nothing may be prepared, launched or rendered."""

    def never(*arguments, **options):
        raise AssertionError("launched")

    monkeypatch.setattr(_C, "prepare_render", never)
    monkeypatch.setattr(_C, "render", never)


def fake_gpu(shape, dtype=torch.uint8):
    return torch.empty(shape, dtype=dtype, device="cuda:0")


def test_images_of_other_devices_are_named(no_launch):
    images, recipe, plan = small_batch("cpu")
    images[1] = images[1].to("meta")
    with pytest.raises(TypeError, match=r"image 1 is torch.uint8, .* on meta; .* on the CPU or a GPU"):
        ops.render(images, plan, recipe)
    with pytest.raises(TypeError, match=r"image 0 is torch.uint8, .* on meta"):
        ops.render([image.to("meta") for image in images], plan, recipe)
    with pytest.raises(ValueError, match=r"out\[0\] is .* on meta, .* must be .* on cpu"):
        ops.render(images[:1], plan[:1], recipe, out=[torch.empty((1, 3, 16, 16), device="meta")] * 2)
    with pytest.raises(TypeError, match=r"plan must be .* on the CPU; got torch.float32, on meta"):
        ops.render(images, plan.data.to("meta"), recipe)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_gpu_images_that_the_kernels_cannot_read_are_named(no_launch):
    """Fake tensors stand for those of a GPU, where there is none."""
    view = View(crop=Crop(size=4), normalize=None)
    plan = Plan.draw((view,), [(8, 9), (8, 9)], seed=0)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        good = fake_gpu((8, 9, 3))
        for strided in (
            fake_gpu((8, 18, 3))[:, ::2],
            fake_gpu((8, 9, 6))[:, :, :3],
            fake_gpu((8, 9, 1)).expand(-1, -1, 3),
            fake_gpu((9, 8, 3)).permute(1, 0, 2),
        ):
            with pytest.raises(ValueError, match=r"image 1 has strides .* Call \.contiguous\(\) on it first"):
                ops.render([good, strided], plan, (view,))
        with pytest.raises(ValueError, match=r"image 1 is on cpu, and image 0 on cuda:0; a batch lies on one device"):
            ops.render([good, torch.empty((8, 9, 3), dtype=torch.uint8)], plan, (view,))
        for type in (torch.float16, torch.int64, torch.bool):
            with pytest.raises(
                TypeError, match=rf"image 1 is {type}, \(8, 9, 3\), on cuda:0; images are uint8, uint16"
            ):
                ops.render([good, fake_gpu((8, 9, 3), type)], plan, (view,))
        with pytest.raises(ValueError, match=r"image 1 has 4 channels, and image 0 has 3"):
            ops.render([good, fake_gpu((8, 9, 4))], plan, (view,))
        with pytest.raises(TypeError, match=r"one tensor, \(8, 9, 3\); it must be \(B, H, W, C\)"):
            ops.render(good, Plan(plan.data[:1].expand(8, -1, -1)), (view,))


def test_a_graph_cannot_be_captured_of_it(no_launch, monkeypatch):
    images, recipe, plan = small_batch("cpu")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with torch._subclasses.FakeTensorMode():
        out = [fake_gpu((3, 3, view.size, view.size), torch.float32) for view in recipe]
    specs = native_views(encode_recipe(recipe))
    with pytest.raises(RuntimeError, match="a CUDA graph is being captured"):
        render_cuda.launch(locate(images), plan.data, specs, out, _C.DType.float32, False)


@pytest.mark.parametrize("device", HERE)
def test_a_plan_that_does_not_fit_is_named(device):
    images, recipe, plan = small_batch(device)
    with kernels():
        with pytest.raises(ValueError, match=r"render: image 0: the plan was drawn for 32 x 40 pixels .* 30 x 40"):
            ops.render(images, plan[[2, 1, 0]], recipe)
        with pytest.raises(ValueError, match="the plan has shape"):
            ops.render(images, plan[:2], recipe)
        wild = Plan(plan.data.clone())
        wild.hue[1, 1] = 3
        with pytest.raises(ValueError, match=r"render: image 1: hue must be from -0.5 to 0.5"):
            ops.render(images, wild, recipe)
        with pytest.raises(ValueError, match="render: image 0: it has 1 channels, and contrast"):
            plain = tuple(view.with_(normalize=None) for view in recipe)
            ops.render([image[:, :, :1].contiguous() for image in images], plan, plain)
        with pytest.raises(ValueError, match="render: image 0: it has no pixel"):
            ops.render([image[:0] for image in images], plan, recipe)


@pytest.mark.parametrize("device", GPU)
def test_images_elsewhere_are_named(device):
    images, recipe, plan = small_batch(device)
    for place in (0, 1):
        mixed = [image.cpu() if i == place else image for i, image in enumerate(images)]
        with pytest.raises(ValueError, match="a batch lies on one device"):
            ops.render(mixed, plan, recipe)
    with pytest.raises(TypeError, match=r"plan must be .* on the CPU; got torch.float32, on cuda:0"):
        ops.render(images, plan.data.to(device), recipe)
    with pytest.raises(ValueError, match=r"out\[0\] is .* on cpu, .* must be .* on cuda:0"):
        ops.render(images, plan, recipe, out=[torch.empty((3, 3, 16, 16))] * 2)
    with pytest.raises(ValueError, match="strides"):
        ops.render([image[:, ::2] for image in images], Plan.draw(recipe, [(30, 20)] * 3, seed=0), recipe)


# --- on a GPU alone ---------------------------------------------------------------------------------------------------


def photographs(count: int, seed: int = 0) -> list[Tensor]:
    draw = random.Random(seed)
    shapes = [(draw.randint(60, 700), draw.randint(60, 700), 3) for _ in range(count)]
    return [torch.from_numpy(picture(shape, np.uint8, seed=seed + i)) for i, shape in enumerate(shapes)]


def assert_same(got: list[Tensor], want: list[Tensor]) -> None:
    for v, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.is_cuda and a.dtype == b.dtype and a.stride() == b.stride()
        assert torch.equal(bits(a), bits(b)), f"view {v}"


@pytest.mark.parametrize("device", GPU)
@pytest.mark.parametrize("seed", range(8))
def test_large_batches(seed, device):
    name = ("simclr", "dino", "byol", "vicreg", "wmse", "swav", "moco_v2", "simsiam")[seed]
    recipe = getattr(recipes, name)()
    dtype = emulated.DTYPES[seed % 3]
    batch = photographs(128, seed)
    plan = Plan.draw(recipe, [tuple(image.shape[:2]) for image in batch], seed=seed)
    want = ops.render(batch, plan, recipe, dtype=dtype, channels_last=seed % 2 == 0)
    on_gpu = [image.to(device) for image in batch]
    for _ in range(3):
        assert_same(ops.render(on_gpu, plan, recipe, dtype=dtype, channels_last=seed % 2 == 0), want)


@pytest.mark.parametrize("device", GPU)
def test_views_of_the_largest_size(device):
    side = 16384
    view = View(crop=Resize(size=side), solarize=Solarize(p=1.0), flip=Flip(p=1.0), normalize=None)
    image = torch.from_numpy(picture((50, 70, 3), np.uint8))
    plan = Plan.draw((view,), [(50, 70)], seed=0)
    (want,) = ops.render([image], plan, (view,), dtype=torch.uint8)
    (got,) = ops.render([image.to(device)], plan, (view,), dtype=torch.uint8)
    assert torch.equal(got.cpu(), want)


@pytest.mark.parametrize("device", GPU)
def test_it_runs_in_the_order_of_the_current_stream_and_does_not_wait(device):
    recipe = recipes.simclr(64)
    batch = photographs(8)
    plan = Plan.draw(recipe, [tuple(image.shape[:2]) for image in batch], seed=1)
    want = ops.render(batch, plan, recipe)
    waiting = [image.to(device) for image in batch]
    images = [torch.zeros_like(image) for image in waiting]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ops.render(images, plan, recipe)  # so that no memory need be asked of the driver, which waits
        stream.synchronize()
        torch.cuda._sleep(1_000_000_000)  # cycles, about half a second
        for image, real in zip(images, waiting, strict=True):
            image.copy_(real)
        got = ops.render(images, plan, recipe)
        after = torch.cuda.Event()
        after.record()
        assert not after.query(), "rendering waited for the GPU"
        stream.synchronize()
    assert_same(got, want)


@pytest.mark.parametrize("device", GPU)
def test_every_gpu_whichever_is_current(device, gpus):
    images, recipe, plan = small_batch("cpu")
    want = ops.render(images, plan, recipe)
    for current, index in itertools.product(gpus, gpus):
        there = [image.to(f"cuda:{index}") for image in images]
        with torch.cuda.device(current):
            got = ops.render(there, plan, recipe)
            assert torch.cuda.current_device() == current
        assert all(view.device.index == index for view in got)
        assert_same(got, want)


@pytest.mark.parametrize("device", GPU)
def test_threads_with_streams_of_their_own(device):
    results: dict[int, list[Tensor]] = {}
    wanted = {}
    for number in range(4):
        batch = photographs(6, number)
        recipe = recipes.byol(48)
        plan = Plan.draw(recipe, [tuple(image.shape[:2]) for image in batch], seed=number)
        wanted[number] = batch, plan, ops.render(batch, plan, recipe)

    def work(number: int) -> None:
        batch, plan, _ = wanted[number]
        with torch.cuda.stream(torch.cuda.Stream()):
            images = [image.to(device) for image in batch]
            for _ in range(20):
                results[number] = ops.render(images, plan, recipe)
            torch.cuda.current_stream().synchronize()

    threads = [threading.Thread(target=work, args=(number,)) for number in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(wanted)
    for number, (_, _, want) in wanted.items():
        assert_same(results[number], want)


@pytest.mark.parametrize("device", GPU)
def test_memory_does_not_grow(device):
    images, recipe, plan = small_batch(device)
    ops.render(images, plan, recipe)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(50):
        ops.render(images, plan, recipe)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("device", GPU)
def test_no_graph_is_captured_of_it(device):
    images, recipe, plan = small_batch(device)
    number = torch.zeros(1, device=device)
    number += 1  # so that its kernel is loaded
    number.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        number += 1
        with pytest.raises(RuntimeError, match=r"CUDA graph.*before"):
            ops.render(images, plan, recipe)
    graph.replay()
    assert number.item() == 1  # the capture went on
    assert_same(ops.render(images, plan, recipe), ops.render([image.cpu() for image in images], plan, recipe))


@pytest.mark.parametrize("device", GPU)
def test_what_float_images_hold_beyond_their_range_is_clamped(device):
    """Values are not looked at on a GPU, since the call would have to wait; nothing is read or written beside."""
    view = View(crop=Crop(size=20), posterize=Posterize(p=1.0), jitter=JITTER, normalize=None)
    wild = torch.full((30, 40, 3), float("nan"), device=device)
    wild[::2] = 1e30
    (out,) = ops.render([wild], Plan.draw((view,), [(30, 40)], seed=0), (view,))
    assert out.isfinite().all() and out.min() >= 0 and out.max() <= 1 + 1e-6
