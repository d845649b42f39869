"""Runs jobs in the engine's worker process and relays what it says."""

from __future__ import annotations

import itertools
import json
import os
import queue
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

from ..engine.errors import JobCancelled, RefSAMError
from ..engine.events import Reporter, check_cancelled
from ..engine.installation import mend
from ..engine.pace import PacedReporter
from .worker_death import count_oom_kills, explain_death

POLL_SECONDS = 0.1
CANCEL_SECONDS = 0.7
"""How long a caller who cancelled waits for the engine to say that it stopped."""
LAST_WORDS_BYTES, SHOWN_CHARACTERS = 16000, 2000
"""How much is kept of a worker's standard error, and shown when it died."""

LOADED_LIBRARIES = re.compile(r"^Extension modules: .*$", re.MULTILINE)
"""What Python ends the account of a crash with; it is longer than what is shown."""


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
        self._turns: deque[object] = deque()
        self._drained = threading.Event()
        self._drained.set()
        self._closed = False

    def run(self, job: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
        """Run a job document and wait for its result, relaying progress and cancellation.

        Callers take turns in the order in which they came. The reporter hears of progress every second or so, whether
        or not the engine has something to say.

        Returns:
            The result of the job.

        Raises:
            JobCancelled: When the reporter asked to stop, within a second whatever the engine is doing.
            RefSAMError: When the job failed, or the worker could not be started or died.
        """
        pacer = PacedReporter(reporter)
        with self._turn(pacer):
            if not self._drained.is_set():
                pacer.progress(0.0, "Waiting for the engine to finish what was cancelled")
            while not self._drained.wait(POLL_SECONDS):
                check_cancelled(pacer)
                pacer.tick()
            while True:
                job_id = str(next(self._ids))
                process = self._submit(job_id, job, pacer)
                try:
                    return self._follow(process, job_id, pacer)
                except _WorkerDied:
                    self._process = None
                    if process.left():  # it had been idle for long enough just as the job came
                        continue
                    raise process.explain_death(pacer) from None

    @property
    def pid(self) -> int | None:
        """Process id of the worker; ``None`` when there is none."""
        process = self._process
        return process.pid if process is not None and process.is_running() else None

    @property
    def is_busy(self) -> bool:
        """Whether a run is under way or waits for its turn."""
        return bool(self._turns)

    def close(self) -> None:
        """End the worker, whatever it is doing, and start no other."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()

    @contextmanager
    def _turn(self, pacer: PacedReporter) -> Iterator[None]:
        """Have the worker to oneself."""
        ticket = object()
        self._turns.append(ticket)
        try:
            if self._turns[0] is not ticket:
                pacer.progress(0.0, "Waiting for another run to finish")
            while self._turns[0] is not ticket:
                self._check_open(pacer)
                time.sleep(POLL_SECONDS)
                pacer.tick()
            yield
        finally:
            self._turns.remove(ticket)

    def _submit(self, job_id: str, job: Mapping[str, Any], pacer: PacedReporter) -> _Process:
        """Send the job to the running worker, or to a new one when there is none or it has just left."""
        self._check_open(pacer)
        request = {"type": "job", "id": job_id, "job": dict(job)}
        if self._process is not None and self._process.is_running() and self._process.submit(request):
            return self._process
        self._end()
        pacer.progress(0.0, "Starting the engine")
        self._process = _Process(self._command, self._environment)
        self._process.submit(request)  # a worker that dies at once is noticed by `_follow`
        return self._process

    def _check_open(self, pacer: PacedReporter) -> None:
        if self._closed:
            raise JobCancelled("RefSAM was closed before the run began; run it again.")
        check_cancelled(pacer)

    def _follow(self, process: _Process, job_id: str, pacer: PacedReporter) -> dict[str, Any]:
        give_up = float("inf")
        while True:
            if give_up == float("inf") and pacer.is_cancelled():
                process.send({"type": "cancel", "id": job_id})
                give_up = time.monotonic() + CANCEL_SECONDS
            if time.monotonic() > give_up:
                self._drain(process, job_id)
                raise JobCancelled("The run was cancelled.")  # what is kept is known when the engine has stopped
            message = process.receive(POLL_SECONDS)
            if message is None or message.get("id") != job_id:
                pacer.tick()
            elif message["type"] == "progress":
                pacer.progress(message["fraction"], message["stage"], message["remaining_seconds"])
            elif message["type"] == "log":
                pacer.log(message["message"])
            elif message["type"] == "result":
                result: dict[str, Any] = message["result"]
                return result
            elif message["code"] == "cancelled":
                raise JobCancelled(message["message"])
            else:
                raise RefSAMError(message["code"], message["message"])

    def _drain(self, process: _Process, job_id: str) -> None:
        """Wait in the background for the end of a cancelled job; end the process when it does not come in time."""
        self._drained.clear()
        deadline = time.monotonic() + self._grace_seconds

        def drain() -> None:
            try:
                while time.monotonic() < deadline:
                    message = process.receive(POLL_SECONDS)
                    if message and message.get("id") == job_id and message["type"] in ("result", "error"):
                        return
            except _WorkerDied:
                pass
            else:
                process.end()
            finally:
                self._drained.set()

        threading.Thread(target=drain, name="refsam-drain", daemon=True).start()


class _Process:
    """One worker process with its pipes; threads read what it says."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._python = command[0]
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environment),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows alone
            )
        except OSError as error:
            raise RefSAMError(
                "environment", f"RefSAM's engine cannot be started ({error}); {mend(command[0])}."
            ) from error
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._last_words = b""
        self._jobs = 0
        self._heard = False
        self._ended = False
        self._oom_kills = count_oom_kills()
        self._end_lock = threading.Lock()
        assert self._popen.stdin and self._popen.stdout and self._popen.stderr
        self._requests: IO[bytes] = self._popen.stdin
        threading.Thread(target=self._read, args=(self._popen.stdout,), name="refsam-worker", daemon=True).start()
        self._error_reader = threading.Thread(
            target=self._read_errors, args=(self._popen.stderr,), name="refsam-worker-errors", daemon=True
        )
        self._error_reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    def is_running(self) -> bool:
        """Whether the process still runs."""
        return self._popen.poll() is None

    def submit(self, request: Mapping[str, Any]) -> bool:
        """Send a job; from here on counts what tells how the process ended. False when it is gone."""
        if self._jobs:  # what it says as it starts tells why it never began the first
            self._last_words = b""
        self._jobs += 1
        self._heard = False
        self._oom_kills = count_oom_kills()
        return self.send(request)

    def send(self, message: Mapping[str, Any]) -> bool:
        """Write one request; False when the process is gone."""
        try:
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()
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
        self._heard = self._heard or "id" in message
        return message

    def left(self) -> bool:
        """Whether the process, now silent, had done its earlier jobs and went without having begun this one."""
        return self._popen.wait() == 0 and self._jobs > 1 and not self._heard and not self._ended

    def explain_death(self, reporter: Reporter) -> RefSAMError:
        """Return why the process ended, in a sentence, and log its last words."""
        status = self._popen.wait()
        if self._ended:  # `end` was called from elsewhere: QGIS is leaving
            return JobCancelled()
        oom_kills = count_oom_kills()
        if oom_kills is not None and self._oom_kills is not None:
            oom_kills -= self._oom_kills
        self._error_reader.join(1.0)  # a child of the worker may still hold the pipe
        last_words = self._last_words.decode("utf-8", errors="replace").strip()
        self.end()
        if last_words:
            shown = LOADED_LIBRARIES.sub("", last_words).strip()[-SHOWN_CHARACTERS:]
            reporter.log(f"The engine's last words:\n{shown}")
        return explain_death(status, last_words, oom_kills, self._python)

    def end(self) -> None:
        """End the process: ask, then insist."""
        with self._end_lock:
            self._ended = True
            try:
                self._requests.close()
            except OSError:
                pass  # it was gone already
            self._popen.terminate()
            try:
                self._popen.wait(2.0)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()

    def _read(self, lines: IO[bytes]) -> None:
        with lines:
            for line in lines:
                try:
                    message = json.loads(line.decode("utf-8", errors="replace"))
                except ValueError:
                    continue  # not ours: something wrote to the pipe beside the worker
                if isinstance(message, dict) and "type" in message:
                    self._messages.put(message)
        self._messages.put(None)

    def _read_errors(self, errors: IO[bytes]) -> None:
        """Keep the end of what the process writes, so that it neither blocks nor fills a disk."""
        with errors:
            while block := os.read(errors.fileno(), 1 << 16):
                self._last_words = (self._last_words + block)[-LAST_WORDS_BYTES:]
