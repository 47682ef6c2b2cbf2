"""A decoder that begins with a batch before it has finished the one before: order, errors, memory and ends."""

import gc
import sys
import threading
import time
from collections import deque

import pytest
import torch
from device_loading import as_on_the_cpu, of_pictures
from slow_streams import SlowDecoder, SlowStreams
from test_leaks import eventually, threads

from fastssl.pipelines.ahead import DecodeAhead
from fastssl.pipelines.decoder import LeftImage, Overlapping
from fastssl.pipelines.device import DevicePipeline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which is Linux's")


class TwoAtATime(SlowDecoder):
    """Notes what it is asked for; `raises` may raise what it likes, given "start" or "finish" and the number of the batch."""

    def __init__(self, streams, raises=lambda what, number: None, **options):
        super().__init__(streams, **options)
        self.begun, self.calls, self.raises = deque(), [], raises
        self.started = self.finished = 0

    def decode(self, images):
        raise AssertionError("it can be begun, and is not to be waited for")

    def start(self, images):
        number, self.started = self.started, self.started + 1
        self.calls.append("start")
        self.raises("start", number)
        self.begun.append((number, super().decode(images)))

    def finish(self):
        number, decoded = self.begun.popleft()
        self.calls.append("finish")
        self.finished += 1
        self.raises("finish", number)
        return decoded

    def abandon(self):
        self.calls.append("abandon")
        self.begun.clear()


@pytest.fixture
def streams():
    made = SlowStreams()
    yield made
    made.end()


def test_who_can_begin_is_known():
    assert isinstance(TwoAtATime(None), Overlapping) and not isinstance(SlowDecoder(None), Overlapping)


class Job:
    """Done when it is told."""

    def __init__(self, done=True):
        self.done = threading.Event()
        if done:
            self.done.set()

    def wait(self, milliseconds):
        return self.done.wait(milliseconds / 1000)

    def wake(self):
        pass


class Nothing:
    """A batch that is gathered, of one image that is none."""

    def left(self):
        return [LeftImage(0, None, 1, 1, (0, 0, 1, 1))]

    def memory(self):
        return None


class Calls(TwoAtATime):
    """Only notes them."""

    def _decode(self, image):
        return None


@pytest.fixture
def ahead(streams):
    """Of a decoder that only notes its calls; and these."""
    decoder = Calls(streams)
    made = DecodeAhead(decoder, streams, DevicePipeline(streams, 4, 8).hold)
    made.calls, made.decoder = decoder.calls, decoder
    yield made
    assert made.close()


def test_one_more_is_begun_before_one_is_finished_and_three_are_there_at_most(ahead):
    first = Job(done=False)
    futures = [ahead.start(job, Nothing()) for job in [first, *(Job() for _ in range(5))]]
    first.done.set()
    assert futures[2].result(60).failed == [0]
    assert eventually(lambda: ahead.calls == ["start", "start", "finish", "start", "finish", "finish"])
    for future in futures:
        ahead.take(future)
    assert ahead.calls.count("finish") == 6


def test_one_that_is_begun_does_not_wait_for_the_job_of_the_next(ahead):
    late = Job(done=False)
    futures = [ahead.start(Job(), Nothing()), ahead.start(late, Nothing())]
    assert ahead.take(futures[0]).failed == [0] and ahead.calls == ["start", "finish"]
    late.done.set()
    assert ahead.take(futures[1]).failed == [0]


def test_closing_finishes_what_is_begun_and_begins_nothing(streams):
    entered, go_on = threading.Event(), threading.Event()

    def raises(what, number):
        if (what, number) == ("start", 1):
            entered.set()
            assert go_on.wait(60)

    decoder = Calls(streams, raises)
    ahead = DecodeAhead(decoder, streams, DevicePipeline(streams, 4, 8).hold)
    first = Job(done=False)
    futures = [ahead.start(job, Nothing()) for job in (first, Job(), Job(), Job())]
    first.done.set()
    assert entered.wait(60)
    closing = threading.Thread(target=ahead.close)
    closing.start()
    assert eventually(ahead._closed.is_set)
    go_on.set()
    closing.join(60)
    assert not closing.is_alive() and decoder.calls == ["start", "start", "finish", "finish"]
    assert [future.done() for future in futures] == [True, True, False, False]


def test_batches_are_those_of_the_cpu(streams):
    decoder = TwoAtATime(streams)
    assert as_on_the_cpu(of_pictures(streams, decoder), streams) == 20
    assert decoder.calls.count("start") == decoder.calls.count("finish") == 20


@pytest.mark.parametrize("what", ["start", "finish"])
@pytest.mark.parametrize("at", [0, 1, 4])
def test_an_error_ends_its_own_batch_and_those_before_come_first(streams, what, at):
    def raises(called, number):
        if (called, number) == (what, at):
            raise torch.OutOfMemoryError("no memory")

    decoder = TwoAtATime(streams, raises)
    loader, came = of_pictures(streams, decoder), 0
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        for batch in loader:
            came += len(batch)
    assert came == 4 * at
    assert not decoder.begun


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # SystemExit goes through the thread
def test_what_is_begun_is_abandoned_where_the_thread_ends_before_its_time(streams):
    def raises(called, number):
        if (called, number) == ("start", 1):
            raise SystemExit(3)

    decoder = Calls(streams, raises)
    ahead = DecodeAhead(decoder, streams, DevicePipeline(streams, 4, 8).hold)
    first = Job(done=False)
    futures = [ahead.start(job, Nothing()) for job in (first, Job())]
    first.done.set()
    assert isinstance(futures[1].exception(60), SystemExit) and ahead.close()
    assert decoder.calls == ["start", "start", "abandon"] and not decoder.begun


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closing_at_any_point_leaves_nothing_begun(streams, taken):
    decoder = TwoAtATime(streams)
    loader = of_pictures(streams, decoder)
    gc.collect()
    before = threads()
    iteration = iter(loader)
    for _ in range(taken):
        next(iteration)
    if not taken:
        iteration._fill()
    iteration.close()
    assert not decoder.begun and "abandon" not in decoder.calls  # what was begun is done: the decoder stays whole
    assert eventually(lambda: threads() <= before)
    loader.set_epoch(0)
    assert as_on_the_cpu(loader, streams) == 20


def test_seconds_in_which_two_are_under_way_count_once(streams):
    loader = of_pictures(streams, TwoAtATime(streams))
    began = time.perf_counter()
    list(loader)
    decoding = loader.stats()["decoding"]
    assert 0 < decoding["device_seconds"] <= time.perf_counter() - began
    assert decoding["device_images"] > 0
