"""Views by DALI's operators alone beside those of ops.render, on the CPU by DALI's CPU backend."""

import functools
import itertools

import images
import numpy as np
import pytest
import torch
from conftest import devices
from test_pipelines_dali import CPU, small

from fastssl import Plan, ops, recipes
from fastssl.pipelines import DaliDecoder, DaliViews
from fastssl.pipelines.dali_modules import why_not_dali
from fastssl.transforms import (
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Jitter,
    Normalize,
    Posterize,
    QuarterTurn,
    Resize,
    Rotate,
    SameCrop,
    Solarize,
    View,
)

pytestmark = pytest.mark.skipif(why_not_dali() is not None, reason=str(why_not_dali()))

# As DaliViews promises, in parts of 255: arithmetic; DALI's table of the cubic filter (0.15, on photographs), and a Gaussian cut
# off at another place (0.13), which brightness, contrast and saturation may multiply.
EXACT, ALMOST = 0.02, 0.5


def pictures(device="cpu"):
    made = [images.photo(40 + 9 * i, 55 - 3 * i, seed=i) for i in range(5)]
    made += [images.extremes(33, 40), images.gradient(60, 50), images.gray(30, 64)]
    return [torch.from_numpy(image).to(device) for image in made]


def drawn(recipe, pixels, seed=0):
    return Plan.draw(recipe, [image.shape[:2] for image in pixels], seed=seed)


def difference(recipe, pixels, plan, **options):
    """By view, in parts of 255, for recipes that do not normalize."""
    device = pixels[0].device
    got = DaliViews(recipe, batch_size=len(pixels), device=device, threads=2, **options)(pixels, plan)
    want = ops.render([image.cpu() for image in pixels], plan, recipe)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.device == device
    return [(a.cpu().float() - b).abs() * 255 for a, b in zip(got, want, strict=True)]


def unnormalized(recipe):
    return tuple(view.with_(normalize=None) for view in recipe)


EXPRESSIBLE = [name for name in recipes.__all__ if name != "fda"]


@functools.cache  # recipes share views, and DALI takes long to make its graph
def worst(view, device):
    """The largest difference, the mean one, and the part of the values that are off by more than is promised; the promise."""
    pixels = pictures(device)
    (off,) = difference((view,), pixels, drawn((view,), pixels))
    inexact = view.crop.interpolation == "bicubic" or (view.blur is not None and view.blur.kind == "gaussian")
    limit = ALMOST if inexact else EXACT
    return off.max(), off.mean(), (off > limit).float().mean(), limit


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_views_of_every_recipe_are_those_of_render(name, device):
    for view in dict.fromkeys(unnormalized(small(name))):
        most, mean, beyond, limit = worst(view, device)
        if view.solarize is None:
            assert most <= limit
        else:  # next to the threshold, a value may fall on the other side
            assert beyond < 1e-3 and mean <= limit


WHOLE = View(crop=Resize(size=24), normalize=None)
CROP = View(crop=Crop(size=20, area=(0.2, 0.9)), normalize=None)
JITTER = Jitter(p=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5)
STEPS = {
    "shrunk": (CROP, EXACT),
    "enlarged": (View(crop=Crop(size=90, area=(0.1, 0.3)), normalize=None), EXACT),
    "cubic": (View(crop=Crop(size=20, interpolation="bicubic"), normalize=None), ALMOST),
    "one pixel": (View(crop=Crop(size=1), normalize=None), EXACT),
    "center": (View(crop=CenterCrop(size=21, keep=0.61), normalize=None), EXACT),
    "flips": (CROP.with_(flip=Flip(p=0.5), vflip=Flip(p=0.5)), EXACT),
    "turns": (CROP.with_(flip=Flip(p=0.5), turn=QuarterTurn(p=1.0, turns=(0, 1, 2, 3))), EXACT),
    "rotation": (CROP.with_(rotate=Rotate(p=0.8, degrees=(-400, 400), interpolation="bilinear")), EXACT),
    "jitter": (WHOLE.with_(jitter=JITTER), EXACT),
    "brightness": (WHOLE.with_(jitter=Jitter(p=0.8, brightness=0.9)), EXACT),
    "hue": (WHOLE.with_(jitter=Jitter(p=0.8, hue=0.5)), EXACT),
    "gray": (WHOLE.with_(grayscale=Grayscale(p=0.5)), EXACT),
    "blur": (CROP.with_(blur=Blur(p=0.8, sigma_px=(0.0, 3.0))), ALMOST),
    "box": (CROP.with_(blur=Blur(p=0.8, sigma_px=(0.0, 3.0), kind="box")), EXACT),
    "erased": (CROP.with_(erase=Erase(p=0.8, value=0.25)), EXACT),
    "colours first": (CROP.with_(jitter=JITTER, blur=Blur(p=0.5), order=("jitter", "blur", "crop")), ALMOST),
}


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("name", STEPS)
def test_each_step_means_what_it_means_to_render(name, device):
    view, limit = STEPS[name]
    pixels = pictures(device)
    (off,) = difference((view,), pixels, drawn((view,), pixels, seed=5))
    assert off.max() <= limit


