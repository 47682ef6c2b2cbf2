"""The end of the interpreter, and of engines that could not be closed where they were let go of."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

from fastssl._native import _C

__all__ = ["at_work", "begin", "end", "interpreter_ends", "keep"]

# How long it waits, at most, for threads that are at work.
_WAIT_SECONDS = 5.0


class _Closable(Protocol):
    def close(self) -> None: ...


# Native threads call into Python, so they must be gone before the interpreter is.
_live: weakref.WeakSet[_Closable] = weakref.WeakSet()

# Python's own threads, which may be in native code, ours or torch's, without Python's lock: let them come back while there is an
# interpreter. Python ends a thread that asks for its lock too late, and C++ ends the process for that.
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_at_work: set[object] = set()  # one for each thread of the user's that makes a batch, or waits for one
os.register_at_fork(after_in_child=_at_work.clear)

# The garbage collector may let go of an iteration on one of its own threads, which cannot wait for itself to end. Such an
# engine is kept here, with the memory it writes into, until somebody else can close it.
_unclosed: list[tuple[_C.Engine, Any]] = []

_interpreter_ends = False


def begin(closable: _Closable, thread: threading.Thread | None = None) -> None:
    """To be closed before the interpreter ends, and its thread waited for; what could not be closed before is closed now."""
    _live.add(closable)
    if thread is not None:
        _threads.add(thread)
    _close_rest()


def end(closable: _Closable) -> None:
    """It closes itself."""
    _live.discard(closable)


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """The end of the interpreter waits for what is done within, on whatever thread."""
    token = object()
    _at_work.add(token)
    try:
        yield
    finally:
        _at_work.discard(token)


def keep(engine: _C.Engine, memory: Any) -> None:
    """An engine that could not be closed on this thread, and what its threads write into."""
    _unclosed.append((engine, memory))


def interpreter_ends() -> bool:
    """Whether it has begun to."""
    return _interpreter_ends


@atexit.register
def _close_all() -> None:
    global _interpreter_ends
    _interpreter_ends = True
    for closable in list(_live):
        closable.close()
    _close_rest()
    deadline = time.monotonic() + _WAIT_SECONDS
    while (_at_work or any(thread.is_alive() for thread in _threads)) and time.monotonic() < deadline:
        time.sleep(0.001)


def _close_rest() -> None:
    """Closes what was let go of on a native thread, unless this is such a thread again."""
    _unclosed[:] = [(engine, memory) for engine, memory in _unclosed if not engine.close()]
