#!/usr/bin/env python3
"""Install RefSAM's engine: a virtual environment with the packages that it was tested with.

    python3 install_engine.py [PIP OPTION...]

Needs Python 3.11 or later, not that of QGIS. The environment comes to ``.refsam/env`` in the user's home, or ``env`` in
``REFSAM_HOME``; one that is whole already is left as it is, and one that is replaced goes only when the new one is
there. Options go to pip, such as ``--extra-index-url URL`` of a CUDA build of torch; without any, those of the time
before are taken again. To go back to none, delete the environment's folder first.
"""

from __future__ import annotations

import hashlib
import importlib.util
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
OLDEST = (3, 11)


def main(options: list[str]) -> str | None:
    """Bring the environment to what the lock file says.

    Returns:
        A sentence on what went wrong and how to mend it, or ``None``.
    """
    if "-h" in options or "--help" in options:
        print(__doc__)
        return None
    if sys.version_info < OLDEST:
        return f"RefSAM's engine needs Python 3.11 or later, and this is {sys.version.split()[0]}; start a newer one."
    if importlib.util.find_spec("ensurepip") is None:
        return "This Python cannot make virtual environments; install python3-venv (on Debian, Ubuntu) first."
    sys.path.append(str(PACKAGE.parent))
    from refsam_qgis.engine.installation import lock_file
    from refsam_qgis.host.environment import default_engine_python

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lock, python = lock_file(), default_engine_python()
    folder = python.parents[1]
    try:
        _restore(folder)  # what a killed run put aside
        kept = _stamp(folder)
        stamp = [hashlib.sha256(lock.read_bytes()).hexdigest(), *(options or kept[1:])]
        if kept == stamp and _is_whole(python):
            return None
        print(f"Setting up {folder}", flush=True)
        with _replaced(folder):
            venv.create(folder, with_pip=True)
            pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
            subprocess.run([*pip, "--requirement", str(lock), *stamp[1:]], check=True, stdin=subprocess.DEVNULL)
            (folder / ".lock").write_text(shlex.join(stamp) + "\n", encoding="utf-8")
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
    if _aside(folder).exists():
        shutil.rmtree(folder, ignore_errors=True)
        _aside(folder).rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.before")


def _stamp(folder: Path) -> list[str]:
    """Digest of the lock file, and pip's options, that an environment was made with; empty if it is not finished."""
    try:
        return shlex.split((folder / ".lock").read_text(encoding="utf-8"))
    except OSError:
        return []


def _is_whole(python: Path) -> bool:
    code = "from refsam_qgis.engine.installation import damage; import sys; sys.exit(damage())"
    try:
        found = subprocess.run([python, "-c", code], cwd=PACKAGE.parent, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return False
    return found.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
