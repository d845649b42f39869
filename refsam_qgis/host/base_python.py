"""A Python of the system's that can make the engine's environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from ..engine.installation import PACKAGE

INSTALLER = PACKAGE / "install_engine.py"
CANDIDATES: tuple[tuple[str, ...], ...] = (
    (("py", "-3.13"), ("py", "-3.12"), ("py", "-3.11"))
    if sys.platform == "win32"
    else (
        ("python3.13",), ("python3.12",), ("python3.11",), ("python3",),
        # A program with a window has a short search path on a Mac.
        ("/opt/homebrew/bin/python3",), ("/usr/local/bin/python3",), ("/usr/bin/python3",),
    )
)  # fmt: skip
_CAN_MAKE_ENVIRONMENTS = "import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"


def find_base_python(environ: dict[str, str], candidates: Sequence[Sequence[str]] = CANDIDATES) -> list[str] | None:
    """Return the command of the first Python from 3.11 to 3.13 that can make environments, or ``None``.

    Args:
        environ: Environment variables to start it with.
        candidates: Commands to try.
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
    return None
