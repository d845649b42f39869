"""Runs jobs in the engine's worker process and relays what it says."""

from __future__ import annotations

import itertools
import json
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from ..engine.errors import JobCancelled, RefSAMError
from ..engine.events import Reporter, check_cancelled

POLL_SECONDS = 0.1
LAST_WORDS_CHARACTERS = 2000

_KILLED_STATUSES = (-9, 137)
"""How a process ends that the system stopped to get its memory back."""


class _WorkerDied(Exception):
    """The worker ended before the job did."""


class WorkerClient:
    """Starts the worker when it is needed and keeps it for the next job; one job runs at a time.

    Args:
        command: Command line of the worker.
        environment: Its environment variables.
        grace_seconds: How long a cancelled job may take to stop before its process is ended.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], grace_seconds: float = 10.0) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._grace_seconds = grace_seconds
        self._process: _Process | None = None
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def run(self, job: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
        """Run a job document and wait for its result, relaying progress and cancellation.

        A second caller waits until the first is done.

        Returns:
            The result of the job.

        Raises:
            JobCancelled: When the reporter asked to stop.
            RefSAMError: When the job failed, or the worker could not be started or died.
        """
        while not self._lock.acquire(timeout=POLL_SECONDS):
            check_cancelled(reporter)
        try:
            job_id = str(next(self._ids))
            process = self._submit(job_id, job)
            try:
                return self._follow(process, job_id, reporter)
            except _WorkerDied:
                self._process = None
                raise process.explain_death(reporter) from None
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the worker, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _submit(self, job_id: str, job: Mapping[str, Any]) -> _Process:
        """Send the job to the running worker, or to a new one when there is none or it has just left."""
        request = {"type": "job", "id": job_id, "job": dict(job)}
        if self._process is not None and self._process.is_running() and self._process.send(request):
            return self._process
        self.close()
        self._process = _Process(self._command, self._environment)
        self._process.send(request)  # a worker that dies at once is noticed by `_follow`
        return self._process

    def _follow(self, process: _Process, job_id: str, reporter: Reporter) -> dict[str, Any]:
        deadline = float("inf")
        while True:
            if deadline == float("inf") and reporter.is_cancelled():
                process.send({"type": "cancel", "id": job_id})
                deadline = time.monotonic() + self._grace_seconds
            if time.monotonic() > deadline:
                self.close()
                raise JobCancelled
            message = process.receive(POLL_SECONDS)
            if message is None or message.get("id") != job_id:
                continue
            if message["type"] == "progress":
                reporter.progress(message["fraction"], message["stage"], message["remaining_seconds"])
            elif message["type"] == "log":
                reporter.log(message["message"])
            elif message["type"] == "result":
                result: dict[str, Any] = message["result"]
                return result
            elif message["code"] == "cancelled":
                raise JobCancelled
            else:
                raise RefSAMError(message["code"], message["message"])


class _Process:
    """One worker process with its pipes; a thread reads what it says."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=dict(environment),
                encoding="utf-8",
                errors="replace",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows alone
            )
        except OSError as error:
            self._errors.close()
            raise RefSAMError(
                "environment", f"RefSAM's engine cannot be started ({error}); set up its environment again."
            ) from error
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._torn_line = False
        threading.Thread(target=self._read, name="refsam-worker", daemon=True).start()

    def is_running(self) -> bool:
        """Whether the process still runs."""
        return self._popen.poll() is None

    def send(self, message: Mapping[str, Any]) -> bool:
        """Write one request; False when the process is gone."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(message) + "\n")
            self._popen.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """Return the next message, or ``None`` when there was none in time.

        Raises:
            _WorkerDied: When there will be no more.
        """
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            raise _WorkerDied
        return message

    def explain_death(self, reporter: Reporter) -> RefSAMError:
        """Return why the process ended, in a sentence, and log its last words."""
        status = self._popen.wait()
        if self._errors.closed:  # `end` was called from elsewhere: QGIS is leaving
            return JobCancelled()
        self._errors.seek(max(0, self._errors.seek(0, 2) - LAST_WORDS_CHARACTERS))
        last_words = self._errors.read().decode("utf-8", errors="replace").strip()
        self.end()
        if last_words:
            reporter.log(f"The engine's last words:\n{last_words}")
        if status in _KILLED_STATUSES or self._torn_line or "MemoryError" in last_words:
            return RefSAMError(
                "memory",
                "The engine was stopped, most likely because memory ran out; "
                "use a smaller model or tile size, or close other programs.",
            )
        return RefSAMError(
            "internal", f"The engine ended unexpectedly (status {status}); its last words are in the log above."
        )

    def end(self) -> None:
        """End the process: ask, then insist."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.close()
        except OSError:
            pass  # it was gone already
        self._popen.terminate()
        try:
            self._popen.wait(2.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._errors.close()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                try:
                    message = json.loads(line)
                except ValueError:
                    self._torn_line = line.startswith("{") and not line.endswith("\n")
                    continue  # not ours: something wrote to the pipe beside the worker
                if isinstance(message, dict) and "type" in message:
                    self._messages.put(message)
        self._messages.put(None)
