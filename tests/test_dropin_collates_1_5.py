"""lightly 1.5's other collate functions: arguments, numbers, structures, one render call a batch."""

from __future__ import annotations

import inspect
import pickle
from typing import Any
from unittest import mock

import dropin
import images
import lightly_views
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import fastssl
from fastssl import data, ops
from fastssl.data import collate
from fastssl.transforms import SimCLRViewTransform, crop_grids
from fastssl.transforms.utils import IMAGENET_NORMALIZE

PHOTO = dropin.PHOTO
BATCH = [(Image.fromarray(PHOTO), 5, "x/1.png"), (images.photo(40, 90), 2, "x/2.png"), (PHOTO, 0, "x/3.png")]
TARGETS, NAMES = ("tensor", (3,), torch.int64, [5, 2, 0]), ("list", ["x/1.png", "x/2.png", "x/3.png"])

BLUR = {"gaussian_blur": 0.5, "kernel_size": None, "sigmas": (0.2, 2)}
TURNS = {"vf_prob": 0.0, "hf_prob": 0.5, "rr_prob": 0.0, "rr_degrees": None}
NORMALIZE = {"normalize": IMAGENET_NORMALIZE}
# Of lightly 1.5.26: names in order, and defaults; lists are tuples here.
SIGNATURES: dict[str, dict[str, Any]] = {
    "MoCoCollateFunction": {
        "input_size": 224, "cj_prob": 0.8, "cj_strength": 0.4, "min_scale": 0.2, "random_gray_scale": 0.2,
        **BLUR, "gaussian_blur": 0.0, **TURNS, **NORMALIZE,
    },
    "SwaVCollateFunction": {
        "crop_sizes": (224, 96), "crop_counts": (2, 6), "crop_min_scales": (0.14, 0.05), "crop_max_scales": (1.0, 0.14),
        "hf_prob": 0.5, "vf_prob": 0.0, "rr_prob": 0.0, "rr_degrees": None, "cj_prob": 0.8, "cj_strength": 0.8,
        "random_gray_scale": 0.2, **BLUR, **NORMALIZE,
    },
    "DINOCollateFunction": {
        "global_crop_size": 224, "global_crop_scale": (0.4, 1.0), "local_crop_size": 96, "local_crop_scale": (0.05, 0.4),
        "n_local_views": 6, "hf_prob": 0.5, "vf_prob": 0, "rr_prob": 0, "rr_degrees": None, "cj_prob": 0.8, "cj_bright": 0.4,
        "cj_contrast": 0.4, "cj_sat": 0.2, "cj_hue": 0.1, "random_gray_scale": 0.2, "gaussian_blur": (1.0, 0.1, 0.5),
        "kernel_size": None, "kernel_scale": None, "sigmas": (0.1, 2), "solarization_prob": 0.2, **NORMALIZE,
    },
    "MAECollateFunction": {"input_size": 224, "min_scale": 0.2, **NORMALIZE},
    "PIRLCollateFunction": {
        "input_size": 64, "cj_prob": 0.8, "cj_bright": 0.4, "cj_contrast": 0.4, "cj_sat": 0.4, "cj_hue": 0.4,
        "min_scale": 0.08, "random_gray_scale": 0.2, "hf_prob": 0.5, "n_grid": 3, **NORMALIZE,
    },
    "MSNCollateFunction": {
        "random_size": 224, "focal_size": 96, "random_views": 2, "focal_views": 10, "random_crop_scale": (0.3, 1.0),
        "focal_crop_scale": (0.05, 0.3), "cj_prob": 0.8, "cj_strength": 1.0, **BLUR, "random_gray_scale": 0.2, "hf_prob": 0.5,
        "vf_prob": 0.0, **NORMALIZE,
    },
    "SMoGCollateFunction": {
        "crop_sizes": (224, 96), "crop_counts": (4, 4), "crop_min_scales": (0.2, 0.05), "crop_max_scales": (1.0, 0.2),
        "gaussian_blur_probs": (0.5, 0.1), "gaussian_blur_kernel_sizes": (None, None), "gaussian_blur_sigmas": (0.2, 2),
        "solarize_probs": (0.0, 0.2), "hf_prob": 0.5, "cj_prob": 1.0, "cj_strength": 0.5, "random_gray_scale": 0.2, **NORMALIZE,
    },
    "VICRegCollateFunction": {
        "input_size": 224, "cj_prob": 0.8, "cj_bright": 0.4, "cj_contrast": 0.4, "cj_sat": 0.2, "cj_hue": 0.1,
        "min_scale": 0.08, "random_gray_scale": 0.2, "solarize_prob": 0.1, **BLUR, **TURNS, **NORMALIZE,
    },
    "VICRegLCollateFunction": {
        "global_crop_size": 224, "local_crop_size": 96, "global_crop_scale": (0.2, 1.0), "local_crop_scale": (0.05, 0.2),
        "global_grid_size": 7, "local_grid_size": 3, "global_gaussian_blur_prob": 0.5, "local_gaussian_blur_prob": 0.1,
        "global_gaussian_blur_kernel_size": None, "local_gaussian_blur_kernel_size": None,
        "global_gaussian_blur_sigmas": (0.2, 2), "local_gaussian_blur_sigmas": (0.2, 2), "global_solarize_prob": 0.0,
        "local_solarize_prob": 0.2, "hf_prob": 0.5, "cj_prob": 1.0, "cj_strength": 0.5, "random_gray_scale": 0.2, **NORMALIZE,
    },
    "MultiCropCollateFunction": dict.fromkeys(
        ("crop_sizes", "crop_counts", "crop_min_scales", "crop_max_scales", "transforms"), inspect.Parameter.empty
    ),
    "MultiViewCollateFunction": {"transforms": inspect.Parameter.empty},
}  # fmt: skip

