"""A Loader that gathers decoded images and renders them on a device: by the kernels on the host, and on a GPU."""

import random

import numpy as np
import pytest
import torch
from conftest import devices
from emulated import negative
from slow_streams import HostDecoder, on_host

import fastssl
from fastssl import Loader, recipes
from fastssl.data import ArraySource, ImageFolder
from fastssl.pipelines import device as pipeline
from fastssl.pipelines.streams import HostStreams
from fastssl.transforms import Crop, Normalize, View

GPU = devices()[-1:]
HERE = ["emulated", "left", *GPU]
RECIPE = recipes.simclr(24)


@pytest.fixture
def make(monkeypatch):
    """Loader(...) on the device; on the host, by the kernels compiled for it, in blocks of so many bytes an image.

    The devices: "emulated", where the CPU decodes; "left", where a decoder of the device gets half of each batch; or a GPU.
    """

    def build(device, source, recipe=RECIPE, bytes_an_image=None, **options):
        if bytes_an_image is not None:
            monkeypatch.setattr(pipeline, "_FIRST_PIXELS", bytes_an_image)
            monkeypatch.setattr(pipeline, "_FIRST_ENCODED", bytes_an_image)
        if device not in ("emulated", "left"):
            return Loader(source, recipe, device=device, **{"decode": "cpu", **options})
        decoder = HostDecoder() if device == "left" else None
        return on_host(wanted(device, source, recipe, **options), decoder, share=0.5)

    return build


def wanted(device, source, recipe, **options):
    """The Loader on the CPU that gives the same: a decoder of the device decodes in full size."""
    return Loader(source, recipe, **{**options, **({"decode": "full"} if device == "left" else {})})


def assert_same(got, want):
    got, want = list(got), list(want)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.filenames == b.filenames and torch.equal(a.targets.cpu(), b.targets)
        assert torch.equal(a.indices, b.indices) and torch.equal(a.params.data, b.params.data)
        for view, wanted in zip(a.views, b.views, strict=True):
            assert view.dtype == wanted.dtype and view.stride() == wanted.stride()
            assert torch.equal(view.cpu(), wanted)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("options", [
    {},
    {"dtype": torch.bfloat16, "channels_last": True, "epochs": 2},
    {"decode": "full", "shuffle": False, "prefetch": 0},
    {"drop_last": True, "threads": 1, "prefetch": 5},
    {"cache": "ram", "epochs": 3},
], ids=str)  # fmt: skip
def test_batches_are_those_of_the_cpu(photos, make, options, device):
    source = ImageFolder(photos)
    want = wanted(device, source, RECIPE, batch_size=7, **options)
    assert_same(make(device, source, batch_size=7, **options), want)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("bytes_an_image", [0, 100, 5000])
def test_what_does_not_fit_into_a_block_has_memory_of_its_own(photos, make, bytes_an_image, device):
    source = ImageFolder(photos)
    loader = make(device, source, bytes_an_image=bytes_an_image, batch_size=6, epochs=3)
    assert_same(loader, wanted(device, source, RECIPE, batch_size=6, epochs=3))


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("name", ["dino", "wmse", "evaluation", "vicregl"])
def test_every_kind_of_recipe(photos, make, name, device):
    recipe = getattr(recipes, name)()
    recipe = tuple(view.with_(crop=type(view.crop)(size=20)) for view in recipe)
    source = ImageFolder(photos)
    assert_same(make(device, source, recipe, batch_size=9), wanted(device, source, recipe, batch_size=9))


@pytest.mark.parametrize("device", HERE)
def test_custom_steps_run_on_the_device(photos, make, device):
    recipe = (View(crop=Crop(size=16), custom=negative), RECIPE[1])
    source = ImageFolder(photos)
    assert_same(make(device, source, recipe, batch_size=9), wanted(device, source, recipe, batch_size=9))


def test_custom_steps_see_what_the_training_loop_asked_for_before(photos):
    """The rendering stream goes on when the consumer's has come to where the batch was asked for."""
    log = []

    class Logging(HostStreams):
        def mark(self):
            log.append("mark")
            return super().mark()

        def rendering(self):
            log.append("render")
            return super().rendering()

        def wait(self, event):
            log.append("wait")

    recipe = (View(crop=Crop(size=16), custom=lambda batch: log.append("step") or batch),)
    loader = on_host(fastssl.Loader(str(photos), recipe, batch_size=9), streams=Logging())
    next(iter(loader))
    marked = log.index("mark")
    assert log[marked : marked + 3] == ["mark", "render", "wait"] and "step" not in log[:marked]


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("channels, type", [(1, np.uint8), (3, np.uint16), (5, np.uint16)])
def test_arrays_of_any_channels(make, channels, type, device):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 26, channels), dtype=type)
    view = View(crop=Crop(size=16), normalize=Normalize(mean=[0.5] * channels, std=[0.5] * channels))
    source = ArraySource(pixels, targets=list(range(20)))
    assert_same(make(device, source, (view,), batch_size=6), wanted(device, source, (view,), batch_size=6))


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_bad_samples_follow_the_policy(photos, make, tmp_path, policy, device):
    bad_folder(photos, tmp_path)
    source = ImageFolder(tmp_path)
    want = wanted(device, source, RECIPE, batch_size=5, on_error=policy, epochs=2)
    got = make(device, source, batch_size=5, on_error=policy, epochs=2)
    assert_same(got, want)
    assert [str(fault) for fault in got.errors] == [str(fault) for fault in want.errors] and len(want.errors) == 3


@pytest.mark.parametrize("device", HERE)
def test_a_bad_sample_ends_the_iteration_where_it_would_on_the_cpu(photos, make, tmp_path, device):
    bad_folder(photos, tmp_path)
    source = ImageFolder(tmp_path)
    counts, messages = [], []
    for loader in (wanted(device, source, RECIPE, batch_size=3), make(device, source, batch_size=3)):
        count = 0
        with pytest.raises(fastssl.DecodeError) as caught:
            for _ in loader:
                count += 1
        counts.append(count)
        messages.append(str(caught.value))
    assert counts[0] == counts[1] and messages[0] == messages[1]


@pytest.mark.parametrize("device", HERE)
def test_it_resumes_exactly(photos, make, device):
    source = ImageFolder(photos)
    whole = list(wanted(device, source, RECIPE, batch_size=4, epochs=3))
    for stop in (1, 4, len(whole) - 1):
        loader = make(device, source, batch_size=4, epochs=3)
        iterator = iter(loader)
        for _ in range(stop):
            next(iterator)
        state = loader.state_dict()
        iterator.close()
        after = make(device, source, batch_size=4, epochs=3)
        after.load_state_dict(state)
        assert_same(after, whole[stop:])


@pytest.mark.parametrize("device", HERE)
def test_batches_that_are_kept_are_not_written_again(photos, make, device):
    source = ImageFolder(photos)
    loader = make(device, source, batch_size=3, epochs=4)
    kept, copies = [], []
    for batch in loader:
        if random.random() < 0.5:
            kept.append(batch.views[0])
            copies.append(batch.views[0].clone())
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert loader.stats()["rendered_on"] == ("cuda:0" if device == "cuda" else "cpu")


def bad_folder(photos, to):
    """The photographs, three of them spoilt."""
    for i, path in enumerate(sorted(p for p in photos.rglob("*") if p.is_file())):
        data = path.read_bytes()
        target = to / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data[: len(data) // 2] if i in (4, 9, 10) else data)
