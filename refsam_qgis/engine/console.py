"""A running job on a terminal."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from tqdm import tqdm


class ConsoleReporter:
    """Shows progress on standard error; Ctrl-C asks the job to stop, a second one insists."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._bar = tqdm(total=100.0, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}", leave=False)

    def __enter__(self) -> ConsoleReporter:
        self._previous = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._previous)
        self._bar.close()

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        """Move the bar."""
        self._bar.set_description_str(stage, refresh=False)
        if remaining_seconds is not None:
            self._bar.set_postfix_str(f"about {remaining_seconds:.0f} s left", refresh=False)
        self._bar.update(100.0 * fraction - self._bar.n)

    def log(self, message: str) -> None:
        """Print a line above the bar."""
        self._bar.write(message, file=self._bar.fp)

    def is_cancelled(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._cancelled.is_set()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._cancelled.is_set():
            raise KeyboardInterrupt
        self._cancelled.set()