@pytest.mark.parametrize("view", [
    CROP.with_(solarize=Solarize(p=0.7, threshold=90)),
    CROP.with_(posterize=Posterize(p=0.8, bits=3)),
    CROP.with_(rotate=Rotate(p=1.0, degrees=45)),
], ids=["solarize", "posterize", "nearest"])  # fmt: skip
def test_steps_with_thresholds_differ_next_to_them_alone(view):
    pixels = pictures()
    (off,) = difference((view,), pixels, drawn((view,), pixels))
    assert (off > EXACT).float().mean() < 0.01 and off.mean() < 0.3


def test_the_order_of_the_jitter_is_the_drawn_one():
    """Every order of brightness, contrast, saturation and hue, of one image."""
    view = WHOLE.with_(jitter=JITTER)
    pixels = [pictures()[0]] * 24
    plan = drawn((view,), pixels)
    plan.brightness, plan.contrast, plan.saturation, plan.hue = 1.6, 0.4, 1.7, 0.3
    plan.jitter_order[:, 0] = torch.tensor(list(itertools.permutations(range(4))), dtype=torch.float32)
    (off,) = difference((view,), pixels, plan)
    assert off.max() <= EXACT
    views = ops.render(pixels, plan, (view,))[0]
    assert len({view.numpy().tobytes() for view in views}) > 20, "the order makes no difference: the test shows nothing"


@pytest.mark.parametrize("device", devices())
def test_normalized_views_of_either_type(device):
    recipe = tuple(view.with_(erase=Erase(p=0.7)) for view in small("simclr")[:1])
    pixels = pictures(device)
    plan = drawn(recipe, pixels)
    want = ops.render([image.cpu() for image in pixels], plan, recipe)
    for dtype, limit in ((torch.float32, 9e-3), (torch.float16, 11e-3)):  # 0.5 / 255 / 0.224; 2^-11 of values up to 2.6
        made = DaliViews(recipe, batch_size=8, device=device, threads=2, dtype=dtype)
        (got,) = made(pixels, plan)
        assert got.dtype == dtype and (got.cpu().float() - want[0]).abs().max() <= limit
        fewer = made(pixels[:3], plan[:3])[0]
        assert torch.equal(fewer, made(pixels[:3], plan[:3])[0]) and torch.equal(fewer, got[:3])
    other = (View(crop=Crop(size=9), normalize=Normalize(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))),)
    plan = drawn(other, pixels)
    (got,) = DaliViews(other, batch_size=8, device=device, threads=2)(pixels, plan)
    assert (got.cpu() - ops.render([image.cpu() for image in pixels], plan, other)[0]).abs().max() <= 2e-4


def test_views_that_are_kept_stay_as_they_are():
    recipe, pixels = unnormalized(small("pirl")), pictures()
    made = DaliViews(recipe, batch_size=8, device="cpu", threads=2)
    kept, copies = [], []
    for seed in range(5):
        views = made(pixels, drawn(recipe, pixels, seed))
        kept += views
        copies += [view.clone() for view in views]
    del made
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_a_crop_within_another_and_the_same_again():
    recipe = (CROP, View(crop=Crop(size=8, inside=0), normalize=None), View(crop=SameCrop(size=10), normalize=None))
    pixels = pictures()
    assert all(off.max() <= EXACT for off in difference(recipe, pixels, drawn(recipe, pixels)))


