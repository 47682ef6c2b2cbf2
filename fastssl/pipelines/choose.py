"""Which decoder takes how much of each batch: candidates, and the measuring that picks among them."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fastssl.pipelines.dali import DaliDecoder, why_not_dali_on
from fastssl.pipelines.decoder import Decoder
from fastssl.pipelines.nvjpeg import NvjpegDecoder, why_not_nvjpeg

__all__ = ["DECODERS", "Choice", "choose", "make_decoder", "why_not_decoder"]

DECODERS = ("nvjpeg", "dali")

# A decoder of the device must be faster than the CPU alone by this much: it takes time of the device that training needs.
_WORTH = 1.05

_log = logging.getLogger("fastssl")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Where the images of a device's batches are decoded.

    Args:
        decoder: "nvjpeg" or "dali"; None for the CPU alone.
        share: The part of each batch's images that is left to it, 0 to 1; what is no baseline JPEG is the CPU's all the same.
        balanced: Whether the share is moved while iterating: to as little as will do, since it takes time of the device.
        rates: Images a second that were measured, by candidate.
        busy: How busy "cpu" and "gpu" were before it was measured, 0 to 1, for information: nothing follows from it. "cpu" is
            those that this process may run on; None where it is not known, as for "gpu" without the package pynvml.

    Raises:
        ValueError: There is no such decoder, or share is not within 0 and 1.
    """

    decoder: str | None
    share: float = 1.0
    balanced: bool = False
    rates: Mapping[str, float] = field(default_factory=dict)
    busy: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.decoder is not None and self.decoder not in DECODERS:
            raise ValueError(f"Choice: decoder={self.decoder!r} must be one of {', '.join(DECODERS)}, or None.")
        if not 0 <= self.share <= 1:
            raise ValueError(f"Choice: share={self.share} must be from 0 to 1: it is a part of each batch.")
        if self.decoder is None and (self.share != 0 or self.balanced):
            object.__setattr__(self, "share", 0.0)
            object.__setattr__(self, "balanced", False)

    def describe(self) -> dict[str, Any]:
        """What was measured and chosen, for `Loader.stats()`."""
        return {"by": str(self), "rates": dict(self.rates), "busy": dict(self.busy)}

    def __str__(self) -> str:
        if self.decoder is None or not (self.share or self.balanced):
            return "cpu"
        return self.decoder if self.share == 1 else f"{self.decoder} {self.share:.0%}"


def why_not_decoder(name: str, device: torch.device) -> str | None:
    """Why this decoder cannot be used on the device; None if it can."""
    return why_not_nvjpeg(device) if name == "nvjpeg" else why_not_dali_on(device)


def make_decoder(name: str, device: torch.device, batch_size: int, threads: int, who: str = "Loader") -> Decoder:
    """A decoder for batches of at most `batch_size` images, with so many threads of the host where it has any.

    Raises:
        RuntimeError: It cannot be used here; says so of `who`.
    """
    reason = why_not_decoder(name, device)
    if reason is not None:
        raise RuntimeError(f"{who}: decode={name!r}: {reason}. Or write decode='cpu'.")
    if name == "nvjpeg":
        return NvjpegDecoder(device)
    return DaliDecoder(device, batch_size, threads)


def choose(measure: Callable[[Choice], float], decoders: Sequence[str], device: torch.device) -> Choice:
    """The fastest way to decode, as measured: by the CPU alone, by a decoder of the device alone, or by both at once.

    What others do on the machine meanwhile slows the candidates down, and so has its say; how busy it was before is noted for
    information alone. What a candidate had of the device's memory is let go of before the next one. A decoder of the device,
    alone or beside the CPU, is taken only where it is faster than the CPU alone by 5 %, as it takes time of the device. One that
    fails, as for want of the device's memory, is not taken, and a warning in the log says so.

    Nothing else is asked of the device here. While a model trains, the same images may be had at less cost to it from the CPU; so
    what is chosen is where the share of the device begins, and is balanced from there (`fastssl.pipelines.balance`).

    Args:
        measure: Images a second of a candidate, whose share stays.
        decoders: Those that can be used.
        device: That the batches go to.

    Returns:
        The choice, with what was measured; it is balanced unless it is the CPU. Also written to the log "fastssl", as one line.
    """
    began = time.perf_counter()
    busy = {"cpu": _cpu_busy(), "gpu": _gpu_busy(device)}
    alone = Choice(decoder=None)
    rates = {str(alone): _measured(measure, alone, device)}
    best = alone
    for name in decoders:
        whole = Choice(decoder=name)
        rates[str(whole)] = _measured(measure, whole, device)
        candidates = [whole]
        if rates[name] > 0:
            # Both at once: each is given what it can do in the same time.
            split = Choice(decoder=name, share=rates[name] / (rates[name] + rates[str(alone)]))
            rates[str(split)] = _measured(measure, split, device)
            candidates.append(split)
        for candidate in candidates:
            least = rates[str(best)] * (_WORTH if best is alone else 1)
            if rates[str(candidate)] > least:
                best = candidate
    best = replace(best, balanced=best.decoder is not None, rates=rates, busy=busy)
    _log.info(
        "decoding for %s by %s: measured in %.1f s, images/s: %s; before it was measured, the CPU was busy by %s, the GPU by %s",
        device,
        best,
        time.perf_counter() - began,
        ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()),
        _percent(busy["cpu"]),
        _percent(busy["gpu"]),
    )
    return best


def _measured(measure: Callable[[Choice], float], choice: Choice, device: torch.device) -> float:
    """Images a second of a choice; 0 where one that uses a decoder of the device fails, as for want of memory."""
    try:
        rate = measure(choice)
    except torch.AcceleratorError:  # the device itself has failed, and with it all that comes after
        raise
    except RuntimeError as error:
        if choice.decoder is None:
            raise
        said = str(error)  # whoever keeps the log's records would keep the error's frames, and what they hold
        _log.warning("decoding by %s is left out, as it fails: %s", choice, said)
        rate = 0.0
    if not rate:
        gc.collect()  # the error and the iteration that it ended hold each other
    _let_go(device)
    return rate


def _let_go(device: torch.device) -> None:
    """What a candidate had of the device's memory: its streams were its own, and torch gives their memory to no other's."""
    if device.type == "cuda" and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _percent(part: float | None) -> str:
    return "an unknown part" if part is None else f"{part:.0%}"


def _cpu_busy(seconds: float = 0.1) -> float | None:
    """The part of the time that is not idle, of the CPUs that this process may run on; a quota of its group does not count."""

    def times() -> tuple[int, int]:
        total = idle = 0
        with open("/proc/stat") as file:
            lines = [line.split() for line in file if line.startswith("cpu")]
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        for fields in ([int(number) for number in after] for name, *after in lines if name in mine):
            total += sum(fields[:8])  # guests are counted in the first ones already
            idle += fields[3] + fields[4]
        return total, idle

    try:
        total, idle = times()
        time.sleep(seconds)
        total_after, idle_after = times()  # of one moment
        total, idle = total_after - total, idle_after - idle
    except (OSError, ValueError, IndexError):
        return None
    # The time spent waiting for disks may run backwards (proc(5)).
    return min(1.0, max(0.0, 1 - idle / total)) if total > 0 else None


def _gpu_busy(device: torch.device) -> float | None:
    """The part of the last moments in which some kernel ran, as NVIDIA's management library has it."""
    if device.type != "cuda":
        return None
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        return float(torch.cuda.utilization(device)) / 100
    except (
        RuntimeError,
        OSError,
        nvml.NVMLError,
    ):  # no library, no permission; a part of a GPU (MIG) has no such figure
        return None
