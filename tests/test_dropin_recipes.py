"""lightly's transform classes for every method: names, arguments, numbers, structures, distributions."""

from __future__ import annotations

import importlib
import inspect
import pickle
import warnings
from typing import Any

import dropin
import lightly_views
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate
from torchvision.tv_tensors import Mask

import fastssl.transforms
from fastssl import recipes
from fastssl.data import BaseCollateFunction, MultiViewCollate
from fastssl.transforms import Blur, MultiViewTransform, ViewTransform

PHOTO = dropin.PHOTO
IMAGE = Image.fromarray(PHOTO)

MODULES = """add_grid_transform aim_transform amplitude_rescale_transform byol_transform capi_transform densecl_transform
detcon_transform dino_transform fast_siam_transform fda_transform gaussian_blur gaussian_mixture_masks_transform ibot_transform
ijepa_transform image_grid_transform irfft2d_transform jigsaw mae_transform mmcr_transform moco_transform msn_transform
multi_crop_transform multi_view_transform multi_view_transform_v2 phase_shift_transform pirl_transform
random_crop_and_flip_with_grid random_frequency_mask_transform rfft2d_transform rotation simclr_transform simsiam_transform
smog_transform solarize swav_transform tico_transform torchvision_v2_compatibility utils vicreg_transform vicregl_transform
wmse_transform""".split()

# Multi-view transforms with both libraries' names: the recipe that is its default, and arguments that keep tests small.
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "SimCLRTransform": (recipes.simclr(), {"input_size": 24}),
    "MoCoV1Transform": (recipes.moco_v1(), {"input_size": 24}),
    "MoCoV2Transform": (recipes.moco_v2(), {"input_size": 24}),
    "DenseCLTransform": (recipes.densecl(), {"input_size": 24}),
    "SimSiamTransform": (recipes.simsiam(), {"input_size": 24}),
    "FastSiamTransform": (recipes.fastsiam(), {"input_size": 24, "num_views": 3}),
    "BYOLTransform": (recipes.byol(), {}),
    "TiCoTransform": (recipes.tico(), {}),
    "DINOTransform": (recipes.dino(), {"global_crop_size": 24, "local_crop_size": 16, "n_local_views": 3}),
    "IBOTTransform": (recipes.ibot(), {"global_crop_size": 24, "local_crop_size": 16, "n_local_views": 3}),
    "SwaVTransform": (recipes.swav(), {"crop_sizes": (24, 16), "crop_counts": (2, 3)}),
    "MSNTransform": (recipes.msn(), {"random_size": 24, "focal_size": 16, "focal_views": 3}),
    "SMoGTransform": (recipes.smog(), {"crop_sizes": (24, 16), "crop_counts": (2, 3)}),
    "VICRegTransform": (recipes.vicreg(), {"input_size": 24}),
    "WMSETransform": (recipes.wmse(), {"input_size": 24, "num_samples": 3}),
    "MMCRTransform": (recipes.mmcr(), {"input_size": 24, "k": 3}),
    "FDATransform": (recipes.fda(), {}),
    "DetConSTransform": (recipes.detcon(), {"input_size": 24}),
}
SINGLE = {"MAETransform": recipes.mae(), "AIMTransform": recipes.aim(), "CAPITransform": recipes.capi()}
VIEWS = """SimCLRViewTransform SimSiamViewTransform BYOLView1Transform BYOLView2Transform TiCoView1Transform TiCoView2Transform
DINOViewTransform IBOTViewTransform MSNViewTransform SmoGViewTransform VICRegViewTransform FDAView1Transform FDAView2Transform
DetConSViewTransform""".split()


def both(name: str) -> tuple[Any, Any]:
    """lightly's class and ours."""
    return getattr(dropin.lightly().transforms, name), getattr(fastssl.transforms, name)


def views_of(transform: Any) -> list[Any]:
    return [part.view for part in transform.transforms]


# Names and arguments


