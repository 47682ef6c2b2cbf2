"""What happens to an image between its file and its views: which part, which size, which channels, and a user's own step."""

from __future__ import annotations

import io
import threading
import time

import images
import numpy as np
import pytest
import torch
from loading import RECIPE, VIEW, Memory, joined, pictures
from PIL import Image

import fastssl
from fastssl import ops
from fastssl.data import DatasetSource, ImageFolder, Source
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Crop, Flip, Jitter, View

PLAIN = View(crop=Crop(size=24), flip=Flip(p=0.5), normalize=None)


def folder(root, **files: bytes):
    for name, data in files.items():
        (root / name.replace("_DOT_", ".")).write_bytes(data)
    return root


# --- decode -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Images of many kinds, some large enough to be decoded in an eighth of their size."""
    root = tmp_path_factory.mktemp("large")
    for i in range(8):
        image = images.photo(180 + 61 * i, 700 - 53 * i, seed=i)
        options = [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}][i % 4]
        (root / f"{i}.jpg").write_bytes(images.jpeg(image, **options))
    (root / "8.jpg").write_bytes(images.jpeg(images.photo(300, 400)[:, :, 0]))
    (root / "9.jpg").write_bytes(images.cmyk_jpeg(images.photo(300, 400)))
    return root


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_part_gives_the_views_of_the_whole(large, channels_last):
    """decode="full": bit for bit, for crops and everything after them."""
    loader = fastssl.Loader(large, RECIPE, batch_size=4, decode="full", epochs=5, channels_last=channels_last)
    for batch in loader:
        decoded = [ops.decode(large / name) for name in batch.filenames]
        for got, want in zip(
            batch.views, ops.render(decoded, batch.params, RECIPE, channels_last=channels_last), strict=True
        ):
            assert torch.equal(got, want)


def test_colours_before_the_crop_see_all_of_the_image(large):
    jitter = Jitter(p=1.0, brightness=0.4, contrast=0.8, saturation=0.4, hue=0.1)
    view = View(crop=Crop(size=20, area=(0.05, 0.2)), jitter=jitter, order=("jitter", "crop"))
    for decode in ("auto", "full"):
        for batch in fastssl.Loader(large, (view,), batch_size=5, decode=decode):
            decoded = [ops.decode(large / name) for name in batch.filenames]
            assert torch.equal(batch.views[0], ops.render(decoded, batch.params, (view,))[0])


def test_auto_is_full_where_no_view_would_keep_its_resolution(tmp_path):
    folder(tmp_path, a_DOT_jpg=images.jpeg(images.photo(60, 70)))
    view = PLAIN.with_(crop=Crop(size=40, area=(0.5, 1.0)))  # crops are below 2 * 40 pixels
    for _ in range(3):
        auto = joined(fastssl.Loader(tmp_path, (view,), batch_size=1))
        assert auto == joined(fastssl.Loader(tmp_path, (view,), batch_size=1, decode="full"))


def test_auto_is_close_to_full(large):
    """What is documented for photographs: 1 of 255 on average. These have noise besides, and edges of one pixel."""
    auto, full = (joined(fastssl.Loader(large, (PLAIN,), batch_size=4, decode=d, epochs=4)) for d in ("auto", "full"))
    assert torch.equal(auto.params.data, full.params.data) and torch.equal(auto.indices, full.indices)
    difference = (auto.views[0] - full.views[0]).abs() * 255
    assert 0 < difference.mean() < 3
    # A shift of the crop by one pixel of the view would be an order of magnitude more.
    shifted = (auto.views[0][..., 1:] - full.views[0][..., :-1]).abs() * 255
    assert difference.mean() < shifted.mean() / 3


