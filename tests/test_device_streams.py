"""The way of batches to a device whose streams take their time: order, reuse of memory, errors, ends."""

import gc
import io
import queue
import random
import sys
import threading
import time
import types
from concurrent import futures

import numpy as np
import PIL.Image
import pytest
import torch
from loading import Memory, pictures
from slow_streams import SlowDecoder, SlowStreams, on_host
from test_leaks import eventually

import fastssl
from fastssl import Loader, recipes
from fastssl.data import BytesCollate, ImageFolder, Source
from fastssl.data.making import Making
from fastssl.pipelines import device as pipeline
from fastssl.pipelines.balance import Balance

RECIPE = recipes.simclr(16)


@pytest.fixture
def streams():
    made = SlowStreams()
    yield made
    made.end()


class Pictures(Source):
    """JPEGs of many sizes, which a decoder of the device takes, and every fifth a PNG, which it does not."""

    def __init__(self, count):
        draw = np.random.default_rng(0)
        self.data = []
        for i in range(count):
            pixels = draw.integers(0, 255, (8 + 7 * i % 40, 8 + 5 * i % 50, 3), dtype=np.uint8)
            file = io.BytesIO()
            PIL.Image.fromarray(pixels).save(file, "PNG" if i % 5 == 3 else "JPEG", quality=70)
            self.data.append(file.getvalue())

    def __len__(self):
        return len(self.data)

    def fetch(self, index):
        return self.data[index]

    def target(self, index):
        return index % 7


def consume(iterator, streams, keep=0.0, draw=None, still=0):
    """Takes all batches as a training loop does: it asks for work on each, and lets go of it at once, or of some later.

    For the first `still` batches the consumer's stream stands still, while the others do all that they are asked for.
    """
    results, kept = [], []
    if still:
        streams.consumer.going.clear()
    for i, batch in enumerate(iterator):
        streams.read(batch, results)
        if i + 1 == still:
            streams.render_stream.mark().synchronize()
            streams.consumer.going.set()
        if draw is not None and draw.random() < keep:
            kept.append(batch)
        if kept and draw.random() < 0.3:
            kept.pop(0)
        del batch
    streams.synchronize()
    return results


