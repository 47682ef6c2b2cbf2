"""A thread that hands what is left encoded to a decoder of the device, batch by batch, while the consumer does other things."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from fastssl.pipelines.decoder import Decoder
from fastssl.pipelines.device import Decodings, Gathered
from fastssl.pipelines.streams import Event, Streams

__all__ = ["DecodeAhead"]

# Between two looks at whether all is over, which it is told besides.
_WAIT_MILLISECONDS = 100
# Batches that are decoded before they are asked for: one that is there, and one that is on its way.
_AHEAD = 2


class DecodeAhead:
    """Decoders keep their caller waiting: for the host's part of the work, or for the device. So they get a thread.

    Args:
        decoder: Used by that thread alone.
        streams: On whose decoding stream the pixels appear.
        hold: Keeps what it is given until an event is reached: what is decoded, and from what, even if nobody waits for it.
    """

    def __init__(self, decoder: Decoder, streams: Streams, hold: Callable[[Event, Any], None]) -> None:
        self._pid = os.getpid()
        self._inbox: queue.SimpleQueue[tuple[Any, Gathered, Future[Decodings]] | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._state = _State()
        # A daemon: it must not keep the interpreter from ending, where it may wait for a job whose threads have gone.
        self._thread = threading.Thread(
            target=_work,
            args=(decoder, streams, hold, self._inbox, self._closed, self._state),
            name="fastssl-decode-ahead",
            daemon=True,
        )
        self._thread.start()

    def start(self, job: Any, gathered: Gathered) -> Future[Decodings]:
        """Decodes what the job leaves, once it is done. The batches are decoded in the order of the calls, two of them before
        the first is taken."""
        future: Future[Decodings] = Future()
        self._inbox.put((job, gathered, future))
        return future

    def take(self, future: Future[Decodings]) -> Decodings:
        """What came of the batch that is next, which must be done; its error, if there was one."""
        self._state.room.put(None)
        return future.result()

    @property
    def seconds(self) -> float:
        """For which it decoded so far."""
        return self._state.seconds

    @property
    def images(self) -> int:
        """That it decoded so far."""
        return self._state.images

    def close(self) -> bool:
        """Ends the thread, after the batch at hand; what was not begun never gets done.

        Returns:
            Whether it has ended, and the decoder can be used elsewhere. Not so on the thread itself, where the garbage collector
            may have called this, and not in a forked child, which has no such thread.
        """
        if os.getpid() != self._pid:
            return False
        self._closed.set()
        self._inbox.put(None)
        self._state.room.put(None)
        job = self._state.job
        if job is not None:
            job.wake()
        if threading.get_ident() == self._thread.ident:
            return False
        self._thread.join()
        return True


class _State:
    def __init__(self) -> None:
        self.seconds, self.images = 0.0, 0
        self.job: Any = None  # that is waited for
        # One for each batch that may still be decoded ahead. The garbage collector may call close() on the thread that waits
        # here: this queue bears that, which a semaphore does not.
        self.room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(_AHEAD):
            self.room.put(None)


def _work(
    decoder: Decoder,
    streams: Streams,
    hold: Callable[[Event, Any], None],
    inbox: queue.SimpleQueue[tuple[Any, Gathered, Future[Decodings]] | None],
    closed: threading.Event,
    state: _State,
) -> None:
    """Holds nothing but its arguments, so that whoever owns the thread can be let go of."""
    while (item := inbox.get()) is not None:
        job, gathered, future = item
        state.job = job
        while not closed.is_set() and not job.wait(_WAIT_MILLISECONDS):
            pass
        state.job = None
        state.room.get()
        if closed.is_set():
            return
        try:
            future.set_result(_decode(decoder, streams, hold, gathered, state))
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        del item, job, gathered, future


def _decode(
    decoder: Decoder, streams: Streams, hold: Callable[[Event, Any], None], gathered: Gathered, state: _State
) -> Decodings:
    images = gathered.left()
    out = Decodings()
    if not images:
        return out
    began = time.perf_counter()
    with streams.decoding():
        try:
            decodeds = decoder.decode(images)
        finally:  # the device may read and write on, whoever still waits for it
            out.ready = streams.mark()
            hold(out.ready, (gathered.memory(), out))
    for image, decoded in zip(images, decodeds, strict=True):
        if decoded is None:
            out.failed.append(image.position)
        else:
            out.images[image.position] = decoded
    state.seconds += time.perf_counter() - began
    state.images += len(images)
    return out
