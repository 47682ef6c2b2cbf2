"""However an iteration towards a device ends, in whatever thread or process, nothing stays behind, and nothing is used twice."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref

import pytest
import torch
from device_loading import OPTIONS, as_on_the_cpu, of_pictures
from loading import RECIPE, Memory, pictures
from slow_streams import HostDecoder, SlowDecoder, SlowStreams, on_host
from test_leaks import eventually, files, forks_beside_threads, threads

import fastssl
from fastssl import Loader
from fastssl.data import BytesCollate
from fastssl.pipelines.dali_modules import why_not_dali
from fastssl.pipelines.device import DevicePipeline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which is Linux's")


@pytest.fixture
def streams():
    made = SlowStreams()
    yield made
    made.end()


@pytest.fixture
def nothing_left(streams):
    torch.ones(1 << 22).exp()  # torch starts its threads,
    list(
        on_host(Loader(Memory(pictures(3)), RECIPE, batch_size=2), HostDecoder())
    )  # and whatever else a first use sets up
    gc.collect()
    before = threads(), files()
    yield
    gc.collect()
    eventually(lambda: threads() <= before[0] and files() <= before[1])
    assert threads() <= before[0] and files() <= before[1]


@pytest.mark.usefixtures("nothing_left")
class TestNothingStays:
    def test_after_the_last_batch(self, streams):
        assert as_on_the_cpu(of_pictures(streams), streams) == 20

    @pytest.mark.parametrize("taken", [0, 1, 3])
    def test_after_break(self, streams, taken):
        loader = of_pictures(streams)
        iterator = iter(loader)
        for _ in range(taken):
            next(iterator)
        del iterator
        loader.set_epoch(0)
        assert as_on_the_cpu(loader, streams) == 20  # with the memory of the one that was broken off

    def test_after_close(self, streams):
        iterator = iter(of_pictures(streams))
        next(iterator)
        iterator.close()
        iterator.close()
        assert next(iterator, None) is None

    def test_after_an_exception_in_the_loop(self, streams):
        with pytest.raises(ZeroDivisionError):
            for _ in of_pictures(streams):
                1 / 0  # noqa: B018

    def test_after_del_loader_in_the_middle(self, streams):
        loader = of_pictures(streams)
        iterator = iter(loader)
        next(iterator)
        del loader
        next(iterator)

    def test_after_an_iteration_that_was_forgotten_in_a_cycle(self, streams):
        class Holder:
            pass

        holder = Holder()
        holder.me, holder.iteration = holder, iter(of_pictures(streams))
        next(holder.iteration)
        del holder
        gc.collect()

    def test_after_several_at_once(self, streams):
        loader = on_host(Loader(Memory(pictures(20)), RECIPE, **OPTIONS), None, 0.0, streams)
        iterators = [iter(loader) for _ in range(3)]
        for iterator in iterators:
            next(iterator)

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), ValueError("a mistake"), SystemExit(3)])
    @pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnhandledThreadExceptionWarning"
    )  # SystemExit goes through the thread
    def test_after_a_decoder_that_raises(self, streams, error):
        class Broken(SlowDecoder):
            def decode(self, images):
                if self.images:
                    raise error
                return super().decode(images)

        loader = of_pictures(streams, Broken(streams))
        with pytest.raises(type(error), match=str(error)):
            list(loader)

    def test_after_a_dataloader(self, streams):
        samples = [(data, i, f"{i}.jpg") for i, data in enumerate(pictures(20))]
        dataloader = torch.utils.data.DataLoader(samples, batch_size=4, num_workers=1, collate_fn=BytesCollate())
        loader = on_host(
            fastssl.to_device(dataloader, RECIPE, "cpu", decode="full"), SlowDecoder(streams), 0.6, streams
        )
        batch = next(iter(loader))
        iterator = iter(loader)
        next(iterator)
        iterator.close()  # with the worker, though the iterator is still there
        assert eventually(lambda: not torch.multiprocessing.active_children())
        assert len(batch) == 4


def test_what_was_handed_out_outlives_its_iteration(streams):
    loader = of_pictures(streams)
    iterator = iter(loader)
    batches = [next(iterator) for _ in range(3)]
    del iterator, loader
    gc.collect()
    as_on_the_cpu(of_pictures(streams, seed=9), streams, seed=9)  # others use what memory there is
    got = []
    for batch in batches:
        streams.read(batch, got)
    streams.synchronize()
    for parts, batch in zip(got, Loader(Memory(pictures(20)), RECIPE, **OPTIONS), strict=False):
        assert all(torch.equal(a, b) for a, b in zip(parts, batch.views, strict=False))


@pytest.mark.usefixtures("nothing_left")
def test_the_collector_may_come_on_the_decoders_thread(streams):
    """It lets go of the iteration in the middle of a batch that is decoded for it, in memory that must still be there."""
    begun, forgotten, collected = threading.Event(), threading.Event(), threading.Event()

    class Collecting(SlowDecoder):
        def decode(self, images):
            if not begun.is_set():
                begun.set()
                assert forgotten.wait(60)
                gc.collect()
                collected.set()
            return super().decode(images)

    class Cycle:
        pass

    loader = of_pictures(streams, Collecting(streams))
    cycle = Cycle()
    gc.collect()
    gc.disable()  # the collector comes where it is called, and nowhere else
    try:
        cycle.me, cycle.iteration = cycle, iter(loader)
        cycle.iteration._fill()  # batches are under way
        alive = weakref.ref(cycle.iteration)
        assert begun.wait(60)
        del cycle
        forgotten.set()
        assert collected.wait(60) and alive() is None
    finally:
        gc.enable()
    assert loader._device_choice._idle is None, "the decoder that is at work was given back"
    loader.set_epoch(0)
    assert as_on_the_cpu(on_host(loader, SlowDecoder(streams), 0.6, streams), streams) == 20


@pytest.mark.usefixtures("nothing_left")
def test_the_collector_may_come_on_a_thread_that_reads(streams):
    """There it cannot wait for the threads, of which it is one; a later iteration does."""
    forgotten, collected = threading.Event(), threading.Event()
    data, once = pictures(1)[0], threading.Lock()

    def collecting():
        if forgotten.is_set() and once.acquire(blocking=False):
            gc.collect()
            collected.set()
        else:
            time.sleep(0.01)
        return data

    class Cycle:
        pass

    loader = on_host(
        Loader(Memory([collecting] * 400), RECIPE, batch_size=4, threads=2), SlowDecoder(streams), 0.6, streams
    )
    cycle = Cycle()
    gc.collect()
    gc.disable()
    try:
        cycle.me, cycle.iteration = cycle, iter(loader)
        next(cycle.iteration)
        alive = weakref.ref(cycle.iteration)
        forgotten.set()
        del cycle
        assert collected.wait(60) and alive() is None
    finally:
        gc.enable()
    assert len(next(iter(loader))) == 4


def test_another_thread_may_close_it_while_a_batch_is_rendered(streams, monkeypatch):
    """What that thread uses is given to nobody else: the next iteration gets memory of its own."""
    rendering, go_on = threading.Event(), threading.Event()
    render = DevicePipeline.render

    def slowly(self, *arguments):
        if not rendering.is_set():
            rendering.set()
            assert go_on.wait(60)
        return render(self, *arguments)

    monkeypatch.setattr(DevicePipeline, "render", slowly)
    loader = of_pictures(streams)
    iteration, ended = iter(loader), []

    def consume():
        try:
            for _ in iteration:
                pass
            ended.append("the end")
        except RuntimeError as error:
            ended.append(str(error))

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert rendering.wait(60)
    iteration.close()
    loader.set_epoch(0)
    other = iter(loader)
    first = next(other)
    assert first.indices.tolist() == next(iter(Loader(Memory(pictures(20)), RECIPE, **OPTIONS))).indices.tolist()
    assert other._pipeline is not iteration._pipeline
    go_on.set()
    consumer.join(60)
    assert len(ended) == 1 and (ended == ["the end"] or "closed by another thread" in ended[0])
    assert as_on_the_cpu(other, streams) == 19


@pytest.mark.usefixtures("nothing_left")
def test_closing_can_be_interrupted(streams):
    """Ctrl-C while it waits for the decoder: the threads end all the same, and the memory is not given to the next iteration."""
    loader = of_pictures(streams)
    iteration = iter(loader)
    next(iteration)
    close, pipeline = iteration._ahead.close, iteration._pipeline
    engine = threads()

    def interrupted():
        raise KeyboardInterrupt

    iteration._ahead.close = interrupted
    with pytest.raises(KeyboardInterrupt):
        iteration.close()
    assert eventually(lambda: threads() < engine), "the engine's threads have not ended"
    assert close()
    loader.set_epoch(0)
    again = iter(loader)
    assert again._pipeline is not pipeline
    assert as_on_the_cpu(again, streams) == 20


# --- processes --------------------------------------------------------------------------------------------------------

DALI = "fastssl.pipelines.DaliDecoder(torch.device('cpu'), 4, 1)"
needs_dali = pytest.mark.skipif(why_not_dali() is not None, reason=str(why_not_dali()))

BEGIN = """
import atexit, gc, os, sys, threading, time
import fastssl
import torch
from loading import RECIPE
from slow_streams import SlowDecoder, SlowStreams, on_host
torch.set_num_threads(1)  # else each stream's thread has helpers of its own
streams = SlowStreams()
atexit.register(streams.end)  # a GPU goes on to the end; its stand-in's threads end with Python
loader = fastssl.Loader(sys.argv[1], RECIPE, batch_size=4, threads=3, epochs=1000)
loader = on_host(loader, SlowDecoder(streams), 0.5, streams)
"""


@pytest.mark.parametrize(
    "end",
    [
        "pass",  # a global iteration, alive when the interpreter goes down
        "threading.Thread(target=lambda: next(iteration)).start()",
        # It keeps what it gets: a thread that is ended where a tensor dies, without Python's lock, takes the process with it.
        "kept = []; threading.Thread(target=kept.extend, args=(iteration,), daemon=True).start(); time.sleep(0.1)",
        "class Cycle: pass\nc = Cycle(); c.c, c.i = c, iteration; del c, iteration",
    ],
)
def test_the_interpreter_may_end_in_the_middle(nursery, photos, end):
    nursery.run(BEGIN + f"iteration = iter(loader)\nnext(iteration)\n{end}\n", photos).check()


def test_the_interpreter_may_end_while_a_dataloader_is_read(nursery, photos):
    """The thread that reads it is waited for, though its iteration has long been let go of."""
    done = nursery.run(
        BEGIN
        + """
