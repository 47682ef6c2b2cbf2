"""Where a loader's images are decoded and rendered: what was asked for, what there is, and what measuring says."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from fastssl._native import DecodeError
from fastssl.data.batch import Batch
from fastssl.data.making import Device
from fastssl.ops.render_cuda import why_not
from fastssl.pipelines.balance import Balance
from fastssl.pipelines.choose import DECODERS, Choice, choose, make_decoder, why_not_decoder
from fastssl.pipelines.device import DevicePipeline
from fastssl.pipelines.streams import CudaStreams

__all__ = ["MEASURED", "Decode", "DeviceChoice", "check_decode", "images_per_second"]

# Also "auto", "full", "cpu", and the names of decoders.
Decode = str | Choice

# Images on which ways to decode are compared; and for how many seconds each, at most, and as long again to warm up.
MEASURED = 512
_SECONDS = 4.0

_log = logging.getLogger("fastssl")


def check_decode(who: str, decode: Any, device: torch.device) -> Decode:
    """Raises ValueError if `decode` is no way to decode for this device."""
    names = ("auto", "full", "cpu", *DECODERS)
    if not isinstance(decode, Choice) and decode not in names:
        raise ValueError(
            f"{who}: decode={decode!r} must be one of {', '.join(map(repr, names))}, or a fastssl.pipelines.Choice."
        )
    if device.type != "cuda" and _decoder_of(decode) is not None:
        raise ValueError(
            f'{who}: decode={str(decode)!r} decodes on a GPU, and the device is "{device}"; write device="cuda", or decode="cpu".'
        )
    return decode


def _decoder_of(decode: Decode) -> str | None:
    """Which decoder of a device was asked for by name."""
    if isinstance(decode, Choice):
        return decode.decoder
    return decode if decode in DECODERS else None


class DeviceChoice:
    """What a loader makes its batches on, from one iteration to the next.

    Args:
        who: Names the loader in errors.
        device: That the batches go to.
        decode: As it was asked for.
        batch_size: At most.
        prefetch: Batches that are prepared ahead.
        threads: Of the host, for a decoder that has some.
        only_cpu: Why only the CPU may decode; None if the device may, too.
    """

    def __init__(
        self,
        who: str,
        device: torch.device,
        decode: Decode,
        batch_size: int,
        prefetch: int,
        threads: int,
        only_cpu: str | None,
    ) -> None:
        if only_cpu is not None and _decoder_of(decode) is not None:
            raise ValueError(
                f'{who}: decode={str(decode)!r} decodes on the device, but {only_cpu}; write decode="cpu".'
            )
        self._who = who
        self._device = device
        self._batch_size = batch_size
        self._slots = prefetch + 3  # one more is being filled, one rendered, one in the hands of the consumer
        self._threads = threads
        self._decode = decode
        self._only_cpu = only_cpu
        self.choice: Choice | None = decode if isinstance(decode, Choice) else None
        self._idle: tuple[int, Device] | None = None  # and the process that it serves

    def take(self, measure: Callable[[Choice], float], plain: Callable[[], bool]) -> Device | None:
        """For one iteration; None where views are made on the CPU.

        Args:
            measure: Images a second of a choice.
            plain: Whether a few samples hold anything that could be left to a decoder of the device.
        """
        if self._device.type != "cuda":
            return None
        reason = why_not(self._device)
        if reason is not None:
            if _decoder_of(self._decode) is not None:
                raise RuntimeError(f'{self._who}: decode={str(self._decode)!r}: {reason}. Or write decode="cpu".')
            return None
        if (device := self._again()) is not None:
            return device
        choice = self.choice
        if choice is None:
            try:
                choice = self.choice = self._choose(measure, plain)
            except (
                DecodeError
            ):  # not one image of those to be measured can be read; the iteration says what follows from that
                choice = Choice(decoder=None)
        return self._make(choice)

    def _again(self) -> Device | None:
        """That of an iteration before, if nobody has it."""
        idle, self._idle = self._idle, None
        return idle[1] if idle is not None and idle[0] == os.getpid() else None

    def _make(self, choice: Choice) -> Device:
        decoder = None
        if choice.decoder is not None:
            decoder = make_decoder(choice.decoder, self._device, self._batch_size, self._threads, self._who)
        balance = Balance(choice.share, fixed=not choice.balanced)
        pipeline = DevicePipeline(CudaStreams(self._device), self._batch_size, self._slots)
        return Device(choice, decoder, balance, pipeline, self._batch_size)

    def _choose(self, measure: Callable[[Choice], float], plain: Callable[[], bool]) -> Choice:
        named = _decoder_of(self._decode)
        if named is not None:
            return Choice(decoder=named)
        usable = [name for name in DECODERS if why_not_decoder(name, self._device) is None]
        if self._decode != "auto" or self._only_cpu is not None or not usable:
            return Choice(decoder=None)
        if not plain():
            _log.info(
                "decoding for %s by cpu: of a few images that were looked at none is a baseline JPEG", self._device
            )
            return Choice(decoder=None)
        return choose(measure, usable, self._device)

    def give_back(self, device: Device) -> None:
        """For the iteration after."""
        self._idle = (os.getpid(), device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_idle": None}


def images_per_second(batches: Iterable[Batch], device: torch.device, warm_up: int) -> float:
    """How fast they come when nobody uses them.

    The first `warm_up` images do not count: files are read for the first time, threads begin, memory is touched. Neither part
    takes much longer than four seconds, and whatever comes counts if there is no more.
    """
    began = at = time.perf_counter()
    images, counted = 0, -1  # -1: still warming up
    for batch in batches:
        images += len(batch)
        if counted >= 0:
            counted += len(batch)
            if time.perf_counter() - at > _SECONDS:
                break
        elif images >= warm_up or time.perf_counter() - began > _SECONDS:
            _synchronize(device)
            counted, at = 0, time.perf_counter()
    _synchronize(device)
    if counted > 0:
        return counted / (time.perf_counter() - at)
    return images / (time.perf_counter() - began)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