def test_nothing_that_lightly_exports_is_missing():
    theirs = {name for name in dir(dropin.lightly().transforms) if not name.startswith("_")}
    for module in MODULES:
        importlib.import_module(f"fastssl.transforms.{module}")
    assert not theirs - {*dir(fastssl.transforms)}


@pytest.mark.parametrize("module", MODULES)
def test_classes_and_functions_have_lightlys_arguments(module):
    dropin.lightly()
    theirs = importlib.import_module(f"lightly.transforms.{module}")
    ours = importlib.import_module(f"fastssl.transforms.{module}")
    compared = 0
    for name, thing in vars(theirs).items():
        defined_there = getattr(thing, "__module__", None) == theirs.__name__
        if (
            name.startswith("_")
            or not defined_there
            or not callable(thing)
            or name in ("DeprecatedShim", "torchvision_transforms")
        ):
            continue
        expected = [(p.name, _plain(p.default)) for p in inspect.signature(thing).parameters.values()]
        got = [(p.name, _plain(p.default)) for p in inspect.signature(getattr(ours, name)).parameters.values()]
        positional = [p.name for p in inspect.signature(thing).parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD]
        assert got[: len(expected)] == expected, name
        kinds = {p.name: p.kind for p in inspect.signature(getattr(ours, name)).parameters.values()}
        assert all(kinds[p] == inspect.Parameter.POSITIONAL_OR_KEYWORD for p in positional), name
        compared += 1
    assert compared or module == "utils"


def _plain(default: Any) -> Any:
    """A default that compares: lightly's ToTensor() by its name."""
    return type(default).__name__ if type(default).__name__ == "ToTensor" else default


# Numbers


@pytest.mark.parametrize("name", METHODS)
def test_the_defaults_are_the_recipe(name):
    assert tuple(views_of(getattr(fastssl.transforms, name)())) == METHODS[name][0]


@pytest.mark.parametrize("name", SINGLE)
def test_the_defaults_of_single_views_are_the_recipe(name):
    assert tuple(views_of(getattr(fastssl.transforms, name)())) == SINGLE[name]


def check_numbers(theirs: Any, ours: Any) -> None:
    expected, got = lightly_views.theirs(theirs), lightly_views.ours(ours)
    assert got.keys() == expected.keys()
    for name in expected:
        assert got[name] == pytest.approx(expected[name], rel=1e-6) if name not in ("crop", "order") else True
    assert got["crop"][:-1] == pytest.approx(expected["crop"][:-1]) and got["crop"][-1] == expected["crop"][-1]
    order = [step for step in got["order"] if step in expected["order"]]
    assert order == expected["order"]


@pytest.mark.parametrize("name", METHODS)
def test_the_numbers_are_those_of_lightlys_objects(name):
    theirs, ours = both(name)
    theirs, ours = theirs(), ours()
    assert len(theirs.transforms) == len(ours.transforms)
    for their_view, our_view in zip(theirs.transforms, views_of(ours), strict=True):
        check_numbers(their_view, our_view)


@pytest.mark.parametrize("name", [*VIEWS, *SINGLE])
def test_the_numbers_of_single_views_are_those_of_lightlys_objects(name):
    theirs, ours = both(name)
    made = ours()
    check_numbers(theirs(), made.view if isinstance(made, ViewTransform) else made.transforms[0].view)


def test_the_numbers_of_ijepa_are_lightlys():
    dropin.lightly()
    from lightly.transforms.ijepa_transform import IJEPATransform

    view = importlib.import_module("fastssl.transforms.ijepa_transform").IJEPATransform().view
    check_numbers(IJEPATransform(), view)
    assert (view,) == recipes.ijepa()


