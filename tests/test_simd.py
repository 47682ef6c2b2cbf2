"""Every instruction set gives the same bytes."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import hashlib, itertools, sys
import numpy as np, torch
from fastssl import Plan, build_info, ops
from fastssl.transforms import *

hashed = hashlib.sha256()
for number, (size, filter, dtype, last) in enumerate(itertools.product(
    (1, 7, 32, 65), ("bilinear", "bicubic"), (torch.float32, torch.float16, torch.bfloat16, torch.uint8), (False, True)
)):
    view = View(
        crop=Crop(size=size, interpolation=filter), flip=Flip(), vflip=Flip(), turn=QuarterTurn(),
        jitter=Jitter(p=1, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5), grayscale=Grayscale(p=0.1),
        blur=Blur(p=0.7, sigma_px=(0.1, 3.0)), solarize=Solarize(p=0.3), normalize=None if dtype == torch.uint8 else IMAGENET,
    )
    pixels = np.random.default_rng(number).integers(0, 256, (6, 61, 83, 3), dtype=np.uint8)
    images = [torch.from_numpy(p[: 1 + 12 * i, : 1 + 16 * i].copy()) for i, p in enumerate(pixels)]
    plan = Plan.draw((view,), [tuple(image.shape[:2]) for image in images], seed=number)
    (out,) = ops.render(images, plan, (view,), dtype=dtype, channels_last=last, threads=1)
    hashed.update(out.flatten().clone().view(torch.uint8).numpy().tobytes())
print(build_info()["simd"], hashed.hexdigest())
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="one instruction set on this processor")
def test_every_instruction_set_gives_the_same_bytes():
    results = {}
    for level in ("generic", "v3", "v4"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"FASTSSL_SIMD": level},
            capture_output=True,
            text=True,
            check=True,
        )
        name, digest = done.stdout.split()
        results[name] = digest
    assert "generic" in results
    assert len(set(results.values())) == 1, results
