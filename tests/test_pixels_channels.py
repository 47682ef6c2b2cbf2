"""Images of any number of channels, and of 16 bits a channel."""

from __future__ import annotations

import images
import numpy as np
import pytest
import reference
import torch
from pixels import FULL_JITTER, LARGEST, MEAN, PLAIN, check, check_pixels, plan_for, render, row

from fastssl import ops, recipes
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import (
    IMAGENET,
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Normalize,
    Posterize,
    QuarterTurn,
    Resize,
    Rotate,
    Solarize,
    View,
)

CHANNELS = [1, 2, 3, 4, 5, 13]
TYPES = [np.uint8, np.uint16]


def picture(height: int, width: int, channels: int, type: type = np.uint8, seed: int = 0) -> np.ndarray:
    """(H, W, C): photographs beside each other, one channel of each; of 16 bits, with all of them in use."""
    layers = [images.photo(height, width, seed=100 * seed + c)[:, :, c % 3] for c in range(channels)]
    pixels = np.stack(layers, axis=2)
    if type == np.uint16:
        low = np.random.default_rng(seed).integers(0, 256, pixels.shape)
        pixels = pixels.astype(np.uint16) * 256 + low.astype(np.uint16)
    return np.ascontiguousarray(pixels)


def statistics(channels: int) -> Normalize:
    return Normalize(
        mean=tuple(0.3 + 0.03 * c for c in range(channels)), std=tuple(0.2 + 0.02 * c for c in range(channels))
    )


VIEWS = {
    "crop": lambda size, c: View(crop=Crop(size=size), flip=Flip(), vflip=Flip(), turn=QuarterTurn(), **PLAIN),
    "bicubic": lambda size, c: View(crop=Crop(size=size, interpolation="bicubic"), normalize=statistics(c)),
    "whole": lambda size, c: View(crop=Resize(size=size), rotate=Rotate(p=1.0), normalize=statistics(c)),
    "rotated": lambda size, c: View(
        crop=CenterCrop(size=size), rotate=Rotate(p=1.0, degrees=180, interpolation="bilinear"), **PLAIN
    ),
    "blurred": lambda size, c: View(crop=Crop(size=size), blur=Blur(p=1.0), normalize=statistics(c)),
    "by boxes": lambda size, c: View(crop=Crop(size=size), blur=Blur(p=1.0, kind="box"), **PLAIN),
    "all": lambda size, c: View(
        crop=Crop(size=size, interpolation="bicubic"),
        flip=Flip(),
        rotate=Rotate(p=0.5),
        blur=Blur(p=0.5),
        solarize=Solarize(p=0.5),
        posterize=Posterize(p=0.5, bits=2),
        erase=Erase(p=0.7, value=0.4),
        normalize=statistics(c),
    ),
    "before the crop": lambda size, c: View(
        crop=Crop(size=size),
        turn=QuarterTurn(),
        blur=Blur(p=0.7),
        solarize=Solarize(p=0.5),
        posterize=Posterize(p=0.5, bits=3),
        order=("solarize", "blur", "posterize", "crop"),
        normalize=statistics(c),
    ),
}


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", sorted(VIEWS))
def test_any_number_of_channels(name, channels, type):
    shapes = [(1, 1), (1, 9), (2, 3), (33, 47), (60, 41), (97, 80)]
    for size in (1, 7, 32):
        view = VIEWS[name](size, channels)
        batch = [picture(*shape, channels, type, seed=i) for i, shape in enumerate(shapes)]
        plan = Plan.draw((view,), shapes, seed=4, epoch=size)
        (got,) = ops.render([torch.from_numpy(image) for image in batch], plan, (view,))
        assert got.shape == (len(shapes), channels, size, size) and got.is_contiguous()
        for i, image in enumerate(batch):
            assert check_pixels(got[i], image, row(plan, i), view) < 0.05


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_channel_does_not_depend_on_the_others(channels):
    """Each is what it is in an image of its own."""
    image = picture(40, 50, channels)
    numbers = {"sigma_px": 1.3, "solarize": 0.6, "posterize": 4, "angle": 12.0, "flip_h": 1, "turns": 1}
    parts = {"blur": Blur(), "solarize": Solarize(), "posterize": Posterize(), "rotate": Rotate()}
    view = View(crop=Crop(size=27), **parts, **PLAIN)
    together = render(image, plan_for(image, view, **numbers), view)
    for c in range(channels):
        layer = np.ascontiguousarray(image[:, :, c : c + 1])
        assert torch.equal(render(layer, plan_for(layer, view, **numbers), view)[0], together[c])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_types_and_layouts(channels, type, dtype):
    normalize = None if dtype == torch.uint8 else statistics(channels)
    view = View(crop=Crop(size=19), blur=Blur(p=1.0), erase=Erase(p=1.0, value=0.3), normalize=normalize)
    batch = [torch.from_numpy(picture(30 + i, 25, channels, type, seed=i)) for i in range(3)]
    plan = Plan.draw((view,), [tuple(image.shape[:2]) for image in batch], seed=0)
    (exact,) = ops.render(batch, plan, (view,))
    (plain,) = ops.render(batch, plan, (view,), dtype=dtype)
    (last,) = ops.render(batch, plan, (view,), dtype=dtype, channels_last=True)
    assert plain.dtype == last.dtype == dtype
    assert plain.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)
    if dtype == torch.uint8:
        assert (plain.double() - exact.double() * 255).abs().max() <= 0.5 + 1e-4  # for values that lie between two
    else:
        assert torch.equal(plain, exact.to(dtype))
    for layout in (False, True):
        format = torch.channels_last if layout else torch.contiguous_format
        out = torch.empty((3, channels, 19, 19), dtype=dtype, memory_format=format)
        ops.render(batch, plan, (view,), dtype=dtype, channels_last=layout, out=[out])
        assert torch.equal(out, plain)


