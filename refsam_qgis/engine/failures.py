"""Turn any exception of a job into the one sentence that a person gets."""

from __future__ import annotations

import errno
import time
import traceback
from pathlib import Path

from .errors import RefSAMError
from .home import home


def explain(error: BaseException) -> RefSAMError:
    """Return `error` as a sentence with a remedy; the traceback of an unforeseen one goes to the log file."""
    if isinstance(error, RefSAMError):
        return error
    if _is_out_of_memory(error):
        return RefSAMError(
            "memory", "Memory ran out; use a smaller tile size, a smaller model or the CPU, or close other programs."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RefSAMError("disk", f"The disk is full{_file_of(error)}; free some space or choose another folder.")
    if isinstance(error, PermissionError):
        return RefSAMError("disk", f"Access was refused{_file_of(error)}; choose a file or folder you may use.")
    log = _append_to_log(error)
    if isinstance(error, ImportError):
        return RefSAMError("environment", f"The engine's environment is incomplete ({error}); set it up again.")
    where = f"details are in {log}" if log else "no log could be written"
    return RefSAMError("internal", f"An unexpected {type(error).__name__} stopped the job; {where}: please report it.")


def _is_out_of_memory(error: BaseException) -> bool:
    # torch raises its own type for accelerators and a plain RuntimeError for the CPU; neither needs an import here.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "not enough memory" in str(error))
    )


def _file_of(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""


def _append_to_log(error: BaseException) -> Path | None:
    log = home() / "logs" / "engine.log"
    text = "".join(traceback.format_exception(error))
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}\n")
    except OSError:
        return None
    return log
