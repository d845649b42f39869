"""The progress of one raster among several."""

from __future__ import annotations

import time

from .events import Reporter


class PartReporter:
    """A `Reporter` of one raster whose progress is a part of the whole.

    Args:
        whole: Hears the progress of the whole job.
        label: Begins the name of each stage.
        span: Progress of the whole job when the first raster begins, and when the last one is done.
        start: Share of the pixels that were done before this raster, 0..1.
        end: The same after it.
        began: When the first raster began, by the monotonic clock.
    """

    def __init__(
        self, whole: Reporter, label: str, span: tuple[float, float], start: float, end: float, began: float
    ) -> None:
        self._whole = whole
        self._label = label
        self._first, self._last = span
        self._start = start
        self._end = end
        self._began = began

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        """Report progress of the raster as a part of the whole."""
        done = self._start * (1 - fraction) + self._end * fraction
        spent = time.monotonic() - self._began
        left = None
        if remaining_seconds is not None:
            # The raster knows best what is left of itself; the others take as long as those so far.
            left = remaining_seconds + (spent + remaining_seconds) / self._end * (1 - self._end)
        elif self._start > 0:
            left = spent / done * (1 - done)
        self._whole.progress(self._first + (self._last - self._first) * done, f"{self._label}: {stage}", left)

    def log(self, message: str) -> None:
        """Tell it, naming the raster."""
        self._whole.log(f"{self._label}: {message}")

    def is_cancelled(self) -> bool:
        """Ask whoever hears the whole."""
        return self._whole.is_cancelled()