import torch
from fastssl.data import BytesCollate, endings
class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        time.sleep(0.02)
        return loader.source.path(index % 23), 0
dataloader = torch.utils.data.DataLoader(Slow(), batch_size=4, num_workers=1, collate_fn=BytesCollate())
for batch in on_host(fastssl.to_device(dataloader, RECIPE, "cpu"), SlowDecoder(streams), 0.5, streams):
    break
feeders = [thread for thread in threading.enumerate() if thread.name == "fastssl-feeder"]
atexit.unregister(endings._close_all)
endings._close_all()
print(len(feeders), *(thread.is_alive() for thread in feeders))
""",
        photos,
    )
    assert done.check().stdout == "1 False\n"


def test_ctrl_c_in_the_loop(nursery, photos):
    done = nursery.run(
        BEGIN
        + """
before = len(os.listdir("/proc/self/task"))
try:
    for i, batch in enumerate(loader):
        if i == 2:
            print("ready", flush=True)
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("no KeyboardInterrupt")
del batch
gc.collect()
for _ in range(500):
    after = len(os.listdir("/proc/self/task"))
    if after == before:
        break
    time.sleep(0.01)
assert after == before, (before, after)
for batch in loader:  # and it can be used again
    break
print("done")
""",
        photos,
        interrupt_at="ready",
    )
    assert done.check().stdout == "ready\ndone\n"


def test_ctrl_c_while_waiting_for_the_decoder(nursery, photos):
    """It waits for the batch at hand, which no one can take back from a device, and for no other."""
    done = nursery.run(
        BEGIN
        + """
