"""Loads the extension `fastssl._C` and says what it was built with."""

from __future__ import annotations

import os
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


def available_cpus() -> int:
    """CPUs that this process may use: its affinity mask, cut down to the quota of its control group."""
    cpus = len(os.sched_getaffinity(0))
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):  # no control groups of version 2 here: the mask is all there is
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))
