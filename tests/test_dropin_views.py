"""lightly's transform classes for every method: what comes out, its structure and its distribution."""

from __future__ import annotations

import importlib
import inspect
import pickle
import warnings
from typing import Any

import dropin
import images
import numpy as np
import pytest
import torch
from lightly_views import METHODS, SINGLE, VIEWS, both, views_of
from PIL import Image
from torch.utils.data import DataLoader, default_collate
from torchvision.tv_tensors import Mask

import fastssl.transforms
from fastssl.data import BaseCollateFunction, MultiViewCollate
from fastssl.transforms import MultiViewTransform, PIRLTransform, ViewTransform

PHOTO = dropin.PHOTO
IMAGE = Image.fromarray(PHOTO)

# Structures


def structures(name: str, arguments: dict[str, Any], *, module: str | None = None) -> tuple[Any, Any]:
    """What both libraries' transforms make of a PIL image."""
    out = []
    for package in ("lightly", "fastssl"):
        dropin.lightly()
        found = importlib.import_module(f"{package}.transforms{'.' + module if module else ''}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out.append(dropin.structure(getattr(found, name)(**arguments)(IMAGE)))
    return out[0], out[1]


@pytest.mark.parametrize("name", METHODS)
def test_views_have_lightlys_structure(name):
    theirs, ours = structures(name, METHODS[name][1])
    assert ours == theirs


@pytest.mark.parametrize("name", [*SINGLE, *VIEWS])
def test_single_views_have_lightlys_structure(name):
    theirs, _ = both(name)
    size = next(n for n in ("input_size", "crop_size") if n in inspect.signature(theirs).parameters)
    theirs_, ours = structures(name, {size: 24})
    assert ours == theirs_


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("VICRegLTransform", {"global_crop_size": 24, "local_crop_size": 16, "n_local_views": 2}),
        ("PIRLTransform", {"input_size": 64}),
        ("PIRLTransform", {"input_size": 32, "n_grid": 2, "normalize": None}),
        ("SwaVViewTransform", {}),
        ("VICRegLViewTransform", {}),
    ],
)
def test_other_transforms_have_lightlys_structure(name, arguments):
    theirs, ours = structures(name, arguments)
    assert ours == theirs


