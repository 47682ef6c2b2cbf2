"""However an iteration ends, no thread, no file and no memory stay behind, and it ends at once."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import images
import pytest
import torch
from loading import RECIPE, Memory, joined, pictures

import fastssl
from fastssl import ops, recipes
from fastssl.data import ImageFolder

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc, which is Linux's")


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    """After what was freed has gone back to the system: memory that malloc keeps for the next threads is no leak."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true: the kernel may list a thread a moment longer than it lives."""
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """There are no more threads and files after the test than before it."""
    torch.ones(1 << 22).exp()  # torch starts its threads with the first operation that is large enough,
    list(fastssl.Loader(Memory(pictures(3)), RECIPE, batch_size=2))  # and whatever else a first use sets up for good
    gc.collect()
    before = threads(), files()
    yield
    gc.collect()
    eventually(lambda: threads() <= before[0])
    assert threads() <= before[0] and files() <= before[1], f"threads and files: {before}, now {threads(), files()}"


@pytest.fixture
def loader(photos) -> fastssl.Loader:
    return fastssl.Loader(photos, RECIPE, batch_size=4, threads=3, prefetch=3, epochs=10)


@pytest.mark.usefixtures("nothing_left")
class TestNothingStays:
    def test_after_the_last_batch(self, photos):
        list(fastssl.Loader(photos, RECIPE, batch_size=4, threads=3))

    def test_an_iteration_at_work_is_seen(self, loader):  # else the tests below would pass for nothing
        before = threads()
        iteration = iter(loader)
        next(iteration)
        assert threads() >= before + 3
        del iteration

    def test_after_break(self, loader):
        for _ in loader:
            break
        gc.collect()
        before = threads()
        for _ in loader:  # and the loader goes on as if nothing had been
            break
        gc.collect()
        assert eventually(lambda: threads() == before)

    def test_after_break_before_the_first_batch(self, loader):
        iter(loader)

    def test_after_an_exception_in_the_loop(self, loader):
        with pytest.raises(ZeroDivisionError):
            for _ in loader:
                1 / 0  # noqa: B018

    def test_after_an_exception_in_the_loader(self, tmp_path):
        for i, data in enumerate([*pictures(8), b"broken"]):
            (tmp_path / f"{i}.jpg").write_bytes(data)
        for _ in range(3):
            with pytest.raises(fastssl.DecodeError):
                list(fastssl.Loader(tmp_path, RECIPE, batch_size=2, threads=3))

    def test_after_del_loader_in_the_middle(self, loader):
        iteration = iter(loader)
        next(iteration)
        del loader
        next(iteration)  # the iteration keeps what it needs
        del iteration

    def test_after_an_iteration_that_was_forgotten_in_a_cycle(self, loader):
        class Holder:
            pass

        holder = Holder()
        holder.me, holder.iteration = holder, iter(loader)
        next(holder.iteration)
        del holder
        gc.collect()

    def test_after_several_at_once(self, loader):
        iterations = [iter(loader) for _ in range(4)]
        for iteration in iterations:
            next(iteration)

    def test_after_bad_files(self, tmp_path):
        for i in range(30):
            (tmp_path / f"{i:02d}.jpg").write_bytes(images.jpeg(images.photo(80, 80))[: 3000 if i % 3 else None])
        for policy in ("skip", "replace"):
            list(fastssl.Loader(tmp_path, RECIPE, batch_size=4, threads=3, on_error=policy))

    def test_after_a_dataset_that_raises(self):
        items = [*pictures(5), RuntimeError("no")]
        for _ in range(3):
            with pytest.raises(fastssl.DecodeError):
                list(fastssl.Loader(Memory(items), RECIPE, batch_size=2, threads=3))


# --- memory -----------------------------------------------------------------------------------------------------------

REPETITIONS = 30
BATCH_BYTES = 16 * 2 * 3 * 96 * 96 * 4  # 3.5 MB, of which a loader holds about four