# Small views: arguments, and the structure of the views.
SMALL: dict[str, tuple[dict[str, Any], Any]] = {}


def views(container: str, *sizes: int) -> tuple[str, list[Any]]:
    return (container, [("tensor", (3, 3, size, size), torch.float32, None) for size in sizes])


SMALL |= {
    "MoCoCollateFunction": ({"input_size": 24}, views("tuple", 24, 24)),
    "SwaVCollateFunction": ({"crop_sizes": [24, 16], "crop_counts": [2, 3]}, views("list", 24, 24, 16, 16, 16)),
    "DINOCollateFunction": (
        {"global_crop_size": 24, "local_crop_size": 16, "n_local_views": 2}, views("list", 24, 24, 16, 16)
    ),
    "MAECollateFunction": ({"input_size": 24}, ("tensor", (3, 3, 24, 24), torch.float32, None)),
    "PIRLCollateFunction": (
        {"input_size": 24},
        ("tuple", [("tensor", (3, 3, 24, 24), torch.float32, None), ("tensor", (3, 9, 3, 8, 8), torch.float32, None)]),
    ),
    "MSNCollateFunction": ({"random_size": 24, "focal_size": 16, "focal_views": 2}, views("list", 24, 24, 16, 16)),
    "SMoGCollateFunction": ({"crop_sizes": [24, 16], "crop_counts": [1, 2]}, views("list", 24, 16, 16)),
    "VICRegCollateFunction": ({"input_size": 24}, views("tuple", 24, 24)),
    "VICRegLCollateFunction": (
        {"global_crop_size": 24, "local_crop_size": 16},
        ("tuple", [("tensor", shape, torch.float32, None)
                   for shape in ((3, 3, 24, 24), (3, 3, 16, 16), (3, 7, 7, 2), (3, 3, 3, 2))]),
    ),
}  # fmt: skip


def make(name: str, **more: Any) -> Any:
    return getattr(data, name)(**SMALL[name][0], **more)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_lightly_1_5s(name):
    assert getattr(data, name) is getattr(collate, name)
    ours = [(p.name, p.default) for p in inspect.signature(getattr(data, name)).parameters.values()]
    assert ours[: len(SIGNATURES[name])] == list(SIGNATURES[name].items())
    assert [n for n, _ in ours[len(SIGNATURES[name]) :]] in (
        ["dtype", "channels_last"],
        ["dtype", "channels_last", "blur_kind"],
    )


@pytest.mark.parametrize("name", SMALL)
def test_batches_have_the_structure_that_lightly_documents(name):
    assert dropin.structure(make(name)(BATCH)) == ("tuple", [SMALL[name][1], TARGETS, NAMES])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", SMALL)
def test_collates_work_inside_a_loader(name, workers):
    torch.manual_seed(5)
    loader = DataLoader(dropin.Images(6), batch_size=3, num_workers=workers, collate_fn=make(name))
    batches = [dropin.structure(batch)[1] for batch in loader]
    assert [batch[0] for batch in batches] == [SMALL[name][1]] * 2
    assert [batch[1][3] for batch in batches] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_is_one_render_call(name):
    from fastssl.transforms import multi_view_transform

    with mock.patch.object(multi_view_transform.ops, "render", wraps=ops.render) as render:
        make(name)(BATCH)
    assert render.call_count == 1