def test_the_largest_crop_of_all_views_decides_nothing_the_smallest_does(tmp_path):
    """One view in need of resolution keeps the others from being decoded smaller, too."""
    folder(tmp_path, a_DOT_jpg=images.jpeg(images.photo(400, 400)))
    small = PLAIN.with_(crop=Crop(size=16, area=(0.9, 1.0)))
    large_view = PLAIN.with_(crop=Crop(size=300, area=(0.9, 1.0)))
    (batch,) = fastssl.Loader(tmp_path, (small, large_view), batch_size=1)
    want = ops.render([ops.decode(tmp_path / "a.jpg")], batch.params, (small, large_view))
    assert torch.equal(batch.views[0], want[0]) and torch.equal(batch.views[1], want[1])


@pytest.mark.parametrize("decode", ["auto", "full"])
def test_a_truncated_file_is_bad_in_every_epoch(tmp_path, decode):
    data = images.jpeg(images.photo(300, 300))
    folder(tmp_path, a_DOT_jpg=data, b_DOT_jpg=data[: int(0.97 * len(data))])
    view = PLAIN.with_(crop=Crop(size=16, area=(0.02, 0.05)))
    loader = fastssl.Loader(tmp_path, (view,), batch_size=2, on_error="skip", decode=decode)
    for _ in range(12):
        assert joined(loader).filenames == ["a.jpg"]
    assert len(loader.errors) == 1 and "ends early" in loader.errors[0].reason


@pytest.mark.parametrize("value", ["half", None, True])
def test_decode_must_be_known(photos, value):
    with pytest.raises(ValueError, match=r"decode=.* must be one of 'auto'"):
        fastssl.Loader(photos, RECIPE, decode=value)


# --- channels and bits ------------------------------------------------------------------------------------------------

WIDE = np.random.default_rng(0).integers(0, 65536, (40, 50)).astype(np.uint16)


