"""However an iteration towards a device ends, in whatever thread or process, nothing stays behind, and nothing is used twice."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref

import pytest
import torch
from loading import RECIPE, Memory, pictures
from slow_streams import HostDecoder, SlowDecoder, SlowStreams, on_host
from test_leaks import eventually, files, forks_beside_threads, threads

import fastssl
from fastssl import Loader, recipes
from fastssl.data import BytesCollate
from fastssl.pipelines.device import DevicePipeline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which is Linux's")

OPTIONS = {"batch_size": 4, "decode": "full", "epochs": 4}


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
    eventually(lambda: threads() <= before[0])
    assert threads() <= before[0] and files() <= before[1]


def as_on_the_cpu(loader, streams, source=None, **options):
    """The batches that are left are those that the Loader on the CPU gives."""
    got = []
    for batch in loader:
        streams.read(batch, got)
        del batch
    streams.synchronize()
    want = list(Loader(source or Memory(pictures(20)), RECIPE, **{**OPTIONS, **options}))[-len(got) :]
    assert all(
        torch.equal(a, b)
        for parts, batch in zip(got, want, strict=True)
        for a, b in zip(parts, batch.views, strict=False)
    )
    return len(got)


def of_pictures(streams, decoder=None, **options):
    decoder = SlowDecoder(streams) if decoder is None else decoder
    return on_host(Loader(Memory(pictures(20)), RECIPE, **{**OPTIONS, **options}), decoder, 0.6, streams)


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
    taken = []

    def take():
        for batch in loader:
            taken.append(len(batch))

    consumer = threading.Thread(target=take)
    consumer.start()
    before = -1
    while len(taken) != before:
        before = len(taken)
        time.sleep(0.3)
    assert 0 < len(taken) <= 3 and consumer.is_alive()
    streams.consumer.going.set()
    consumer.join(60)
    assert len(taken) == 40


def test_no_more_is_decoded_ahead_than_there_is_use_for(streams):
    """Two batches, however far the CPU is ahead: decoded pixels are what takes the device's memory."""
    decoded = []

    class Counting(SlowDecoder):
        def decode(self, images):
            decoded.append(len(images))
            return super().decode(images)

    iterator = iter(of_pictures(streams, Counting(streams), prefetch=6))
    iterator._fill()
    assert eventually(lambda: all(flight.job.wait(0) for flight in iterator._pending))
    time.sleep(0.2)
    assert len(decoded) == 2
    next(iterator)
    assert eventually(lambda: len(decoded) >= 3)
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


# --- processes --------------------------------------------------------------------------------------------------------

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
        "threading.Thread(target=lambda: [None for _ in iteration], daemon=True).start(); time.sleep(0.1)",
        "class Cycle: pass\nc = Cycle(); c.c, c.i = c, iteration; del c, iteration",
    ],
)
def test_the_interpreter_may_end_in_the_middle(nursery, photos, end):
    nursery.run(BEGIN + f"iteration = iter(loader)\nnext(iteration)\n{end}\n", photos).check()


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
@pytest.mark.parametrize("decoder", ["SlowDecoder(streams)", "None"])
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
