"""Shows a job's events in Processing's dialog."""

from __future__ import annotations

from qgis.core import QgsProcessingFeedback


class FeedbackReporter:
    """A `Reporter` for the engine's events on top of Processing's feedback."""

    def __init__(self, feedback: QgsProcessingFeedback) -> None:
        self._feedback = feedback
        self._text = ""

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        """Move the bar, and name the stage and the time left when they change."""
        self._feedback.setProgress(100.0 * fraction)
        text = stage if remaining_seconds is None else f"{stage}, {_rounded(remaining_seconds)} left"
        if text != self._text:
            self._text = text
            self._feedback.setProgressText(text)

    def log(self, message: str) -> None:
        """Write a line to the log."""
        self._feedback.pushInfo(message)

    def is_cancelled(self) -> bool:
        """Whether the user pressed Cancel."""
        return bool(self._feedback.isCanceled())


def _rounded(seconds: float) -> str:
    """Return a duration in whole minutes, so that the text changes at most once a minute."""
    minutes = round(seconds / 60)
    return "less than a minute" if minutes < 1 else f"about {minutes} min"