# --- 16 bits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 96])
def test_three_channels_of_16_bits_take_every_recipe(size):
    for view in (recipes.simclr(size)[0], recipes.evaluation(size)[0]):
        shapes = [(1, 1), (80, 60), (120, 150), (33, 200)]
        batch = [picture(*shape, 3, np.uint16, seed=i) for i, shape in enumerate(shapes)]
        plan = Plan.draw((view,), shapes, seed=2)
        (got,) = ops.render([torch.from_numpy(image) for image in batch], plan, (view,))
        for i, image in enumerate(batch):
            check_pixels(got[i], image, row(plan, i), view)


def test_16_bits_are_not_cut_to_8():
    """A ramp within one level of 8 bits stays a ramp, to a hundredth of that level."""
    ramp = (30000 + 4 * np.arange(64)).astype(np.uint16)
    image = np.repeat(np.repeat(ramp[None, :, None], 64, axis=0), 3, axis=2)
    for view in (
        View(crop=Resize(size=64), **PLAIN),
        View(crop=Resize(size=32, interpolation="bicubic"), **PLAIN),
        View(crop=Resize(size=64), jitter=FULL_JITTER, order=("jitter", "crop"), **PLAIN),
    ):
        got = render(image, plan_for(image, view), view)
        want = reference.render(image, row(plan_for(image, view)), view)
        assert np.abs(got.double().numpy() - want).max() < 0.01 / 255
        assert (got[:, :, 1:] > got[:, :, :-1]).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_ends_of_16_bits_are_exactly_black_and_white(interpolation):
    for value in (0, 65535):
        image = np.full((50, 70, 2), value, dtype=np.uint16)
        view = View(crop=Resize(size=33, interpolation=interpolation), **PLAIN)
        got = render(image, plan_for(image, view), view)
        assert got.min() >= 0 and got.max() <= 1 and (got - value / 65535).abs().max() < 1e-6


