"""Between one batch and the next torch has nothing to do for which it would start threads: Note [Torch's threads]."""

import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, where torch has not started any yet; as many as no loader has.
SCRIPT = """
import os
import sys

import numpy as np
import torch

sys.path.insert(0, sys.argv[1])
from loading import Memory, pictures
from slow_streams import HostDecoder, HostStreams, on_host

import fastssl
from fastssl import Loader, recipes
from fastssl.data import ArraySource

IMAGES, THREADS = 4096, 64
RECIPE = recipes.simclr(8)


class Streams(HostStreams):
    def copy(self, host):
        return host

    def launch(self, prepared):
        pass


def threads():
    return len(os.listdir("/proc/self/task"))


def loaders():
    source = Memory(pictures(16) * (IMAGES // 16))
    options = {"batch_size": IMAGES, "threads": 2, "epochs": 2}
    samples = [(data, i % 7, str(i)) for i, data in enumerate(source.items)]
    given = torch.utils.data.DataLoader(samples, batch_size=IMAGES, collate_fn=fastssl.data.BytesCollate())
    bad = Memory([*source.items[:-1], b"no image"])
    for decoder in (None, HostDecoder()):
        yield on_host(Loader(source, RECIPE, **options), decoder, 1.0, Streams())
        yield on_host(Loader(bad, RECIPE, on_error="skip", **options), decoder, 1.0, Streams())
        yield on_host(fastssl.to_device(given, RECIPE, "cpu", threads=2), decoder, 1.0, Streams())
    yield Loader(source, RECIPE, **options)
    yield Loader(ArraySource(np.zeros((IMAGES, 8, 8, 3), dtype=np.uint8)), RECIPE, **options)
    yield fastssl.to_device(given, RECIPE, "cpu", threads=2)


torch.set_num_threads(THREADS)  # starts a pool for other ends, and none of OpenMP's
most = threads() + THREADS // 2
for loader in loaders():
    images = sum(len(batch) for batch in loader)
    assert images in (IMAGES, 2 * IMAGES, 2 * IMAGES - 2), images
    assert threads() < most, f"{type(loader).__name__}: {threads()} threads"
torch.zeros(1 << 20).add_(1)
assert threads() > most, f"{threads()}: torch's threads would not be noticed"
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux lists them")
def test_no_batch_starts_threads_of_torch():
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
