"""Where the engine keeps what outlives a job: its environment, logs, journals and caches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the engine's folder: ``REFSAM_HOME``, or ``.refsam`` in the user's home."""
    return Path(environ.get("REFSAM_HOME") or Path.home() / ".refsam")
