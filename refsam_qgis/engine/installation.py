"""Whether the engine's environment still has what was installed into it."""

from __future__ import annotations

import csv
import os
from importlib.metadata import distributions


def damage() -> str | None:
    """Look at every file that the installed packages list in their records; takes some tenths of a second.

    Returns:
        Which file of which package is missing or has another size than was installed, or ``None`` when all are whole.
        Compiled Python files and what lies outside the packages' folder (commands) do not count, nor does a package
        without a record.
    """
    for package in distributions():
        record = package.read_text("RECORD")
        for path, _, size in csv.reader((record or "").splitlines()):
            if path.endswith(".pyc") or path.startswith(".."):
                continue
            try:
                found = os.stat(str(package.locate_file(path))).st_size
            except OSError:
                return f"file '{path}' of package {package.name} is missing"
            if size and int(size) != found:
                return f"file '{path}' of package {package.name} is damaged"
    return None
