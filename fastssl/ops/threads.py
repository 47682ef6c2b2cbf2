"""How many threads the operators use outside a Loader, which has its own."""

from __future__ import annotations

import torch

from fastssl import _native

__all__ = ["check_threads", "get_num_threads", "set_num_threads"]

_chosen: int | None = None


def check_threads(who: str, threads: int) -> int:
    """Returns `threads` if it is a number of threads, and raises ValueError if not."""
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024:
        raise ValueError(f"{who}: threads={threads!r} must be a whole number from 1 to 1024; None takes all CPUs.")
    return threads


def set_num_threads(threads: int | None) -> None:
    """Sets how many threads one call of an operator or a collate function uses; None goes back to the default.

    Raises:
        ValueError: threads is not a whole number from 1 to 1024.
    """
    global _chosen
    _chosen = None if threads is None else check_threads("set_num_threads", threads)


def get_num_threads() -> int:
    """What was set; else 1 in a DataLoader's worker process, whose fellows have the other CPUs; else all CPUs.

    All CPUs are those of the process's affinity, cut down to the quota of its control group, rounded up. torch's own number
    of threads and OMP_NUM_THREADS do not count.
    """
    if _chosen is not None:
        return _chosen
    return 1 if torch.utils.data.get_worker_info() is not None else _native.available_cpus()
