"""Files that users have: good ones, unusual ones that are images like any other, and ways to spoil one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import images
import numpy as np
from loading import pictures

GOOD = pictures(9)
WIDE = np.random.default_rng(0).integers(0, 65536, (31, 23)).astype(np.uint16)

# Unusual, but images: decoded as Pillow's convert("RGB") does.
UNUSUAL = {
    "cmyk.jpg": images.cmyk_jpeg(images.photo(40, 50)),
    "ycck.jpg": images.cmyk_jpeg(images.photo(40, 50), ycck=True),
    "gray.jpg": images.jpeg(images.photo(40, 50)[:, :, 0]),
    "gray.png": images.png(images.photo(40, 50)[:, :, 0]),
    "palette.png": images.palette_png(images.photo(40, 50)),
    "transparent palette.png": images.palette_png(images.photo(40, 50), transparent=True),
    "one pixel.jpg": images.jpeg(images.flat(1, 1)),
    "one pixel.png": images.png(images.flat(1, 1)),
    "wide.png": images.png(images.noise(10, 20_000)),
    "wide.jpg": images.jpeg(images.noise(10, 20_000)),
    "tall.jpg": images.jpeg(images.noise(20_000, 10)),
    "turned.jpg": images.jpeg(images.photo(40, 50), orientation=6),
    "a png in truth.jpg": images.png(images.photo(40, 50)),
    "a jpeg in truth.png": images.jpeg(images.photo(40, 50)),
}

BAD: dict[str, Callable[[Path], object]] = {
    "zero bytes": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(images.jpeg(images.photo(200, 200))[:4000]),
    "headers only": lambda path: path.write_bytes(images.jpeg(images.photo(200, 200))[:400]),
    "text": lambda path: path.write_text("I am not a picture, I only claim to be one."),
    "truncated PNG": lambda path: path.write_bytes(images.png(images.photo(60, 60))[:2000]),
    "vanished": lambda path: path.unlink(),
    "a folder in its place": lambda path: (path.unlink(), path.mkdir()),
    "a dangling link": lambda path: (path.unlink(), path.symlink_to("nowhere.jpg")),
    "unreadable": lambda path: path.chmod(0),
}
