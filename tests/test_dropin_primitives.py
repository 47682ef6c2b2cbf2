"""lightly's transforms of single images, spectra and grids: what they compute, beside lightly's own."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import dropin
import numpy as np
import pytest
import reference
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Mask

from fastssl.transforms import (
    AddGridTransform,
    AmplitudeRescaleTransform,
    Erase,
    GaussianBlur,
    GaussianMixtureMask,
    ImageGridTransform,
    IRFFT2DTransform,
    Jigsaw,
    MultiCropTranform,
    MultiCropTransform,
    MultiViewTransformV2,
    PhaseShiftTransform,
    Posterize,
    QuarterTurn,
    RandomFrequencyMaskTransform,
    RandomResizedCropAndFlip,
    RandomRotate,
    RandomRotateDegrees,
    RandomSolarization,
    Resize,
    RFFT2DTransform,
    Rotate,
    SwaVViewTransform,
    ToTensor,
    VICRegLViewTransform,
    View,
    random_rotation_transform,
    torchvision_transforms,
)
from fastssl.transforms.uncropped import UncroppedTransform

PHOTO = dropin.PHOTO
IMAGE = Image.fromarray(PHOTO)


def theirs(module: str, name: str) -> Any:
    dropin.lightly()
    return getattr(importlib.import_module(f"lightly.transforms.{module}"), name)


# Blur, solarization, rotation


def test_gaussian_blur_is_pillows():
    blur = theirs("gaussian_blur", "GaussianBlur")(prob=1.0, sigmas=(1.5, 1.5))
    ours = GaussianBlur(prob=1.0, sigmas=(1.5, 1.5))
    assert np.array_equal(ours(IMAGE), blur(IMAGE))
    tensor = v2.functional.to_image(IMAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lightly calls what torchvision deprecates
        for image in (tensor, tensor.float() / 255):
            # Of 8 bits both, times 1 / 255 here and divided by 255 there.
            assert (ours(image) - blur(image)).abs().max() <= torch.finfo(torch.float32).eps


@pytest.mark.parametrize("kind", ["PIL", "uint8", "float"])
def test_what_happens_never_leaves_the_image(kind):
    image = {"PIL": IMAGE, "uint8": v2.functional.to_image(IMAGE), "float": v2.functional.to_image(IMAGE) / 255}[kind]
    for transform in (RandomSolarization(prob=0.0), RandomRotate(prob=0.0), RandomRotateDegrees(0.0, 30)):
        assert transform(image) is image
    expected = image if kind == "PIL" else ToTensor()(image) if kind == "uint8" else image
    assert np.array_equal(GaussianBlur(prob=0.0)(image), expected)


def test_solarization_is_pillows_and_takes_tensors():
    expected = np.asarray(theirs("solarize", "RandomSolarization")(prob=1.0)(IMAGE))
    ours = RandomSolarization(prob=1.0)
    assert np.array_equal(ours(IMAGE), expected)
    assert np.array_equal(ours(v2.functional.to_image(IMAGE)).permute(1, 2, 0), expected)
    floats = ours(v2.functional.to_image(IMAGE).float() / 255).permute(1, 2, 0) * 255
    assert (floats - torch.from_numpy(expected.astype(np.float32))).abs().max() <= 1e-3  # of 255: float32


@pytest.mark.parametrize("transform", ["GaussianBlur", "RandomSolarization", "RandomRotate", "RandomRotateDegrees"])
def test_probabilities_are_probabilities(transform):
    made = {
        "GaussianBlur": lambda p: GaussianBlur(prob=p, sigmas=(2, 2)),
        "RandomSolarization": lambda p: RandomSolarization(p, 10),
        "RandomRotate": lambda p: RandomRotate(p),
        "RandomRotateDegrees": lambda p: RandomRotateDegrees(p, (80, 80)),
    }[transform](0.3)
    torch.manual_seed(0)
    small = IMAGE.resize((8, 8))
    share = np.mean([not np.array_equal(made(small), small) for _ in range(600)])
    assert abs(share - 0.3) <= 5 * (0.3 * 0.7 / 600) ** 0.5  # five standard errors


def test_rotations_are_lightlys():
    for degrees in (None, 30, (10, 20)):
        ours = random_rotation_transform(1.0, degrees)
        assert type(ours).__name__ == type(theirs("rotation", "random_rotation_transform")(1.0, degrees)).__name__
    assert np.array_equal(RandomRotate(1.0, 90)(IMAGE), theirs("rotation", "RandomRotate")(1.0, 90)(IMAGE))
    reference = theirs("rotation", "RandomRotateDegrees")(1.0, (33, 33))
    assert np.array_equal(RandomRotateDegrees(1.0, (33, 33))(IMAGE), reference(IMAGE))


# Spectra


def test_spectra_go_there_and_back():
    image = torch.rand(3, 15, 20)
    spectrum = RFFT2DTransform()(image)
    assert torch.equal(spectrum, theirs("rfft2d_transform", "RFFT2DTransform")()(image))
    back = IRFFT2DTransform((15, 20))(spectrum)
    assert torch.equal(back, theirs("irfft2d_transform", "IRFFT2DTransform")((15, 20))(spectrum))
    torch.testing.assert_close(back, image)


FREQUENCIES = {
    "amplitude_rescale_transform": (AmplitudeRescaleTransform, {}),
    "phase_shift_transform": (PhaseShiftTransform, {"include_negatives": True, "sign_probability": 0.3}),
    "random_frequency_mask_transform": (RandomFrequencyMaskTransform, {}),
    "gaussian_mixture_masks_transform": (GaussianMixtureMask, {"num_gaussians": 3, "std_range": (2, 4)}),
}


@pytest.mark.parametrize("module", FREQUENCIES)
def test_changed_spectra_have_lightlys_distribution(module):
    ours, arguments = FREQUENCIES[module]
    reference = theirs(module, ours.__name__)(**arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    spectrum = torch.fft.rfft2(torch.rand(2, 12, 16))

    def ratios(transform: Any) -> torch.Tensor:
        out = torch.stack([transform(spectrum.clone()) for _ in range(500)])
        ratio = out / spectrum
        assert torch.allclose(ratio[:, 0], ratio[:, 1], atol=1e-4), "channels were drawn for apart"
        return torch.stack([ratio[:, 0].real, ratio[:, 0].imag], dim=1).flatten(1).double()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lightly's meshgrid
        a, b = ratios(ours(**arguments)), ratios(reference)
    for numbers in (lambda r: r, lambda r: r**2):
        x, y = numbers(a), numbers(b)
        error = ((x.var(dim=0) + y.var(dim=0)) / 500).sqrt()
        # 216 frequencies, real and imaginary: six standard errors fail by chance once in a million; and float32.
        assert ((x.mean(dim=0) - y.mean(dim=0)).abs() <= 6 * error + 1e-4).all()


# Grids


@pytest.mark.parametrize("size", [(12, 12), (13, 20), (100, 7), (5, 5)])
@pytest.mark.parametrize("rows, columns", [(1, 1), (2, 3), (5, 5)])
def test_grids_of_masks_and_boxes_are_lightlys(size, rows, columns):
    reference, ours = theirs("add_grid_transform", "AddGridTransform")(rows, columns), AddGridTransform(rows, columns)
    mask = Mask(torch.zeros((1, *size), dtype=torch.uint8))
    for format in ("XYXY", "CXCYWH"):
        boxes = BoundingBoxes(torch.zeros(2, 4), format=format, canvas_size=size)
        got, expected = ours(IMAGE, mask, boxes), reference(IMAGE, mask, boxes)
        assert got[0] is IMAGE
        assert torch.equal(got[1], expected[1]) and type(got[1]) is Mask and got[1].dtype == torch.uint8
        assert torch.equal(got[2], expected[2]) and got[2].format == expected[2].format


def test_wrong_grids_are_named():
    with pytest.raises(ValueError, match="num_rows=0"):
        AddGridTransform(0, 2)
    with pytest.raises(ValueError, match="1 dimensions"):
        AddGridTransform(2, 2)(Mask(torch.zeros(4)))


# Crops


def test_jigsaws_have_lightlys_tiles():
    image = Image.fromarray(np.arange(36 * 36 * 3, dtype=np.uint32).reshape(36, 36, 3).astype(np.uint8))
    for transform in (theirs("jigsaw", "Jigsaw")(3, 36, 12), Jigsaw(3, 36, 12)):
        tiles = transform(image)
        assert (tiles.shape, tiles.dtype) == ((9, 3, 12, 12), torch.float32)
        assert torch.equal(tiles.flatten().sort().values, ToTensor()(image).flatten().sort().values)
    assert Jigsaw(3, 255, 64)(IMAGE).shape == (9, 3, 64, 64)
    with pytest.raises(ValueError, match=r"crop_size=86 must be from 1 to img_size // n_grid = 255 // 3 = 85"):
        Jigsaw(3, 255, 86)


def test_crops_with_locations_say_where_they_are():
    module = "random_crop_and_flip_with_grid"
    ours = importlib.import_module(f"fastssl.transforms.{module}")
    image = np.zeros((60, 80, 3), np.uint8)
    image[..., 0], image[..., 1] = 3 * np.arange(80)[None, :], 4 * np.arange(60)[:, None]
    torch.manual_seed(0)
    crop, location = ours.RandomResizedCropWithLocation(16, scale=(0.2, 0.5))(Image.fromarray(image))
    assert (location.image_height, location.image_width) == (60, 80)
    red, green = np.asarray(crop, dtype=float)[..., 0] / 3 + 0.5, np.asarray(crop, dtype=float)[..., 1] / 4 + 0.5
    assert abs(red.mean() - (location.left + location.width / 2)) <= 1  # pixel: 8 bits, and the border
    assert abs(green.mean() - (location.top + location.height / 2)) <= 1
    flipped, same = ours.RandomHorizontalFlipWithLocation(1.0)(crop, location)
    assert same.horizontal_flip and np.array_equal(np.asarray(flipped), np.asarray(crop)[:, ::-1])
    flipped, same = ours.RandomVerticalFlipWithLocation(1.0)(crop, location)
    assert same.vertical_flip and np.array_equal(np.asarray(flipped), np.asarray(crop)[::-1])


def test_crops_with_grids_have_lightlys_structure():
    arguments = {"grid_size": 3, "crop_size": 16, "vf_prob": 0.2}
    for cls in (theirs("random_crop_and_flip_with_grid", "RandomResizedCropAndFlip"), RandomResizedCropAndFlip):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lightly calls what torchvision deprecates
            crop, grid = cls(**arguments)(IMAGE)
        assert isinstance(crop, Image.Image) and crop.size == (16, 16)
        assert (grid.shape, grid.dtype) == ((3, 3, 2), torch.float32)


def test_image_grids_take_any_transforms():
    transform = ImageGridTransform([(lambda image: (image, torch.zeros(2, 2, 2)), ToTensor())] * 2)
    out = transform(IMAGE)
    assert [tuple(part.shape) for part in out] == [(3, 100, 120)] * 2 + [(2, 2, 2)] * 2
    mixed = ImageGridTransform([(RandomResizedCropAndFlip(2, 16), ToTensor())])
    assert [tuple(part.shape) for part in mixed(IMAGE)] == [(3, 16, 16), (2, 2, 2)]
    whole = ImageGridTransform([(RandomResizedCropAndFlip(2, 16), VICRegLViewTransform())])
    assert [tuple(part.shape) for part in whole(IMAGE)] == [(3, 16, 16), (2, 2, 2)]


def test_multi_crops_have_lightlys_name_and_take_any_transform():
    assert MultiCropTranform is MultiCropTransform
    views = MultiCropTranform((20, 10), (1, 2), (0.5, 0.1), (1.0, 0.5), ToTensor())(IMAGE)
    assert [view.shape[-1] for view in views] == [20, 10, 10]
    with pytest.raises(ValueError, match=r"crop_max_scales=\(1.0,\) must hold 2"):
        MultiCropTranform((20, 10), (1, 2), (0.5, 0.1), (1.0,), ToTensor())


@pytest.mark.parametrize("side", [3, 40])
def test_what_comes_after_a_crop_works_on_any_shape(side):
    image = torch.randint(0, 256, (3, side, 2 * side), dtype=torch.uint8)
    everything = SwaVViewTransform(vf_prob=0.5, rr_prob=0.5, rr_degrees=20, gaussian_blur=1.0, cj_prob=1.0)
    assert everything(image).shape == image.shape
    still = SwaVViewTransform(hf_prob=0, cj_prob=0, random_gray_scale=0, gaussian_blur=0, normalize=None)
    assert torch.equal(still(image), image.float() / 255)
    turned = SwaVViewTransform(hf_prob=0, cj_prob=0, random_gray_scale=0, gaussian_blur=0, normalize=None, rr_prob=1.0)
    assert torch.equal(turned(image), v2.functional.rotate(image, 90).float() / 255)
    solarized = VICRegLViewTransform(0.0, solarize_prob=1.0, cj_prob=0, random_gray_scale=0, normalize=None)(image)
    expected = torch.where(image >= 128, 255 - image, image).float() / 255
    assert (solarized - expected).abs().max() <= 1e-6


STILL: dict[str, Any] = {"hf_prob": 0, "cj_prob": 0, "random_gray_scale": 0, "normalize": None}


@pytest.mark.parametrize("sigma", [0.3, 1.7, 40.0])
def test_a_box_blur_after_any_crop_is_pillows(sigma):
    image = v2.functional.to_image(IMAGE)[:, :61]
    transform = SwaVViewTransform(gaussian_blur=1.0, sigmas=(sigma, sigma), blur_kind="box", **STILL)
    expected = reference.box_blur(image.double().numpy() / 255, sigma)
    assert np.abs(transform(image).numpy() - expected).max() <= 1e-5  # float32, a few hundred sums
    pillows = np.asarray(v2.functional.to_pil_image(image).filter(ImageFilter.GaussianBlur(sigma)), dtype=float)
    # Pillow rounds each of six passes to 8 bits, by at most half a step.
    assert np.abs(transform(image).permute(1, 2, 0).numpy() * 255 - pillows).max() <= 3


def test_box_blurs_draw_their_deviation_and_reach_vicregl():
    image = v2.functional.to_image(IMAGE)
    still = {"cj_prob": 0, "random_gray_scale": 0, "normalize": None}
    transform = VICRegLViewTransform(1.0, gaussian_blur_sigmas=(1.0, 3.0), blur_kind="box", **still)
    sharp, soft = (reference.box_blur(image.double().numpy() / 255, sigma) for sigma in (1.0, 3.0))
    torch.manual_seed(0)
    assert np.abs(VICRegLViewTransform(1.0, (3.0, 3.0), blur_kind="box", **still)(image).numpy() - soft).max() <= 1e-5
    spreads = {round(transform(image).std().item(), 6) for _ in range(8)}
    assert len(spreads) == 8 and soft.std() < min(spreads) < max(spreads) < sharp.std()


def test_every_turn_is_drawn_after_any_crop():
    image = v2.functional.to_image(IMAGE)[:, :, :100]
    turn = UncroppedTransform(View(crop=Resize(size=1), turn=QuarterTurn(p=1.0, turns=(2, 3)), normalize=None))
    torch.manual_seed(0)
    ways = [image.rot90(k, (1, 2)) / 255 for k in range(4)]
    drawn = [[torch.equal(out, way) for way in ways].index(True) for out in (turn(image) for _ in range(200))]
    assert {*drawn} == {2, 3} and abs(drawn.count(2) - 100) <= 5 * 50**0.5  # five standard errors
    upright = UncroppedTransform(View(crop=Resize(size=1), turn=QuarterTurn(p=0.0, turns=3), normalize=None))
    assert torch.equal(upright(image), ways[0])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_rotations_after_any_crop_interpolate_as_asked(interpolation):
    image = v2.functional.pil_to_tensor(IMAGE)
    rotate = Rotate(p=1.0, degrees=(20, 20), interpolation=interpolation)
    out = UncroppedTransform(View(crop=Resize(size=1), rotate=rotate, normalize=None))(image)
    mode = v2.InterpolationMode(interpolation)
    expected = v2.functional.rotate(image.float() / 255, 20, interpolation=mode)
    assert (out - expected).abs().max() <= 1e-5  # float32; the layouts in memory differ, and so the order of sums


def test_erasing_comes_last_after_any_crop():
    erase = Erase(p=1.0, area=(0.25, 0.25), aspect=(1.0, 1.0), value=-7.0)
    out = UncroppedTransform(View(crop=Resize(size=1), erase=erase))(torch.zeros(3, 40, 40, dtype=torch.uint8))
    assert (out == -7.0).sum().item() == 3 * 20 * 20


def test_what_torchvision_lacks_is_named():
    with pytest.raises(ValueError, match="posterize has no counterpart"):
        UncroppedTransform(View(crop=Resize(size=1), posterize=Posterize()))(IMAGE)


# The rest


def test_several_views_of_several_things():
    both = MultiViewTransformV2([v2.CenterCrop(10), v2.Resize((4, 5))])(
        v2.functional.to_image(IMAGE), Mask(torch.ones(1, 100, 120))
    )
    assert [tuple(part.shape) for view in both for part in view] == [(3, 10, 10), (1, 10, 10), (3, 4, 5), (1, 4, 5)]


def test_torchvision_is_there_under_lightlys_names():
    assert torchvision_transforms.ToTensor is ToTensor
    assert torchvision_transforms.RandomResizedCrop is v2.RandomResizedCrop
    assert "Compose" in dir(torchvision_transforms)
    assert torch.equal(ToTensor()(IMAGE), theirs("torchvision_v2_compatibility", "ToTensor")()(IMAGE))
