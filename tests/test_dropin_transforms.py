"""lightly's transform classes: arguments, kinds of images, draws and their distributions."""

from __future__ import annotations

import importlib
import inspect
import pickle
from typing import Any

import dropin
import images
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import fastssl
from fastssl import recipes
from fastssl.transforms import Crop, MultiViewTransform, SimCLRTransform, SimCLRViewTransform, View
from fastssl.transforms.multi_view_transform import ViewTransform, takes_encoded
from fastssl.transforms.utils import IMAGENET_NORMALIZE

PHOTO = dropin.PHOTO
PLAIN: dict[str, Any] = {  # no colour, no blur: what is left is the crop
    "cj_prob": 0.0,
    "random_gray_scale": 0.0,
    "gaussian_blur": 0.0,
    "hf_prob": 0.0,
    "normalize": None,
}


def seeded(transform: Any, image: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return transform(image)


# Names and signatures


@pytest.mark.parametrize(
    "path",
    [
        "transforms.SimCLRTransform",
        "transforms.SimCLRViewTransform",
        "transforms.simclr_transform.SimCLRTransform",
        "transforms.simclr_transform.SimCLRViewTransform",
        "transforms.multi_view_transform.MultiViewTransform",
        "transforms.utils.IMAGENET_NORMALIZE",
        "data.LightlyDataset",
        "data.MultiViewCollate",
        "data.dataset.LightlyDataset",
        "data.multi_view_collate.MultiViewCollate",
    ],
)
def test_lightlys_paths_work_here(path):
    module, _, name = path.rpartition(".")
    dropin.lightly()
    assert hasattr(importlib.import_module(f"lightly.{module}"), name), "lightly has it elsewhere"
    assert hasattr(importlib.import_module(f"fastssl.{module}"), name)


@pytest.mark.parametrize(
    "path",
    ["data.SimCLRCollateFunction", "data.ImageCollateFunction", "data.BaseCollateFunction"]
    + [f"data.collate.{name}" for name in ("SimCLRCollateFunction", "ImageCollateFunction", "BaseCollateFunction")]
    + ["data.collate.imagenet_normalize"],
)
def test_paths_of_lightly_1_5_work_here(path):
    module, _, name = path.rpartition(".")
    assert hasattr(importlib.import_module(f"fastssl.{module}"), name)


@pytest.mark.parametrize(
    "path",
    [
        "transforms.simclr_transform.SimCLRTransform",
        "transforms.simclr_transform.SimCLRViewTransform",
        "transforms.multi_view_transform.MultiViewTransform",
        "transforms.multi_view_transform.MultiViewTransform.__call__",
        "transforms.simclr_transform.SimCLRViewTransform.__call__",
        "data.dataset.LightlyDataset",
        "data.dataset.LightlyDataset.from_torch_dataset",
        "data.dataset.LightlyDataset.dump",
        "data.dataset.LightlyDataset.get_filenames",
        "data.dataset.LightlyDataset.get_filepath_from_filename",
        "data.multi_view_collate.MultiViewCollate",
        "data.multi_view_collate.MultiViewCollate.__call__",
    ],
)
def test_signatures_begin_as_lightlys(path):
    dropin.lightly()
    found = []
    for package in ("lightly", "fastssl"):
        module, name = f"{package}.{path}".split(".", 3)[:3], path.split(".")[2:]
        thing: Any = importlib.import_module(".".join(module))
        for part in name:
            thing = getattr(thing, part)
        found.append([(p.name, p.default) for p in inspect.signature(thing).parameters.values()])
    theirs, ours = found
    assert ours[: len(theirs)] == theirs


def test_the_values_of_imagenet_are_lightlys():
    assert dropin.lightly().transforms.utils.IMAGENET_NORMALIZE == IMAGENET_NORMALIZE


def test_the_default_is_the_recipe():
    assert tuple(part.view for part in SimCLRTransform().transforms) == recipes.simclr(224)
    assert SimCLRViewTransform(96, cj_strength=0.5).view == recipes.simclr(96, strength=0.5)[0]


def test_arguments_reach_the_view():
    view = SimCLRViewTransform(
        input_size=(48, 48),
        cj_strength=0.5,
        cj_bright=0.4,
        cj_hue=0.3,
        min_scale=0.3,
        sigmas=[1, 3],
        vf_prob=np.float32(0.25),
        hf_prob=1,
        rr_prob=0.75,
        rr_degrees=None,
        normalize={"mean": (0.5, 0.5, 0.5), "std": np.array([0.2, 0.3, 0.4])},
    ).view
    assert (view.size, view.crop.area) == (48, (0.3, 1.0))
    assert (view.jitter.brightness, view.jitter.contrast, view.jitter.hue) == (0.2, 0.4, 0.15)
    assert (view.flip.p, view.vflip.p, view.turn.p) == (1.0, 0.25, 0.75)
    assert view.blur.sigma_px == (1, 3)
    assert view.normalize.std == (0.2, 0.3, 0.4)


# What comes out


def test_two_float_views_that_differ():
    views = SimCLRTransform(input_size=40)(Image.fromarray(PHOTO))
    assert dropin.structure(views) == ("list", [("tensor", (3, 40, 40), torch.float32, None)] * 2)
    assert not torch.equal(*views)


def test_without_normalize_values_lie_in_0_to_1():
    plain = torch.stack([view for _ in range(50) for view in SimCLRTransform(16, normalize=None)(PHOTO)])
    assert plain.min() >= 0 and plain.max() <= 1
    normalized, plain = (torch.stack(seeded(SimCLRTransform(16, normalize=n), PHOTO)) for n in (IMAGENET_NORMALIZE, {}))
    mean, std = (torch.tensor(IMAGENET_NORMALIZE[name])[:, None, None] for name in ("mean", "std"))
    # Two roundings of float32 at values up to 2.7, one of them divided by the deviation.
    assert ((plain - mean) / std - normalized).abs().max() <= 4 * 2.7 * torch.finfo(torch.float32).eps / std.min()


@pytest.mark.parametrize(
    "arguments, operation",
    [
        ({"hf_prob": 1.0}, lambda view: view.flip(2)),
        ({"vf_prob": 1.0}, lambda view: view.flip(1)),
        ({"rr_prob": 1.0}, lambda view: view.rot90(1, (1, 2))),
        ({"random_gray_scale": 1.0}, lambda view: v2.functional.rgb_to_grayscale(view, 3)),
    ],
)
def test_a_probability_of_one_always_does_it(arguments, operation):
    plain = seeded(SimCLRViewTransform(32, **PLAIN), PHOTO)
    changed = seeded(SimCLRViewTransform(32, **PLAIN | arguments), PHOTO)
    # rgb_to_grayscale has luma weights of four digits: 0.2989, 0.587, 0.114, which add up to 0.9999.
    assert (changed - operation(plain)).abs().max() <= 1.1e-4 + 1e-6


def test_a_quarter_turn_turns_as_lightlys():
    dropin.lightly()
    from lightly.transforms.rotation import RandomRotate

    plain = seeded(SimCLRViewTransform(32, **PLAIN), PHOTO)
    turned = seeded(SimCLRViewTransform(32, **PLAIN | {"rr_prob": 1.0}), PHOTO)
    assert torch.equal(turned, RandomRotate(prob=1.0)(plain))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        PLAIN | {"hf_prob": 0.5},
        PLAIN | {"cj_prob": 1.0},
        PLAIN | {"gaussian_blur": 1.0, "sigmas": (1.0, 3.0)},
        {"vf_prob": 0.7, "rr_prob": 0.5, "min_scale": 0.5, "cj_strength": 0.4, "random_gray_scale": 0.5},
    ],
    ids=["defaults", "crop and flip", "jitter", "blur", "others"],
)
def test_views_have_lightlys_distribution(arguments):
    lightly = dropin.lightly()
    count, arguments = 1200, {"input_size": 24} | arguments | {"normalize": None}
    torch.manual_seed(0)
    np.random.seed(0)  # where lightly draws rotation and blur
    theirs = lightly.transforms.SimCLRViewTransform(**arguments)
    ours = SimCLRViewTransform(**arguments)
    image = Image.fromarray(PHOTO)
    dropin.check_same_distribution(
        torch.stack([ours(PHOTO) for _ in range(count)]), torch.stack([theirs(image) for _ in range(count)])
    )