def test_a_step_of_ones_own_is_named():
    with pytest.raises(ValueError, match=r"view 0 has custom=FrequencySteps.*custom=None.*ops\.render"):
        DaliViews(recipes.fda(), device="cpu")


PIXELS = pictures()[:2]
PLAN = drawn((CROP,), PIXELS)


@pytest.mark.parametrize("call, words", [
    (lambda: DaliViews((CROP,), device="cpu", dtype=torch.bfloat16), r"dtype=torch\.bfloat16.*ops\.render"),
    (lambda: DaliViews((CROP,), device="cpu", batch_size=0), "batch_size=0"),
    (lambda: DaliViews((CROP,), device="mars"), "device='mars'"),
    (lambda: DaliViews((CROP,), device="meta"), 'device="meta"'),
    (lambda: DaliViews((CROP,), device="cpu", threads=0), "threads=0"),
    (lambda: DaliViews((), device="cpu"), "recipe: got"),
    (lambda: views_of(PIXELS * 2, PLAN), "got 4 images; batch_size=2"),
    (lambda: views_of([], PLAN), "got 0 images"),
    (lambda: views_of([PIXELS[0], PIXELS[1].float()], PLAN), r"image 1 is torch\.float32"),
    (lambda: views_of([PIXELS[0], PIXELS[1].permute(1, 0, 2)], PLAN), "image 1 is .*strides"),
    (lambda: views_of([PIXELS[0], PIXELS[1].numpy()], PLAN), "image 1 is ndarray"),
    (lambda: views_of(PIXELS[::-1], PLAN), r"drawn for 40 x 55 pixels.*image 0 has 49 x 52"),
    (lambda: views_of(PIXELS, PLAN[:1]), r"the plan has shape \(1, 1, "),
    (lambda: views_of(PIXELS, edited(hue=7.0)), "hue must be from -0.5 to 0.5"),
])  # fmt: skip
def test_arguments_are_checked(call, words):
    with pytest.raises((ValueError, TypeError), match=f"(?s){words}"):
        call()


def views_of(pixels, plan):
    return DaliViews((CROP.with_(jitter=JITTER),), batch_size=2, device="cpu", threads=1)(pixels, plan)


def edited(**fields):
    plan = drawn((CROP,), PIXELS)
    for name, value in fields.items():
        setattr(plan, name, value)
    return plan


def test_the_graph_for_a_gpu_holds_together(monkeypatch):
    """As far as DALI checks it without one: that each operator gets its inputs from where it can take them."""
    from nvidia.dali import Pipeline

    monkeypatch.setattr(Pipeline, "build", Pipeline._build_graph)
    everything = WHOLE.with_(
        jitter=JITTER,
        grayscale=Grayscale(),
        blur=Blur(),
        solarize=Solarize(),
        posterize=Posterize(),
        turn=QuarterTurn(),
        rotate=Rotate(),
        erase=Erase(),
    )
    made = DaliViews((everything, everything.with_(blur=Blur(kind="box"))), device="cpu", dtype=torch.float16)
    made.device = torch.device("cuda", 0)
    made._make()
    decoder = DaliDecoder(CPU, 4, 1)
    decoder._device, decoder._windows = made.device, False
    decoder._make()


def test_hue_is_what_dali_itself_would_not_give():
    """The reason for composing it: DALI's own hue, a rotation in YIQ, is far from a turn in HSV."""
    from nvidia.dali import Pipeline, fn, types

    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        image = fn.external_source(name="image", layout="HWC", ndim=3, dtype=types.UINT8)
        pipeline.set_outputs(fn.hue(image, hue=90.0))
    picture = images.gradient(24, 24)
    view = WHOLE.with_(jitter=Jitter(p=1.0, hue=0.5))
    plan = drawn((view,), [torch.from_numpy(picture)])
    plan.hue = 0.25
    want = ops.render([torch.from_numpy(picture)], plan, (view,))[0][0].permute(1, 2, 0).numpy() * 255
    (out,) = pipeline.run(image=[picture])
    assert np.abs(np.asarray(out[0]).astype(float) - want).mean() > 10
