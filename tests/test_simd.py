"""Every instruction set gives the same bytes, for every step, type, layout and number of channels."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import hashlib, itertools, sys
import numpy as np, torch
from fastssl import Plan, build_info, ops
from fastssl.transforms import *

torch.set_num_threads(1)
TYPES = torch.float32, torch.float16, torch.bfloat16, torch.uint8
ORDERS = (
    ("crop", "jitter", "grayscale", "blur", "solarize", "posterize"),
    ("jitter", "grayscale", "crop", "solarize", "blur", "posterize"),
    ("posterize", "solarize", "blur", "grayscale", "jitter", "crop"),
    ("blur", "crop", "posterize", "jitter", "custom", "solarize", "grayscale"),
)

def negative(batch):
    return 1 - batch

def pictures(number, channels, type):
    top = np.iinfo(type).max
    pixels = np.random.default_rng(number).integers(0, top, (6, 61, 83, channels), dtype=type, endpoint=True)
    return [torch.from_numpy(p[: 1 + 12 * i, : 1 + 16 * i].copy()) for i, p in enumerate(pixels)]

def add(hashed, number, view, channels, type, dtype, last):
    images = pictures(number, channels, type)
    plan = Plan.draw((view,), [tuple(image.shape[:2]) for image in images], seed=number)
    (out,) = ops.render(images, plan, (view,), dtype=dtype, channels_last=last, threads=1)
    hashed.update(out.flatten().clone().view(torch.uint8).numpy().tobytes())

def statistics(channels, dtype):
    if dtype == torch.uint8:
        return None
    return Normalize(mean=[0.4 + 0.01 * c for c in range(channels)], std=[0.2 + 0.01 * c for c in range(channels)])

def usual(hashed):
    for number, (size, filter, dtype, last) in enumerate(itertools.product(
        (1, 7, 32, 65), ("bilinear", "bicubic"), TYPES, (False, True)
    )):
        view = View(
            crop=Crop(size=size, interpolation=filter), flip=Flip(), vflip=Flip(), turn=QuarterTurn(),
            jitter=Jitter(p=1, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5), grayscale=Grayscale(p=0.1),
            blur=Blur(p=0.7, sigma_px=(0.1, 3.0)), solarize=Solarize(p=0.3), normalize=statistics(3, dtype),
        )
        add(hashed, number, view, 3, np.uint8, dtype, last)

def orders(hashed):
    for number, (size, order, kind, rotation, (filter, type), last) in enumerate(itertools.product(
        (1, 7, 33, 64), ORDERS, ("gaussian", "box"), ("nearest", "bilinear"),
        (("bilinear", np.uint8), ("bicubic", np.uint16)), (False, True)
    )):
        dtype = TYPES[number % 4]
        view = View(
            crop=Crop(size=size, interpolation=filter), flip=Flip(), turn=QuarterTurn(p=0.5),
            rotate=Rotate(p=0.7, degrees=180, interpolation=rotation),
            jitter=Jitter(p=1, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5), grayscale=Grayscale(p=0.1),
            blur=Blur(p=0.7, sigma_px=(0.1, 3.0), kind=kind), solarize=Solarize(p=0.3),
            posterize=Posterize(p=0.4, bits=number % 8), custom=negative if "custom" in order else None,
            erase=Erase(p=0.5, value=0.2), normalize=statistics(3, dtype), order=order,
        )
        add(hashed, number, view, 3, type, dtype, last)

def channels(hashed):
    for number, (channels, type, size, before, last) in enumerate(itertools.product(
        (1, 2, 4, 5, 13), (np.uint8, np.uint16), (1, 7, 33), (False, True), (False, True)
    )):
        dtype = TYPES[number % 4]
        order = ("solarize", "blur", "posterize", "crop") if before else ("crop", "blur", "solarize", "posterize")
        view = View(
            crop=Resize(size=size, interpolation="bicubic") if number % 3 else Crop(size=size), vflip=Flip(),
            rotate=Rotate(p=0.5, interpolation="bilinear"), blur=Blur(p=0.7, kind="box" if number % 2 else "gaussian"),
            solarize=Solarize(p=0.4), posterize=Posterize(p=0.4, bits=3), erase=Erase(p=0.5), order=order,
            normalize=statistics(channels, dtype),
        )
        add(hashed, number, view, channels, type, dtype, last)

hashed = hashlib.sha256()
globals()[sys.argv[1]](hashed)
print(build_info()["simd"], hashed.hexdigest())
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="one instruction set on this processor")
@pytest.mark.parametrize("case", ["usual", "orders", "channels"])
def test_every_instruction_set_gives_the_same_bytes(case):
    results = {}
    for level in ("generic", "v3", "v4"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, case],
            env=os.environ | {"FASTSSL_SIMD": level},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{level}: {done.stderr}"
        name, digest = done.stdout.split()
        results[name] = digest
    assert "generic" in results
    assert len(set(results.values())) == 1, results
