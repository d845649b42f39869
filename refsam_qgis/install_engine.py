#!/usr/bin/env python3
"""Install RefSAM's engine: a virtual environment with the packages that it was tested with.

    python3 install_engine.py [PIP OPTION...]

Needs a Python from 3.11 to 3.14, not that of QGIS. The environment comes to ``.refsam/env`` in the user's home, or
``env`` in ``REFSAM_HOME``; one that is whole already is left as it is, and one that is replaced goes only when the new
one is there. Options go to pip, such as ``--extra-index-url URL`` of a CUDA build of torch; without any, those of the
time before are taken again. To go back to none, delete the environment's folder first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
sys.path.append(str(PACKAGE.parent))

from refsam_qgis.engine.installation import (  # noqa: E402 - it is started as a file of its own
    NEWEST,
    OLDEST,
    STAMP,
    default_python,
    lock_file,
)


def main(options: list[str]) -> str | None:
    """Bring the environment to what the lock file says.

    Returns:
        A sentence on what went wrong and how to mend it, or ``None``.
    """
    if "-h" in options or "--help" in options:
        print(__doc__)
        return None
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        oldest, newest, this = (".".join(map(str, version)) for version in (OLDEST, NEWEST, sys.version_info[:3]))
        return (
            f"RefSAM's engine needs a Python from {oldest} to {newest}, and this is {this}; "
            f"start another, such as python{oldest} (on Windows py -{oldest})."
        )
    if importlib.util.find_spec("ensurepip") is None:
        return "This Python cannot make virtual environments; install python3-venv (on Debian, Ubuntu) first."
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lock, python = lock_file(), default_python()
    folder = python.parents[1]
    try:
        _restore(folder)  # what a killed run put aside
        kept = _stamp(folder)
        if kept is None and folder.exists() and any(folder.iterdir()):
            return f"'{folder}' is not of RefSAM's making; delete it, or set REFSAM_HOME to another folder."
        stamp = [hashlib.sha256(lock.read_bytes()).hexdigest(), *(options or (kept or [])[1:])]
        if kept == stamp and _is_whole(python):
            return None
        print(f"Setting up {folder}", flush=True)
        with _replaced(folder):
            folder.mkdir(parents=True)
            (folder / STAMP).touch()
            venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(folder)
            pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
            subprocess.run([*pip, "--requirement", str(lock), *stamp[1:]], check=True, stdin=subprocess.DEVNULL)
            (folder / STAMP).write_text(shlex.join(stamp) + "\n", encoding="utf-8")
    except subprocess.CalledProcessError as error:
        return f"The packages could not be installed (status {error.returncode}; why is said above); run this again."
    except KeyboardInterrupt:
        return f"Stopped; '{folder}' is as it was."
    except OSError as error:
        return (
            f"'{folder}' cannot be written ({error.strerror}); close QGIS, or set REFSAM_HOME to a folder of yours, "
            "then run this again."
        )
    return None


@contextmanager
def _replaced(folder: Path) -> Iterator[None]:
    """Put a folder aside while another is made in its place, and back if that fails."""
    if folder.exists():
        folder.rename(_aside(folder))
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        _restore(folder)
        raise
    shutil.rmtree(_aside(folder), ignore_errors=True)


def _restore(folder: Path) -> None:
    """Put back what was put aside, unless what came in its place is finished."""
    aside = _aside(folder)
    if aside.exists():
        shutil.rmtree(aside if _stamp(folder) else folder, ignore_errors=True)
    if aside.exists() and not folder.exists():
        aside.rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.before")


def _stamp(folder: Path) -> list[str] | None:
    """Digest of the lock file, and pip's options, that an environment was made with.

    Returns:
        An empty list while it is not finished, ``None`` where the installer has not begun one.
    """
    try:
        return shlex.split((folder / STAMP).read_text(encoding="utf-8"))
    except OSError:
        return None


def _is_whole(python: Path) -> bool:
    code = "from refsam_qgis.engine.installation import damage; import sys; sys.exit(damage())"
    try:
        found = subprocess.run([python, "-c", code], cwd=PACKAGE.parent, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return False
    return found.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
