"""The engine as a companion process: jobs come in and events go out as JSON lines.

Requests: ``{"type": "job", "id", "job"}``, ``{"type": "cancel", "id"}``, ``{"type": "shutdown"}``.
Replies: ``{"type": "ready", "version"}`` once, then ``progress``, ``log``, ``result`` and ``error`` with the job's id.
A failed job leaves the worker able to take the next one. The worker leaves when its input ends (the parent is gone),
when it is told to, or when nothing was asked of it for a while, and then with status 0 and no job begun.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from refsam_qgis import __version__

from . import process
from .errors import RefSAMError
from .events import Reporter, check_cancelled
from .failures import explain
from .job import Job, from_dict
from .model_cache import ModelCache
from .runner import load_from_disk, run_job

Handler = Callable[[Job, Reporter], dict[str, Any]]

GRACE_SECONDS = 5.0
"""How long a running job may take to notice that the parent is gone."""
PROGRESS_SECONDS = 0.05
"""Shortest time between two progress events of one stage; more of them would only keep the parent busy."""


class Worker:
    """Serves jobs one after the other, in the thread that calls `serve`; a second thread reads the requests.

    Args:
        requests: Stream of JSON lines from the parent.
        replies: Stream of JSON lines to the parent.
        handle: Runs one job.
        idle_seconds: Leave after so long without a job.
        abandon: Called `GRACE_SECONDS` after the requests ended if a job is still running then.
    """

    def __init__(
        self,
        requests: TextIO,
        replies: TextIO,
        handle: Handler,
        idle_seconds: float,
        abandon: Callable[[], None],
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._handle = handle
        self._idle_seconds = idle_seconds
        self._abandon = abandon
        self._jobs: queue.Queue[tuple[str, Any] | None] = queue.Queue()
        self._cancelled: dict[str, threading.Event] = {}
        self._write_lock = threading.Lock()

    def serve(self) -> None:
        """Take jobs until the input ends, a shutdown is asked for, or the idle time is over."""
        self._send(type="ready", version=__version__)
        threading.Thread(target=self._read_requests, name="requests", daemon=True).start()
        while True:
            try:
                item = self._jobs.get(timeout=self._idle_seconds)
            except queue.Empty:
                return
            if item is None:
                return
            self._run(*item)

    def _run(self, job_id: str, document: Any) -> None:
        reporter = _Relay(job_id, self._send, self._cancelled[job_id])
        try:
            check_cancelled(reporter)
            if not isinstance(document, dict):
                raise RefSAMError("input", "A job must be a JSON object; send its document.")
            result = self._handle(from_dict(document), reporter)
            self._send(type="result", id=job_id, result=result)
        except BaseException as error:  # a library that calls sys.exit ends its job, not the worker
            failure = explain(error)
            self._send(type="error", id=job_id, code=failure.code, message=str(failure))
        finally:
            del self._cancelled[job_id]

    def _read_requests(self) -> None:
        for line in self._requests:
            try:
                request = json.loads(line)
                kind = request["type"]
                if kind == "shutdown":
                    break
                self._accept(kind, str(request["id"]), request)
            except (ValueError, KeyError, TypeError) as error:
                self._send(type="error", id=None, code="input", message=f"Request not understood ({error!r}).")
        self._leave()

    def _accept(self, kind: str, job_id: str, request: dict[str, Any]) -> None:
        if kind == "job":
            document = request["job"]
            self._cancelled[job_id] = threading.Event()
            self._jobs.put((job_id, document))
        elif kind == "cancel":
            if job_id in self._cancelled:  # else it has just ended
                self._cancelled[job_id].set()
        else:
            raise ValueError(kind)

    def _leave(self) -> None:
        self._jobs.put(None)
        for event in list(self._cancelled.values()):
            event.set()
        timer = threading.Timer(GRACE_SECONDS, self._abandon)
        timer.daemon = True
        timer.start()

    def _send(self, **message: Any) -> None:
        line = json.dumps(message)
        with self._write_lock:
            try:
                self._replies.write(line + "\n")
                self._replies.flush()
            except (BrokenPipeError, ValueError):
                pass  # the parent is gone; the end of the requests says so too


class _Relay:
    """A `Reporter` that sends the events of one job."""

    def __init__(self, job_id: str, send: Callable[..., None], cancelled: threading.Event) -> None:
        self._id = job_id
        self._send = send
        self._cancelled = cancelled
        self._stage: str | None = None
        self._sent_at = 0.0

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._sent_at < PROGRESS_SECONDS:
            return
        self._stage, self._sent_at = stage, now
        self._send(type="progress", id=self._id, fraction=fraction, stage=stage, remaining_seconds=remaining_seconds)

    def log(self, message: str) -> None:
        self._send(type="log", id=self._id, message=message)

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()


def serve_standard_streams(idle_seconds: float = 600.0, handle: Handler | None = None) -> int:
    """Serve the parent process on standard input and output.

    Args:
        idle_seconds: Leave after so long without a job.
        handle: Runs one job; ``None`` is `run_job` with networks kept loaded between jobs, whose results also have
            ``model_loads``, the number of networks loaded for them.

    Returns:
        Never in practice: the process ends here with status 0.
    """
    process.prepare()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the parent, which then ends our input
    requests, replies = _take_standard_streams()
    faulthandler.enable()  # the last words of a crash inside a library then say where
    Worker(requests, replies, handle or _warm_handler(), idle_seconds, lambda: os._exit(1)).serve()
    sys.stderr.flush()
    os._exit(0)  # the thread that reads the requests may be inside a blocking read, which a normal exit waits for


def _take_standard_streams() -> tuple[TextIO, TextIO]:
    """Keep standard input and output for the protocol and give everything else the null device and standard error.

    A library's stray print then cannot corrupt the protocol. On Windows, a pending read on standard input also blocks
    libraries that inspect it while they load.
    """
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8", errors="replace")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


def _warm_handler() -> Handler:
    cache = ModelCache(load_from_disk)

    def handle(job: Job, reporter: Reporter) -> dict[str, Any]:
        loads = cache.loads
        result = run_job(job, reporter, cache)
        return {**result, "model_loads": cache.loads - loads}

    return handle
