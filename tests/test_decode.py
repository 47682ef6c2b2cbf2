"""Decoding: the same pixels as Pillow and torchvision, an error for what is no image, and never a crash or a leak."""

from __future__ import annotations

import gc
import io
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import images
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import fastssl
from fastssl import ops

# Two decoders that both follow the standard may round each of Y, Cb and Cr differently by 1; conversion to RGB
# makes of that at most 1 + 1.772 < 3 levels, and hardly anything on average. CMYK multiplies two such channels.
LARGEST = 3
MEAN = 0.1


def close(got: torch.Tensor, want: np.ndarray | torch.Tensor, largest: int = LARGEST) -> None:
    want = np.asarray(want).astype(int)
    assert got.dtype == torch.uint8 and got.is_contiguous()
    assert tuple(got.shape) == want.shape
    error = np.abs(got.numpy().astype(int) - want)
    assert error.max() <= largest and error.mean() <= MEAN, f"off by {error.max()}, mean {error.mean():.3f}"


JPEGS: dict[str, Callable[[np.ndarray], bytes]] = {
    "4:4:4": lambda image: images.jpeg(image, subsampling=0),
    "4:2:2": lambda image: images.jpeg(image, subsampling=1),
    "4:2:0": lambda image: images.jpeg(image, subsampling=2),
    "4:1:1": lambda image: images.jpeg(image, subsampling="4:1:1"),
    "progressive": lambda image: images.jpeg(image, progressive=True),
    "progressive 4:4:4": lambda image: images.jpeg(image, progressive=True, subsampling=0),
    "low quality": lambda image: images.jpeg(image, quality=10),
    "high quality": lambda image: images.jpeg(image, quality=100),
    "restart markers": lambda image: images.jpeg(image, restart_marker_blocks=3),
    "restart rows, progressive": lambda image: images.jpeg(image, restart_marker_rows=1, progressive=True),
    "optimized": lambda image: images.jpeg(image, optimize=True),
    "channels stored as RGB": lambda image: images.jpeg(image, keep_rgb=True),
    "grayscale": lambda image: images.jpeg(Image.fromarray(image).convert("L")),
    "grayscale, progressive": lambda image: images.jpeg(Image.fromarray(image).convert("L"), progressive=True),
    "a colour profile": lambda image: images.jpeg(image, icc_profile=bytes(300)),
    "a comment": lambda image: images.jpeg(image, comment=b"x" * 70),
}


@pytest.mark.parametrize("height, width", [(1, 1), (8, 8), (1, 37), (37, 1), (17, 33), (120, 161)])
@pytest.mark.parametrize("kind", sorted(JPEGS))
def test_jpeg_decodes_as_in_pillow(kind, height, width):
    data = JPEGS[kind](images.photo(height, width))
    close(ops.decode(data), images.rgb(data))


def test_jpeg_subsampled_downwards_only():
    """4:4:0, which Pillow reads and does not write: a 4:2:2 file of a square, with its two factors exchanged."""
    data = bytearray(images.jpeg(images.photo(64, 64), subsampling=1))
    at = data.index(b"\xff\xc0") + 11
    assert data[at] == 0x21
    data[at] = 0x12
    close(ops.decode(bytes(data)), images.rgb(bytes(data)))


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "progressive", "grayscale"])
def test_jpeg_decodes_as_in_torchvision(kind):
    data = JPEGS[kind](images.photo(97, 130))
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    want = torchvision.io.decode_jpeg(encoded, mode=torchvision.io.ImageReadMode.RGB)
    close(ops.decode(data), want.permute(1, 2, 0))


@pytest.mark.parametrize("ycck", [False, True])
def test_jpeg_of_four_channels(ycck):
    data = images.cmyk_jpeg(images.photo(60, 70), ycck=ycck)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == "CMYK"
    close(ops.decode(data), images.rgb(data), largest=2 * LARGEST)


