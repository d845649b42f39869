#!/usr/bin/env python3
"""Install RefSAM's engine: a virtual environment with the packages that it was tested with.

    python3 install_engine.py [PIP OPTION...]

Needs Python 3.11 or later, not that of QGIS. The environment comes to ``.refsam/env`` in the user's home, or ``env`` in
``REFSAM_HOME``; one that is whole already is left as it is. Options go to pip, such as ``--extra-index-url URL`` of a
CUDA build of torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import venv
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

    lock, python = lock_file(), default_engine_python()
    folder = python.parents[1]
    stamp = " ".join([hashlib.sha256(lock.read_bytes()).hexdigest(), *options])
    if _stamp(folder) == stamp and _is_whole(python):
        return None
    print(f"Setting up {folder}", flush=True)
    try:
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", str(lock), *options], check=True, stdin=subprocess.DEVNULL)
        (folder / ".lock").write_text(stamp + "\n", encoding="utf-8")
    except subprocess.CalledProcessError as error:
        return f"The packages could not be installed (status {error.returncode}; why is said above); run this again."
    except OSError as error:
        return f"'{folder}' cannot be written ({error.strerror}); set REFSAM_HOME to a folder of yours, run this again."
    return None


def _stamp(folder: Path) -> str:
    try:
        return (folder / ".lock").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _is_whole(python: Path) -> bool:
    code = "from refsam_qgis.engine.installation import damage; import sys; sys.exit(damage())"
    try:
        found = subprocess.run([python, "-c", code], cwd=PACKAGE.parent, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return False
    return found.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
