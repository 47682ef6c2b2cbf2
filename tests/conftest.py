"""What the tests share: a seeded generator, folders of images, isolated random state, the devices to test on."""

from __future__ import annotations

import contextlib
import os
import random
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import images
import numpy as np
import pytest
import torch
from nursery import Nursery

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def devices() -> list:
    """The devices a test runs on, for `parametrize("device", devices())`.

    "cuda" is skipped where there is none, unless FASTSSL_REQUIRE_CUDA=1, which turns that skip into a failure,
    so that a run meant for a GPU cannot pass by skipping. FASTSSL_TEST_DEVICES=cuda leaves out the others, which a run on
    a GPU's time need not repeat.
    """
    required = os.environ.get("FASTSSL_REQUIRE_CUDA", "0") not in ("", "0")
    absent = not torch.cuda.is_available() and not required
    cuda = pytest.param("cuda", marks=pytest.mark.skipif(absent, reason="no CUDA device"))
    return [cuda] if _cuda_alone() else ["cpu", cuda]


def _cuda_alone() -> bool:
    chosen = os.environ.get("FASTSSL_TEST_DEVICES", "")
    if chosen not in ("", "cuda"):
        raise pytest.UsageError(f"FASTSSL_TEST_DEVICES={chosen!r} must be cuda, or not be set")
    return chosen == "cuda"


class Emulated(str):
    """A device, the CPU, on which the losses take their CUDA kernels, compiled for the host: see `emulated_kernels`.

    `wide`: those of an H100, by wgmma, where they take the rows.
    """

    wide: bool

    def __new__(cls, device: str, wide: bool = False) -> Emulated:
        self = super().__new__(cls, device)
        self.wide = wide
        return self


def devices_and_kernels() -> list:
    """`devices()`, and the CPU with the CUDA kernels of losses, so that what is said of "cuda" is tried without one."""
    return [*devices(), *([] if _cuda_alone() else [pytest.param(Emulated("cpu"), id="emulated")])]


@pytest.fixture(autouse=True)
def emulated_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """On the device "emulated" of `devices_and_kernels`, losses take the kernels."""
    callspec = getattr(request.node, "callspec", None)
    device = None if callspec is None else callspec.params.get("device")
    if not isinstance(device, Emulated):
        yield
        return
    from fastssl._native import _C
    from fastssl.loss import _cuda

    with pytest.MonkeyPatch.context() as patch:
        grid = _C.GridSize(multiprocessors=3, shared_bytes=228 * 1024, wide=device.wide)
        patch.setattr(_cuda, "emulated_grid", grid)
        yield


@contextlib.contextmanager
def nothing_waits(device: str) -> Iterator[None]:
    """On a GPU, what waits for it raises an error."""
    if device != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def gpus() -> list[int]:
    """The numbers of all GPUs, two at least: with one alone no other can be current."""
    count = torch.cuda.device_count()
    if count == 1:
        pytest.skip("a single GPU: it is always the current one")
    assert count, "no CUDA device"  # not a skip: see devices()
    return list(range(count))


@pytest.fixture(autouse=True)
def isolated_state() -> Iterator[None]:
    """Random state and thread counts are as before after each test, whatever the test did with them."""
    import fastssl

    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    threads = torch.get_num_threads()
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    torch.set_num_threads(threads)
    fastssl.set_num_threads(None)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator that depends on the test's name alone, so that order and selection of tests change no number."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders of 9, 8 and 6 photograph-like JPEGs of many sizes; read only."""
    root = tmp_path_factory.mktemp("photos")
    images.write_folder(root, {"cat": 9, "dog": 8, "owl": 6})
    return root


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """make_folder({"cat": 3, "dog": 2}, name="a") writes a folder of the test's own and returns it."""

    def make(classes: dict[str, int], *, name: str = "folder", seed: int = 0) -> Path:
        root = tmp_path / name
        images.write_folder(root, classes, seed=seed)
        return root

    return make


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """nursery.run(script, *arguments) runs Python code in a process of its own."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real images beside the checkout."""
    if not DATA.is_dir():
        pytest.skip("no real images: the folder ../shared/data is absent")
    return DATA


@pytest.fixture(scope="session")
def imagenet_sample(data_dir: Path) -> list[Path]:
    """Real photographs from ImageNet, sorted by name."""
    paths = sorted((data_dir / "imagenet-sample").glob("*.JPEG"))
    if not paths:
        pytest.skip("no real images: ../shared/data/imagenet-sample holds no .JPEG file")
    return paths
