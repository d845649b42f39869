"""Progress that keeps moving between two events of a job.

Standard library only, and Python 3.9 at the oldest: the QGIS process imports this module too.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .events import Reporter

TICK_SECONDS = 1.0
"""Longest silence towards the listener."""
FIRST_STEP, FIRST_INTERVAL = 0.005, 5.0
"""Progress and seconds expected of the first step of a stage, of which nothing is known yet."""
LAST_FRACTION = 0.99
"""How far the progress goes without being told that the job is done."""


class PacedReporter:
    """A `Reporter` in front of another one, which repeats the last progress, moved on, when a job is silent.

    The steps of a stage are taken to be alike: between two events the fraction approaches, and never reaches, the
    place where the next event is expected. It never goes back. The time left counts down at the pace of the clock at
    first and then ever more slowly, as it must when the estimate was too short.

    Args:
        reporter: Hears everything.
        clock: Gives seconds.
    """

    def __init__(self, reporter: Reporter, clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._clock = clock
        self._lock = threading.Lock()
        self._stage = ""
        self._fraction, self._at = 0.0, clock()
        self._step, self._interval = FIRST_STEP, FIRST_INTERVAL
        self._remaining: float | None = None
        self._estimated_at = self._at
        self._shown, self._shown_at = 0.0, self._at

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        """Pass an event on and learn the job's pace from it."""
        with self._lock:
            now = self._clock()
            if _kind(stage) != _kind(self._stage):
                self._step, self._interval = FIRST_STEP, FIRST_INTERVAL
                self._fraction, self._at = fraction, now
            elif fraction > self._fraction:
                self._step, self._interval = fraction - self._fraction, max(now - self._at, 1e-3)
                self._fraction, self._at = fraction, now
            self._stage, self._remaining, self._estimated_at = stage, remaining_seconds, now
            self._show(now)

    def tick(self) -> None:
        """Repeat the progress if nothing was said for a while; call it often."""
        with self._lock:
            now = self._clock()
            if self._stage and now - self._shown_at >= TICK_SECONDS:
                self._show(now)

    def log(self, message: str) -> None:
        """Pass a message on."""
        with self._lock:
            self._reporter.log(message)

    def is_cancelled(self) -> bool:
        """Whether the user asked for the job to stop."""
        return self._reporter.is_cancelled()

    def _show(self, now: float) -> None:
        fraction = self._fraction
        if fraction < 1:
            fraction += self._step * -math.expm1(-(now - self._at) / self._interval)
            fraction = max(self._fraction, min(fraction, LAST_FRACTION))
        remaining = self._remaining
        if remaining is not None and remaining > 0:
            remaining *= math.exp(-(now - self._estimated_at) / remaining)
        self._shown, self._shown_at = max(self._shown, fraction), now
        self._reporter.progress(self._shown, self._stage, remaining)


def _kind(stage: str) -> str:
    """Return a stage's text without the figures that change from step to step."""
    return stage.split(",")[0]


@contextmanager
def paced(reporter: Reporter) -> Iterator[Reporter]:
    """Give a job a `PacedReporter` that a thread keeps ticking."""
    done = threading.Event()
    pacer = PacedReporter(reporter)

    def tick() -> None:
        while not done.wait(TICK_SECONDS):
            pacer.tick()

    thread = threading.Thread(target=tick, name="pace", daemon=True)
    thread.start()
    try:
        yield pacer
    finally:
        done.set()
        thread.join()