@pytest.mark.parametrize(
    "data, want",
    {
        "gray JPEG": (images.jpeg(images.flat(40, 50)[:, :, 0]), images.flat(40, 50)[:, :, :1]),
        "gray PNG": (images.png(images.photo(40, 50)[:, :, 0]), images.photo(40, 50)[:, :, :1]),
        "RGBA": (images.png(np.dstack([images.photo(40, 50), WIDE // 256]).astype(np.uint8)),) * 2,
        "gray with alpha": (images.png(Image.fromarray(images.photo(40, 50)).convert("LA")),) * 2,
        "16-bit PNG": (images.png_of_sixteen_bits(WIDE), WIDE[:, :, None]),
        "16-bit TIFF": (images.encode(Image.fromarray(WIDE), "TIFF"), WIDE[:, :, None]),
        "16-bit PGM": (b"P5 50 40 65535\n" + WIDE.astype(">u2").tobytes(), WIDE[:, :, None]),
        "1 bit": (images.png(Image.fromarray(WIDE > 30000)), ((WIDE > 30000) * 255).astype(np.uint8)[:, :, None]),
        "CMYK TIFF": (images.encode(Image.fromarray(images.photo(40, 50)).convert("CMYK"), "TIFF"),) * 2,
        "RGB": (images.png(images.photo(40, 50)), images.photo(40, 50)),
    }.values(),
    ids=["gray JPEG", "gray PNG", "RGBA", "LA", "PNG 16", "TIFF 16", "PGM 16", "1 bit", "CMYK", "RGB"],
)
def test_unchanged_is_as_stored(data, want, tmp_path):
    if isinstance(want, bytes):
        with Image.open(io.BytesIO(want)) as picture:
            want = np.array(picture)
    got = ops.decode(data, mode="unchanged")
    assert got.shape == want.shape and got.numpy().dtype == want.dtype and np.array_equal(got.numpy(), want)
    channels = got.shape[2]
    source = ImageFolder(folder(tmp_path, x_DOT_png=data), mode="unchanged", channels=channels)
    assert torch.equal(source.fetch(0), got)
    (batch,) = fastssl.Loader(source, (PLAIN,), batch_size=1, decode="full")
    assert batch.views[0].shape == (1, channels, 24, 24)
    assert torch.equal(batch.views[0], ops.render([got], batch.params, (PLAIN,))[0])


def test_a_jpeg_of_four_channels_stays_so(tmp_path):
    data = images.cmyk_jpeg(images.photo(40, 50))
    with Image.open(io.BytesIO(data)) as picture:
        want = torch.from_numpy(np.array(picture))
    assert want.shape == (40, 50, 4) and torch.equal(ops.decode(data, mode="unchanged"), want)
    source = ImageFolder(folder(tmp_path, x_DOT_jpg=data), mode="unchanged", channels=4)
    (batch,) = fastssl.Loader(source, (PLAIN,), batch_size=1)
    assert torch.equal(batch.views[0], ops.render([want], batch.params, (PLAIN,))[0])


@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM"])
def test_colours_of_sixteen_bits_are_refused_and_not_cut_down(name):
    wide = np.stack([WIDE] * 3, axis=2)
    strip = wide.astype("<u2").tobytes()
    tags = [(256, 4, 50), (257, 4, 40), (258, 3, 16), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, 3), (278, 4, 40)]
    tags += [(279, 4, len(strip))]
    directory = len(tags).to_bytes(2, "little")
    for tag, kind, value in tags:  # one value stands for all three channels: readers take it so
        directory += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little")
        directory += value.to_bytes(4, "little")
    files = {
        "PNG": images.png_of_sixteen_bits(wide),
        "PPM": b"P6 50 40 65535\n" + wide.astype(">u2").tobytes(),
        "TIFF": b"II*\0" + (8 + len(strip)).to_bytes(4, "little") + strip + directory + bytes(4),
    }
    with pytest.raises(fastssl.DecodeError, match=r"more than 8 bits|no image format"):
        ops.decode(files[name], mode="unchanged")


def test_values_of_32_bits_are_refused():
    data = images.encode(Image.fromarray(WIDE.astype(np.float32)), "TIFF")
    with pytest.raises(fastssl.DecodeError, match="32 bits a channel"):
        ops.decode(data, mode="unchanged")


def test_a_sample_of_other_channels_is_bad_and_says_so(tmp_path):
    folder(tmp_path, a_DOT_png=images.png(images.photo(20, 20)[:, :, 0]), b_DOT_png=images.png(images.photo(20, 20)))
    loader = fastssl.Loader(
        ImageFolder(tmp_path, mode="unchanged", channels=1), (PLAIN,), batch_size=2, on_error="skip"
    )
    assert joined(loader).filenames == ["a.png"]
    assert str(loader.errors[0]).endswith("b.png: it has 3 channels, and the source says 1")


def test_samples_of_a_dataset_may_not_have_other_channels():
    gray = torch.zeros((20, 20, 1), dtype=torch.uint8)
    with pytest.raises(fastssl.DecodeError, match="it has 1 channels, and the source says 3"):
        list(fastssl.Loader(Memory([gray]), RECIPE, batch_size=1))


@pytest.mark.parametrize(
    "arguments", [{"mode": "L"}, {"mode": "RGB", "channels": 1}, {"mode": "unchanged", "channels": 0}]
)
def test_modes_that_are_refused(photos, arguments):
    with pytest.raises(ValueError, match=r"ImageFolder: (mode|channels)="):
        ImageFolder(photos, **arguments)
    with pytest.raises(ValueError, match="decode: mode="):
        ops.decode(images.png(images.flat(2, 2)), mode="L")


# --- a step of the user's own -----------------------------------------------------------------------------------------


def halves(image: torch.Tensor) -> torch.Tensor:
    return image[: (image.shape[0] + 1) // 2]


def test_the_views_are_drawn_for_what_the_step_returns(photos):
    loader = fastssl.Loader(photos, RECIPE, batch_size=9, image_step=halves, threads=3)
    for batch in loader:
        decoded = [halves(ops.decode(photos / name)) for name in batch.filenames]
        plan = Plan.draw(RECIPE, [tuple(d.shape[:2]) for d in decoded], seed=0, indices=batch.indices.tolist())
        assert torch.equal(plan.data, batch.params.data)
        for got, want in zip(batch.views, ops.render(decoded, plan, RECIPE), strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("kind", ["jpeg", "png", "pixels", "array", "uint16"])
def test_the_step_gets_every_kind_of_image_and_may_write_into_it(kind):
    image = torch.from_numpy(images.photo(30, 40))
    if kind == "array":
        source = fastssl.data.ArraySource(np.concatenate([image.numpy()[None]] * 2, axis=2)[:, :, 40:])
    elif kind == "uint16":
        image = image.to(torch.int32).mul(257).to(torch.uint16)
        source = fastssl.data.ArraySource(image[None])
    else:
        item = {"jpeg": images.jpeg, "png": images.png, "pixels": torch.from_numpy}[kind](image.numpy())
        image = ops.to_image(item) if isinstance(item, bytes) else image
        source = Memory([item])
    seen = []

    def step(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.clone())
        pixels.zero_()
        return pixels

    for _ in range(2):
        (batch,) = fastssl.Loader(source, (PLAIN,), batch_size=1, image_step=step)
        assert batch.views[0].eq(0).all()
    assert all(torch.equal(pixels, image) for pixels in seen) and len(seen) == 2


def test_the_step_may_keep_its_image():
    kept = []

    def step(pixels: torch.Tensor) -> torch.Tensor:
        kept.append((pixels, pixels.clone()))
        return pixels

    list(fastssl.Loader(Memory(pictures(20)), RECIPE, batch_size=4, image_step=step, threads=3))
    assert len(kept) == 20 and all(torch.equal(a, b) for a, b in kept)


def test_the_step_may_change_the_type():
    (batch,) = fastssl.Loader(
        Memory(pictures(1)), (PLAIN,), batch_size=1, image_step=lambda p: (p.to(torch.int32) * 257).to(torch.uint16)
    )
    (plain,) = fastssl.Loader(Memory(pictures(1)), (PLAIN,), batch_size=1, decode="full")
    assert (batch.views[0] - plain.views[0]).abs().max() < 1e-5  # 257 * 255 is 65535


@pytest.mark.parametrize("error", [ValueError, RuntimeError, OSError])
def test_a_sample_that_the_step_cannot_take_is_bad(error):
    def step(pixels: torch.Tensor) -> torch.Tensor:
        if pixels.shape[0] == 28:  # pictures 0, 7, 14
            raise error("too low")
        return pixels

    loader = fastssl.Loader(Memory(pictures(15)), RECIPE, batch_size=5, image_step=step, on_error="skip")
    assert len(joined(loader).filenames) == 12
    assert sorted(str(fault) for fault in loader.errors) == [
        f"memory/{i}: image_step: {error.__name__}: too low" for i in (0, 14, 7)
    ]
    with pytest.raises(fastssl.DecodeError, match=rf"memory/\d+: image_step: {error.__name__}: too low"):
        list(fastssl.Loader(Memory(pictures(15)), RECIPE, batch_size=5, image_step=step))


def test_a_mistake_in_the_step_ends_the_iteration_and_names_the_sample():
    def step(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.no_such_method()

    with pytest.raises(
        RuntimeError, match=r"image_step failed on memory/\d: AttributeError: .*no_such_method"
    ) as caught:
        list(fastssl.Loader(Memory(pictures(3)), RECIPE, batch_size=1, image_step=step, on_error="skip"))
    assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.parametrize(
    "result, words",
    [
        (None, "TypeError: it returned NoneType"),
        (torch.zeros(3, 4, 4), r"torch.float32 and shape \(3, 4, 4\)"),
        (torch.zeros(4, 4, dtype=torch.uint8), r"must be uint8 or uint16, \(H, W, C\)"),
        (torch.zeros((0, 4, 3), dtype=torch.uint8), r"shape \(0, 4, 3\)"),
        (torch.zeros((4, 4, 1), dtype=torch.uint8), "it has 1 channels"),
    ],
)
def test_what_the_step_may_not_return(result, words):
    with pytest.raises((RuntimeError, fastssl.DecodeError), match=words):
        list(fastssl.Loader(Memory(pictures(2)), RECIPE, batch_size=1, image_step=lambda pixels: result))


def test_the_step_must_be_callable(photos):
    with pytest.raises(TypeError, match="image_step='crop' must be a callable"):
        fastssl.Loader(photos, RECIPE, image_step="crop")


# --- threads ----------------------------------------------------------------------------------------------------------


def test_threads_go_on_with_the_next_batch_while_one_image_of_this_takes_long():
    """Also with prefetch=1: else all but one thread would wait for the slowest image of each batch."""
    data, begun, late = pictures(1)[0], [], threading.Event()

    class Slow(Memory):
        def fetch(self, index: int):
            begun.append(index)
            if index == 7:  # the last of the first batch: waits until the second is under way
                assert late.wait(30), "no thread went on with the second batch"
            if index == 15:
                late.set()
            return data

    loader = fastssl.Loader(Slow([data] * 24), RECIPE, batch_size=8, threads=2, prefetch=1, shuffle=False)
    assert joined(loader).indices.tolist() == list(range(24))


def test_no_more_batches_are_in_memory_than_is_documented():
    """prefetch and one more under way, and one with the consumer."""
    for prefetch in (0, 1, 3):
        begun = []

        class Counting(Memory):
            def fetch(self, index: int):
                begun.append(index)  # noqa: B023
                return super().fetch(index)

        iteration = iter(fastssl.Loader(Counting(pictures(40)), RECIPE, batch_size=2, prefetch=prefetch, shuffle=False))
        for taken in range(1, 6):
            batch = next(iteration)
            deadline = time.monotonic() + 0.2
            while time.monotonic() < deadline:
                assert max(begun) < 2 * (taken + prefetch), f"prefetch={prefetch}: {max(begun)} after batch {taken}"
                time.sleep(0.02)
        del batch, iteration


def test_batch_methods_of_a_source_respect_what_a_subclass_says_of_each(photos):
    class Own(ImageFolder):
        def target(self, index: int) -> int:
            return 7

        def filename(self, index: int) -> str:
            return f"own {index}"

        def path(self, index: int) -> str:
            return self.paths[0]

    batch = next(iter(fastssl.Loader(Own(photos), (VIEW,), batch_size=4, shuffle=False)))
    assert batch.targets.tolist() == [7] * 4 and batch.filenames == [f"own {i}" for i in range(4)]
    first = next(iter(fastssl.Loader(photos, (VIEW,), batch_size=4, shuffle=False)))
    assert batch.params.source_height.unique().numel() == 1 < first.params.source_height.unique().numel()


def test_a_dataset_goes_through_the_step_as_well():
    source = DatasetSource([(Image.fromarray(images.photo(20 + i, 30)), i) for i in range(4)])
    shapes = []
    list(fastssl.Loader(source, RECIPE, batch_size=2, image_step=lambda p: (shapes.append(p.shape[0]), p)[1]))
    assert sorted(shapes) == [20, 21, 22, 23]


def test_a_mistake_in_the_source_is_raised_during_a_replacement_too():
    class Mine(Source):
        def __len__(self):
            return 4

        def fetch(self, index):
            if index == 3:
                raise ValueError("a bad sample")
            if index == 0:
                raise TypeError("a mistake in the source")
            return torch.zeros((8, 8, 3), dtype=torch.uint8)

    source = Mine()
    loader = fastssl.Loader(
        source, (View(crop=Crop(size=4)),), batch_size=1, shuffle=False, on_error="replace", threads=1
    )
    loader.load_state_dict(loader.state_dict() | {"position": 3})
    with pytest.raises(TypeError, match="a mistake in the source"):
        list(loader)
