"""The float64 reference agrees with torchvision.transforms.v2.functional, operation by operation.

Both compute in float64 here, so they differ by rounding alone: 1e-9 bounds a sum of some hundred terms with room.
torchvision's hue works in float32 whatever it is given, so there the bound is 1e-5.
"""

from __future__ import annotations

import math

import images
import numpy as np
import pytest
import reference
import torch
from torchvision.transforms.v2 import functional as F

ROUNDING = 1e-9
SINGLE = 1e-5
KINDS = sorted(images.KINDS)


def unit(kind: str, height: int = 61, width: int = 83) -> np.ndarray:
    return images.KINDS[kind](height, width).astype(np.float64).transpose(2, 0, 1) / 255


def off(got: np.ndarray, want: torch.Tensor) -> float:
    assert got.shape == tuple(want.shape)
    return float(np.abs(got - want.numpy()).max())


@pytest.fixture
def torchvision_luma(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's tensor code weighs red with 0.2989, BT.601 (and Pillow, and torchvision's documents) with 0.299."""
    monkeypatch.setattr(reference, "LUMA", (0.2989, 0.587, 0.114))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "height, width, size",
    [
        (1, 1, 1),
        (1, 1, 9),
        (2, 3, 1),
        (7, 5, 32),
        (61, 83, 61),
        (61, 83, 32),
        (300, 200, 7),
        (1000, 3, 33),
        (97, 97, 96),
    ],
)
def test_resize(height, width, size, interpolation):
    x = unit("noise", height, width)
    want = F.resize(torch.from_numpy(x), [size, size], interpolation=interpolation, antialias=True)
    assert off(reference.resize(x, size, interpolation), want.clamp(0, 1)) < ROUNDING


def test_bicubic_overshoot_is_what_the_clamp_removes():  # else the clamp in test_resize would hide a difference
    x = torch.from_numpy(unit("extremes"))
    want = F.resize(x, [224, 224], interpolation="bicubic", antialias=True)
    assert want.max() > 1.01 and want.min() < -0.01


def test_crop():
    x = unit("noise")
    assert off(reference.crop(x, 5, 11, 20, 30), F.crop(torch.from_numpy(x), 5, 11, 20, 30)) == 0


def test_flips_and_turns():
    x = unit("noise", 40, 40)
    t = torch.from_numpy(x)
    assert off(reference.flip_h(x), F.horizontal_flip(t)) == 0
    assert off(reference.flip_v(x), F.vertical_flip(t)) == 0
    for turns in range(4):
        assert off(reference.quarter_turns(x, turns), F.rotate(t, 90.0 * turns)) == 0


@pytest.mark.usefixtures("torchvision_luma")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.9, 1.0, 1.3, 1.8, 4.0])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_blends(name, factor, kind):
    x = unit(kind)
    want = getattr(F, f"adjust_{name}")(torch.from_numpy(x), factor)
    assert off(getattr(reference, f"adjust_{name}")(x, factor), want) < ROUNDING


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [-0.5, -0.31, -0.2, -0.01, 0.0, 1 / 6, 0.2, 0.5])
def test_hue(shift, kind):
    x = unit(kind)
    assert off(reference.adjust_hue(x, shift), F.adjust_hue(torch.from_numpy(x), shift)) < SINGLE


@pytest.mark.usefixtures("torchvision_luma")
def test_grayscale():
    x = unit("photo")
    assert off(reference.grayscale(x), F.rgb_to_grayscale(torch.from_numpy(x), num_output_channels=3)) < ROUNDING


def test_red_weighs_as_in_bt601():  # the one place where this reference and torchvision's tensor code differ
    assert reference.LUMA == (0.299, 0.587, 0.114)
    x = unit("extremes")
    gap = off(reference.grayscale(x), F.rgb_to_grayscale(torch.from_numpy(x), num_output_channels=3))
    assert 0.99e-4 < gap < 1.01e-4


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0, 3.7])
def test_blur(sigma):
    x = unit("noise")
    side = 2 * max(1, math.ceil(5 * sigma)) + 1
    want = F.gaussian_blur(torch.from_numpy(x), kernel_size=[side, side], sigma=[sigma, sigma])
    assert off(reference.blur(x, sigma), want) < ROUNDING


def test_blur_past_the_far_border_reflects_again():  # torchvision refuses this case; numpy's reflect is periodic
    for n in (1, 2, 3, 5):
        line = np.arange(n, dtype=float)
        radius = 17
        padded = np.pad(line, radius, mode="reflect")
        assert (line[reference.reflect(np.arange(-radius, n + radius), n)] == padded).all()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 128 / 255, 1.0])
def test_solarize(threshold):
    x = unit("photo")
    assert off(reference.solarize(x, threshold), F.solarize(torch.from_numpy(x), threshold)) == 0


def test_normalize():
    x = unit("photo")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    assert off(reference.normalize(x, tuple(mean), tuple(std)), F.normalize(torch.from_numpy(x), mean, std)) < ROUNDING


@pytest.mark.usefixtures("torchvision_luma")
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]])
def test_jitter_in_drawn_order(order):
    x = unit("photo")
    t = torch.from_numpy(x)
    for operation in order:
        if operation == reference.BRIGHTNESS:
            t = F.adjust_brightness(t, 1.6)
        elif operation == reference.CONTRAST:
            t = F.adjust_contrast(t, 1.5)
        elif operation == reference.SATURATION:
            t = F.adjust_saturation(t, 0.4)
        else:
            t = F.adjust_hue(t, -0.15)
    # 6 bounds how far contrast and brightness stretch the float32 error of the hue.
    assert off(reference.jitter(x, order, 1.6, 1.5, 0.4, -0.15), t) < 6 * SINGLE
