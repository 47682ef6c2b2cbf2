"""A small labelled set of JPEG files, drawn here, so that a first run needs no download.

A class is a shape filled with a texture. Everything else (place, scale, rotation, colours, background, light,
compression) is drawn from the same distributions for every class, so neither the mean colour of a picture nor the
place of the shape says anything of its class.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["CLASSES", "draw_shape", "make_shapes"]

Array = NDArray[Any]

# Shapes: signed distance to the edge of a shape of circumradius about 1, negative inside.


def _disc(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.85


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.75


def _triangle(x: Array, y: Array) -> Array:
    sides = [y * math.cos(a) + x * math.sin(a) for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)]
    return np.maximum.reduce(sides) - 0.55


def _star(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - (0.75 + 0.3 * np.cos(5 * np.arctan2(y, x)))


def _cross(x: Array, y: Array) -> Array:
    long, short = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(long - 1.0, short - 0.38)


# Textures: height in about [-1, 1] over the plane, one period to the unit; its sign picks one of two colours.


def _stripes(u: Array, v: Array) -> Array:
    return np.sin(2 * np.pi * u)


def _checks(u: Array, v: Array) -> Array:
    return 1.5 * np.sin(np.pi * u) * np.sin(np.pi * v)


def _dots(u: Array, v: Array) -> Array:
    # Centres on a hexagonal grid: the nearer of two rectangular ones.
    height = math.sqrt(3)
    first = np.hypot(u - np.round(u), v - height * np.round(v / height))
    u, v = u - 0.5, v - height / 2
    second = np.hypot(u - np.round(u), v - height * np.round(v / height))
    return 3 * (0.34 - np.minimum(first, second))


def _rings(u: Array, v: Array) -> Array:
    return np.sin(2 * np.pi * np.hypot(u, v))


def _zigzag(u: Array, v: Array) -> Array:
    return np.sin(2 * np.pi * (u + 0.9 * np.abs(v / 1.6 - np.round(v / 1.6))))


def _bricks(u: Array, v: Array) -> Array:
    row = np.floor(v)
    along = (u / 2 + 0.5 * (row % 2)) % 1.0
    joint = np.minimum(np.minimum(v - row, 1 - (v - row)), 2 * np.minimum(along, 1 - along))
    return 5 * (joint - 0.14)


CLASSES: dict[str, tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]] = {
    "brick-disc": (_disc, _bricks),
    "brick-star": (_star, _bricks),
    "checked-cross": (_cross, _checks),
    "checked-triangle": (_triangle, _checks),
    "dotted-square": (_square, _dots),
    "dotted-star": (_star, _dots),
    "ringed-cross": (_cross, _rings),
    "ringed-square": (_square, _rings),
    "striped-disc": (_disc, _stripes),
    "zigzag-triangle": (_triangle, _zigzag),
}

_SAMPLES = 2  # per pixel and axis, averaged: smooth edges


def _cloud(rng: np.random.Generator, side: int) -> Array:
    """Random smooth field (side, side), zero mean, unit deviation: octaves of noise, each at half the strength."""
    field = np.zeros((side, side), np.float32)
    at = np.linspace(0, 1, side, dtype=np.float32)
    for octave in range(4):
        cells = 3 * 2**octave
        knots = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
        low = np.minimum((at * cells).astype(np.int64), cells - 1)
        part = at * cells - low
        part = part * part * (3 - 2 * part)
        rows = knots[low] * (1 - part[:, None]) + knots[low + 1] * part[:, None]
        field += 0.5**octave * (rows[:, low] * (1 - part) + rows[:, low + 1] * part)
    return (field - field.mean()) / (field.std() + 1e-6)


def _two_colours(rng: np.random.Generator, contrast: float) -> tuple[Array, Array]:
    """Two muted colours (3,) in [0, 1] whose lightness differs by at least `contrast`, either of them the lighter.

    Muted, because a picture that its colours alone tell from all others teaches a network nothing but colours.
    """
    first, second = rng.uniform(0.15, 0.85, 2)
    while abs(first - second) < contrast:
        first, second = rng.uniform(0.15, 0.85, 2)
    tints = rng.uniform(-0.1, 0.1, (2, 3)).astype(np.float32)
    return np.float32(first) + tints[0], np.float32(second) + tints[1]


def _to_pixels(samples: Array) -> Array:
    """Means over the samples of each pixel, (size, size, 1)."""
    size = len(samples) // _SAMPLES
    return samples.reshape(size, _SAMPLES, size, _SAMPLES).mean((1, 3))[..., None]


def draw_shape(name: str, *, size: int = 96, seed: int | tuple[int, ...] = 0) -> NDArray[np.uint8]:
    """Draw one picture of a class: a textured shape somewhere on a clouded ground.

    Args:
        name: One of `CLASSES`.
        size: Side of the picture, in pixels; >= 16.
        seed: What numpy's default generator takes; the same seed gives the same picture.

    Returns:
        RGB picture, (size, size, 3), uint8.

    Raises:
        ValueError: An unknown class, or size < 16.

    >>> draw_shape("dotted-star", size=32, seed=1).shape
    (32, 32, 3)
    """
    if name not in CLASSES:
        raise ValueError(f"draw_shape: name={name!r} is no class; write one of {', '.join(CLASSES)}.")
    if size < 16:
        raise ValueError(f"draw_shape: size={size} must be at least 16 pixels, or no texture can be seen.")
    shape, texture = CLASSES[name]
    rng = np.random.default_rng(seed)
    side = size * _SAMPLES
    at = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = at[None, :], at[:, None]

    # The shape: anywhere where at least most of it lies inside, upright or turned, whole or stretched a little.
    radius = rng.uniform(0.34, 0.5)
    centre_x, centre_y = rng.uniform(0.8 * radius, 1 - 0.8 * radius, 2).tolist()
    turn = rng.uniform(0, 2 * np.pi)
    stretch = math.exp(rng.uniform(-0.2, 0.2))
    along = ((x - centre_x) * math.cos(turn) + (y - centre_y) * math.sin(turn)) / (radius * stretch)
    across = ((y - centre_y) * math.cos(turn) - (x - centre_x) * math.sin(turn)) / (radius / stretch)
    inside = (shape(along, across) < 0).astype(np.float32)

    # Its texture: period and direction of its own, so that they do not tell the shape.
    period = rng.uniform(0.09, 0.15)
    slant = rng.uniform(0, 2 * np.pi)
    u = ((x - centre_x) * math.cos(slant) + (y - centre_y) * math.sin(slant)) / period + rng.uniform(-0.5, 0.5)
    v = ((y - centre_y) * math.cos(slant) - (x - centre_x) * math.sin(slant)) / period + rng.uniform(-0.5, 0.5)
    height = texture(u, v)
    mix = np.clip(0.5 + 2 * height, 0, 1)
    light, dark = _two_colours(rng, contrast=0.3)

    # The ground, in two colours of its own.
    first, second = _two_colours(rng, contrast=0.0)
    ground_mix = np.clip(0.5 + 0.3 * _cloud(rng, size), 0, 1)[..., None]
    ground = first * ground_mix + second * (1 - ground_mix)

    # Of the four samples of a pixel, the mean of those inside, and the ground for the others.
    light_part = _to_pixels(inside * mix)
    dark_part = _to_pixels(inside * (1 - mix))
    picture = light * light_part + dark * dark_part + ground * (1 - light_part - dark_part)
    direction = rng.uniform(0, 2 * np.pi)
    place = np.arange(size, dtype=np.float32) / size - 0.5
    slope = math.cos(direction) * place[:, None] + math.sin(direction) * place
    picture = picture * (1 + rng.uniform(0, 0.5) * slope[..., None])  # light from one side
    picture = picture + 0.02 * rng.standard_normal(picture.shape, np.float32)  # the sensor's noise
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def make_shapes(
    root: str | os.PathLike[str],
    *,
    n_per_class: int = 150,
    n_val_per_class: int = 50,
    size: int = 96,
    seed: int = 0,
) -> Path:
    """Write the set of shapes as JPEG files in class folders: `root/train/CLASS/0000.jpg` and `root/val/CLASS/...`.

    Picture i of a class depends on (seed, split, class, i) alone, so a larger set begins with the smaller one's
    pictures. A set that is already there with the same settings is left as it is.

    Args:
        root: Folder to write into; made where missing.
        n_per_class: Pictures of each of the ten classes in `train`; >= 1.
        n_val_per_class: Pictures of each class in `val`; 0 for none.
        size: Side of a picture, in pixels; >= 16.
        seed: Of all that is drawn.

    Returns:
        `root`, as a Path.

    Raises:
        ValueError: n_per_class < 1, n_val_per_class < 0 or size < 16.
        FileExistsError: `root` holds other files.
    """
    if n_per_class < 1 or n_val_per_class < 0:
        raise ValueError(
            f"make_shapes: n_per_class={n_per_class} must be 1 or more, n_val_per_class={n_val_per_class} 0 or more."
        )
    root = Path(root)
    settings = {
        "version": 1,
        "n_per_class": n_per_class,
        "n_val_per_class": n_val_per_class,
        "size": size,
        "seed": seed,
    }
    done = root / "shapes.json"  # written last, so a set cut short is drawn again
    if done.exists() and json.loads(done.read_text()) == settings:
        return root
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(
            f"make_shapes: {root} holds files, and not this set of shapes; give an empty folder, or remove it first."
        )
    for split, (folder, count) in enumerate((("train", n_per_class), ("val", n_val_per_class))):
        for label, name in enumerate(CLASSES):
            if count:
                (root / folder / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                picture = draw_shape(name, size=size, seed=(seed, split, label, i))
                quality = 70 + (i * 7 + label) % 26
                Image.fromarray(picture).save(root / folder / name / f"{i:04d}.jpg", quality=quality)
    done.write_text(json.dumps(settings))
    return root