def test_ijepa_gives_a_bare_tensor():
    theirs, ours = structures("IJEPATransform", {"input_size": 24}, module="ijepa_transform")
    assert ours == theirs


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["DINOTransform", "SwaVTransform", "MSNTransform", "VICRegTransform", "MMCRTransform"])
def test_batches_have_lightlys_structure(name, workers):
    found = []
    for package in (dropin.lightly(), fastssl):
        transform = getattr(package.transforms, name)(**METHODS[name][1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loader = DataLoader(
                dropin.Images(6, transform),
                batch_size=4,
                num_workers=workers,
                collate_fn=package.data.MultiViewCollate(),
            )
            found.append([dropin.structure(batch) for batch in loader])
    assert found[0] == found[1]


def test_batches_of_vicregl_and_mae_have_lightlys_structure():
    small = {"VICRegLTransform": {"global_crop_size": 24, "local_crop_size": 16}, "MAETransform": {"input_size": 24}}
    for name, arguments in small.items():
        batches = []
        for package in (dropin.lightly(), fastssl):
            transform = getattr(package.transforms, name)(**arguments)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                out = transform(IMAGE)
            both_ways = MultiViewCollate()([(out, 3, "a.png")] * 3), default_collate([out] * 3)
            batches.append(dropin.structure(both_ways))
        assert batches[0] == batches[1]


def test_transforms_survive_pickling():
    for name, (_, arguments) in METHODS.items():
        transform = getattr(fastssl.transforms, name)(**arguments)
        copy = pickle.loads(pickle.dumps(transform))
        assert views_of(copy) == views_of(transform)


# DetCon's masks


MASK = Mask(torch.from_numpy((PHOTO[None, ..., 0] // 64).astype(np.int64)))


def without_values(structure: Any) -> Any:
    """A structure without the values of labels, which differ by what was drawn."""
    if isinstance(structure, tuple) and structure[:1] == ("tensor",):
        return structure[:3]
    return [without_values(part) for part in structure] if isinstance(structure, tuple | list) else structure


@pytest.mark.parametrize(
    "arguments, inputs",
    [
        ({}, (IMAGE,)),
        ({}, (IMAGE, MASK)),
        ({"grid_size": (3, 4)}, (IMAGE, MASK)),
        ({"grid_size": (3, 4)}, (IMAGE,)),
        ({"mask_fn": lambda image: torch.ones(image.size[::-1], dtype=torch.uint8)}, (IMAGE,)),
    ],
    ids=["image", "mask", "grid", "grid without a mask", "mask_fn"],
)
def test_detcon_has_lightlys_structure(arguments, inputs):
    theirs, ours = both("DetConSTransform")
    expected = dropin.structure(theirs(input_size=24, rr_prob=0.5, **arguments)(*inputs))
    got = dropin.structure(ours(input_size=24, rr_prob=0.5, **arguments)(*inputs))
    assert without_values(got) == without_values(expected)


@pytest.mark.parametrize("flips", [{}, {"hf_prob": 1.0}, {"hf_prob": 0.0, "vf_prob": 1.0}])
def test_detcons_masks_lie_upon_its_images(flips):
    # The mask is the image: red, in four steps; so is then each view's, but for pixels where an edge runs through.
    steps_ = np.repeat(np.arange(0, 256, 64, dtype=np.uint8), 30)[None, :].repeat(100, 0)
    image = np.stack([steps_] * 3, axis=-1)
    plain = {"cj_prob": 0.0, "random_gray_scale": 0.0, "gaussian_blur_t1": 0.0, "normalize": None}
    transform = fastssl.transforms.DetConSTransform(input_size=32, **plain, **flips)
    for view, mask in transform(image, torch.from_numpy(steps_.astype(np.int64))):
        same = ((view[0] * 255).round() == mask[0]).float().mean()
        assert same >= 0.8  # three edges, each one to three pixels of 32 wide


def test_detcons_wrong_arguments_are_named():
    ours = fastssl.transforms.DetConSTransform
    with pytest.raises(ValueError, match="both grid_size and mask_fn"):
        ours(grid_size=(2, 2), mask_fn=len)
    with pytest.raises(ValueError, match=r"grid_size=\(0, 2\)"):
        ours(grid_size=(0, 2))
    with pytest.raises(TypeError, match="got 3 things"):
        ours(input_size=16)(IMAGE, MASK, MASK)
    with pytest.raises(TypeError, match="the mask is str"):
        ours(input_size=16)(IMAGE, "mask")
    with pytest.raises(ValueError, match=r"\(1, 5, 5\), and its image was \(100, 120\)"):
        ours(input_size=16)(IMAGE, torch.zeros(5, 5))


# Distributions


COUNT = 900


def drawn(transform: Any, image: Any, which: int) -> torch.Tensor:
    views = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while len(views) < COUNT:
            out = transform(image)
            views += out if which == -1 else [out[which]]
    return torch.stack(views[:COUNT])


def compare(name: str, arguments: dict[str, Any], which: int) -> None:
    theirs, ours = both(name)
    torch.manual_seed(1)
    np.random.seed(1)  # where lightly draws blur, solarization and rotation
    arguments = {"normalize": None} | arguments
    dropin.check_same_distribution(drawn(ours(**arguments), PHOTO, which), drawn(theirs(**arguments), IMAGE, which))


DINO_SMALL = {"global_crop_size": 24, "local_crop_size": 24, "n_local_views": 1}


@pytest.mark.parametrize(
    "name, arguments, which",
    [
        ("MoCoV1Transform", {"input_size": 24}, -1),
        ("DINOTransform", DINO_SMALL, 0),
        ("DINOTransform", DINO_SMALL, 1),
        ("DINOTransform", DINO_SMALL, 2),
        ("SwaVTransform", {"crop_sizes": (24, 20), "crop_counts": (1, 1), "vf_prob": 0.4}, 1),
        ("SMoGTransform", {"crop_sizes": (24, 20), "crop_counts": (1, 1)}, 1),
        ("VICRegTransform", {"input_size": 24, "solarize_prob": 0.5}, -1),
        ("MAETransform", {"input_size": 24}, 0),
        (
            "VICRegLTransform",
            {"global_crop_size": 24, "local_crop_size": 20, "n_local_views": 0, "n_global_views": 1},
            0,
        ),
    ],
)
def test_views_have_lightlys_distribution(name, arguments, which):
    compare(name, arguments, which)


@pytest.mark.parametrize("which", [0, 1])
def test_byols_views_have_lightlys_distribution(which):
    name = f"BYOLView{which + 1}Transform"
    theirs, ours = both(name)
    torch.manual_seed(2)
    np.random.seed(2)
    arguments = {"input_size": 24, "normalize": None}
    mine = torch.stack([ours(**arguments)(PHOTO) for _ in range(COUNT)])
    dropin.check_same_distribution(mine, torch.stack([theirs(**arguments)(IMAGE) for _ in range(COUNT)]))


def test_rotated_views_have_lightlys_distribution():
    compare("SimSiamTransform", {"input_size": 24, "rr_prob": 0.7, "rr_degrees": (-20.0, 60.0)}, -1)


def test_views_coloured_before_the_crop_have_lightlys_distribution():
    theirs, ours = both("WMSETransform")
    torch.manual_seed(3)
    np.random.seed(3)
    compare("WMSETransform", {"input_size": 24, "normalize": {"mean": [0.0] * 3, "std": [1.0] * 3}}, -1)
    # Contrast of a lot, of an image that has little, about the mean of all of it or of a part: there the order shows.
    image = (110 + 36 * (np.arange(120) >= 60)[None, :, None] + PHOTO // 32).astype(np.uint8)
    arguments = {
        "input_size": 24,
        "cj_prob": 1.0,
        "cj_bright": 0.0,
        "cj_sat": 0.0,
        "cj_contrast": 5.0,
        "min_scale": 0.08,
    }
    expected = drawn(theirs(**arguments, normalize={"mean": [0.0] * 3, "std": [1.0] * 3}), Image.fromarray(image), -1)
    transform = ours(**arguments, normalize=None)
    dropin.check_same_distribution(drawn(transform, image, -1), expected)
    cropped_first = transform.transforms[0].view.with_(order=("crop", "jitter", "grayscale", "blur"))
    with pytest.raises(AssertionError, match="lightly"):
        dropin.check_same_distribution(drawn(MultiViewTransform([ViewTransform(cropped_first)]), image, -1), expected)


@pytest.mark.parametrize("name", ["FDAView1Transform", "FDAView2Transform"])
def test_views_of_changed_spectra_have_lightlys_distribution(name):
    theirs, ours = both(name)
    torch.set_num_threads(1)  # images are small
    torch.manual_seed(4)
    np.random.seed(4)
    # Without flips, which come before the spectrum here and after it in lightly; and clamped, where lightly's wrap around.
    arguments = {"input_size": 24, "normalize": None, "hf_prob": 0.0, "gmm_std_range": (2, 4)}
    reference = theirs(**arguments)
    parts = reference.transform.transforms
    at = next(i for i, part in enumerate(parts) if type(part).__name__ == "IRFFT2DTransform")
    parts.insert(at + 1, lambda image: image.clamp(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.stack([reference(IMAGE) for _ in range(COUNT)])
    (first, second), _, _ = BaseCollateFunction(ours(**arguments))([(PHOTO, 0)] * (COUNT // 2))
    dropin.check_same_distribution(torch.cat([first, second]), expected)


def test_tiles_of_a_puzzle_stay_inside_the_image():
    transform, image = PIRLTransform(input_size=64), images.photo(100, 120)
    for seed in range(300):  # in 10 of which float32 rounds the end of the last tile to beyond the image
        torch.manual_seed(seed)
        transform(image)
