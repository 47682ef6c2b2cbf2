"""A part of a JPEG has the pixels of the whole, and whether a file is good does not depend on the part that is asked for."""

from __future__ import annotations

import functools
import io

import images
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fastssl
from fastssl import _native

_C = _native._C


def sampled(data: bytes, *factors: int) -> bytes:
    """The same file with other sampling factors, horizontal and vertical in one byte as in the header, for some components."""
    out = bytearray(data)
    at = max(out.find(b"\xff\xc0"), out.find(b"\xff\xc2")) + 11
    for i, factor in enumerate(factors):
        out[at + 3 * i] = factor
    return bytes(out)


def without_last_scans(data: bytes) -> bytes:
    """A progressive file whose first coefficients are never refined: libjpeg smooths over neighbouring blocks."""
    scans = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    return data[: scans[2]] + b"\xff\xd9"


KINDS = {
    "4:4:4": lambda image: images.jpeg(image, subsampling=0),
    "4:2:2": lambda image: images.jpeg(image, subsampling=1),
    "4:2:0": lambda image: images.jpeg(image, subsampling=2),
    "4:4:0": lambda image: sampled(images.jpeg(image, subsampling=1), 0x12),
    "4:1:1": lambda image: images.jpeg(image, subsampling="4:1:1"),
    "4:1:1, turned": lambda image: sampled(images.jpeg(image, subsampling="4:1:1"), 0x14),
    # Nonsense as pictures, for the blocks are read in another order, but valid files.
    "3 x 1": lambda image: sampled(images.jpeg(image, subsampling=0), 0x31),
    "chroma finer than luma": lambda image: sampled(images.jpeg(image, subsampling=0), 0x11, 0x21, 0x12),
    "one chroma halved": lambda image: sampled(images.jpeg(image, subsampling=0), 0x22, 0x21, 0x12),
    "gray": lambda image: images.jpeg(image[:, :, 0]),
    "gray, 2 x 2": lambda image: sampled(images.jpeg(image[:, :, 0]), 0x22),
    "RGB": lambda image: images.jpeg(image, keep_rgb=True),
    "progressive": lambda image: images.jpeg(image, progressive=True),
    "progressive, 4:4:0": lambda image: sampled(images.jpeg(image, progressive=True, subsampling=1), 0x12),
    "progressive, incomplete": lambda image: without_last_scans(images.jpeg(image, progressive=True)),
    "restarts": lambda image: images.jpeg(image, restart_marker_blocks=3),
    "restarts, progressive": lambda image: images.jpeg(image, restart_marker_rows=1, progressive=True),
    "CMYK": images.cmyk_jpeg,
    "YCCK": lambda image: images.cmyk_jpeg(image, ycck=True),
}


def part(data: bytes, window: tuple[int, int, int, int], shrink: int = 1, channels: int = 3) -> np.ndarray:
    """The window (top, left, rows, columns) of the image shrunk by `shrink`."""
    encoded = np.frombuffer(data, np.uint8)
    args = encoded.ctypes.data, encoded.size, window, shrink, channels
    pixels, top, left, rows, columns, _ = _C.jpeg_decode_window(*args)
    area = np.frombuffer(pixels, np.uint8).reshape(rows, columns, channels)
    inside = area[window[0] - top :, window[1] - left :][: window[2], : window[3]]
    assert inside.shape == (window[2], window[3], channels), "the window is not in what was decoded"
    return inside


