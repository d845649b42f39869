"""The one warm worker of a QGIS session."""

from __future__ import annotations

import atexit
import threading
from pathlib import Path

from qgis.core import QgsSettings

from .environment import engine_environment, find_engine_python, worker_command
from .worker_client import WorkerClient

PYTHON_SETTING = "refsam/engine_python"

_lock = threading.Lock()
_client: WorkerClient | None = None
_client_python: Path | None = None


def engine_python() -> Path:
    """Return the engine's Python by the user's settings.

    Raises:
        RefSAMError: With code ``environment`` when the engine is not installed.
    """
    return find_engine_python(QgsSettings().value(PYTHON_SETTING, "", type=str))


def shared_client() -> WorkerClient:
    """Return the session's client; it starts the worker with its first job.

    Raises:
        RefSAMError: With code ``environment`` when the engine is not installed.
    """
    global _client, _client_python
    python = engine_python()
    with _lock:
        if _client is None or python != _client_python:
            if _client is not None:
                _client.close()
            _client, _client_python = WorkerClient(worker_command(python), engine_environment()), python
        return _client


def close_shared_client() -> None:
    """End the session's worker if there is one."""
    global _client
    with _lock:
        if _client is not None:
            _client.close()
            _client = None


def is_busy() -> bool:
    """Whether the engine is at work, or runs wait for it."""
    with _lock:
        return _client is not None and _client.is_busy


atexit.register(close_shared_client)
