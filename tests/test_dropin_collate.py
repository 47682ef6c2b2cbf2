"""The collate functions: what lightly's give, inside DataLoader with any workers, from every kind of image."""

from __future__ import annotations

import inspect
import pickle
import warnings
from pathlib import Path
from typing import Any

import dropin
import images
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import fastssl
from fastssl.data import MultiViewCollate, SimCLRCollateFunction
from fastssl.data.collate import BaseCollateFunction, ImageCollateFunction
from fastssl.transforms import Crop, SimCLRTransform, SimCLRViewTransform, View
from fastssl.transforms.multi_view_transform import ViewTransform

PHOTOGRAPH = dropin.PHOTO


def sample(image: Any = PHOTOGRAPH, target: Any = 3, filename: str = "a.jpg") -> tuple[Any, Any, str]:
    return (image, target, filename)


def loader(collate: Any, *, workers: int, count: int = 12, **options: Any) -> DataLoader[Any]:
    return DataLoader(dropin.Images(count, options.pop("transform", None)), batch_size=4, num_workers=workers,
                      collate_fn=collate, **options)  # fmt: skip


def views_of(batches: Any) -> torch.Tensor:
    """All views of all batches, as rows."""
    return torch.cat([view for views, _, _ in batches for view in views]).flatten(1)


# Structure


def test_simclr_collate_gives_what_lightly_documents():
    batch = [sample(target=5, filename="x/1.png"), sample(images.photo(30, 90), 2, "x/2.png")]
    assert dropin.structure(SimCLRCollateFunction(input_size=32)(batch)) == (
        "tuple",
        [
            ("tuple", [("tensor", (2, 3, 32, 32), torch.float32, None)] * 2),
            ("tensor", (2,), torch.int64, [5, 2]),
            ("list", ["x/1.png", "x/2.png"]),
        ],
    )


