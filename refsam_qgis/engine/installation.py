"""What the engine's environment should have, whether it still has it, and the command that brings it there.

Imports nothing that may be missing, nor what an older Python than the engine's does not have: the plugin asks too.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from .home import home

PACKAGE = Path(__file__).resolve().parents[1]
LOCK = Path("requirements", "engine.txt")
"""The versions that RefSAM was tested with; inside the installed plugin, beside it in the sources."""
OLDEST, NEWEST = (3, 11), (3, 14)
"""Pythons for which all packages of the lock file can be had."""
STAMP = ".lock"
"""File in an environment that says what the installer made it of; empty until it is finished."""
INSTALL = f'run {"py" if sys.platform == "win32" else "python3"} "{PACKAGE / "install_engine.py"}"'
"""What to do about an environment that is missing."""


def default_python(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the installer puts the engine's Python: below the engine's folder."""
    return home(environ) / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def is_being_made(python: Path) -> bool:
    """Whether the installer has begun a Python's environment and not finished it."""
    stamp = python.parents[1] / STAMP
    return stamp.is_file() and not stamp.stat().st_size


def mend(python: str | Path = sys.executable) -> str:
    """Return what to do about a Python whose packages are missing or damaged."""
    if os.path.abspath(python) == os.path.abspath(default_python()):
        return INSTALL
    return f'run "{python}" -m pip install --force-reinstall --requirement "{lock_file()}"'


def lock_file() -> Path:
    """Return the file with the versions of all packages."""
    return next(folder / LOCK for folder in (PACKAGE, PACKAGE.parent) if (folder / LOCK).is_file())


def locked_versions(lock: Path | None = None) -> dict[str, str]:
    """Return the version of each package by its name, of a lock file; that of the engine by default."""
    lines = (lock or lock_file()).read_text(encoding="utf-8").splitlines()
    return dict(line.strip().split("==", 1) for line in lines if "==" in line)


def damage(lock: Path | None = None) -> str | None:
    """Look at every file that the packages of a lock file list in their records; takes some tenths of a second.

    Args:
        lock: The engine's by default. What else is installed does not count: the environment may be shared.

    Returns:
        Which file of which package is missing or has another size than was installed, or ``None`` when all are whole.
        Compiled Python files and what lies outside the packages' folder (commands) do not count, nor does a package
        without a record.
    """
    ours = {_plain_name(name) for name in locked_versions(lock)}
    for package in metadata.distributions():
        if _plain_name(package.metadata["Name"] or "") not in ours:
            continue
        record = package.read_text("RECORD")
        for path, _, size in csv.reader((record or "").splitlines()):
            if path.endswith(".pyc") or path.startswith(".."):
                continue
            try:
                found = os.stat(str(package.locate_file(path))).st_size
            except OSError:
                return f"file '{path}' of package {package.metadata['Name']} is missing"
            if size and int(size) != found:
                return f"file '{path}' of package {package.metadata['Name']} is damaged"
    return None


def _plain_name(name: str) -> str:
    """Names of packages are equal whatever their case and separators (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
