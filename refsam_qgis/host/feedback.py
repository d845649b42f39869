"""Shows a job's events in Processing's dialog."""

from __future__ import annotations

import time
from collections.abc import Callable

from qgis.core import QgsProcessingFeedback

from .translation import tr

CALM_SECONDS = 5.0
"""Shortest time between two texts of one stage; each is also a line of the dialog's log."""


class FeedbackReporter:
    """A `Reporter` for the engine's events on top of Processing's feedback.

    Args:
        feedback: Shows them.
        reword: Makes of a line of the log what the user is to read.
    """

    def __init__(self, feedback: QgsProcessingFeedback, reword: Callable[[str], str] = str) -> None:
        self._feedback = feedback
        self._reword = reword
        self._stage = ""
        self._text = ""
        self._text_at = 0.0

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        """Move the bar, and name the stage and the time left, if any is, when they change."""
        self._feedback.setProgress(100.0 * fraction)
        now = time.monotonic()
        if stage == self._stage and now - self._text_at < CALM_SECONDS:
            return
        text = f"{stage}, {time_left(remaining_seconds)}" if remaining_seconds else stage
        if text != self._text:
            self._feedback.setProgressText(text)
            self._text_at = now
        self._stage, self._text = stage, text

    def log(self, message: str) -> None:
        """Write a line to the log."""
        self._feedback.pushInfo(self._reword(message))

    def is_cancelled(self) -> bool:
        """Whether the user pressed Cancel."""
        return bool(self._feedback.isCanceled())


def time_left(seconds: float) -> str:
    """Return a duration in words as coarse as the estimate is, such as "about 40 s left" or "about 1 h 20 min left"."""
    if seconds < 8:
        text = tr("a few seconds left")
    elif seconds < 28:
        text = tr("about {} s left").format(5 * round(seconds / 5))
    elif seconds < 95:
        text = tr("about {} s left").format(10 * round(seconds / 10))
    elif seconds < 57.5 * 60:
        text = tr("about {} min left").format(round(seconds / 60))
    else:
        hours, minutes = divmod(5 * round(seconds / 300), 60)
        text = tr("about {} h {} min left").format(hours, minutes) if minutes else tr("about {} h left").format(hours)
    return text
