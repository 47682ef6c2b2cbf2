"""Of the way to a device: what is bounded, what comes in which order, and what is nobody's twice."""

from __future__ import annotations

import gc
import sys
import threading
import time

import pytest
import torch
from device_loading import OPTIONS, as_on_the_cpu, of_pictures
from loading import RECIPE, Memory, pictures
from slow_streams import HostDecoder, SlowDecoder, SlowStreams, on_host
from test_leaks import eventually

import fastssl
from fastssl import Loader, recipes
from fastssl.pipelines.device import DevicePipeline


@pytest.fixture
def streams():
    made = SlowStreams()
    yield made
    made.end()


def test_a_batch_that_fails_to_be_made_ahead_takes_nothing_with_it():
    """It is made while the one before is handed out, which comes first, as on the CPU; resuming goes on behind that one."""

    def failing(times):
        calls = []

        def step(batch):
            calls.append(1)
            if len(calls) == times:
                raise ZeroDivisionError("the step of the user's own")
            return batch

        return step

    def loader(step):
        return Loader(Memory(pictures(20)), (RECIPE[0].with_(custom=step),), **OPTIONS)

    states, counts = [], []
    for made in (loader(failing(3)), on_host(loader(failing(3))), on_host(loader(failing(3)), HostDecoder())):
        count = 0
        with pytest.raises(ZeroDivisionError):
            for _ in made:
                time.sleep(0.1)  # so that the next one is there
                count += 1
        counts.append(count)
        states.append(made.state_dict())
    assert counts == [2, 2, 2] and states[0] == states[1] == states[2]


def test_a_slot_is_nobodys_twice(streams, monkeypatch):
    """Ctrl-C may come anywhere: also between the rendering of a batch, which gives its memory back, and the note of that."""
    render = DevicePipeline.render

    def interrupted(self, *arguments):
        render(self, *arguments)
        raise KeyboardInterrupt

    loader = of_pictures(streams)
    iterator = iter(loader)
    next(iterator)
    monkeypatch.setattr(DevicePipeline, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        for _ in iterator:
            pass
    monkeypatch.undo()
    free = iterator._pipeline._free
    assert len({slot.pixels.data_ptr() for slot in free}) == len(free)
    loader.set_epoch(0)
    assert as_on_the_cpu(loader, streams) == 20


def test_an_error_of_the_device_is_not_hidden_by_those_that_follow(streams, monkeypatch):
    """A device that has failed fails in everything after it."""

    def fail(*arguments):
        raise torch.AcceleratorError("another error")

    def first(*arguments):
        monkeypatch.setattr(DevicePipeline, "give_back", fail)
        raise torch.AcceleratorError("the first error")

    loader = of_pictures(streams)
    iterator = iter(loader)
    next(iterator)
    monkeypatch.setattr(DevicePipeline, "render", first)
    with pytest.raises(torch.AcceleratorError, match="the first error"):
        for _ in iterator:
            pass
    assert not iterator._pending and next(iterator, None) is None


def test_nothing_stays_on_the_device_when_it_is_over(streams):
    loader = of_pictures(streams)
    iterator = iter(loader)
    for _ in iterator:
        pass
    assert not iterator._pipeline._held


def test_the_host_does_not_run_away_from_training(streams):
    """Whoever asks for batches and never for a result gets no more than a few of them before the device has come that far."""
    loader = of_pictures(streams, epochs=8)
    streams.consumer.going.clear()
    taken, waits = [], threading.Event()
    streams.consumer.host_waits = waits

    def take():
        for batch in loader:
            taken.append(batch)  # not let go of: the stream that renders would wait for that, and the host for it
        waits.set()

    consumer = threading.Thread(target=take)
    consumer.start()
    assert waits.wait(60)
    assert len(taken) == 2, "with the third one in its hands it waits for what came before the first"
    streams.consumer.going.set()
    consumer.join(60)
    assert len(taken) == 40


def test_no_more_is_decoded_ahead_than_there_is_use_for(streams):
    """Two batches, however far the CPU is ahead: decoded pixels are what takes the device's memory."""
    decoded, stands = [], threading.Event()

    class Counting(SlowDecoder):
        def decode(self, images):
            decoded.append(len(images))
            if len(decoded) == 3:
                stands.set()
            return super().decode(images)

    class Room:
        """Of the thread that decodes; says when it has to wait for some."""

        def __init__(self, room):
            self.put, self._room = room.put, room

        def get(self, wait):
            if self._room.empty():
                stands.set()
            return self._room.get(wait)

    iterator = iter(of_pictures(streams, Counting(streams), prefetch=6))
    state = iterator._ahead._state
    state.room = Room(state.room)
    iterator._fill()
    assert eventually(lambda: all(flight.job.wait(100) for flight in iterator._pending))
    assert stands.wait(60)
    assert len(decoded) == 2
    stands.clear()
    next(iterator)
    assert stands.wait(60), "and goes on"
    assert sum(1 for _ in iterator) == 19 and len(decoded) == 20


def test_what_the_device_has_no_room_for_the_cpu_decodes(streams, monkeypatch):
    monkeypatch.setattr("fastssl.pipelines.device._ROOM", 2 * 40 * 28 * 3)  # for one or two of the pictures
    decoder = SlowDecoder(streams)
    loader = on_host(Loader(Memory(pictures(20)), RECIPE, **OPTIONS), decoder, 1.0, streams)
    assert as_on_the_cpu(loader, streams) == 20
    assert 20 <= decoder.images <= 40


@pytest.mark.parametrize("device", [False, True])
def test_batches_made_in_inference_mode_are_ordinary_tensors(device):
    """As those are that come after: one iteration may serve an evaluation and then training."""
    loader = Loader(Memory(pictures(20)), RECIPE, **OPTIONS)
    iterator = iter(on_host(loader, HostDecoder()) if device else loader)
    with torch.inference_mode():
        first = next(iterator)
    weight = torch.ones((), requires_grad=True)
    for batch in (first, next(iterator), next(iterator)):
        assert not any(view.is_inference() for view in batch.views) and not batch.params.data.is_inference()
        (batch.views[0] * weight).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", [False, True])
def test_the_default_dtype_does_not_matter(dtype, device):
    """Native code writes plans as float32, whatever torch makes by default."""

    def made():
        loader = Loader(Memory(pictures(20)), RECIPE, **OPTIONS)
        return list(on_host(loader, HostDecoder()) if device else loader)

    want = made()
    torch.set_default_dtype(dtype)
    try:
        got = made()
        plan = fastssl.Plan.draw(RECIPE, [(20, 30)] * 50, seed=0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert plan.data.dtype == torch.float32
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a.params.data, b.params.data)
        assert all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))