def test_8_bits_stretched_to_16_give_the_same_pixels():
    image = images.photo(60, 70)
    view = recipes.simclr(32)[0]
    plan = Plan.draw((view,), [(60, 70)], seed=1)
    wide = image.astype(np.uint16) * 257
    unit = np.reshape(IMAGENET.std, (3, 1, 1))
    error = np.abs((render(image, plan, view) - render(wide, plan, view)).double().numpy()) * unit
    assert error.max() <= LARGEST and error.mean() <= MEAN


def test_images_of_8_and_16_bits_may_meet_in_a_batch():
    view = recipes.simclr(32)[0]
    small, wide = picture(40, 50, 3), picture(60, 30, 3, np.uint16)
    plan = Plan.draw((view,), [(40, 50), (60, 30)], seed=1)
    (got,) = ops.render([torch.from_numpy(small), torch.from_numpy(wide)], plan, (view,))
    check_pixels(got[0], small, row(plan, 0), view)
    check_pixels(got[1], wide, row(plan, 1), view)


def test_strided_images_of_any_channels():
    image = torch.from_numpy(picture(80, 60, 5, np.uint16))
    view = View(crop=Crop(size=32), **PLAIN)
    for strided in (
        image.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        image[::2, 5:50],
        image[:, ::3],
        image[:, :, 1:3],
    ):
        plan = Plan.draw((view,), [tuple(strided.shape[:2])], seed=0)
        (want,) = ops.render([strided.contiguous()], plan, (view,))
        (got,) = ops.render([strided], plan, (view,))
        assert torch.equal(got, want)


def test_an_identity_of_many_channels():
    for type in TYPES:
        image = picture(61, 61, 13, type)
        view = View(crop=Crop(size=61), **PLAIN)
        check(image, plan_for(image, view), view)
        if type == np.uint8:
            got = render(image, plan_for(image, view), view, dtype=torch.uint8)
            assert torch.equal(got, torch.from_numpy(image).permute(2, 0, 1))


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
@pytest.mark.parametrize("order", [("crop", "jitter", "grayscale"), ("grayscale", "jitter", "crop")])
@pytest.mark.parametrize(
    "part", [{"jitter": FULL_JITTER}, {"grayscale": Grayscale(p=1.0)}], ids=["jitter", "grayscale"]
)
def test_colours_need_three_channels(part, order, channels):
    image = torch.from_numpy(picture(8, 8, channels))
    view = View(crop=Crop(size=8), order=order, **part, **PLAIN)
    with pytest.raises(ValueError, match=rf"image 0: it has {channels} channels.*three"):
        ops.render([image], Plan.draw((view,), [(8, 8)], seed=0), (view,))


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_normalization_needs_as_many_means_as_channels(channels):
    image = torch.from_numpy(picture(8, 8, channels))
    view = View(crop=Crop(size=8), normalize=IMAGENET)
    with pytest.raises((ValueError, TypeError), match=rf"(?s)(3.*{channels}|{channels}.*3)"):
        ops.render([image], Plan.draw((view,), [(8, 8)], seed=0), (view,))
    image = torch.from_numpy(picture(8, 8, 3))
    view = View(crop=Crop(size=8), normalize=statistics(channels))
    with pytest.raises((ValueError, TypeError), match=rf"(?s)(3.*{channels}|{channels}.*3)"):
        ops.render([image], Plan.draw((view,), [(8, 8)], seed=0), (view,))


def test_images_of_a_batch_have_as_many_channels():
    view = View(crop=Crop(size=8), **PLAIN)
    batch = [torch.from_numpy(picture(8, 8, channels)) for channels in (3, 4)]
    with pytest.raises((ValueError, TypeError), match=r"(?s)image 1.*4"):
        ops.render(batch, Plan.draw((view,), [(8, 8)] * 2, seed=0), (view,))


def test_an_image_without_a_channel_is_refused():
    view = View(crop=Crop(size=8), **PLAIN)
    with pytest.raises((ValueError, TypeError), match="image 0"):
        ops.render([torch.zeros((8, 8, 0), dtype=torch.uint8)], Plan.draw((view,), [(8, 8)], seed=0), (view,))