def assert_are(results, want):
    want = list(want)
    assert len(results) == len(want)
    for got, batch in zip(results, want, strict=True):
        for a, b in zip(got, [*batch.views, batch.targets], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_batches_are_right_whatever_the_streams_do_meanwhile(streams, share, prefetch):
    options = {"batch_size": 6, "epochs": 3, "decode": "full", "dtype": torch.bfloat16, "channels_last": True}
    source = Pictures(45)
    loader = on_host(Loader(source, RECIPE, prefetch=prefetch, **options), SlowDecoder(streams), share, streams)
    streams.consumer.pause_seconds = 0.02
    draw = random.Random(prefetch)
    assert_are(consume(loader, streams, keep=0.3, draw=draw), Loader(source, RECIPE, **options))
    assert streams.reused > 0, "no memory was used twice: the test shows nothing"
    if share == 1.0:
        assert loader.stats()["decoding"]["device_images"] == 3 * 36


def test_memory_of_the_host_is_used_again(streams):
    source = Pictures(20)
    loader = on_host(Loader(source, RECIPE, batch_size=2, epochs=6), SlowDecoder(streams), 0.5, streams)
    batches = len(consume(loader, streams))
    # Targets are staged batch by batch; the blocks are as many as there are slots, and a few that were too small.
    assert streams.staged - batches < batches


@pytest.mark.parametrize("forgotten", ["wait", "record", "hold", "slot"])
def test_what_is_forgotten_is_noticed(streams, monkeypatch, forgotten):
    """Each of the four rules that keep memory safe, left out in turn, spoils a batch: so the tests above would see it."""
    if forgotten == "wait":  # the consumer's stream does not wait for the rendering
        monkeypatch.setattr(streams, "hand_over", lambda event, tensors: None)
    elif forgotten == "record":  # its use of the batch is not noted
        monkeypatch.setattr(streams, "hand_over", lambda event, tensors: streams.consumer.do(event.synchronize))
    elif forgotten == "hold":  # what a decoder gave is let go of at once

        def give_back(self, gathered, decodings):
            gathered.slot.done = self.streams.mark()
            self._free.append(gathered.slot)
            self._held.clear()

        monkeypatch.setattr(pipeline.DevicePipeline, "give_back", give_back)
    else:  # a slot is used again at once

        def take_slot(self, leaves):
            return self._fitting(self._free.pop() if self._free else None, leaves)

        monkeypatch.setattr(pipeline.DevicePipeline, "_take_slot", take_slot)
    options = {"batch_size": 6, "epochs": 8, "decode": "full"}
    source = Pictures(30)
    loader = on_host(Loader(source, RECIPE, **options), SlowDecoder(streams), 0.6, streams)
    try:
        results = consume(
            loader, streams, still=2 if forgotten == "record" else 0
        )  # time in which others may take memory
    except (fastssl.DecodeError, RuntimeError):  # of spoilt data; of its size
        return
    with pytest.raises(AssertionError):
        assert_are(results, Loader(source, RECIPE, **options))


def test_the_host_is_ahead_by_no_more_than_the_slots(streams):
    """While the device stands still, batches are asked for until memory is used up; then the host waits, and goes on after."""
    streams.render_stream.going.clear()
    source = Pictures(30)
    loader = on_host(Loader(source, RECIPE, batch_size=1, prefetch=1, decode="full"), None, 0.0, streams)
    iterator = iter(loader)
    results, taken, waits = [], [], threading.Event()
    # Memory is waited for by the stream that renders; that training is behind, which is looked at too, by that of the consumer.
    streams.render_stream.host_waits = waits

    def take():
        for batch in iterator:
            streams.read(batch, results)
            taken.append(1)
        waits.set()

    consumer = threading.Thread(target=take)
    consumer.start()
    assert waits.wait(30), "it waits for something else"
    assert iterator._pipeline._made == 1 + 3 and 1 <= len(taken) <= 3
    streams.render_stream.going.set()
    consumer.join(60)
    streams.synchronize()
    assert_are(results, Loader(source, RECIPE, batch_size=1, decode="full"))


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_what_the_device_cannot_decode_the_cpu_does(streams, policy):
    """Of images that only the device refuses nothing is seen; those that nobody can decode follow the policy."""
    source = Pictures(30)
    for i in (2, 7, 16):
        source.data[i] = source.data[i][:-40] + bytes(38) + b"\xff\xd9"  # whole by its markers
    source.data[11] = source.data[11][: len(source.data[11]) // 2]
    options = {"batch_size": 4, "epochs": 2, "decode": "full", "on_error": policy}
    want = Loader(source, RECIPE, **options)
    decoder = SlowDecoder(streams, refuses=lambda image: image.data.numel() % 3 == 0 or _is_spoilt(image))
    loader = on_host(Loader(source, RECIPE, **options), decoder, 1.0, streams)
    assert_are(consume(loader, streams), want)
    assert loader.errors == want.errors and len(want.errors) >= 1


def _is_spoilt(image):
    try:
        fastssl.ops.decode(image.data.clone())
    except fastssl.DecodeError:
        return True
    return False


def test_an_error_of_the_decoder_itself_reaches_the_consumer(streams):
    class Broken(SlowDecoder):
        def decode(self, images):
            raise torch.OutOfMemoryError("no memory left")

    loader = on_host(Loader(Pictures(20), RECIPE, batch_size=4), Broken(streams), 1.0, streams)
    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        list(loader)


@pytest.mark.parametrize("end", ["break", "close", "garbage", "exception", "at once"])
def test_every_end_is_clean_and_prompt(streams, end):
    before = threading.active_count()
    loader = on_host(Loader(Pictures(40), RECIPE, batch_size=4, epochs=50), SlowDecoder(streams), 0.5, streams)
    began = time.monotonic()
    iterator = iter(loader)
    if end != "at once":
        next(iterator)
        next(iterator)
    if end == "exception":
        with pytest.raises(ZeroDivisionError):
            for _ in iterator:
                1 / 0  # noqa: B018
    elif end == "close":
        iterator.close()
    del iterator
    gc.collect()
    assert time.monotonic() - began < 30
    while threading.active_count() > before and time.monotonic() - began < 30:
        time.sleep(0.01)
    assert threading.active_count() <= before
    streams.synchronize()


class Consumer:
    """Of the streams, one that always, or never, has done all that it was asked for before the next batch is there."""

    def __init__(self, streams, busy=False):
        self._streams, self._busy = streams, busy

    def __getattr__(self, name):
        return getattr(self._streams, name)

    def mark(self):
        mark = self._streams.mark()
        if self._streams._current() is not self._streams.consumer:
            return mark
        return types.SimpleNamespace(query=lambda: not self._busy, synchronize=mark.synchronize)


def test_the_share_goes_where_there_is_time(streams, monkeypatch):
    """A decoder that takes long gets less and less of each batch; the views are the same.

    By a clock of its own: a batch is decoded only while the consumer waits for it, a second long, and nothing else takes time.
    """
    making = sys.modules[Making.__module__]
    now, waits, notes, shares = [0.0], queue.SimpleQueue(), [], []
    waited_for, note = set(), Balance.note
    monkeypatch.setattr(making, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def wait(waiting, timeout):
        (future,) = waiting
        if future not in waited_for:
            waited_for.add(future)
            waits.put(None)
        return futures.wait([future], timeout)

    def noting(self, seconds, waited, short, images, share):
        note(self, seconds, waited, short, images, share)
        notes.append((seconds, waited, short))
        shares.append(self.share)

    class Slow(SlowDecoder):
        def decode(self, images):
            waits.get(timeout=60)
            for flight in list(iterator._pending):  # the CPU is not what is behind
                assert eventually(lambda flight=flight: flight.job.wait(100))
            now[0] += 1.0
            return super().decode(images)

    monkeypatch.setattr(making, "futures", types.SimpleNamespace(wait=wait))
    monkeypatch.setattr(Balance, "note", noting)
    options = {"batch_size": 10, "epochs": 4, "decode": "full"}
    source = Memory(pictures(60))  # JPEGs alone, so that a batch with a share has one to decode
    loader = on_host(Loader(source, RECIPE, **options), Slow(streams), 1.0, Consumer(streams), balanced=True)
    iterator = iter(loader)
    assert_are(consume(iterator, streams), Loader(source, RECIPE, **options))
    assert notes == [(1.0, 1.0, False)] * 23
    assert shares == sorted(shares, reverse=True) and shares[-1] < 0.7
    assert loader.stats()["decoding"]["share"] == shares[-1]


@pytest.mark.parametrize("busy", [True, False])
def test_a_wait_is_none_while_the_device_has_work(streams, monkeypatch, busy):
    """A host that is ahead of its device waits for batches that come in time; then the device need not decode.

    Looked at is what the balance is told, not what it makes of that: who is behind depends on what else the machine does.
    """

    class Slow(Pictures):
        def fetch(self, index):
            time.sleep(0.005)
            return super().fetch(index)

    waits = []
    note = Balance.note

    def noting(self, seconds, waited, *others):
        waits.append(waited)
        note(self, seconds, waited, *others)

    monkeypatch.setattr(Balance, "note", noting)
    loader = Loader(Slow(60), RECIPE, batch_size=10, epochs=5, threads=1)
    loader = on_host(loader, SlowDecoder(streams), 0.5, Consumer(streams, busy), balanced=True)
    consume(loader, streams)
    told = loader.stats()
    assert told["wait_seconds"] > 0.1 and len(waits) == 29
    assert sum(waits) == 0.0 if busy else sum(waits) > 0.1
    assert told["decoding"]["share"] == 0.0 or not busy


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_to_device(streams, share):
    source = Pictures(33)
    samples = [(source.data[i], i % 5, f"{i}.jpg") for i in range(33)]
    dataloader = torch.utils.data.DataLoader(samples, batch_size=5, collate_fn=BytesCollate())
    torch.manual_seed(3)
    want = list(fastssl.to_device(dataloader, RECIPE, "cpu", decode="full"))
    torch.manual_seed(3)
    loader = on_host(fastssl.to_device(dataloader, RECIPE, "cpu", decode="full"), SlowDecoder(streams), share, streams)
    assert_are(consume(loader, streams), want)


def test_folders(streams, photos):
    source = ImageFolder(photos)
    loader = on_host(Loader(source, RECIPE, batch_size=4, decode="full"), SlowDecoder(streams), 1.0, streams)
    assert_are(consume(loader, streams), Loader(source, RECIPE, batch_size=4, decode="full"))


def test_a_decoder_gets_no_more_than_it_was_made_for(streams):
    """Batches of a DataLoader may be larger than its first one, by which the decoder was made; the CPU takes the rest."""

    class Small(SlowDecoder):
        def decode(self, images):
            assert len(images) <= 4
            return super().decode(images)

    source = Pictures(33)
    samples = [(source.data[i], i % 5) for i in range(33)]
    sizes = torch.utils.data.DataLoader(
        samples, batch_sampler=[range(4), range(4, 24), range(24, 33)], collate_fn=BytesCollate()
    )
    torch.manual_seed(3)
    want = list(fastssl.to_device(sizes, RECIPE, "cpu", decode="full"))
    torch.manual_seed(3)
    decoder = Small(streams)
    loader = on_host(fastssl.to_device(sizes, RECIPE, "cpu", decode="full"), decoder, 1.0, streams, most=4)
    assert_are(consume(loader, streams), want)
    first_four = [i for first in (0, 4, 24) for i in range(first, first + 4)]
    assert decoder.images == sum(i % 5 != 3 for i in first_four)  # the JPEGs among them