@functools.lru_cache(maxsize=64)
def whole(data: bytes, height: int, width: int, shrink: int, channels: int = 3) -> np.ndarray:
    return part(data, (0, 0, -(-height // shrink), -(-width // shrink)), shrink, channels)


@settings(max_examples=100, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_window_has_the_pixels_of_the_whole(kind, data):
    height = data.draw(st.integers(1, 90), "height")
    width = data.draw(st.integers(1, 90), "width")
    image = (images.noise if data.draw(st.booleans(), "noise") else images.photo)(height, width)
    encoded = KINDS[kind](image)
    shrink = data.draw(st.sampled_from([1, 1, 2, 4, 8]), "shrink")
    rows, columns = -(-height // shrink), -(-width // shrink)
    top = data.draw(st.integers(0, rows - 1), "top")
    left = data.draw(st.integers(0, columns - 1), "left")
    window = (
        top,
        left,
        data.draw(st.integers(1, rows - top), "rows"),
        data.draw(st.integers(1, columns - left), "columns"),
    )
    try:
        want = whole(encoded, height, width, shrink)
    except fastssl.DecodeError:  # the nonsense may run out of data; then it does for every window
        with pytest.raises(fastssl.DecodeError):
            part(encoded, window, shrink)
        return
    assert np.array_equal(part(encoded, window, shrink), want[top:, left:][: window[2], : window[3]])


def test_gray_may_stay_of_one_channel():
    data = images.jpeg(images.photo(70, 90)[:, :, 0])
    got = part(data, (20, 30, 40, 50), channels=1)
    assert np.array_equal(np.repeat(got, 3, axis=2), part(data, (20, 30, 40, 50)))
    with Image.open(io.BytesIO(data)) as picture:
        assert np.array_equal(got[:, :, 0], np.asarray(picture)[20:60, 30:80])


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_shrunk_image_is_about_the_mean_of_its_pixels(shrink):
    """The DCT's low frequencies are not quite the mean; a shift by a pixel would be seen."""
    image = images.photo(160, 160)
    data = images.jpeg(image, quality=100, subsampling=0)
    blocks = image.reshape(160 // shrink, shrink, 160 // shrink, shrink, 3).mean(axis=(1, 3))
    difference = np.abs(whole(data, 160, 160, shrink) - blocks)
    shifted = np.abs(whole(data, 160, 160, shrink)[1:] - blocks[:-1])
    assert difference.mean() < 2 < shifted.mean()


LONG = images.jpeg(images.photo(400, 300), restart_marker_rows=2)
TOP = (0, 0, 20, 300)


@pytest.mark.parametrize(
    "window", [TOP, (0, 0, 20, 20), (380, 0, 20, 300), (100, 50, 200, 200), (0, 0, 400, 300)], ids=str
)
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_data_is_an_error_whatever_the_window(window, progressive):
    data = images.jpeg(images.photo(400, 300), progressive=progressive)
    for keep in (0.3, 0.6, 0.95):
        with pytest.raises(fastssl.DecodeError, match="ends early"):
            part(data[: int(keep * len(data))], window)


@pytest.mark.parametrize("window", [TOP, (0, 0, 400, 300)], ids=str)
def test_zeros_in_place_of_the_rest_are_an_error(window):
    """As a download leaves them that was laid out in full. (In a progressive file, libjpeg takes them for coefficients.)"""
    with pytest.raises(fastssl.DecodeError, match="ends early"):
        part(LONG[: len(LONG) // 3] + bytes(2000), window)


@pytest.mark.parametrize(
    "tail", [b"", b"\0" * 4000, b"\n", b"\r\n", b"\xff", b"\0" * 5000, b"a trailer", LONG], ids=len
)
def test_what_comes_after_the_end_changes_nothing(tail):
    assert np.array_equal(part(LONG + tail, TOP), part(LONG, TOP))


def test_an_image_without_its_end_marker_is_whole():
    """All pixels are there, as the decoder of the whole image has it."""
    data = LONG[:-2] + bytes(64)
    assert np.array_equal(part(data, TOP), part(data, (0, 0, 400, 300))[:20])


def test_damage_is_refused_or_decoded_in_every_window(nursery):
    """In a process of its own, since a crash is what it looks for."""
    done = nursery.run("""
        import numpy as np
        import fastssl, images, test_decode_window as own
        rng = np.random.default_rng(0)
        counts = [0, 0]
        for kind in sorted(own.KINDS):
            data = own.KINDS[kind](images.photo(60, 80))
            for i in range(150):
                bad = bytearray(data[: rng.integers(4, len(data))] if i % 3 == 0 else data)
                for _ in range(rng.integers(1, 5)):
                    bad[rng.integers(2, len(bad))] = rng.integers(0, 256)
                array = np.frombuffer(bytes(bad), np.uint8)
                try:
                    height, width, _ = own._C.jpeg_size(array.ctypes.data, array.size)
                    if height * width > 1 << 20:
                        continue
                    top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
                    window = (top, left, int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1)))
                    own.part(bytes(bad), window)
                    counts[0] += 1
                except fastssl.DecodeError:
                    counts[1] += 1
        print(*counts)
    """).check()
    decoded, refused = map(int, done.stdout.split())
    assert decoded > 200 and refused > 200