def test_jpeg_of_the_largest_side():
    for height, width in ((65_500, 1), (1, 65_500)):
        data = images.jpeg(images.noise(height, width))
        close(ops.decode(data), images.rgb(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored(orientation):
    image = images.photo(30, 50)
    data = images.jpeg(image, orientation=orientation)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.getexif()[images.EXIF_ORIENTATION] == orientation
    assert torch.equal(ops.decode(data), ops.decode(images.jpeg(image)))


def test_bytes_after_the_end_do_not_matter():
    data = images.jpeg(images.photo(40, 50))
    assert torch.equal(ops.decode(data + bytes(1000)), ops.decode(data))
    assert torch.equal(ops.decode(data + data), ops.decode(data))


def test_real_photographs(imagenet_sample):
    for path in imagenet_sample[::20]:
        close(ops.decode(path), images.rgb(path.read_bytes()))


# --- other formats ----------------------------------------------------------------------------------------------------

PHOTO = images.photo(40, 50)
OTHERS = {
    "PNG": images.png(PHOTO),
    "PNG, gray": images.png(PHOTO[:, :, 0]),
    "PNG, 1 bit": images.png(Image.fromarray(PHOTO[:, :, 0]).convert("1")),
    "PNG, palette": images.palette_png(PHOTO),
    "PNG, palette with transparency": images.palette_png(PHOTO, transparent=True),
    "PNG, RGBA": images.png(Image.fromarray(np.dstack([PHOTO, PHOTO[:, :, :1]]))),
    "PNG, gray and alpha": images.png(Image.fromarray(PHOTO).convert("LA")),
    "GIF": images.encode(PHOTO, "GIF"),
    "BMP": images.encode(PHOTO, "BMP"),
    "PPM": images.encode(PHOTO, "PPM"),
    "TIFF": images.encode(PHOTO, "TIFF"),
    "TIFF, CMYK": images.encode(Image.fromarray(PHOTO).convert("CMYK"), "TIFF"),
    "WebP, lossless": images.encode(PHOTO, "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", sorted(OTHERS))
@pytest.mark.filterwarnings(
    "ignore:Palette images with Transparency:UserWarning"
)  # Pillow, in what it is compared with
def test_other_formats_decode_as_in_pillow(name):
    want = images.rgb(OTHERS[name])
    got = ops.decode(OTHERS[name])
    assert got.dtype == torch.uint8 and got.is_contiguous()
    assert torch.equal(got, torch.from_numpy(want.copy()))


@pytest.mark.parametrize("channels", [1, 3])
def test_png_of_sixteen_bits_keeps_its_tones(channels):
    """Scaled to 8 bits. (Pillow's convert("RGB") cuts 16-bit gray at 255, which turns almost all of it white.)"""
    wide = np.random.default_rng(0).integers(0, 65536, (31, 23, 3)).astype(np.uint16)
    got = ops.decode(images.png_of_sixteen_bits(wide if channels == 3 else wide[:, :, 0])).numpy()
    want = (wide if channels == 3 else wide[:, :, :1]) / 257
    assert got.shape == (31, 23, 3)
    assert np.abs(got - want).max() < 1  # v / 257 rounded, or v >> 8


# --- ways to say which image ------------------------------------------------------------------------------------------


def test_every_way_to_pass_encoded_bytes(tmp_path):
    data = images.jpeg(images.photo(30, 40))
    path = tmp_path / "a photo, \N{LATIN SMALL LETTER E WITH ACUTE}.jpg"
    path.write_bytes(data)
    want = ops.decode(data)
    tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    spread = torch.stack([tensor, tensor], dim=1)[:, 0]  # strided
    for form in (bytearray(data), memoryview(data), memoryview(b"__" + data)[2:], tensor, spread, str(path), path):
        assert torch.equal(ops.decode(form), want)


def test_the_pixels_belong_to_the_caller():
    data = bytearray(images.jpeg(images.photo(30, 40)))
    got = ops.decode(data)
    kept = got.clone()
    data[:] = bytes(len(data))
    ops.decode(images.jpeg(images.noise(30, 40)))
    assert torch.equal(got, kept)
    got.zero_()  # writable


def test_to_image_takes_what_datasets_return(tmp_path):
    image = images.photo(20, 30)
    want = torch.from_numpy(image)
    lossless = images.png(image)
    path = tmp_path / "x.png"
    path.write_bytes(lossless)
    forms = {
        "PIL image": Image.fromarray(image),
        "array": image,
        "array, transposed in memory": np.asfortranarray(image),
        "tensor": want.permute(2, 0, 1).contiguous(),
        "tensor, channels last in memory": want.permute(2, 0, 1),
        "float tensor": want.permute(2, 0, 1).float() / 255,
        "half tensor": want.permute(2, 0, 1).half() / 255,
        "bytes": lossless,
        "encoded tensor": torch.frombuffer(bytearray(lossless), dtype=torch.uint8),
        "path": path,
        "path in words": str(path),
    }
    for name, form in forms.items():
        got = ops.to_image(form)
        assert got.dtype == torch.uint8 and torch.equal(got, want), name


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_to_image_converts_pil_modes_as_pillow_does(mode):
    picture = Image.fromarray(images.photo(20, 30)).convert(mode)
    want = torch.from_numpy(np.array(picture.convert("RGB")))
    assert torch.equal(ops.to_image(picture), want)


def test_to_image_repeats_one_channel():
    gray = images.photo(20, 30)[:, :, 0]
    want = torch.from_numpy(np.repeat(gray[:, :, None], 3, axis=2))
    for form in (gray, torch.from_numpy(gray)[None]):
        assert torch.equal(ops.to_image(form), want)


@pytest.mark.parametrize(
    "form",
    [
        3,
        None,
        [1, 2, 3],
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((4, 4, 5), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
        torch.full((3, 4, 4), 255.0),
        torch.zeros((4, 4, 4, 4), dtype=torch.uint8),
    ],
    ids=lambda form: f"{type(form).__name__}{getattr(form, 'shape', '')}{getattr(form, 'dtype', '')}",
)
def test_to_image_says_what_it_cannot_take(form):
    with pytest.raises((TypeError, ValueError)) as caught:
        ops.to_image(form)
    assert len(str(caught.value)) > 30, "an error that helps says what it got and what it takes"


# --- what is no image -------------------------------------------------------------------------------------------------

BROKEN = {
    "nothing": b"",
    "text": b"This is not a picture.\n" * 10,
    "a JPEG's first bytes": images.jpeg(PHOTO)[:3],
    "a JPEG's headers": images.jpeg(PHOTO)[:300],
    "a truncated JPEG": images.jpeg(images.photo(200, 200))[:4000],
    "a truncated progressive JPEG": images.jpeg(images.photo(200, 200), progressive=True)[:4000],
    "a truncated PNG": images.png(PHOTO)[:1000],
    "a truncated WebP": images.encode(PHOTO, "WEBP")[:300],
    "zeros": bytes(1000),
    "a JPEG whose tables are overwritten": images.jpeg(PHOTO)[:30] + bytes(300) + images.jpeg(PHOTO)[330:],
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_is_no_image_raises_decode_error(name, tmp_path):
    with pytest.raises(fastssl.DecodeError) as from_bytes:
        ops.decode(BROKEN[name])
    assert isinstance(from_bytes.value, ValueError) and len(str(from_bytes.value)) > 20
    path = tmp_path / "holiday.jpg"
    path.write_bytes(BROKEN[name])
    with pytest.raises(fastssl.DecodeError, match=r"holiday\.jpg"):
        ops.decode(path)


def with_size(data: bytes, height: int, width: int) -> bytes:
    """A baseline JPEG whose header claims another size."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def test_a_header_that_claims_a_huge_image_does_not_take_the_memory(nursery):
    """12.9 GB, of a file of 2 kB. In a process of its own, whose peak of memory is that of this decode."""
    done = nursery.run("""
        import fastssl, images, test_decode
        peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024
        data = test_decode.with_size(images.jpeg(test_decode.PHOTO), 65_500, 65_500)
        before = peak()
        try:
            fastssl.ops.decode(data)
        except fastssl.DecodeError:
            print(peak() - before)
    """)
    assert int(done.check().stdout) < 500  # MB


@pytest.mark.parametrize("height, width", [(0, 10), (10, 0)])
def test_a_header_that_claims_no_pixel(height, width):
    with pytest.raises(fastssl.DecodeError):
        ops.decode(with_size(images.jpeg(PHOTO), height, width))


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "gone.jpg", str(tmp_path / "gone.jpg")):
        with pytest.raises((OSError, fastssl.DecodeError), match=r"gone\.jpg"):
            ops.decode(path)
    with pytest.raises((OSError, fastssl.DecodeError), match=tmp_path.name):
        ops.decode(tmp_path)  # a folder


@pytest.mark.parametrize("form", [None, 7, 1.5, ["a.jpg"], torch.zeros(4), torch.zeros((4, 4), dtype=torch.uint8)])
def test_decode_says_what_it_cannot_take(form):
    with pytest.raises((TypeError, ValueError)) as caught:
        ops.decode(form)
    assert len(str(caught.value)) > 30


# --- many, and for long -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marker", [0xDB, 0xC4])
def test_a_jpeg_without_its_tables_does_not_take_those_of_another(marker):
    """libjpeg keeps tables for the images after it: then the pixels would depend on what a thread decoded before."""
    image = images.photo(48, 64)
    whole = images.jpeg(image, quality=60, optimize=True)
    bare, at = whole[:2], 2
    while at < len(whole):
        scan = whole[at + 1] == 0xDA
        end = len(whole) if scan else at + 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
        if scan or whole[at + 1] != marker:
            bare += whole[at:end]
        at = end
    results = []
    for before in (None, images.jpeg(image, quality=60, optimize=True), images.jpeg(image, quality=5)):
        if before is not None:
            ops.decode(before)
        try:
            results.append(ops.decode(bare))
        except fastssl.DecodeError:
            results.append(None)
    assert marker != 0xDB or results == [None] * 3, "no quantization table, no pixels"
    for result in results[1:]:
        assert (result is None) == (results[0] is None)
        assert result is None or torch.equal(result, results[0])


def test_threads_do_not_disturb_each_other():
    files = [images.jpeg(images.photo(50 + i, 90 - i, seed=i), progressive=i % 3 == 0) for i in range(24)]
    files += [data[: len(data) // 2] for data in files]

    def one(data: bytes) -> torch.Tensor | None:
        try:
            return ops.decode(data)
        except fastssl.DecodeError:
            return None

    alone = [one(data) for data in files]
    assert all(image is not None for image in alone[:24]) and all(image is None for image in alone[24:])
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(one, files * 10))
    for i, image in enumerate(together):
        want = alone[i % len(files)]
        assert (image is None and want is None) or torch.equal(image, want)


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc, which is Linux's")


@needs_proc
@pytest.mark.parametrize(
    "name", ["a truncated JPEG", "a truncated progressive JPEG", "a JPEG's headers", "text", "whole"]
)
def test_decoding_leaks_nothing(name):
    """A leak of libjpeg's state alone is some 20 kB a file: 60 MB in 3000. The bound is a quarter of that."""
    data = BROKEN.get(name, images.jpeg(PHOTO))

    def decode(times: int) -> None:
        for _ in range(times):
            try:
                ops.decode(data)
            except fastssl.DecodeError:
                continue

    decode(300)
    before = resident_bytes()
    decode(3000 if name != "text" else 1000)
    assert resident_bytes() - before < 15e6


@needs_proc
def test_failed_decodes_leave_no_file_open(tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(BROKEN["a truncated JPEG"])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with pytest.raises(fastssl.DecodeError):
            ops.decode(path)
    assert len(os.listdir("/proc/self/fd")) == before


FUZZED = {
    "JPEG": images.jpeg(images.photo(40, 50)),
    "progressive": images.jpeg(images.photo(40, 50), progressive=True),
    "restarts": images.jpeg(images.photo(40, 50), restart_marker_blocks=2),
    "CMYK": images.cmyk_jpeg(images.photo(40, 50)),
    "PNG": images.png(images.photo(20, 20)),
    "palette": images.palette_png(images.photo(20, 20), transparent=True),
    "GIF": images.encode(images.photo(20, 20), "GIF"),
    "BMP": images.encode(images.photo(20, 20), "BMP"),
    "WebP": images.encode(images.photo(20, 20), "WEBP"),
    "TIFF": images.encode(images.photo(20, 20), "TIFF"),
}


def test_damaged_files_decode_or_raise_decode_error(nursery):
    """In a process of its own, since a crash is what it looks for."""
    done = nursery.run("""
        import logging, warnings
        warnings.simplefilter("ignore")  # what Pillow says of damaged files is no matter here
        logging.disable()
        import test_decode
        for name in test_decode.FUZZED:
            print(name, flush=True)
            print(*test_decode.fuzz(name), flush=True)
    """).check()
    lines = done.stdout.splitlines()
    assert lines[::2] == list(FUZZED), f"it ended in {lines[-1]}"
    for name, counts in zip(lines[::2], lines[1::2], strict=True):
        decoded, refused = map(int, counts.split())
        assert decoded > 10 and refused > 10, (
            f"{name}: {decoded} decoded, {refused} refused, too one-sided to test much"
        )


def fuzz(name: str) -> tuple[int, int]:
    """How many files, truncated or with some bytes overwritten, decode, and how many raise DecodeError."""
    rng = np.random.default_rng(sorted(FUZZED).index(name))
    data = FUZZED[name]
    decoded = refused = 0
    for i in range(400 if data[:2] == b"\xff\xd8" else 150):
        damaged = bytearray(data)
        if i % 2:
            damaged = damaged[: rng.integers(0, len(damaged))]
        for _ in range(rng.integers(0, 4)):
            if damaged:
                # damage to headers is the more interesting: take half of the places there
                end = min(len(damaged), 200) if rng.random() < 0.5 else len(damaged)
                damaged[rng.integers(0, end)] = rng.integers(0, 256)
        if claims_too_much(damaged):
            continue
        try:
            image = ops.decode(bytes(damaged))
        except fastssl.DecodeError:
            refused += 1
            continue
        decoded += 1
        assert image.dtype == torch.uint8 and image.dim() == 3 and image.shape[2] == 3 and image.numel() > 0
    return decoded, refused


def claims_too_much(data: bytearray) -> bool:
    """Leaves out sizes past 30 megapixels, which are valid, and slow."""
    try:
        with Image.open(io.BytesIO(bytes(data))) as picture:
            return picture.width * picture.height > 30e6
    except Exception:  # noqa: BLE001  (Pillow raises of every kind here, and none of them matters)
        return False
