"""What a Loader takes of memory: its peak beside the documented formula, and whether many epochs leave any behind.

One process, as many threads as cores: resident memory before the Loader, at its peak over two epochs, and after each of
`--epochs` epochs over the images, SimCLR's views of 224 px. The formula is in `Loader`'s docstring; what the allocator, libjpeg
and Python take besides is what the peak may lie above it.

The same of the way to a device, over 200 small images: 200 epochs, of which the device's decoder takes half, with the kernels
compiled for the host and the tests' stand-in for streams (tests/slow_streams.py), so that all but the device itself takes part.

    python benchmarks/memory.py            50 epochs over the ImageNet sample, and 200 over 200 small images
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import harness
from inputs import find_jpegs

BATCH, SIZE, CHANNELS, FLOAT = 32, 224, 3, 4
ALLOWED_MIB = 64  # above the formula: code touched for the first time, libjpeg's tables, fragmentation
KEPT_MIB = 8  # that many epochs may leave behind: the list of batches' timings, fragmentation


def resident() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


class Peak:
    """The largest resident memory while it is entered, looked at every 2 ms."""

    def __enter__(self) -> Peak:
        self.mib, self._done = resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.mib = max(self.mib, resident())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def formula(threads: int, prefetch: int, largest_pixels: int) -> float:
    """MiB, as `Loader` documents it."""
    batches = (prefetch + 2) * BATCH * 2 * CHANNELS * SIZE**2 * FLOAT
    return (batches + threads * (CHANNELS * largest_pixels + 8 * CHANNELS * SIZE**2)) / 2**20


def soak(epochs: int, images: int) -> dict[str, Any]:
    """A record of resident memory after each epoch on the way to a device."""
    sys.path.append(str(harness.ROOT / "tests"))
    import torch
    from images import jpeg, photo
    from loading import Memory
    from slow_streams import SlowDecoder, SlowStreams, on_host

    import fastssl

    torch.set_num_threads(1)
    sys.setswitchinterval(0.0002)  # the stand-in's threads hand over to each other many times a batch
    source = Memory([jpeg(photo(24 + i % 9, 30 - i % 7, seed=i)) for i in range(images)])
    streams = SlowStreams(pause_seconds=0.0005)
    loader = fastssl.Loader(source, fastssl.recipes.simclr(16), batch_size=50, threads=2)
    on_host(loader, SlowDecoder(streams), 0.5, streams)
    after, started = [], time.perf_counter()
    for _ in range(epochs):
        for _batch in loader:
            pass
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        after.append(resident())
    streams.end()
    grown = after[-1] - after[1]
    print(f"{images} small images, {epochs} epochs on the way to a device, in {time.perf_counter() - started:.0f} s")
    print(f"after epoch 2: {after[1]:.1f} MiB; after epoch {epochs}: {after[-1]:.1f} MiB ({grown:+.1f})")
    return {
        "contender": "fastssl.Loader, to a device's stand-in",
        "status": "ok" if grown <= KEPT_MIB else "takes more than it says",
        "resident_mib": after,
        "settings": {"threads": 2, "epochs": epochs, "batch_size": 50, "images": images},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of JPEG files (default: the ImageNet sample, else generated ones)")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--soak-epochs", type=int, default=200, help="over 200 small images, on the way to a device")
    parser.add_argument(
        "--out", type=Path, help="where to write the JSON (default: benchmarks/results/memory-<machine>.json)"
    )
    arguments = parser.parse_args()
    import torch
    from PIL import Image

    import fastssl

    with tempfile.TemporaryDirectory() as scratch:
        paths, origin = find_jpegs(arguments.data, arguments.images, Path(scratch) / "generated")
        folder = Path(scratch) / "images"
        folder.mkdir()
        largest = 0
        for i, path in enumerate(paths):
            (folder / f"{i:05d}.jpg").symlink_to(path.resolve())
            with Image.open(path) as image:
                largest = max(largest, image.width * image.height)
        torch.zeros(1)
        gc.collect()
        before = resident()
        loader = fastssl.Loader(folder, fastssl.recipes.simclr(SIZE), batch_size=BATCH)
        after, started = [], time.perf_counter()
        with Peak() as peak:
            for epoch in range(arguments.epochs):
                for _ in loader:
                    pass
                gc.collect()
                after.append(resident())
                if epoch == 1:
                    peak_mib = peak.mib - before
        seconds = time.perf_counter() - started
    expected = formula(loader.threads, loader.prefetch, largest)
    grown = after[-1] - after[1]
    print(f"{origin}, {loader.threads} threads, batches of {BATCH}, {arguments.epochs} epochs in {seconds:.0f} s")
    print(f"peak above the start: {peak_mib:.0f} MiB; the formula says {expected:.0f} MiB")
    print(f"after epoch 2: {after[1]:.1f} MiB; after epoch {arguments.epochs}: {after[-1]:.1f} MiB ({grown:+.1f})")
    record = {
        "contender": "fastssl.Loader",
        "status": "ok" if peak_mib <= expected + ALLOWED_MIB and grown <= KEPT_MIB else "takes more than it says",
        "peak_mib": peak_mib,
        "formula_mib": expected,
        "resident_mib": after,
        "settings": {"threads": loader.threads, "epochs": arguments.epochs, "batch_size": BATCH},
    }
    soaked = soak(arguments.soak_epochs, 200)
    harness.write(harness.report("memory", [record, soaked], inputs={"images": origin}), arguments.out)


if __name__ == "__main__":
    main()
