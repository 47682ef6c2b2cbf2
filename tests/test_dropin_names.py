"""Every public name of lightly's transforms, in the module where lightly has it, and every public method; and so for the
losses and the modules of models that are here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import dropin
import pytest
import torch

from fastssl.transforms import GaussianMixtureMask, ToTensor
from fastssl.transforms.torchvision_v2_compatibility import DeprecatedShim

# lightly 1.6's. Written out, so that they are tests with names of their own where lightly is not installed.
MODULES = (
    "add_grid amplitude_rescale aim byol capi densecl detcon dino fast_siam fda ibot ijepa image_grid irfft2d mae mmcr moco "
    "msn multi_crop multi_view phase_shift pirl random_frequency_mask rfft2d simclr simsiam smog swav tico vicreg vicregl wmse"
).split()
NAMES = [
    "",
    *(f".{name}_transform" for name in MODULES),
    *(
        f".{name}"
        for name in ("gaussian_blur", "gaussian_mixture_masks_transform", "jigsaw", "multi_view_transform_v2")
    ),
    *(
        f".{name}"
        for name in ("random_crop_and_flip_with_grid", "rotation", "solarize", "torchvision_v2_compatibility")
    ),
    ".utils",
]

LOSSES = "dcl_loss detcon_loss directclr_loss macl_loss memory_bank ntx_ent_loss regularizer.co2".split()
MODELS = "memory_bank nn_memory_bank".split()


def public(module: Any, part: str = "lightly.transforms") -> Iterator[tuple[str, Any]]:
    """The classes and functions in lightly's module that this part of lightly defines, wherever in it."""
    for name, thing in vars(module).items():
        code = inspect.isclass(thing) or inspect.isfunction(thing)
        if code and not name.startswith("_") and thing.__module__.startswith(part):
            yield name, thing


def methods(cls: type) -> set[str]:
    """Those that lightly's own classes define, and not their bases in torch."""
    own = [vars(base) for base in cls.__mro__ if base.__module__.startswith("lightly.")]
    return {
        name
        for names in own
        for name, thing in names.items()
        if (not name.startswith("_") or name == "__call__")
        and (inspect.isfunction(thing) or isinstance(thing, classmethod | staticmethod | property))
    }


def missing(name: str, part: str) -> list[str]:
    """What the module of this name has in lightly and not here."""
    dropin.lightly()
    theirs = importlib.import_module(f"lightly.{name}")
    ours = importlib.import_module(f"fastssl.{name}")
    found = []
    for thing, value in public(theirs, part):
        if not hasattr(ours, thing):
            found.append(thing)
        elif inspect.isclass(value):
            found += [f"{thing}.{m}" for m in sorted(methods(value)) if not hasattr(getattr(ours, thing), m)]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_modules_have_what_lightlys_have(name):
    assert not missing(f"transforms{name}", "lightly.transforms")


@pytest.mark.parametrize("name", [*(f"loss.{n}" for n in LOSSES), *(f"models.modules.{n}" for n in MODELS)])
def test_modules_of_losses_and_models_have_what_lightlys_have(name):
    of = "lightly.models" if name == "loss.memory_bank" else f"lightly.{name}"
    assert not missing(name, of)
    assert dict(public(importlib.import_module(f"lightly.{name}"), of))  # what the line above compares


@pytest.mark.parametrize(
    "package, names",
    [
        ("loss", "DCLLoss DCLWLoss DetConBLoss DetConSLoss DirectCLRLoss MACLLoss NTXentLoss"),
        ("loss.regularizer", "CO2Regularizer"),
        ("models.modules", "NNMemoryBankModule"),
    ],
)
def test_packages_have_what_lightlys_have(package, names):
    dropin.lightly()
    theirs, ours = (importlib.import_module(f"{library}.{package}") for library in ("lightly", "fastssl"))
    assert all(hasattr(theirs, name) and hasattr(ours, name) for name in names.split())


def test_all_of_lightlys_modules_are_compared():
    found = [f".{info.name}" for info in pkgutil.iter_modules(dropin.lightly().transforms.__path__)]
    assert sorted(["", *found]) == sorted(NAMES)
    compared = dict(public(importlib.import_module("lightly.transforms.byol_transform")))
    assert {"BYOLTransform", "GaussianBlur", "random_rotation_transform"} <= {*compared}  # the tests above see these
    mask = importlib.import_module("lightly.transforms").GaussianMixtureMask
    assert methods(mask) == {"__call__", "gaussian_kernel", "apply_gaussian_mixture_mask"}


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # lightly's
def test_gaussians_are_lightlys():
    theirs = dropin.lightly().transforms.GaussianMixtureMask()
    arguments = ((5, 8), torch.tensor([1.5, 3.0]), torch.tensor([1, 6]))
    kernel = GaussianMixtureMask().gaussian_kernel(*arguments)
    assert kernel.shape == (5, 8) and kernel[1, 6] == 1
    torch.testing.assert_close(kernel, theirs.gaussian_kernel(*arguments), rtol=1e-5, atol=0)


def test_masks_take_the_arguments_of_the_call():
    spectrum = torch.ones(2, 6, 4, dtype=torch.complex64)
    mask = GaussianMixtureMask(num_gaussians=3)
    assert torch.equal(mask.apply_gaussian_mixture_mask(spectrum, 0, (1.0, 2.0)), spectrum)
    torch.manual_seed(0)
    called = mask(spectrum)
    torch.manual_seed(0)
    assert torch.equal(mask.apply_gaussian_mixture_mask(spectrum, 3, mask.std_range), called)


def test_the_shim_replaces_what_it_is_given():
    shim = DeprecatedShim({"Resize": ToTensor})
    assert shim.Resize is ToTensor and "Compose" in dir(shim)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = shim.Nothing
