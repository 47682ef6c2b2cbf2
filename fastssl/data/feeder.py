"""A thread that takes from an iterator what others will ask for, so that they see whether there is anything before they wait."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from fastssl.data import endings

__all__ = ["Feeder", "Reading"]

T = TypeVar("T")

# How often it looks whether anybody still wants what it has.
_WAIT_SECONDS = 0.1


class Feeder(Iterator[T], Generic[T]):
    """The same items, taken ahead on a thread; an error of the iterator comes in its place among them.

    Meant for iterators that wait rather than work, as a DataLoader's that has worker processes.

    Args:
        items: Used by the thread alone from now on, and let go of by it.
        ahead: How many it takes before they are asked for.
    """

    def __init__(self, items: Iterator[T], ahead: int) -> None:
        self._queue: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(ahead)
        self.reading = Reading()
        self._ended = False
        # A daemon: what it waits for may never come.
        thread = threading.Thread(
            target=_feed, args=([items], self._queue, self.reading.closed), name="fastssl-feeder", daemon=True
        )
        thread.start()
        self.reading.thread = thread
        endings.begin(self, thread)

    def ready(self) -> bool:
        """Whether `next` has not to wait."""
        return self._ended or not self._queue.empty()

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        while True:
            try:  # for a moment at a time: back in Python, Ctrl-C becomes an exception
                item = self._queue.get(timeout=_WAIT_SECONDS)
                break
            except queue.Empty:
                if self.reading.taken_away:
                    raise RuntimeError(
                        "to_device: the DataLoader was iterated anew meanwhile, and its persistent workers serve one iteration "
                        "at a time. Finish one before the next, or take a DataLoader for each."
                    ) from None
                if self.reading.closed.is_set():
                    raise StopIteration from None
        if isinstance(item, tuple):
            return item[0]
        self._ended = True
        if item is None:
            raise StopIteration
        raise item

    def close(self) -> None:
        """The thread ends when the iterator comes back to it, for which this does not wait."""
        self.reading.closed.set()

    def __del__(self) -> None:
        self.close()


class Reading:
    """The thread of a Feeder, and what it is told. It does not hold the Feeder."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.taken_away = False
        self.thread: threading.Thread | None = None

    def take_away(self) -> None:
        """Ends it, and waits until it is no longer in its iterator; whoever still asks the Feeder for more gets an error."""
        self.taken_away = not self.closed.is_set()
        self.closed.set()
        while self.thread is not None and self.thread.is_alive():  # for a moment at a time, as above
            self.thread.join(_WAIT_SECONDS)


def _feed(holder: list[Iterator[T]], to: queue.Queue[tuple[T] | BaseException | None], closed: threading.Event) -> None:
    items = holder.pop()  # so that no argument keeps it alive
    item: tuple[T] | BaseException | None = None
    while not closed.is_set():
        try:
            item = (next(items),)
        except StopIteration:
            item = None
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            item = error
        while not closed.is_set():
            try:
                to.put(item, timeout=_WAIT_SECONDS)
                break
            except queue.Full:
                continue
        if not isinstance(item, tuple):
            return
