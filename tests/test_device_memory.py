"""What a batch has of memory, on the way to a device, goes to no other before every stream is done with it; and it does go on."""

from __future__ import annotations

import threading

import pytest
import torch
from device_loading import OPTIONS, as_on_the_cpu, of_pictures
from loading import RECIPE, Memory, pictures
from slow_streams import SlowDecoder, SlowStreams, _bytes, on_host
from test_leaks import eventually

from fastssl import Loader
from fastssl.pipelines.device import DevicePipeline


@pytest.fixture
def streams():
    made = SlowStreams()
    yield made
    made.end()


class Reading(SlowDecoder):
    """Beside decoding, asks its stream to look at what it was given, late, and compares."""

    def __init__(self, streams, then=None, **options):
        super().__init__(streams, **options)
        self.given, self.seen = [], []
        self._then = then

    def decode(self, images):
        for image in images:
            self.given.append(image.data.clone())
            address, size = image.data.data_ptr(), image.data.numel()
            self._streams.decode_stream.do(lambda at=address, size=size: self.seen.append(_bytes(at, size).clone()))
        if self._then is not None:
            self._then()
        return super().decode(images)

    def assert_saw_what_it_was_given(self):
        assert len(self.seen) == len(self.given) > 0
        assert all(torch.equal(a, b) for a, b in zip(self.seen, self.given, strict=True))


def gone_after_once(data):
    """A file that is there when the device is to decode it, and not when the CPU is to."""
    left = [data]

    def fetch():
        if left:
            return left.pop()
        raise OSError("gone")

    return fetch


def test_a_batch_that_is_dropped_whole_keeps_its_memory_until_the_decoder_is_done_with_it(streams, monkeypatch):
    """All its images are bad, which is known while the device still reads them; the next batch must not lie in their place."""
    data = pictures(20)
    refused = data[:4]
    decoder = Reading(streams, refuses=lambda image: image.data.numpy().tobytes() in refused)
    options = {"batch_size": 4, "decode": "full", "on_error": "skip", "shuffle": False}
    items = [*map(gone_after_once, refused), *data[4:]]
    loader = on_host(Loader(Memory(items), RECIPE, **options), decoder, 1.0, streams)
    gather, gathered = DevicePipeline.gather, []

    def gathering(self, *arguments):
        streams.settle()  # what may be used again now is known to be
        gathered.append(gather(self, *arguments))
        return gathered[-1]

    monkeypatch.setattr(DevicePipeline, "gather", gathering)
    streams.decode_stream.going.clear()
    iterator = iter(loader)
    first = next(iterator)
    assert first.indices.tolist() == [4, 5, 6, 7] and len(loader.errors) == 4 and len(gathered) == 4
    assert eventually(lambda: all(flight.job.wait(100) for flight in iterator._pending))
    streams.decode_stream.going.set()
    results = []
    streams.read(first, results)
    for batch in iterator:
        streams.read(batch, results)
        del batch
    streams.synchronize()
    decoder.assert_saw_what_it_was_given()
    for got, batch in zip(results, Loader(Memory([OSError("gone")] * 4 + data[4:]), RECIPE, **options), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, batch.views, strict=False))


def test_what_a_decoder_asked_for_before_it_raised_is_waited_for(streams):
    """The device reads on; the iteration that comes after has the same memory."""
    raised, goes_on = [], threading.Event()

    def fail_once():
        if not raised:
            raised.append(True)
            raise torch.OutOfMemoryError("no memory left")

    decoder = Reading(streams, fail_once)
    options = {**OPTIONS, "prefetch": 0}  # no other batch's work of the decoder is waited for
    loader = on_host(Loader(Memory(pictures(20)), RECIPE, **options), decoder, 1.0, streams)
    streams.decode_stream.going.clear()
    streams.decode_stream.host_waits = goes_on  # as it should, at the end of the first iteration

    def take():
        with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
            next(iter(loader))
        loader.set_epoch(1)  # other images come first
        streams.settle()
        iterator = iter(loader)
        next(iterator)
        goes_on.set()

    consumer = threading.Thread(target=take)
    consumer.start()
    assert goes_on.wait(60)
    streams.decode_stream.going.set()
    consumer.join(60)
    streams.synchronize()
    decoder.assert_saw_what_it_was_given()


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_an_iteration_that_is_broken_off_gives_all_memory_back(streams, taken):
    loader = of_pictures(streams)
    assert as_on_the_cpu(loader, streams) == 20
    loader.set_epoch(0)
    iterator = iter(loader)
    pipeline = iterator._pipeline
    slots = len(pipeline._free)
    assert slots == pipeline._made > 0
    for _ in range(taken):
        next(iterator)
    assert not taken or len(pipeline._free) < slots
    del iterator
    assert len(pipeline._free) == pipeline._made >= slots
