"""A thread that hands what is left encoded to a decoder of the device, batch by batch, while the consumer does other things."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

from fastssl.pipelines.decoder import Decoder, LeftImage, Overlapping
from fastssl.pipelines.device import Decodings, Gathered
from fastssl.pipelines.streams import Event, Streams

__all__ = ["DecodeAhead"]

# Between two looks at whether all is over, which it is told besides.
_WAIT_MILLISECONDS = 100
# Batches that a decoder is at work on, if it can begin with one before it has finished another.
_UNDER_WAY = 2


class DecodeAhead:
    """Decoders keep their caller waiting: for the host's part of the work, or for the device. So they get a thread.

    Args:
        decoder: Used by that thread alone.
        streams: On whose decoding stream the pixels appear.
        hold: Keeps what it is given until an event is reached: what is decoded, and from what, even if nobody waits for it.
    """

    def __init__(self, decoder: Decoder, streams: Streams, hold: Callable[[Event, Any], None]) -> None:
        self._pid = os.getpid()
        self._inbox: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        # Batches that are decoded before they are asked for: one that is there, besides those that are on their way.
        self._state = _State(1 + (_UNDER_WAY if isinstance(decoder, Overlapping) else 1))
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
        the first is taken; three, if the decoder works on two at a time."""
        future: Future[Decodings] = Future()
        self._inbox.put(_Asked(job, gathered, future))
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
        """Ends the thread, after the batches at hand; what was not begun never gets done.

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
    def __init__(self, ahead: int) -> None:
        self.seconds, self.images = 0.0, 0
        self.job: Any = None  # that is waited for
        # One for each batch that may still be decoded ahead. The garbage collector may call close() on the thread that waits
        # here: this queue bears that, which a semaphore does not.
        self.room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(ahead):
            self.room.put(None)


class _Asked(NamedTuple):
    """A batch that `start` was given."""

    job: Any
    gathered: Gathered
    future: Future[Decodings]


class _Begun(NamedTuple):
    """One that is on its way: the decoder has begun with it, or, if it takes one at a time, is about to."""

    gathered: Gathered
    future: Future[Decodings]
    images: list[LeftImage]


class _Line:
    """Where batches wait until they can be begun."""

    def __init__(self, inbox: queue.SimpleQueue[_Asked | None], closed: threading.Event, state: _State) -> None:
        self._inbox, self._closed, self._state = inbox, closed, state
        self._first: _Asked | None = None

    def next(self, wait: bool) -> _Asked | None:
        """The next batch, once its job is done and there is room for it. None at the end; or, without `wait`, before that."""
        try:
            if self._first is None:
                self._first = self._inbox.get(wait)
            if self._first is None or not self._done(self._first.job, wait):
                return None
            self._state.room.get(wait)
        except queue.Empty:
            return None
        first, self._first = self._first, None
        return None if self._closed.is_set() else first

    def _done(self, job: Any, wait: bool) -> bool:
        self._state.job = job
        while not (done := job.wait(_WAIT_MILLISECONDS if wait else 0)) and wait and not self._closed.is_set():
            pass
        self._state.job = None
        return done


def _work(
    decoder: Decoder,
    streams: Streams,
    hold: Callable[[Event, Any], None],
    inbox: queue.SimpleQueue[_Asked | None],
    closed: threading.Event,
    state: _State,
) -> None:
    """Holds nothing but its arguments, so that whoever owns the thread can be let go of."""
    overlapping = decoder if isinstance(decoder, Overlapping) else None
    most = 1 if overlapping is None else _UNDER_WAY
    line, begun = _Line(inbox, closed, state), deque[_Begun]()
    since = 0.0  # from when on the decoder has been at work
    try:
        while begun or not closed.is_set():
            # Rather begin with one more than finish one; rather finish one than wait.
            asked = line.next(wait=not begun) if len(begun) < most and not closed.is_set() else None
            if asked is not None:
                since = since if begun else time.perf_counter()
                with _errors_to(asked.future):
                    begun.append(_begin(overlapping, streams, asked))
            elif begun and closed.is_set() and overlapping is None:
                return
            elif begun:
                batch = begun.popleft()
                with _errors_to(batch.future):
                    out = _finish(decoder, overlapping, streams, hold, batch)
                    state.images += len(batch.images)
                    now = time.perf_counter()
                    state.seconds, since = state.seconds + now - since, now
                    batch.future.set_result(out)
                    del out
                del batch
            del asked
    finally:
        if overlapping is not None and begun:
            overlapping.abandon()


@contextlib.contextmanager
def _errors_to(future: Future[Decodings]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        future.set_exception(error)
        if not isinstance(error, Exception):
            raise


def _begin(overlapping: Overlapping | None, streams: Streams, asked: _Asked) -> _Begun:
    images = asked.gathered.left()
    if images and overlapping is not None:
        with streams.decoding():
            overlapping.start(images)
    return _Begun(asked.gathered, asked.future, images)


def _finish(
    decoder: Decoder,
    overlapping: Overlapping | None,
    streams: Streams,
    hold: Callable[[Event, Any], None],
    batch: _Begun,
) -> Decodings:
    out = Decodings()
    if not batch.images:
        return out
    with streams.decoding():
        try:
            decodeds = decoder.decode(batch.images) if overlapping is None else overlapping.finish()
        finally:  # the device may read and write on, whoever still waits for it
            out.ready = streams.mark()
            hold(out.ready, (batch.gathered.memory(), out))
    for image, decoded in zip(batch.images, decodeds, strict=True):
        if decoded is None:
            out.failed.append(image.position)
        else:
            out.images[image.position] = decoded
    return out
