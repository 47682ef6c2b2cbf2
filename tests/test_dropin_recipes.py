"""lightly's transform classes for every method: names, arguments, numbers."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import dropin
import lightly_views
import pytest
from lightly_views import METHODS, SINGLE, VIEWS, both, views_of

import fastssl.transforms
from fastssl import recipes
from fastssl.transforms import Blur, ViewTransform

MODULES = """add_grid_transform aim_transform amplitude_rescale_transform byol_transform capi_transform densecl_transform
detcon_transform dino_transform fast_siam_transform fda_transform gaussian_blur gaussian_mixture_masks_transform ibot_transform
ijepa_transform image_grid_transform irfft2d_transform jigsaw mae_transform mmcr_transform moco_transform msn_transform
multi_crop_transform multi_view_transform multi_view_transform_v2 phase_shift_transform pirl_transform
random_crop_and_flip_with_grid random_frequency_mask_transform rfft2d_transform rotation simclr_transform simsiam_transform
smog_transform solarize swav_transform tico_transform torchvision_v2_compatibility utils vicreg_transform vicregl_transform
wmse_transform""".split()

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
