"""Loads the extension `fastssl._C` and says what it was built with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

try:
    import fastssl._C as _C
except ImportError as error:
    raise ImportError(
        f"fastssl: its native code could not be loaded ({error}). In a checkout, build it with `make build`; "
        "elsewhere, install again with `pip install --force-reinstall --no-deps fastssl-vision`."
    ) from error

__all__ = ["_C", "CacheError", "DecodeError", "PLAN_FIELDS", "available_cpus", "build_info", "has_cuda", "philox"]

if os.environ.get("FASTSSL_SIMD", "v4") not in ("generic", "v3", "v4"):
    raise ValueError(f"fastssl: FASTSSL_SIMD={os.environ['FASTSSL_SIMD']!r} must be generic, v3 or v4, or not be set.")

DecodeError = _C.DecodeError
DecodeError.__module__ = "fastssl"
DecodeError.__doc__ = "An image could not be read; the message names the file and the reason."

CacheError = _C.CacheError
CacheError.__module__ = "fastssl.data"
CacheError.__doc__ = (
    "A cache of decoded images cannot be used; the message names the file, what is wrong, and the remedy."
)

PLAN_FIELDS: tuple[str, ...] = _C.PLAN_FIELDS


def has_cuda() -> bool:
    """Whether the build has CUDA kernels and the driver offers a GPU."""
    return bool(_C.cuda_device_count())


def build_info() -> dict[str, Any]:
    """What the extension was built with, and what it uses on this machine.

    Returns:
        `simd`: the instruction set of the pixel loops ("generic", "v3" or "v4", as in x86-64-v3);
        `cuda_architectures`: "80;90" and so on, empty in a build without CUDA; `cuda_devices`: GPUs that can be used.
    """
    return {
        "simd": _C.simd_name(),
        "cuda_architectures": _C.cuda_architectures(),
        "cuda_devices": _C.cuda_device_count(),
    }


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Four 32-bit words of Philox4x32-10 (Salmon et al., SC 2011), the generator behind every draw.

    >>> [hex(word) for word in philox((0, 0, 0, 0), key=(0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    return _C.philox4x32(counter, key)


def available_cpus(root: str = "/") -> int:
    """CPUs that this process may use: its affinity mask, cut down to the quota of its control groups, at least 1.

    A quota of two and a half CPUs counts as three: two threads would leave half of one unused. What limits torch's own
    threads (OMP_NUM_THREADS, torch.set_num_threads) does not limit these.

    Args:
        root: Where /proc and /sys lie.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, math.ceil(min(_quotas(root), default=cpus))))


def _quotas(root: str) -> Iterator[float]:
    """CPUs that each control group of this process, and each above it, allows; versions 1 and 2 (man 7 cgroups)."""
    groups = os.path.join(root, "sys/fs/cgroup")
    for line in _words(os.path.join(root, "proc/self/cgroup"), separator="\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            mounts = [groups]
        elif "cpu" in controllers.split(","):
            mounts = [os.path.join(groups, name) for name in (controllers, "cpu")]
        else:
            continue
        # In a container, the path may be the host's, which is not seen from here; then there is only the mount itself.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            for depth in range(len(parts) + 1):
                group = os.path.join(mount, *parts[:depth])
                quota, *period = _words(os.path.join(group, "cpu.max")) or ("max",)
                if number != "0":
                    quota = (_words(os.path.join(group, "cpu.cfs_quota_us")) or ["-1"])[0]
                    period = _words(os.path.join(group, "cpu.cfs_period_us"))
                if quota.isdigit() and period and period[0].isdigit() and int(period[0]):
                    yield int(quota) / int(period[0])


def _words(path: str, separator: str | None = None) -> list[str]:
    """What the file holds; nothing where there is no such file."""
    try:
        with open(path) as file:
            return file.read().split(separator)
    except OSError:
        return []
