"""Our own decoding of Huffman codes gives what libjpeg's gives, be the file good or damaged."""

from __future__ import annotations

import images
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decode_window import KINDS

import fastssl
from fastssl import _native

_C = _native._C

# Those of several scans.
LEFT_TO_LIBJPEG = {"progressive", "progressive, 4:4:0", "progressive, incomplete", "restarts, progressive"}
# Those whose sampling factors were changed, so that their data may end early.
RESAMPLED = {"4:4:0", "4:1:1, turned", "3 x 1", "chroma finer than luma", "one chroma halved", "gray, 2 x 2"}
SIDES = st.integers(1, 90)


def decode(
    data: bytes, *, libjpeg: bool, window: tuple[int, ...] | None = None, shrink: int = 1
) -> tuple[object, bool]:
    """The pixels and where they lie, or the error's text; and whether our own decoder served."""
    encoded = np.frombuffer(data, np.uint8)
    try:
        height, width, _ = _C.jpeg_size(encoded.ctypes.data, encoded.size)
        if height * width > 1 << 20:  # a header that was changed
            return "large", False
        window = window or (0, 0, -(-height // shrink), -(-width // shrink))
        *result, ours = _C.jpeg_decode_window(encoded.ctypes.data, encoded.size, window, shrink, 3, libjpeg)
    except fastssl.DecodeError as error:
        return str(error), False
    return result, ours


def assert_same(data: bytes, **options) -> bool:
    """Whether our own decoder served."""
    want, _ = decode(data, libjpeg=True, **options)
    # Twice: a small file is left to libjpeg until its tables come again.
    for _ in range(2):
        got, ours = decode(data, libjpeg=False, **options)
        assert got == want
    return ours


@settings(max_examples=30, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_pixels_are_those_of_libjpeg(kind, data):
    height, width = data.draw(SIDES, "height"), data.draw(SIDES, "width")
    image = (images.noise if data.draw(st.booleans(), "noise") else images.photo)(height, width)
    encoded = KINDS[kind](image)
    shrink = data.draw(st.sampled_from([1, 2, 4, 8]), "shrink")
    rows, columns = -(-height // shrink), -(-width // shrink)
    top, left = data.draw(st.integers(0, rows - 1), "top"), data.draw(st.integers(0, columns - 1), "left")
    window = (top, left, data.draw(st.integers(1, rows - top)), data.draw(st.integers(1, columns - left)))
    ours = assert_same(encoded, window=window, shrink=shrink)
    assert kind in RESAMPLED or ours == (kind not in LEFT_TO_LIBJPEG)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("noisy", [False, True])
def test_every_quality(subsampling, noisy):
    image = (images.noise if noisy else images.photo)(71, 93)
    for quality in range(1, 101):
        data = images.jpeg(image, quality=quality, subsampling=subsampling, optimize=quality % 2 == 0)
        assert assert_same(data)


@pytest.mark.parametrize("blocks", [1, 2, 64])
def test_restart_intervals(blocks):
    for optimize in (False, True):
        assert assert_same(
            images.jpeg(images.photo(90, 120), quality=97, restart_marker_blocks=blocks, optimize=optimize)
        )


@settings(max_examples=150, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", ["4:4:4", "4:2:0", "gray", "restarts", "CMYK"])
def test_damage_is_met_as_by_libjpeg(kind, data):
    damaged = bytearray(KINDS[kind](images.photo(40, 50)))
    for _ in range(data.draw(st.integers(0, 3), "bytes")):
        damaged[data.draw(st.integers(2, len(damaged) - 1), "at")] = data.draw(st.integers(0, 255), "value")
    if data.draw(st.booleans(), "cut"):
        del damaged[data.draw(st.integers(2, len(damaged)), "length") :]
    if data.draw(st.booleans(), "with an end"):
        damaged += b"\xff\xd9"
    assert_same(bytes(damaged))


def test_real_photographs(imagenet_sample):
    served = [assert_same(path.read_bytes()) for path in imagenet_sample]
    assert sum(served) > 0.9 * len(served)
