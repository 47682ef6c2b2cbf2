"""The end of threads that belong to an iteration."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

__all__ = ["PREFIX", "end_pool"]

# With which the names of all of fastssl's threads begin.
PREFIX = "fastssl-"


def end_pool(pool: ThreadPoolExecutor) -> bool:
    """Drops what was not begun, and waits for the rest; returns whether it did.

    It does not on a thread of fastssl's, which cannot wait for itself, nor for one that waits for it: the garbage collector,
    which ends an iteration that nobody holds any more, runs on whichever thread it likes.
    """
    # By name: a thread may run before its pool lists it.
    waits = not threading.current_thread().name.startswith(PREFIX)
    pool.shutdown(wait=waits, cancel_futures=True)
    return waits