@pytest.mark.parametrize("name", SMALL)
def test_views_come_in_the_type_and_layout_asked_for(name):
    out, _, _ = make(name, dtype=torch.float16, channels_last=True)(BATCH)
    for view in [out] if isinstance(out, torch.Tensor) else out:
        if view.shape[-1] != 2:  # grids are coordinates
            assert view.dtype == torch.float16
            assert view.dim() != 4 or view.is_contiguous(memory_format=torch.channels_last)
    out, _, _ = make(name, dtype=torch.uint8, normalize=None)(BATCH)
    assert (out if isinstance(out, torch.Tensor) else out[0]).dtype == torch.uint8
    with pytest.raises(ValueError, match=f"^{name}: dtype=torch.uint8 cannot hold normalized"):
        make(name, dtype=torch.uint8)


@pytest.mark.parametrize("name", SMALL)
def test_torch_manual_seed_decides_what_is_drawn(name):
    def first(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        out, _, _ = make(name)(BATCH)
        return torch.cat([part.flatten() for part in ([out] if isinstance(out, torch.Tensor) else out)])

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


@pytest.mark.parametrize("name", SMALL)
def test_collates_survive_pickling(name):
    before = make(name)
    after = pickle.loads(pickle.dumps(before))
    outs = []
    for function in (before, after):
        torch.manual_seed(3)
        out, _, _ = function(BATCH)
        outs.append(out if isinstance(out, torch.Tensor) else out[1])
    assert torch.equal(*outs)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_no_batch_is_explained(name):
    function = make(name)
    with pytest.raises(ValueError, match=f"^{name}: the batch is empty"):
        function([])
    with pytest.raises(TypeError, match=f"^{name}: sample 1 of the batch \\(b\\)"):
        function([(PHOTO, 0, "a"), (None, 0, "b")])
    with pytest.raises(fastssl.DecodeError, match=f"^{name}: sample 0 of the batch \\(a\\)"):
        function([(b"text", 0, "a")])


# Numbers


def test_moco_jitters_all_by_cj_strength():
    view = data.MoCoCollateFunction(cj_strength=0.3).transform.view
    jitter = view.jitter
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (0.3, 0.3, 0.3, 0.3)
    assert view.blur is None and view.crop.area == (0.2, 1.0)


def test_swav_jitters_the_hue_by_a_quarter():
    for transform in data.SwaVCollateFunction(cj_strength=0.6).transforms:
        jitter = transform.view.jitter
        assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (0.6, 0.6, 0.6, 0.15)
    areas = [transform.view.crop.area for transform in data.SwaVCollateFunction().transforms]
    assert areas == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 6


@pytest.mark.parametrize("name", ["DINO", "MSN", "SMoG", "VICReg", "MAE"])
def test_views_are_those_of_the_transform_but_for_sigmas(name):
    ours = getattr(data, f"{name}CollateFunction")()
    views = [transform.view for transform in getattr(ours, "transforms", [getattr(ours, "transform", None)] * 2)]
    expected = [part.view for part in getattr(fastssl.transforms, f"{name}Transform")().transforms]
    assert len(views) == len(expected)
    for view, like in zip(views, expected, strict=True):
        got, wanted = lightly_views.ours(view), lightly_views.ours(like)
        if "blur" in wanted and name != "DINO":
            assert wanted["blur"][1:] == (0.1, 2.0)
            wanted["blur"] = (wanted["blur"][0], 0.2, 2.0)
        assert got.pop("order") == wanted.pop("order")
        assert got.keys() == wanted.keys()
        for key in wanted:
            assert got[key] == (wanted[key] if key == "crop" else pytest.approx(wanted[key]))


def test_vicregls_grids_belong_to_its_views():
    # Red grows with x and green with y, so that the views tell where they are from.
    pixels = np.zeros((100, 120, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 2 * np.arange(120)[None, :], 2 * np.arange(100)[:, None]
    function = data.VICRegLCollateFunction(32, 32, cj_prob=0, random_gray_scale=0, global_gaussian_blur_prob=0,
                                           local_gaussian_blur_prob=0, local_solarize_prob=0, normalize=None)  # fmt: skip
    torch.manual_seed(0)
    (large, small, grid_large, grid_small), targets, _ = function([(pixels, i) for i in range(20)])
    assert targets.tolist() == list(range(20))
    for view, grid in ((large, grid_large), (small, grid_small)):
        # The first cell's middle, in lightly's spacing and any other, at whichever corner the flip puts it.
        n = grid.shape[1]
        left = grid[:, 0, 0, 0] < grid[:, 0, -1, 0]
        shown = torch.where(left[:, None], *(side[:, :2].mean(dim=(2, 3)) for side in
                                             (view[..., : 32 // n, : 32 // n], view[..., : 32 // n, -(32 // n) :])))  # fmt: skip
        cell = torch.where(left[:, None], grid[:, 0, 0], grid[:, 0, -1])
        # 32 // n pixels are up to 1 of 32 off the cell, half of that in the mean: two pixels of 120.
        assert (shown * 255 / 2 + 0.5 - cell).abs().max() <= 2.0
        assert (grid[:, 0, 0, 1] < grid[:, -1, 0, 1]).all(), "mirrored upside down"
    assert not (grid_large[:, 0, 0, 0] < grid_large[:, 0, -1, 0]).all(), "never mirrored"


def test_pirls_tiles_are_those_of_a_crop():
    # Flat quarters of four colours: of whatever crop, each tile shows what its place in the crop shows.
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 4 * np.arange(64)[None, :], 4 * np.arange(64)[:, None]
    function = data.PIRLCollateFunction(32, cj_prob=0, random_gray_scale=0, hf_prob=0, n_grid=2, normalize=None)
    (_, tiles), _, _ = function([(pixels, 0)] * 30)
    assert tiles.shape == (30, 4, 3, 16, 16)
    middles = tiles[:, :, :2].mean(dim=(3, 4)) * 255 / 4  # (30, 4, 2): x and y
    orders = set()
    for places in middles:
        columns, rows = (places > places.mean(dim=0, keepdim=True)).T.tolist()
        cells = [2 * row + column for row, column in zip(rows, columns, strict=True)]
        assert sorted(cells) == [0, 1, 2, 3]
        orders.add(tuple(cells))
    assert len(orders) > 8  # of 24, in 30 draws


# Any transforms


def test_multi_view_collate_calls_other_transforms():
    twice = data.MultiViewCollateFunction([v2.Compose([v2.ToImage(), v2.Resize((8, 9))]), SimCLRViewTransform(16)])
    views, _, _ = twice(BATCH[:1])
    assert [view.shape for view in views] == [(1, 3, 8, 9), (1, 3, 16, 16)]
    with pytest.raises(TypeError, match=r"transforms=3 must be a list"):
        data.MultiViewCollateFunction(3)
    with pytest.raises(TypeError, match="must make a tensor"):
        data.MultiViewCollateFunction([lambda image: image])(BATCH)


def test_multi_crop_collate_crops_for_any_transform():
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    function = data.MultiCropCollateFunction([20, 10], [1, 2], [0.5, 0.1], [1.0, 0.5], to_tensor)
    views, _, _ = function([(Image.fromarray(PHOTO), 0)] * 2)
    assert [view.shape for view in views] == [(2, 3, 20, 20), (2, 3, 10, 10), (2, 3, 10, 10)]
    with pytest.raises(ValueError, match=r"crop_counts=\[1\] must hold 2"):
        data.MultiCropCollateFunction([20, 10], [1], [0.5, 0.1], [1.0, 0.5], to_tensor)


@pytest.mark.parametrize(
    "name, argument",
    [("DINOCollateFunction", {"kernel_size": 1.4}), ("SMoGCollateFunction", {"gaussian_blur_kernel_sizes": [0.1, None]}),
     ("MoCoCollateFunction", {"kernel_size": 0.1}), ("VICRegLCollateFunction", {"local_gaussian_blur_kernel_size": 0.1}),
     ("SwaVCollateFunction", {"kernel_size": 0.1}), ("MSNCollateFunction", {"kernel_size": 0.1})],
)  # fmt: skip
def test_kernel_sizes_are_ignored_with_a_warning_that_points_here(name, argument):
    with pytest.warns(DeprecationWarning, match=f"{name}: kernel_size=.* is ignored") as caught:
        getattr(data, name)(**argument)
    assert caught[0].filename == __file__


def test_the_box_blur_can_be_asked_for():
    for name in ("MoCoCollateFunction", "VICRegCollateFunction"):
        view = make(name, gaussian_blur=1.0, blur_kind="box").transform.view
        assert view.blur.kind == "box"
    for name in ("DINOCollateFunction", "SwaVCollateFunction", "MSNCollateFunction", "SMoGCollateFunction"):
        assert {part.view.blur.kind for part in make(name, blur_kind="box").transforms} == {"box"}


def test_grids_follow_batch_params():
    recipe = fastssl.recipes.vicregl(16, 8)
    plan = fastssl.Plan.draw(recipe, [(40, 50)] * 3, seed=0)
    assert crop_grids(plan, 7, 7).shape == (3, 8, 7, 7, 2)