def test_the_numbers_of_pirl_are_lightlys():
    theirs, ours = both("PIRLTransform")
    theirs, ours = theirs(), ours()
    check_numbers(theirs.transforms[0], ours.transforms[0].view)
    expected = lightly_views.theirs(theirs.transforms[1].transform)
    got = lightly_views.ours(ours.transforms[1].view)
    for name in ("flip", "jitter", "grayscale", "normalize"):
        assert got[name] == pytest.approx(expected[name])
    assert got["crop"][0] == theirs.transforms[1].crop_size
    assert recipes.pirl()[1].with_(crop=ours.transforms[1].view.crop) == ours.transforms[1].view


def test_the_numbers_of_vicregl_are_lightlys():
    theirs, ours = both("VICRegLTransform")
    theirs, ours = theirs(), ours()
    assert len(theirs.transforms) == len(ours.transforms) == 8
    for i, ((their_crop, their_view), (our_crop, our_view)) in enumerate(
        zip(theirs.transforms, ours.transforms, strict=True)
    ):
        view = our_view.cropped(our_crop.view.crop, our_crop.view.flip, our_crop.view.vflip)
        assert view == recipes.vicregl()[i]
        expected = lightly_views.theirs(their_view)
        got = lightly_views.ours(view)
        for name in ("jitter", "grayscale", "blur", "solarize", "normalize"):
            assert got.get(name, 0) == pytest.approx(expected.get(name, 0), rel=1e-6)
        assert view.crop.area == their_crop.resized_crop.scale
        assert (view.size, our_crop.grid_size) == (their_crop.crop_size, their_crop.grid_size)
        assert view.flip.p == their_crop.hf_prob
        assert view.vflip is None  # also of local views, which lightly mirrors upside down by mistake


@pytest.mark.parametrize("name", VIEWS)
def test_arguments_reach_the_view_as_in_lightly(name):
    theirs, ours = both(name)
    changed = {
        "input_size": 48, "crop_size": 48, "min_scale": 0.3, "crop_scale": (0.3, 0.9), "crop_min_scale": 0.3, "cj_prob": 0.7,
        "crop_max_scale": 0.9, "cj_strength": 0.6, "cj_bright": 0.3, "cj_contrast": 0.5, "cj_sat": 0.7, "cj_hue": 0.15,
        "random_gray_scale": 0.35, "gaussian_blur": 0.45, "gaussian_blur_prob": 0.45, "sigmas": (0.5, 1.5), "vf_prob": 0.15,
        "hf_prob": 0.65, "rr_prob": 0.25, "rr_degrees": (-20.0, 40.0), "solarization_prob": 0.55, "solarize_prob": 0.55,
        "normalize": {"mean": [0.4, 0.5, 0.6], "std": [0.3, 0.2, 0.1]}, "ampl_rescale_prob": 0.9, "gmm_prob": 0.8,
        "gmm_num_gaussians": 3, "ampl_rescale_range": (1.0, 2.0), "phase_shift_range": (0.1, 0.2), "rand_freq_mask_prob": 0.3,
    }  # fmt: skip
    arguments = {name: value for name, value in changed.items() if name in inspect.signature(theirs).parameters}
    assert len(arguments) >= 8
    check_numbers(theirs(**arguments), ours(**arguments).view)


def test_what_lightly_forgets_is_not_forgotten():
    for name in ("DINOTransform", "IBOTTransform"):
        views = views_of(getattr(fastssl.transforms, name)(cj_strength=0.1))
        assert [view.jitter.brightness for view in views] == pytest.approx([0.08] * len(views))
    msn = views_of(fastssl.transforms.MSNTransform(cj_bright=0.3, cj_hue=0.05))
    assert {(view.jitter.brightness, view.jitter.hue) for view in msn} == {(0.3, 0.05)}
    for name in ("MSNTransform", "WMSETransform"):
        assert all(view.normalize is None for view in views_of(getattr(fastssl.transforms, name)(normalize=None)))
    for _, after in fastssl.transforms.VICRegLTransform(cj_sat=0.0, normalize=None).transforms:
        assert after.cropped(recipes.mae()[0].crop).jitter.saturation == 0