def test_the_test_of_distributions_tells_recipes_apart():
    views = [SimCLRViewTransform(24, normalize=None, cj_strength=s) for s in (1.0, 0.7)]
    torch.manual_seed(0)
    a, b = (torch.stack([view(PHOTO) for _ in range(1200)]) for view in views)
    with pytest.raises(AssertionError, match="lightly"):
        dropin.check_same_distribution(a, b)


# What is drawn


def test_torch_manual_seed_decides_what_is_drawn():
    transform = SimCLRTransform(input_size=24)
    first, again, other = (torch.cat(seeded(transform, PHOTO, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, torch.cat(transform(PHOTO)))


def test_workers_and_epochs_draw_differently():
    torch.manual_seed(0)
    loader = DataLoader(
        dropin.Images(8, SimCLRTransform(input_size=16)), batch_size=2, num_workers=2, persistent_workers=True
    )
    views = [view for _ in range(2) for batch in loader for view in batch[0]]
    assert len(torch.cat(views).flatten(1).unique(dim=0)) == 32


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_torchs_own_collate_gives_the_structure_that_lightly_documents(workers):
    lightly = dropin.lightly()
    found = []
    for transform in (lightly.transforms.SimCLRTransform(input_size=16), SimCLRTransform(input_size=16)):
        loader = DataLoader(dropin.Images(6, transform), batch_size=4, num_workers=workers)
        found.append([dropin.structure(batch) for batch in loader])
    assert found[0] == found[1]


# Several views


def test_multi_view_transform_renders_what_its_parts_would():
    small, large = SimCLRViewTransform(16), SimCLRViewTransform(32, gaussian_blur=1.0)
    views = MultiViewTransform([small, large, small])(PHOTO)
    assert [view.shape[-1] for view in views] == [16, 32, 16]
    assert not torch.equal(views[0], views[2])


def test_multi_view_transform_calls_other_transforms():
    calls: list[Any] = []
    image = Image.fromarray(PHOTO)
    assert MultiViewTransform([calls.append, lambda image: "view"])(image) == [None, "view"]
    assert calls == [image]
    first, second = MultiViewTransform([v2.functional.to_image, SimCLRViewTransform(16)])(image)
    assert first.shape == (3, 100, 120)
    assert second.shape == (3, 16, 16)


def test_a_subclass_that_overrides_the_call_is_called():
    class Brighter(SimCLRViewTransform):
        def __call__(self, image):
            return super().__call__(image) + 100

    first, second = MultiViewTransform([Brighter(16), SimCLRViewTransform(16)])(PHOTO)
    assert first.min() > 50 > second.max()


def test_transforms_put_in_later_are_used():
    transform = SimCLRTransform(input_size=16)
    transform.transforms = [ViewTransform(View(crop=Crop(size=8)))]
    assert [view.shape for view in transform(PHOTO)] == [(3, 8, 8)]


def test_only_transforms_that_decode_are_handed_paths():
    class Rotating(SimCLRTransform):
        def __call__(self, image):
            return super().__call__(image.rotate(10))

    ours = SimCLRViewTransform(16)
    assert takes_encoded(ours)
    assert takes_encoded(SimCLRTransform(16))
    assert takes_encoded(MultiViewTransform([ours, MultiViewTransform([ours])]))
    for other in (Rotating(16), MultiViewTransform([ours, len]), MultiViewTransform([]), v2.Compose([ours]), None):
        assert not takes_encoded(other)


# Kinds of images


@pytest.mark.parametrize("kind", ["PIL", "array", "tensor", "bytes", "encoded tensor", "path", "Path"])
def test_every_kind_of_image_gives_the_same_views(kind, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(images.encode(PHOTO, "PNG"))
    image = {
        "PIL": Image.fromarray(PHOTO),
        "array": PHOTO,
        "tensor": torch.from_numpy(PHOTO).permute(2, 0, 1),
        "bytes": path.read_bytes(),
        "encoded tensor": torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8),
        "path": str(path),
        "Path": path,
    }[kind]
    for transform in (SimCLRTransform(32), SimCLRViewTransform(32)):
        expected, got = seeded(transform, Image.fromarray(PHOTO)), seeded(transform, image)
        assert torch.equal(torch.cat([*expected]), torch.cat([*got]))


@pytest.mark.parametrize("transform", [SimCLRTransform(16), SimCLRViewTransform(16)])
@pytest.mark.parametrize(
    "image", [None, 1, PHOTO.astype(np.float64), torch.full((3, 8, 8), 255.0), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_image_is_explained(transform, image):
    with pytest.raises(TypeError, match=r".{30}"):
        transform(image)


@pytest.mark.parametrize("content", [b"", b"text", images.encode(PHOTO, "JPEG")[:300]])
def test_what_cannot_be_read_names_the_file(content, tmp_path):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(fastssl.DecodeError, match=r"bad\.jpg"):
        SimCLRTransform(16)(path)
    with pytest.raises(fastssl.DecodeError, match=r"gone\.jpg"):
        SimCLRTransform(16)(str(tmp_path / "gone.jpg"))


# Wrong arguments


@pytest.mark.parametrize(
    "arguments, kind, message",
    [
        ({"input_size": 0}, ValueError, "input_size=0"),
        ({"input_size": -3}, ValueError, "input_size=-3"),
        ({"input_size": 2.5}, TypeError, "input_size=2.5"),
        ({"input_size": "224"}, TypeError, "input_size='224'"),
        ({"input_size": (224, 200)}, TypeError, "square"),
        ({"cj_prob": 1.1}, ValueError, r"cj_prob=1.1 must lie in \[0, 1\]"),
        ({"hf_prob": -0.1}, ValueError, "hf_prob=-0.1"),
        ({"vf_prob": float("nan")}, ValueError, "vf_prob=nan"),
        ({"gaussian_blur": None}, TypeError, "gaussian_blur=None is a NoneType"),
        ({"random_gray_scale": "0.2"}, TypeError, "random_gray_scale='0.2'"),
        ({"rr_prob": 2}, ValueError, "rr_prob=2"),
        ({"cj_strength": -1}, ValueError, "cj_strength=-1"),
        ({"cj_bright": float("inf")}, ValueError, "cj_bright=inf"),
        ({"cj_sat": "much"}, TypeError, "cj_sat='much'"),
        ({"cj_hue": 0.6}, ValueError, "at most 0.5"),
        ({"cj_strength": 3.0}, ValueError, r"3.0 \* 0.2 must be at most 0.5"),
        ({"min_scale": 0.0}, ValueError, "min_scale=0.0"),
        ({"min_scale": 1.5}, ValueError, "min_scale=1.5"),
        ({"sigmas": (2, 1)}, ValueError, r"sigmas=\(2, 1\)"),
        ({"sigmas": 1.0}, TypeError, "sigmas=1.0 must be 2 numbers"),
        ({"sigmas": (1, "2")}, TypeError, r"sigmas\[1\]='2'"),
        ({"rr_prob": 0.5, "rr_degrees": -30}, ValueError, "rr_degrees=-30 must be a number from 0 up"),
        ({"rr_prob": 0.5, "rr_degrees": (30, -30)}, ValueError, "the smaller first"),
        ({"rr_prob": 0.5, "rr_degrees": "30"}, TypeError, "rr_degrees='30' must be 2 numbers"),
        ({"blur_kind": "median"}, ValueError, "blur_kind='median' must be"),
        ({"normalize": {"mean": [0.5] * 3}}, TypeError, "mean and std"),
        ({"normalize": ([0.5] * 3, [0.5] * 3)}, TypeError, "must be a dict"),
        ({"normalize": {"mean": [0.5], "std": [0.5]}}, TypeError, "3 numbers"),
        ({"normalize": {"mean": [0.5] * 3, "std": [0.5, 0.0, 0.5]}}, ValueError, "above 0"),
    ],
)
@pytest.mark.parametrize("transform", [SimCLRTransform, SimCLRViewTransform])
def test_a_wrong_argument_is_named(transform, arguments, kind, message):
    with pytest.raises(kind, match=f"^{transform.__name__}: .*{message}"):
        transform(**arguments)


def test_degrees_without_rotation_are_no_error():
    assert SimCLRTransform(rr_degrees=(-10, 10)).transforms[0].view == recipes.simclr(224)[0]


def test_kernel_size_is_ignored_with_a_warning():
    with pytest.warns(DeprecationWarning, match="kernel_size=23 is ignored") as caught:
        SimCLRTransform(kernel_size=23)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("transforms", [None, 3, [3], SimCLRViewTransform(16)])
def test_what_is_no_sequence_of_transforms_is_explained(transforms):
    with pytest.raises(TypeError, match=r"MultiViewTransform: .* sequence of callables"):
        MultiViewTransform(transforms)


def test_what_is_no_view_is_explained():
    with pytest.raises(TypeError, match=r"ViewTransform: view is a tuple.*simclr\(224\)\[0\]"):
        ViewTransform(recipes.simclr(16))


def test_transforms_survive_pickling():
    for transform in (SimCLRTransform(16), SimCLRViewTransform(16), MultiViewTransform([SimCLRViewTransform(16)])):
        copy = pickle.loads(pickle.dumps(transform))
        assert torch.equal(torch.cat([*seeded(transform, PHOTO)]), torch.cat([*seeded(copy, PHOTO)]))
        assert repr(copy) == repr(transform)
