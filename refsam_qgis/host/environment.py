"""Where the engine's Python is, and the environment its process gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..engine.errors import RefSAMError
from ..engine.installation import INSTALL, default_python, is_being_made

PYTHON_VARIABLE = "REFSAM_ENGINE_PYTHON"

# QGIS points these at its own libraries; the engine's GDAL, PROJ and Python must not find them.
_DROPPED_PREFIXES = ("PROJ_", "GDAL_", "QGIS_", "QT_", "DYLD_")
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD")

# glibc hands large blocks back to the kernel at every free, and fetching them again costs a CPU run more than the
# arithmetic that fills them. Other systems ignore these.
_ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}


def find_engine_python(setting: str | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the engine's Python: the user's setting, the variable ``REFSAM_ENGINE_PYTHON``, or the default place.

    Args:
        setting: Path the user chose in QGIS; empty or ``None`` when there is none.
        environ: Environment variables.

    Raises:
        RefSAMError: With code ``environment`` when there is no such file.
    """
    chosen = setting or environ.get(PYTHON_VARIABLE)
    python = Path(chosen) if chosen else default_python(environ)
    if python.is_file() and not is_being_made(python):
        return python
    if python.is_file():
        raise RefSAMError("environment", f"RefSAM's engine is still being set up; wait for its end, or {INSTALL}.")
    if setting:
        remedy = "correct it in Settings › Options › RefSAM"
    elif chosen:
        remedy = f"correct the variable {PYTHON_VARIABLE}"
    else:
        remedy = (
            f"set it up in Settings › Options › RefSAM, or {INSTALL}, "
            f"or point the variable {PYTHON_VARIABLE} at a Python that has it"
        )
    raise RefSAMError("environment", f"RefSAM's engine is not installed: there is no {python}; {remedy}.")


def engine_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables for the engine's process: those of `environ` without QGIS's paths, and the allocator's."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    }
    return {**_ALLOCATOR, **kept, "PYTHONIOENCODING": "utf-8", "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}


def worker_command(python: Path) -> list[str]:
    """Return the command line of the worker.

    The plugin's folder lies among other plugins', so its parent goes to the end of the engine's module path, where
    nothing beside ``refsam_qgis`` can shadow the engine's libraries.
    """
    parent = str(Path(__file__).resolve().parents[2])
    bootstrap = (
        f"import sys; sys.path.append({parent!r}); "
        "from refsam_qgis.engine.worker import serve_standard_streams; sys.exit(serve_standard_streams())"
    )
    return [str(python), "-c", bootstrap]
