"""Why the engine's process ended in the middle of a job."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from ..engine.errors import RefSAMError
from ..engine.installation import mend

SAVE_MEMORY = "use a smaller tile size or model, or close other programs"

_MEMORY_WORDS = re.compile(r"MemoryError|bad_alloc|[Cc]annot allocate memory|not enough memory|Errno 12\b")
_IMPORT_WORDS = re.compile(r"^(?:ModuleNotFoundError|ImportError): .*$", re.MULTILINE)
_CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")
_WINDOWS_MEMORY = {0xC0000017, 0xC000012D}
_WINDOWS_LIBRARY = {0xC000007B, 0xC0000135, 0xC0000138, 0xC0000139, 0xC0000142}
_WINDOWS_CRASHES = {
    0xC0000005: "access violation",
    0xC000001D: "illegal instruction",
    0xC00000FD: "stack overflow",
    0xC0000374: "heap corruption",
    0xC0000409: "abort",
}


def explain_death(status: int, last_words: str, oom_kills: int | None, python: str) -> RefSAMError:
    """Return the cause of the worker's end and the remedy, in a sentence.

    Args:
        status: Exit status; negative for a signal, as `subprocess` has it.
        last_words: End of what the process wrote to its standard error during the job.
        oom_kills: Processes that the system ended for their memory during the job; ``None`` where it does not say.
        python: That ran the process.
    """
    status = _signed(status)
    if _MEMORY_WORDS.search(last_words) or status in _WINDOWS_MEMORY:
        return RefSAMError("memory", f"The engine ended because memory ran out; {SAVE_MEMORY}.")
    if status == -9:
        return _killed(oom_kills)
    if (words := _IMPORT_WORDS.findall(last_words)) or status in _WINDOWS_LIBRARY:
        reason = f" ({words[-1].strip()})" if words else ""
        return RefSAMError("environment", f"The engine's environment is damaged{reason}; {mend(python)}.")
    name = _crash_name(status)
    if name is not None:
        return RefSAMError(
            "environment",
            f"The engine crashed inside a library or a driver ({name}); run it again with device 'cpu', and if that "
            f"crashes too, {mend(python)}.",
        )
    if status < 0:
        return RefSAMError("internal", f"The engine was ended from outside (signal {-status}); run it again.")
    return RefSAMError(
        "internal",
        f"The engine ended unexpectedly (status {status}); its last words are in the log: please report them.",
    )


def count_oom_kills() -> int | None:
    """Return how many processes Linux has ended for their memory since it started; ``None`` where nothing says so.

    The kernel counts here those of every control group too.
    """
    try:
        counters = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return int(found[1]) if found else None


def _killed(oom_kills: int | None) -> RefSAMError:
    if oom_kills:
        return RefSAMError("memory", f"The system stopped the engine because memory ran out; {SAVE_MEMORY}.")
    if oom_kills is None:
        return RefSAMError(
            "memory", f"The engine was stopped (signal 9), most likely because memory ran out; {SAVE_MEMORY}."
        )
    return RefSAMError(
        "memory", f"The engine was ended from outside (signal 9); if nobody ended it, memory ran out: {SAVE_MEMORY}."
    )


def _signed(status: int) -> int:
    """Turn the 128 + n by which a shell tells of a signal into -n; crashes of Windows stay as they are."""
    return 128 - status if 128 < status < 160 else status


def _crash_name(status: int) -> str | None:
    if status in _WINDOWS_CRASHES:
        return _WINDOWS_CRASHES[status]
    for name in _CRASHES:
        if getattr(signal, name, None) == -status:
            return name
    return None
