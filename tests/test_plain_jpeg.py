"""Which JPEGs are left to a decoder of the device."""

import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssl._native import _C


def encode(mode="RGB", size=(37, 29), **options):
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 255, (size[1], size[0], len(PIL.Image.new(mode, (1, 1)).getbands())), dtype=np.uint8)
    file = io.BytesIO()
    image = PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, mode)
    image.save(file, "JPEG", **options)
    return file.getvalue()


def is_plain(data):
    array = np.frombuffer(data, dtype=np.uint8) if data else np.zeros(0, np.uint8)
    return _C.plain_jpeg_size(array.ctypes.data, array.size)


PLAIN = {
    "RGB": encode(),
    "gray": encode("L"),
    "4:4:4": encode(subsampling=0),
    "4:2:2": encode(subsampling=1),
    "4:2:0": encode(subsampling=2),
    "restarts": encode(restart_marker_blocks=1),
    "optimized": encode(optimize=True),
    "one pixel": encode(size=(1, 1)),
    "comment": encode(comment=b"of no consequence \xff\xd9"),
    "exif": encode(exif=b"Exif\0\0" + bytes(300)),
}


def index_of(data, marker):
    """Where the marker stands, as the segments go."""
    at = 2
    while data[at + 1] != marker:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def with_byte(data, at, value):
    return data[:at] + bytes([value]) + data[at + 1 :]


def without(data, marker):
    while True:
        try:
            at = index_of(data[: data.index(b"\xff\xda")] + b"\xff\xda\0\2", marker)
        except (IndexError, ValueError):
            return data
        if data[at + 1] != marker:
            return data
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
        if marker not in [data[i + 1] for i in range(len(data) - 1) if data[i] == 0xFF]:
            return data


@pytest.mark.parametrize("name", PLAIN)
def test_what_every_decoder_knows(name):
    size = len(PLAIN[name])
    assert is_plain(PLAIN[name]) == size
    # As of cameras that append a smaller image or a film: that is nothing for another decoder.
    assert is_plain(PLAIN[name] + b"what comes after") == is_plain(PLAIN[name] * 2) == size


RGB = PLAIN["RGB"]
SOF, SOS, DQT, DHT, APP0 = (index_of(RGB, marker) for marker in (0xC0, 0xDA, 0xDB, 0xC4, 0xE0))
ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"


def renamed(names):
    """With these names of the three components, in the frame and in the scan."""
    data = RGB
    for i, name in enumerate(names):
        data = with_byte(with_byte(data, SOF + 10 + 3 * i, name), SOS + 5 + 2 * i, name)
    return data


ODD = {
    "progressive": encode(progressive=True),
    "CMYK": encode("CMYK"),
    "PNG": b"\x89PNG" + bytes(100),
    "nothing": b"",
    "truncated": RGB[: len(RGB) // 2],
    "no end": RGB[:-2],
    "one byte less": RGB[:-1],
    "zeros at the end": RGB[: len(RGB) * 3 // 4] + bytes(len(RGB) // 4),
    "a marker in the data": with_byte(with_byte(RGB, len(RGB) - 60, 0xFF), len(RGB) - 59, 0xC4),
    "restarts nobody spoke of": with_byte(with_byte(RGB, len(RGB) - 60, 0xFF), len(RGB) - 59, 0xD0),
    "12 bits": with_byte(RGB, SOF + 4, 12),
    "height in the data": RGB[: SOF + 5] + b"\0\0" + RGB[SOF + 7 :],
    "extended": with_byte(RGB, SOF + 1, 0xC1),
    "arithmetic": with_byte(RGB, SOF + 1, 0xC9),
    "odd sampling": with_byte(RGB, SOF + 11, 0x31),
    "colour larger than luma": with_byte(RGB, SOF + 14, 0x21),
    "16-bit tables": with_byte(RGB, DQT + 4, 0x10),
    "one scan a component": with_byte(RGB, SOS + 4, 1),
    "part of the spectrum": with_byte(RGB, SOS + 12, 5),
    "a JFIF marker that libjpeg does not heed, and R, G, B": RGB[:APP0]
    + b"\xff\xe0\0\x07JFIF\0"
    + renamed(b"RGB")[DQT:],
    "JFIF, and R, G, B": renamed(b"RGB"),
    "JFIF, and Adobe RGB": RGB[:DQT] + ADOBE + b"\0" + RGB[DQT:],
    "Adobe YCCK of three": RGB[:APP0] + ADOBE + b"\2" + RGB[DQT:],
    "nothing that tells the colours": RGB[:APP0] + renamed(b"\0\1\2")[DQT:],
    "a short JFIF marker and nothing else": RGB[:APP0] + b"\xff\xe0\0\x07JFIF\0" + renamed(b"\0\1\2")[DQT:],
    "Adobe RGB": RGB[:APP0] + ADOBE + b"\0" + RGB[SOF - (SOF - DQT) :],
    "components named R, G, B": with_byte(
        with_byte(with_byte(RGB[:APP0] + RGB[DQT:], 0, 0xFF), SOF - (DQT - APP0) + 10, ord("R")), 1, 0xD8
    ),
    "a frame twice": RGB[:SOS] + RGB[SOF : SOF + 19] + RGB[SOS:],
    "a segment beyond the end": RGB[: APP0 + 2] + b"\xff\xff" + RGB[APP0 + 4 :],
    "a segment of length 1": RGB[: APP0 + 2] + b"\0\1" + RGB[APP0 + 4 :],
    "codes that the scan refers to and nobody has": with_byte(RGB, SOS + 6, 0x10 | RGB[SOS + 6] & 0x0F | 0x20),
    "a table that the frame refers to and nobody has": with_byte(RGB, SOF + 12, 3),
    "a table of number 4": with_byte(RGB, DQT + 4, 4),
    "codes of number 2": with_byte(RGB, DHT + 4, 2),
    "more codes than there can be": with_byte(RGB, DHT + 5, 3),
    "codes beyond their segment": with_byte(RGB, DHT + 20, 200),
    "a scan of other components": with_byte(RGB, SOS + 5, 9),
    "no codes": RGB[:DHT] + RGB[SOS:],
    "no tables": RGB[:DQT] + RGB[SOF:],
}


@pytest.mark.parametrize("name", ODD)
def test_what_libjpeg_had_better_see(name):
    assert not is_plain(ODD[name])


def test_adobe_ycc_is_plain():
    assert is_plain(RGB[:APP0] + ADOBE + b"\1" + RGB[DQT:])
    assert is_plain(RGB[:DQT] + ADOBE + b"\1" + RGB[DQT:])  # with JFIF, too


def test_jfif_is_plain_whatever_the_names():
    assert is_plain(renamed(b"\0\1\2"))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(PLAIN)), st.data())
def test_no_damage_leads_beyond_the_data(name, data):
    """Run under the sanitizers, too."""
    spoilt = bytearray(PLAIN[name])
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, min(len(spoilt) - 1, 700)))] = data.draw(st.integers(0, 255))
    is_plain(bytes(spoilt[: data.draw(st.integers(0, len(spoilt)))]))
