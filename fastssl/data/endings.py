"""The end of the interpreter, and of engines that could not be closed where they were let go of."""

from __future__ import annotations

import atexit
import time
import weakref
from typing import Any, Protocol

from fastssl._native import _C

__all__ = ["begin", "end", "interpreter_ends", "keep"]

# How long it waits, at most, for threads that are within `next`.
_WAIT_SECONDS = 5.0


class _Closable(Protocol):
    in_next: bool  # a thread makes a batch of it, or waits for one

    def close(self) -> None: ...


# Native threads call into Python, so they must be gone before the interpreter is.
_live: weakref.WeakSet[_Closable] = weakref.WeakSet()

# The garbage collector may let go of an iteration on one of its own threads, which cannot wait for itself to end. Such an
# engine is kept here, with the memory it writes into, until somebody else can close it.
_unclosed: list[tuple[_C.Engine, Any]] = []

_interpreter_ends = False


def begin(closable: _Closable) -> None:
    """To be closed before the interpreter ends; what could not be closed before is closed now."""
    _live.add(closable)
    _close_rest()


def end(closable: _Closable) -> None:
    """It closes itself."""
    _live.discard(closable)


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
    live = list(_live)
    for closable in live:
        closable.close()
    _close_rest()
    # Another thread may be at work in native code, or wait there, without Python's lock; let it come back while there is an
    # interpreter. Python ends a thread that asks for its lock too late, and C++ ends the process for that.
    deadline = time.monotonic() + _WAIT_SECONDS
    while any(closable.in_next for closable in live) and time.monotonic() < deadline:
        time.sleep(0.001)


def _close_rest() -> None:
    """Closes what was let go of on a native thread, unless this is such a thread again."""
    _unclosed[:] = [(engine, memory) for engine, memory in _unclosed if not engine.close()]