def test_samples_without_filenames_give_none():
    (x0, _), targets, filenames = SimCLRCollateFunction(input_size=16)([(PHOTOGRAPH, 1), [PHOTOGRAPH, 0]])
    assert x0.shape == (2, 3, 16, 16)
    assert targets.tolist() == [1, 0]
    assert filenames == []


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_multi_view_collate_gives_what_lightlys_gives(workers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = loader(
            dropin.lightly().data.MultiViewCollate(),
            workers=workers,
            transform=dropin.lightly().transforms.SimCLRTransform(input_size=24),
        )
        expected = [dropin.structure(batch) for batch in theirs]
    ours = loader(MultiViewCollate(), workers=workers, transform=SimCLRTransform(input_size=24))
    assert [dropin.structure(batch) for batch in ours] == expected


def test_multi_view_collate_takes_lightlys_transform_in_workers():
    transform = dropin.lightly().transforms.SimCLRTransform(input_size=24)
    batches = list(loader(MultiViewCollate(), workers=1, transform=transform))
    assert views_of(batches).shape == (24, 3 * 24 * 24)


def test_multi_view_collate_keeps_the_values():
    a, b = torch.rand(3, 5, 7), torch.rand(3, 5, 7)
    views, targets, filenames = MultiViewCollate()([([a, b], 1, "a"), ([b, a], 0, "b")])
    assert torch.equal(views[0], torch.stack([a, b]))
    assert torch.equal(views[1], torch.stack([b, a]))
    assert (targets.tolist(), filenames) == ([1, 0], ["a", "b"])


def test_an_empty_batch_warns_and_gives_empty_parts():
    with pytest.warns(UserWarning, match="empty batch"):
        views, targets, filenames = MultiViewCollate()([])
    assert (views, targets.tolist(), targets.dtype, filenames) == ([], [], torch.int64, [])


def test_views_of_a_worker_are_made_in_shared_memory():
    flags = dropin.Flags(MultiViewCollate())
    assert list(loader(flags, workers=1, transform=SimCLRTransform(input_size=8))) == [[True, True]] * 3
    assert list(loader(flags, workers=0, transform=SimCLRTransform(input_size=8))) == [[False, False]] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_views_come_in_the_type_and_layout_asked_for(dtype):
    (x0, x1), _, _ = SimCLRCollateFunction(input_size=16, dtype=dtype, channels_last=True)([sample()] * 2)
    for view in (x0, x1):
        assert view.dtype == dtype
        assert view.is_contiguous(memory_format=torch.channels_last)


def test_uint8_views_are_the_float_views_rounded():
    views = []
    for dtype in (torch.uint8, torch.float32):
        torch.manual_seed(0)
        collate = SimCLRCollateFunction(input_size=32, normalize=None, dtype=dtype)
        (x0, x1), _, _ = collate([sample()] * 8)
        views.append(torch.cat([x0, x1]).double())
    assert (views[0] - views[1] * 255).abs().max() <= 0.5 + 1e-3  # 1e-3: float32 near one half


# What is drawn


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("drop_in", ["collate", "transform"])
def test_torch_manual_seed_decides_what_is_drawn(drop_in, workers):
    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        if drop_in == "collate":
            return views_of(loader(SimCLRCollateFunction(input_size=16), workers=workers))
        return views_of(loader(MultiViewCollate(), workers=workers, transform=SimCLRTransform(input_size=16)))

    first = run(7)
    assert torch.equal(first, run(7))
    assert not torch.equal(first, run(8))
    assert len(first.unique(dim=0)) == len(first) == 24  # also: no two workers draw the same


def test_persistent_workers_draw_afresh_in_every_epoch():
    torch.manual_seed(0)
    collate = SimCLRCollateFunction(input_size=16)
    batches = loader(collate, workers=2, persistent_workers=True)
    rows = torch.cat([views_of(batches), views_of(batches)])
    assert len(rows.unique(dim=0)) == 48


def test_one_key_is_drawn_for_each_batch():
    torch.manual_seed(0)
    SimCLRCollateFunction(input_size=8)([sample()] * 5)
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.randint(2**63 - 1, ())
    assert torch.equal(after, torch.rand(1))


def test_the_collate_has_lightlys_distribution():
    lightly = dropin.lightly()
    size, count = 24, 1500
    view = lightly.transforms.SimCLRViewTransform(input_size=size, cj_strength=0.5, sigmas=(0.2, 2), normalize=None)
    torch.manual_seed(0)
    np.random.seed(0)  # where lightly draws rotation and blur
    image = Image.fromarray(PHOTOGRAPH)
    theirs = torch.stack([view(image) for _ in range(count)])
    (x0, x1), _, _ = SimCLRCollateFunction(input_size=size, normalize=None)([sample()] * (count // 2))
    dropin.check_same_distribution(torch.cat([x0, x1]), theirs)


# Signatures

COLLATE_SIGNATURES = {  # of lightly 1.5.26
    ImageCollateFunction: {
        "input_size": 64, "cj_prob": 0.8, "cj_bright": 0.7, "cj_contrast": 0.7, "cj_sat": 0.7, "cj_hue": 0.2,
        "min_scale": 0.15, "random_gray_scale": 0.2, "gaussian_blur": 0.5, "kernel_size": None, "sigmas": (0.2, 2),
        "vf_prob": 0.0, "hf_prob": 0.5, "rr_prob": 0.0, "rr_degrees": None,
        "normalize": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    },
    SimCLRCollateFunction: {
        "input_size": 224, "cj_prob": 0.8, "cj_strength": 0.5, "min_scale": 0.08, "random_gray_scale": 0.2,
        "gaussian_blur": 0.5, "kernel_size": None, "sigmas": (0.2, 2), "vf_prob": 0.0, "hf_prob": 0.5,
        "rr_prob": 0.0, "rr_degrees": None,
        "normalize": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    },
}  # fmt: skip


@pytest.mark.parametrize("function", COLLATE_SIGNATURES)
def test_collates_have_the_signature_of_lightly_1_5(function):
    expected = COLLATE_SIGNATURES[function]
    parameters = inspect.signature(function).parameters
    ours = {name: parameter.default for name, parameter in parameters.items()}
    assert list(ours.items())[: len(expected)] == list(expected.items())
    assert list(ours)[len(expected) :] == ["dtype", "channels_last", "blur_kind"]


def test_the_defaults_jitter_as_in_lightly():
    view = SimCLRCollateFunction().transform.view
    jitter = (view.jitter.brightness, view.jitter.contrast, view.jitter.saturation, view.jitter.hue)
    assert jitter == pytest.approx((0.4, 0.4, 0.4, 0.1))
    assert view.blur.sigma_px == (0.2, 2)
    assert view.crop.area == (0.08, 1.0)


# Kinds of images


def grid(mode: str) -> Image.Image:
    return Image.fromarray(PHOTOGRAPH).convert(mode)


KINDS: dict[str, tuple[Any, np.ndarray]] = {
    "PIL RGB": (Image.fromarray(PHOTOGRAPH), PHOTOGRAPH),
    **{
        f"PIL {mode}": (grid(mode), np.asarray(grid(mode).convert("RGB")))
        for mode in ("L", "P", "CMYK", "RGBA", "LA", "1")
    },
    "array (H, W, 3)": (PHOTOGRAPH, PHOTOGRAPH),
    "array (H, W)": (PHOTOGRAPH[..., 0].copy(), PHOTOGRAPH[..., :1].repeat(3, 2)),
    "array, strided": (np.asfortranarray(PHOTOGRAPH), PHOTOGRAPH),
    "tensor (3, H, W)": (torch.from_numpy(PHOTOGRAPH).permute(2, 0, 1), PHOTOGRAPH),
    "tensor (1, H, W)": (torch.from_numpy(PHOTOGRAPH[..., 0].copy())[None], PHOTOGRAPH[..., :1].repeat(3, 2)),
    **{
        f"{format} {mode} bytes": (images.encode(grid(mode), format), np.asarray(grid(mode).convert("RGB")))
        for format, mode in (("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "1"),
                             ("BMP", "RGB"), ("TIFF", "CMYK"), ("PPM", "RGB"))
    },
    "1-D tensor of bytes": (
        torch.frombuffer(bytearray(images.encode(PHOTOGRAPH, "PNG")), dtype=torch.uint8), PHOTOGRAPH),
}  # fmt: skip


def rendered(image: Any) -> torch.Tensor:
    torch.manual_seed(3)
    (x0, x1), _, _ = SimCLRCollateFunction(input_size=32)([sample(image)])
    return torch.cat([x0, x1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_what_pillow_makes_rgb_of_it(kind):
    image, pixels = KINDS[kind]
    assert torch.equal(rendered(image), rendered(pixels))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("to_path", [str, Path])
def test_jpeg_bytes_and_paths_are_what_pillow_decodes(mode, to_path, tmp_path):
    data = images.encode(grid(mode), "JPEG", quality=90)
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    # Pillow may carry another libjpeg than this build, and two decoders may differ by rounding: 2/255 before jitter,
    # which multiplies by up to 1.4 three times, over the smallest deviation of ImageNet.
    limit = 2 / 255 * 1.4**3 / 0.224
    assert (rendered(data) - rendered(pixels)).abs().max() <= limit
    assert torch.equal(rendered(to_path(path)), rendered(data))


def test_images_of_16_bits_are_scaled_to_8():
    ramp = np.arange(256, dtype=np.uint16).repeat(8).reshape(32, 64)
    data = images.encode(Image.fromarray(ramp * 257), "PNG")
    view = SimCLRCollateFunction(input_size=16)
    torch.manual_seed(1)
    (x0, _), _, _ = view([sample(data)])
    torch.manual_seed(1)
    (y0, _), _, _ = view([sample(ramp.astype(np.uint8))])
    assert torch.equal(x0, y0)


def test_a_batch_mixes_kinds_and_sizes():
    kinds = [image for image, _ in KINDS.values()] + [np.zeros((1, 1, 3), np.uint8), np.zeros((4000, 2, 3), np.uint8)]
    (x0, x1), _, _ = SimCLRCollateFunction(input_size=16)([sample(image) for image in kinds])
    assert x0.shape == x1.shape == (len(kinds), 3, 16, 16)
    assert x0.isfinite().all()


# Errors

BAD_IMAGES: dict[str, Any] = {
    "None": None,
    "a number": 3,
    "a float array": PHOTOGRAPH.astype(np.float32),
    "a normalized tensor": torch.randn(3, 8, 8),
    "two channels": np.zeros((8, 8, 2), np.uint8),
    "five channels": torch.zeros(5, 8, 8, dtype=torch.uint8),
    "four dimensions": np.zeros((1, 8, 8, 3), np.uint8),
    "no pixels": np.zeros((0, 8, 3), np.uint8),
    "no bytes": b"",
    "bytes of no image": b"not an image at all",
    "half a JPEG": images.encode(PHOTOGRAPH, "JPEG")[:400],
    "a list": [1, 2],
    "a path to nothing": "no/such/file.jpg",
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_named(kind):
    with pytest.raises(
        (TypeError, ValueError), match=r"SimCLRCollateFunction: sample 1 of the batch \(b\.jpg\): .{10}"
    ):
        SimCLRCollateFunction(input_size=16)([sample(), sample(BAD_IMAGES[kind], filename="b.jpg")])


def test_an_unreadable_image_is_a_decode_error_in_workers_too(tmp_path):
    (tmp_path / "text.jpg").write_text("not a photograph")
    batch = [(str(tmp_path / "text.jpg"), 0)] * 4
    with pytest.raises(fastssl.DecodeError, match=r"sample 0 of the batch: .*text\.jpg"):
        SimCLRCollateFunction(input_size=16)(batch)
    batches = iter(DataLoader(batch, batch_size=2, num_workers=1, collate_fn=SimCLRCollateFunction(input_size=16)))
    for _ in range(2):  # to the end, as torch takes 5 s to end workers before it
        with pytest.raises(fastssl.DecodeError, match=r"text\.jpg"):
            next(batches)
    assert next(batches, None) is None


@pytest.mark.parametrize(
    "batch, message",
    [
        ([], "the batch is empty"),
        ([PHOTOGRAPH], "sample 0 of the batch is a ndarray"),
        ([(PHOTOGRAPH,)], "sample 0 of the batch is 1 things"),
        ([sample(), (PHOTOGRAPH, 1)], "sample 1 of the batch holds 2 things"),
        ([sample(target="cat")], r"target of sample 0 of the batch \(a\.jpg\) is 'cat'"),
        ([sample(target=1.5)], "is 1.5, and must be a whole number"),
        ([sample(target=torch.tensor([1, 2]))], "must be a whole number"),
        ([sample(target=None)], "is None"),
        ([sample(target=float("nan"))], "is nan"),
    ],
)
def test_a_bad_batch_is_explained(batch, message):
    with pytest.raises((TypeError, ValueError), match=message):
        SimCLRCollateFunction(input_size=16)(batch)


@pytest.mark.parametrize(
    "target", [2, 2.0, True + 1, np.int64(2), np.float32(2), torch.tensor(2), torch.tensor([2]), np.array(2)]
)
def test_whole_numbers_of_any_kind_are_targets(target):
    _, targets, _ = SimCLRCollateFunction(input_size=8)([sample(target=target)])
    assert targets.tolist() == [2]
    assert targets.dtype == torch.int64


@pytest.mark.parametrize(
    "batch, message",
    [
        ([(PHOTOGRAPH, 1, "a")], r"sample 0 of the batch \(a\) holds ndarray, .*SimCLRCollateFunction"),
        ([([PHOTOGRAPH], 1, "a")], r"holds \['ndarray'\]"),
        ([([torch.zeros(2)], 1), ([torch.zeros(2)] * 2, 1)], "sample 1 of the batch has 2 views"),
        ([([torch.zeros(2)], 1), ([torch.zeros(3)], 1)], r"view 0 of sample 1 of the batch is \(3,\)"),
        ([([torch.zeros(2)], 1), ([torch.zeros(2).int()], 1)], "torch.int32"),
    ],
)
def test_views_that_do_not_fit_are_explained(batch, message):
    with pytest.raises((TypeError, ValueError), match=message):
        MultiViewCollate()(batch)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cj_strength": -1}, "cj_strength=-1 must be 0 or more"),
        ({"input_size": 0}, "input_size=0"),
        ({"dtype": torch.int64, "normalize": None}, "float32, float16, bfloat16 or uint8"),
        ({"dtype": torch.uint8}, "normalize=None"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=f"^SimCLRCollateFunction: .*{message}"):
        SimCLRCollateFunction(**arguments)


def test_kernel_size_is_ignored_with_a_warning():
    with pytest.warns(DeprecationWarning, match="kernel_size=9 is ignored") as caught:
        collate = SimCLRCollateFunction(input_size=16, kernel_size=9)
    assert caught[0].filename == __file__
    assert collate.transform.view == SimCLRCollateFunction(input_size=16).transform.view


# Other transforms


def halve(image: Image.Image) -> torch.Tensor:
    return torch.full((3, 4, 4), 0.5) * torch.rand(1)


def test_a_transform_of_ones_own_is_called_for_each_view():
    collate = BaseCollateFunction(halve)
    torch.manual_seed(0)
    (x0, x1), targets, filenames = collate([sample(), sample(filename="b.jpg")])
    torch.manual_seed(0)
    drawn = torch.rand(4) / 2  # first the views 0 of all samples, then the views 1
    assert torch.equal(torch.cat([x0, x1])[:, 0, 0, 0], drawn)
    assert (targets.tolist(), filenames) == ([3, 3], ["a.jpg", "b.jpg"])


def test_a_transform_put_in_later_is_used():
    collate = SimCLRCollateFunction(input_size=16)
    collate.transform = halve
    (x0, _), _, _ = collate([sample()])
    assert x0.shape == (1, 3, 4, 4)


def test_a_subclass_that_overrides_the_call_is_called():
    class Brighter(SimCLRViewTransform):
        def __call__(self, image):
            return super().__call__(image) + 100

    (x0, _), _, _ = BaseCollateFunction(Brighter(input_size=8))([sample()])
    assert x0.min() > 50


def test_a_transform_that_makes_no_tensor_is_explained():
    with pytest.raises(TypeError, match=r"made a Image of sample 0 of the batch \(a\.jpg\)"):
        BaseCollateFunction(lambda image: image)([sample(Image.fromarray(PHOTOGRAPH))])
    with pytest.raises(TypeError, match="must be callable"):
        BaseCollateFunction(3)


# Pickling and spawned workers


@pytest.mark.parametrize(
    "collate",
    [
        SimCLRCollateFunction(input_size=16),
        ImageCollateFunction(input_size=16, dtype=torch.float16),
        BaseCollateFunction(ViewTransform(View(crop=Crop(size=16)))),
    ],
)
def test_collates_survive_pickling(collate):
    copy = pickle.loads(pickle.dumps(collate))
    outputs = []
    for function in (collate, copy):
        torch.manual_seed(0)
        outputs.append(function([sample()])[0][0])
    assert torch.equal(*outputs)


def test_workers_forked_from_a_process_with_threads_render():
    fastssl.set_num_threads(3)  # also what the workers then use
    torch.manual_seed(5)
    collate = SimCLRCollateFunction(input_size=16)
    views_of(loader(collate, workers=0))
    rows = []
    for threads in (3, 1):
        fastssl.set_num_threads(threads)
        torch.manual_seed(5)
        rows.append(views_of(loader(collate, workers=2, timeout=60)))
    assert torch.equal(*rows)


def test_spawned_workers_draw_as_forked_ones():
    rows = []
    for context in ("spawn", "fork"):
        torch.manual_seed(5)
        rows.append(views_of(loader(SimCLRCollateFunction(input_size=16), workers=1, multiprocessing_context=context)))
    assert torch.equal(*rows)


def test_a_float_tensor_in_0_to_1_is_the_same_image():
    as_bytes = torch.from_numpy(PHOTOGRAPH.copy()).permute(2, 0, 1)
    assert torch.equal(fastssl.ops.to_image(as_bytes.float() / 255), fastssl.ops.to_image(as_bytes))