calls = []
class Slow(SlowDecoder):
    def decode(self, images):
        calls.append(1)
        print("ready", flush=True)
        time.sleep(1)
        return super().decode(images)
try:
    for batch in on_host(loader, Slow(streams), 1.0, streams):
        pass
except KeyboardInterrupt:
    print(len(calls))
""",
        photos,
        interrupt_at="ready",
    )
    assert int(done.check().stdout.split()[-1]) <= 2


@forks_beside_threads
@pytest.mark.parametrize("decoder", ["SlowDecoder(streams)", "None", pytest.param(DALI, marks=needs_dali)])
def test_a_forked_child_leaves_the_device_alone(nursery, photos, decoder):
    """Of iterations, loaders and memory that it inherits: whatever it does with them, and however it ends."""
    nursery.run(
        BEGIN
        + """
import warnings
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork.*", category=DeprecationWarning)
loader = on_host(loader, eval(sys.argv[2]), 0.5, streams)
iteration = iter(loader)
batch = next(iteration)
idle = on_host(fastssl.Loader(sys.argv[1], RECIPE, batch_size=4), eval(sys.argv[2]), 0.5, streams)
list(idle)  # it keeps its memory for the next iteration
child = os.fork()
if child == 0:
    try:
        next(iteration)
    except RuntimeError as error:
        assert "begun in another process" in str(error), error
    else:
        os._exit(2)
    del iteration, loader, idle
    gc.collect()
    sys.exit(0)  # with all that the end of an interpreter does
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
next(iteration)
streams.synchronize()
""",
        photos,
        decoder,
    ).check()


@forks_beside_threads
def test_a_dataloader_may_fork_beside_an_iteration(nursery, photos):
    """to_device starts the DataLoader's workers while the pipeline of the epoch before is kept for this one."""
    done = nursery.run(
        BEGIN
        + """
import warnings
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork.*", category=DeprecationWarning)
import torch
from fastssl.data import BytesCollate, ImageFolder
source = ImageFolder(sys.argv[1])
samples = [(str(source.path(i)), i) for i in range(len(source))]
dataloader = torch.utils.data.DataLoader(samples, batch_size=4, num_workers=2, collate_fn=BytesCollate(),
                                         multiprocessing_context="fork", timeout=60)
made = on_host(fastssl.to_device(dataloader, RECIPE, "cpu"), SlowDecoder(streams), 0.5, streams)
for epoch in range(3):
    print(sum(len(batch) for batch in made))
""",
        photos,
    )
    assert done.check().stdout == "23\n" * 3