def test_an_image_that_is_decoded_again_does_not_wait_for_whole_batches():
    """What the device refuses goes before the batches that are still to come, for which nobody waits yet."""
    order = []

    def noted(i, data):
        def fetch():
            order.append(i)
            time.sleep(0.005)
            return data

        return fetch

    items = [noted(i, data) for i, data in enumerate(pictures(40))]
    refusing = HostDecoder(refuses=lambda image: image.position == 0)
    loader = Loader(Memory(items), RECIPE, batch_size=8, threads=1, prefetch=4, shuffle=False, decode="full")
    list(on_host(loader, refusing))
    assert len(order) == 45
    again = order[1:].index(0) + 1
    assert again < 24, f"it came after {again} others, which are three batches and more"


def test_sizes_of_files_leave_no_types_behind(streams):
    """A ctypes array is a type of its own for each size, which only the collector frees."""
    import ctypes

    gc.collect()
    gc.disable()
    try:
        list(of_pictures(streams))
        arrays = [t for t in ctypes.Array.__subclasses__() if t.__name__.startswith("c_ubyte_Array")]
        before = len(arrays)
        list(of_pictures(streams))
        after = len([t for t in ctypes.Array.__subclasses__() if t.__name__.startswith("c_ubyte_Array")])
    finally:
        gc.enable()
    # The stand-in for streams makes some itself, of the same sizes each time.
    assert after - before <= before


@pytest.fixture
def quick_switches():
    """The stand-in's threads hand over to each other many times a batch, and at the default wait for Python's lock most of it."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(interval)


def soaked(streams, epochs, keep=None):
    """Bytes that so many epochs add after the second one; each of one batch, of 276 kB of views."""
    from test_leaks import resident_bytes

    for stream in streams.streams:
        stream.pause_seconds = 0.0005
    loader = Loader(Memory(pictures(5)), recipes.simclr(48), batch_size=5, threads=2)
    on_host(loader, SlowDecoder(streams), 0.5, streams)
    for epoch in range(epochs):
        for batch in loader:
            if keep is not None:
                keep.append(batch)
            del batch
        if epoch == 1:
            before = resident_bytes()
    streams.synchronize()
    return resident_bytes() - before


@pytest.mark.usefixtures("quick_switches")
def test_two_hundred_epochs_take_no_more_memory_than_two(streams):
    """A batch kept of each epoch would be 55 MB. benchmarks/memory.py does the same with 200 images."""
    assert soaked(streams, 200) < 16 << 20


@pytest.mark.usefixtures("quick_switches")
def test_batches_that_are_kept_would_be_seen(streams):  # the negative control
    assert soaked(streams, 80, keep=[]) > 16 << 20
