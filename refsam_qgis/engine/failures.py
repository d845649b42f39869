"""Turn any exception of a job into the one sentence that a person gets."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from .errors import RefSAMError
from .home import home
from .installation import damage, mend

_MEMORY_TEXTS = (
    "not enough memory",  # torch on the CPU, Windows
    "can't allocate memory",  # torch on the CPU elsewhere
    "cannot allocate memory",
    "out of memory",  # CUDA, MPS
    "alloc_failed",  # cuBLAS, cuDNN
    "bad_alloc",
    "bad allocation",
    "can't start new thread",
    "paging file is too small",
    "failed to map segment",  # of a library that is being loaded
)
"""What libraries say, in exceptions of no particular type, when they get no memory."""
_NOT_MEMORY_TEXTS = ("static tls block", "operation not permitted")
"""Of a library that cannot be loaded, whatever memory there is."""
_WINDOWS_MEMORY_ERRORS = (8, 14, 1455)


def explain(error: BaseException) -> RefSAMError:
    """Return `error` as a sentence with a remedy; the traceback of an unforeseen one goes to the log file."""
    if is_out_of_memory(error):
        return RefSAMError(
            "memory", "Memory ran out; use a smaller tile size, a smaller model or the CPU, or close other programs."
        )
    if isinstance(error, RefSAMError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RefSAMError("disk", f"The disk is full{_file_of(error)}; free some space or choose another folder.")
    if isinstance(error, PermissionError):
        return RefSAMError("disk", f"Access was refused{_file_of(error)}; choose a file or folder you may use.")
    log = _append_to_log(error)
    if what := _damage():
        return RefSAMError("environment", f"The engine's environment is incomplete: {what}; {mend()}.")
    if isinstance(error, ImportError):
        return RefSAMError("environment", f"The engine's environment is incomplete ({error}); {mend()}.")
    where = f"details are in {log}" if log else "no log could be written"
    return RefSAMError("internal", f"An unexpected {type(error).__name__} stopped the job; {where}: please report it.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and what it was raised from: a refused file may really be memory that was missing to read it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:  # an exception may be made its own cause
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or what it was raised from, says that memory ran out, on whatever device."""
    return any(_tells_of_memory(cause) for cause in _causes(error))


def _tells_of_memory(error: BaseException) -> bool:
    if isinstance(error, RefSAMError):
        return False
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:  # of torch and of GDAL
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) in _WINDOWS_MEMORY_ERRORS
    text = str(error).lower()
    return any(said in text for said in _MEMORY_TEXTS) and not any(said in text for said in _NOT_MEMORY_TEXTS)


def _damage() -> str | None:
    try:
        return damage()
    except Exception:  # a damaged record; what stopped the job is worth more
        return None


def _file_of(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""


def _append_to_log(error: BaseException) -> Path | None:
    log = home() / "logs" / "engine.log"
    text = "".join(traceback.format_exception(error))
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}\n")
    except OSError:
        return None
    return log
