"""A thread that takes what another one makes, while that one makes the next."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Generic, TypeVar

from .events import Reporter, check_cancelled

PATIENCE = 0.1
"""Seconds between two looks whether the job was cancelled."""

T = TypeVar("T")


class Consumer(Generic[T]):
    """Passes items on to a function that runs in a thread of its own.

    Args:
        consume: Takes all items, one after the other.
        capacity: Items that may wait; `put` waits for room.
        pool: Has a thread for it.
        reporter: Says when to stop waiting.
    """

    def __init__(
        self, consume: Callable[[Iterable[T]], None], capacity: int, pool: ThreadPoolExecutor, reporter: Reporter
    ) -> None:
        self._queue: queue.Queue[T | _End] = queue.Queue(capacity)
        self._reporter = reporter
        self._future: Future[None] = pool.submit(consume, self._items())

    def put(self, item: T) -> None:
        """Hand an item over.

        Raises:
            Exception: What the function raised on an earlier item; `JobCancelled` when the job was.
        """
        self._put(item)

    def finish(self) -> None:
        """Wait until the function has taken all items; raises what `put` raises."""
        self._put(_End(abandoned=False))
        while not wait([self._future], PATIENCE).done:
            check_cancelled(self._reporter)
        self._future.result()

    def abandon(self) -> None:
        """Make the function stop at its next item, as nobody wants its work any more."""
        while not self._future.done():
            try:
                self._queue.put_nowait(_End(abandoned=True))
                return
            except queue.Full:
                _take(self._queue)

    def _put(self, item: T | _End) -> None:
        while True:
            if self._future.done():
                self._future.result()
            try:
                return self._queue.put(item, timeout=PATIENCE)
            except queue.Full:
                check_cancelled(self._reporter)

    def _items(self) -> Iterator[T]:
        while not isinstance(item := self._queue.get(), _End):
            yield item
        if item.abandoned:
            raise _AbandonedError


@contextmanager
def consumer(
    consume: Callable[[Iterable[T]], None], capacity: int, name: str, reporter: Reporter
) -> Iterator[Consumer[T]]:
    """Run a function on the items that the context hands over, and leave when it has taken all of them.

    When the context fails, the function is stopped at its next item; either way its thread has ended afterwards.

    Args:
        consume: As for `Consumer`.
        capacity: As for `Consumer`.
        name: Of the thread.
        reporter: As for `Consumer`.

    Raises:
        Exception: What the function raised.
    """
    with ThreadPoolExecutor(1, thread_name_prefix=name) as pool:
        running = Consumer(consume, capacity, pool, reporter)
        try:
            yield running
            running.finish()
        except BaseException:
            running.abandon()
            raise


class _End:
    def __init__(self, abandoned: bool) -> None:
        self.abandoned = abandoned


class _AbandonedError(Exception):
    """Ends the thread; nobody hears of it."""


def _take(waiting: queue.Queue[T]) -> None:
    """Make room for one item."""
    try:
        waiting.get_nowait()
    except queue.Empty:
        pass  # the thread was quicker
