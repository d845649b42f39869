"""A Python of the system's that can make the engine's environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import chain

from ..engine.errors import RefSAMError
from ..engine.installation import NEWEST, OLDEST, PACKAGE

INSTALLER = PACKAGE / "install_engine.py"
VERSIONS = ("3.13", "3.12", "3.11", "3.14")
"""The newest comes last: packages are slowest to appear for it."""
FOLDERS = ("", "/opt/homebrew/bin/", "/usr/local/bin/", "/usr/bin/")
"""Where to look beside the search path, which is short for a program with a window on a Mac."""
CANDIDATES: tuple[tuple[str, ...], ...] = (
    tuple(("py", f"-{version}") for version in VERSIONS)
    if sys.platform == "win32"
    else tuple(
        chain.from_iterable(((f"{folder}python{version}",) for version in (*VERSIONS, "3")) for folder in FOLDERS)
    )
)
_CAN_MAKE_ENVIRONMENTS = f"import sys, venv, ensurepip; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"


def find_base_python(environ: dict[str, str], candidates: Sequence[Sequence[str]] = CANDIDATES) -> list[str]:
    """Return the command of the first Python that can make environments of the engine's packages.

    Args:
        environ: Environment variables to start it with.
        candidates: Commands to try.

    Raises:
        RefSAMError: With code ``environment`` when there is none.
    """
    for candidate in candidates:
        try:
            found = subprocess.run(
                [*candidate, "-c", _CAN_MAKE_ENVIRONMENTS],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows alone
                check=False,
            )
        except OSError:
            continue
        if found.returncode == 0:
            return list(candidate)
    raise RefSAMError(
        "environment",
        f"No Python from {_dotted(OLDEST)} to {_dotted(NEWEST)} that can make environments was found; install one from "
        "python.org (on Debian and Ubuntu python3 and python3-venv), then try again.",
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
