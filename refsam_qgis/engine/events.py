"""What a running job tells whoever started it, and how it learns that it should stop."""

from __future__ import annotations

from typing import Protocol

from .errors import JobCancelled


class Reporter(Protocol):
    """Receives the events of one job."""

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        """Report how much of the whole job is done, as a fraction in 0..1."""

    def log(self, message: str) -> None:
        """Tell the user one thing worth knowing."""

    def is_cancelled(self) -> bool:
        """Whether the user asked for the job to stop."""


def check_cancelled(reporter: Reporter) -> None:
    """Raise `JobCancelled` if the user asked for the job to stop."""
    if reporter.is_cancelled():
        raise JobCancelled


class OnceReporter:
    """Passes on what it hears, but each line of the log once: what holds for many rasters need not be told of each.

    Args:
        reporter: Hears it.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._told: set[str] = set()

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        """Pass it on."""
        self._reporter.progress(fraction, stage, remaining_seconds)

    def log(self, message: str) -> None:
        """Pass on what has not been told yet."""
        if message not in self._told:
            self._told.add(message)
            self._reporter.log(message)

    def is_cancelled(self) -> bool:
        """Ask the other."""
        return self._reporter.is_cancelled()


class SilentReporter:
    """Swallows every event; for tests and library use."""

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        """Ignore the progress."""

    def log(self, message: str) -> None:
        """Ignore the message."""

    def is_cancelled(self) -> bool:
        """Never cancelled."""
        return False