@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in ("BYOLTransform", "TiCoTransform", "FDATransform")]
)
def test_the_box_blur_can_be_asked_for(name):
    transform = getattr(fastssl.transforms, name)
    expected = recipes.box_blur(tuple(views_of(transform())))
    assert tuple(views_of(transform(blur_kind="box"))) == expected
    assert name == "MoCoV1Transform" or any(view.blur is not None and view.blur.kind == "box" for view in expected)


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


RENDERED = [name for name in METHODS if name not in ("WMSETransform", "FDATransform")]
# Colours before the crop, and a step of one's own.
SPECIAL = ["WMSETransform", "FDATransform"]


@pytest.mark.parametrize("name", [*RENDERED, *SPECIAL])
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


# Wrong arguments


@pytest.mark.parametrize(
    "name, arguments, kind, message",
    [
        ("DINOTransform", {"gaussian_blur": 0.5}, TypeError, "gaussian_blur=0.5 must be 3 numbers"),
        ("DINOTransform", {"global_crop_scale": (0.0, 1.0)}, ValueError, r"crop_scale=\(0.0, 1.0\)"),
        ("DINOTransform", {"n_local_views": -1}, ValueError, "n_local_views=-1"),
        ("IBOTTransform", {"local_crop_size": 0}, ValueError, "crop_size=0"),
        ("SwaVTransform", {"crop_counts": (1,)}, ValueError, r"crop_counts=\(1,\) must hold 2"),
        ("SwaVTransform", {"crop_counts": (1, "2")}, ValueError, "whole numbers of views"),
        ("SMoGTransform", {"solarize_probs": (0.1, 1.2)}, ValueError, r"solarize_prob=1.2 must lie in \[0, 1\]"),
        ("SMoGTransform", {"gaussian_blur_probs": 0.5}, ValueError, "gaussian_blur_probs=0.5 must hold 2"),
        ("MSNTransform", {"focal_views": 1.5}, ValueError, "focal_views=1.5"),
        ("MMCRTransform", {"k": 0}, ValueError, "k=0"),
        ("WMSETransform", {"num_samples": 0}, ValueError, "num_samples=0"),
        ("FastSiamTransform", {"num_views": 0}, ValueError, "num_views=0"),
        ("BYOLView1Transform", {"solarization_prob": -1}, ValueError, "solarization_prob=-1"),
        ("VICRegTransform", {"solarize_prob": 3}, ValueError, "solarize_prob=3"),
        ("MAETransform", {"input_size": (32, 16)}, TypeError, "views are square"),
        ("PIRLTransform", {"n_grid": 65}, ValueError, "n_grid=65"),
        ("FDAView1Transform", {"gmm_prob": 2}, ValueError, "gmm_prob=2"),
        ("FDAView1Transform", {"phase_shift_range": (2, 1)}, ValueError, r"phase_shift_range=\(2, 1\)"),
        ("VICRegLTransform", {"local_solarize_prob": 2.0}, ValueError, "solarization_prob=2.0"),
    ],
)
def test_a_wrong_argument_is_named(name, arguments, kind, message):
    with pytest.raises(kind, match=f"^{name}: .*{message}"):
        getattr(fastssl.transforms, name)(**arguments)


def test_kernel_sizes_are_ignored_with_a_warning_that_points_here():
    for name in (
        "DINOTransform",
        "SwaVTransform",
        "MSNTransform",
        "VICRegTransform",
        "BYOLView1Transform",
        "DINOViewTransform",
    ):
        with pytest.warns(DeprecationWarning, match=f"{name}: kernel_size=23 is ignored") as caught:
            getattr(fastssl.transforms, name)(kernel_size=23)
        assert caught[0].filename == __file__


def test_the_blur_of_a_recipe_can_be_pillows():
    assert recipes.box_blur(recipes.dino())[0].blur == Blur(p=1.0, sigma_px=(0.1, 2.0), kind="box")
    assert recipes.box_blur(recipes.mae()) == recipes.mae()