def growth(once: Callable[[], object]) -> int:
    """Bytes that 30 repetitions add, the first few aside."""
    for _ in range(8):
        once()
    before = resident_bytes()
    for _ in range(REPETITIONS):
        once()
    return resident_bytes() - before


def broken_off(photos: Path) -> None:
    loader = fastssl.Loader(photos, recipes.simclr(96), batch_size=16, threads=2, epochs=5)
    for i, _ in enumerate(loader):
        if i == 1:
            break


def test_thirty_broken_iterations_take_no_more_memory_than_one(photos):
    """A batch leaked each time would be 106 MB. The bound is a third of that."""
    assert growth(lambda: broken_off(photos)) < REPETITIONS * BATCH_BYTES / 3


def test_thirty_epochs_take_no_more_memory_than_one(photos):
    loader = fastssl.Loader(photos, recipes.simclr(96), batch_size=16, threads=2)

    def epoch() -> None:
        for _ in loader:
            continue

    assert growth(epoch) < REPETITIONS * BATCH_BYTES / 3


def test_thirty_failing_iterations_take_no_more_memory_than_one(tmp_path):
    for i in range(40):
        data = images.jpeg(images.photo(300, 300, seed=i))
        (tmp_path / f"{i:02d}.jpg").write_bytes(data if i % 5 else data[: len(data) // 2])

    def fail() -> None:
        with pytest.raises(fastssl.DecodeError):
            list(fastssl.Loader(tmp_path, recipes.simclr(96), batch_size=16, threads=2))

    assert growth(fail) < REPETITIONS * BATCH_BYTES / 3


def test_a_leak_of_a_batch_would_be_seen(photos):  # the negative control
    kept = []

    def leak() -> None:
        for batch in fastssl.Loader(photos, recipes.simclr(96), batch_size=16, threads=2):
            kept.append(batch)
            break

    assert growth(leak) > REPETITIONS * BATCH_BYTES / 3


# --- what was handed out stays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_a_held_batch_never_changes(photos, prefetch):
    loader = fastssl.Loader(photos, RECIPE, batch_size=4, threads=3, prefetch=prefetch, epochs=4)
    held, copies = [], []
    for batch in loader:
        held.append(batch)
        copies.append([view.clone() for view in batch.views])
    addresses = {view.data_ptr() for batch in held for view in batch.views}
    assert len(addresses) == 2 * len(held), "two batches share memory"
    for batch, copy in zip(held, copies, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch.views, copy, strict=True))


def test_memory_that_is_let_go_of_is_used_again(photos):
    """The ring: a consumer that keeps nothing makes the loader allocate a handful of batches, however long it runs."""
    loader = fastssl.Loader(photos, RECIPE, batch_size=4, prefetch=2, epochs=10, drop_last=True)
    addresses = set()
    for batch in loader:
        addresses.add(batch.views[0].data_ptr())
    assert len(addresses) <= 2 + 3  # prefetch, the one in use, and those on their way back


def test_a_part_of_a_batch_keeps_its_memory(photos):
    loader = fastssl.Loader(photos, RECIPE, batch_size=4, prefetch=1, epochs=4)
    iteration = iter(loader)
    row = next(iteration).views[0][2, 1]  # a view of a view; the batch itself is let go of
    copy = row.clone()
    for _ in iteration:
        continue
    assert torch.equal(row, copy)


def test_batches_outlive_iteration_and_loader(photos):
    loader = fastssl.Loader(photos, RECIPE, batch_size=4, threads=3)
    want = joined(loader)
    loader.set_epoch(0)
    batches = list(loader)
    del loader
    gc.collect()
    list(fastssl.Loader(photos, RECIPE, batch_size=4, threads=3, seed=8))
    assert joined(batches) == want


# --- processes --------------------------------------------------------------------------------------------------------

BEGIN = """
import gc, os, sys, threading, time
import fastssl
from loading import RECIPE, Memory, pictures
loader = fastssl.Loader(sys.argv[1], RECIPE, batch_size=4, threads=3, epochs=1000)
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


def test_the_interpreter_may_end_while_python_fetches(nursery):
    nursery.run("""
        import time
        import fastssl
        from loading import RECIPE, Memory, pictures
        def slow():
            time.sleep(0.05)
            return pictures(1)[0]
        iteration = iter(fastssl.Loader(Memory([slow] * 500), RECIPE, batch_size=4, threads=3))
        next(iteration)
    """).check()


def test_threads_that_share_an_iteration_neither_crash_nor_hang(nursery):
    """Sharing is not promised, so it may be refused as a generator refuses it; but no batch goes to two of them."""
    done = nursery.run("""
        import threading
        import fastssl
        from loading import RECIPE, Memory, pictures
        iteration = iter(fastssl.Loader(Memory(pictures(20)), RECIPE, batch_size=1, epochs=20, threads=2))
        seen = []
        def consume():
            try:
                for batch in iteration:
                    seen.append((batch.epoch, batch.indices.item()))
            except (RuntimeError, ValueError) as error:
                assert "another thread" in str(error) or "already executing" in str(error), error
        consumers = [threading.Thread(target=consume) for _ in range(4)]
        for consumer in consumers:
            consumer.start()
        for consumer in consumers:
            consumer.join()
        print(len(set(seen)) == len(seen))
    """)
    assert done.check().stdout == "True\n"


def test_ctrl_c_in_the_loop(nursery, photos):
    done = nursery.run(
        BEGIN
        + """
before = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
try:
    for i, batch in enumerate(loader):
        if i == 2:
            print("ready", flush=True)
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("no KeyboardInterrupt")
gc.collect()
for _ in range(500):
    after = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
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


def test_ctrl_c_while_waiting_for_a_batch(nursery):
    """The loop waits in native code for a hundred samples of 1 s each; Ctrl-C waits only for those under way."""
    done = nursery.run(
        """
        import time
        import fastssl
        from loading import RECIPE, Memory, pictures
        data = pictures(1)[0]
        calls = []
        def slow():
            calls.append(1)
            if len(calls) == 1:
                print("ready", flush=True)
            time.sleep(1)
            return data
        try:
            next(iter(fastssl.Loader(Memory([slow] * 200), RECIPE, batch_size=100, threads=2)))
        except KeyboardInterrupt:
            print(len(calls))
        """,
        interrupt_at="ready",
    )
    assert int(done.check().stdout.split()[1]) <= 6


# GCC 12's AddressSanitizer does not hold its allocator's lock across fork(): where a native thread is in malloc at that moment,
# the child's first malloc waits for ever (seen in a debugger). The C library's own allocator does hold its locks.
forks_beside_threads = pytest.mark.skipif(
    "FASTSSL_SANITIZED" in os.environ, reason="this AddressSanitizer cannot fork() beside threads"
)


@forks_beside_threads
def test_fork_while_a_loader_is_alive(nursery, photos):
    """DataLoader's workers are forks: they inherit memory and no thread, and must neither hang nor disturb the parent."""
    nursery.run(
        """
        import sys, warnings
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork.*", category=DeprecationWarning)
        import torch
        import fastssl
        from fastssl import ops
        from loading import RECIPE, joined

        def collate(samples):
            pixels = [image for image, _ in samples]
            plan = fastssl.Plan.draw(RECIPE, [tuple(image.shape[:2]) for image in pixels], seed=0)
            return ops.render(pixels, plan, RECIPE)

        class Dataset(torch.utils.data.Dataset):
            def __init__(self, source): self.source = source
            def __len__(self): return len(self.source)
            def __getitem__(self, i): return self.source.fetch(i), self.source.target(i)

        loader = fastssl.Loader(sys.argv[1], RECIPE, batch_size=4, threads=3)
        want = joined(loader)
        loader.set_epoch(0)
        collate([(torch.zeros((9, 9, 3), dtype=torch.uint8), 0)] * 8)  # the operators have had threads too
        iteration = iter(loader)
        first = [next(iteration), next(iteration)]
        forked = torch.utils.data.DataLoader(
            Dataset(loader.source), batch_size=4, num_workers=2, collate_fn=collate, timeout=60,
            multiprocessing_context="fork",
        )
        assert len(list(forked)) == 6
        assert joined(first + list(iteration)) == want
        """,
        photos,
    ).check()


@forks_beside_threads
def test_an_iteration_from_before_a_fork_says_that_it_cannot_go_on(nursery, photos):
    nursery.run(
        BEGIN
        + """
iteration = iter(loader)
next(iteration)
child = os.fork()
if child == 0:
    try:
        next(iteration)
    except RuntimeError as error:
        del iteration
        gc.collect()
        ok = "process" in str(error) and next(iter(loader)) is not None  # a new one can
        os._exit(0 if ok else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
next(iteration)
""",
        photos,
    ).check()


def test_a_loader_in_another_process(nursery, photos):
    """Made in one process and used in another, to which pickle takes it."""
    done = nursery.run(
        """
        import multiprocessing, sys
        import fastssl
        from loading import RECIPE

        def count(loader):
            return sum(len(batch) for batch in loader)

        with multiprocessing.get_context("fork").Pool(1) as pool:
            print(pool.apply(count, (fastssl.Loader(sys.argv[1], RECIPE, batch_size=4),)))
        """,
        photos,
    )
    assert done.check().stdout == "23\n"


@forks_beside_threads
def test_operators_after_fork(nursery):
    """ops.render with several threads works in a child of a process that has used it with several threads."""
    nursery.run("""
        import os
        import torch
        from fastssl import Plan, ops
        from loading import RECIPE
        pixels = [torch.randint(0, 256, (30, 30, 3), dtype=torch.uint8) for _ in range(12)]
        plan = Plan.draw(RECIPE, [(30, 30)] * 12, seed=0)
        want = ops.render(pixels, plan, RECIPE, threads=3)
        child = os.fork()
        if child == 0:
            got = ops.render(pixels, plan, RECIPE, threads=3)
            os._exit(0 if all(torch.equal(a, b) for a, b in zip(got, want)) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """).check()


def test_what_the_nursery_runs_is_seen(nursery):  # else a script that does nothing would pass
    done = nursery.run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert nursery.run("1 / 0").returncode == 1
    assert nursery.run("import os; os.kill(os.getpid(), 9)").returncode == -signal.SIGKILL


def test_render_leaves_no_thread_more_with_every_call():
    pixels = [torch.zeros((9, 9, 3), dtype=torch.uint8)] * 16
    plan = fastssl.Plan.draw(RECIPE, [(9, 9)] * 16, seed=0)
    ops.render(pixels, plan, RECIPE, threads=4)
    before = threads()
    for _ in range(20):
        ops.render(pixels, plan, RECIPE, threads=4)
    assert eventually(lambda: threads() <= before)


def test_a_source_is_let_go_of_with_its_loader(photos):
    source = ImageFolder(photos)
    alive = weakref.ref(source)
    loader = fastssl.Loader(source, RECIPE, batch_size=4)
    iteration = iter(loader)
    next(iteration)
    del source, loader, iteration
    gc.collect()
    assert alive() is None


def test_the_memory_of_a_whole_iteration_is_used_by_the_next_and_freed_with_the_loader(photos):
    loader = fastssl.Loader(photos, recipes.simclr(224), batch_size=16, threads=2, shuffle=False)
    first = {view.data_ptr() for batch in loader for view in batch.views}
    assert {view.data_ptr() for batch in loader for view in batch.views} <= first
    for _ in loader:
        break
    assert loader._pool is None, "broken off, it keeps nothing"
    again = pickle.loads(pickle.dumps(loader))
    assert len(list(again)) == len(loader)
