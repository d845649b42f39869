"""Settings of the engine's process that have to stand before torch is loaded: memory, threads and Apple's gaps."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
CONTROL_GROUP = Path("/sys/fs/cgroup")

SPINS = 10_000
"""Rounds, a fraction of a millisecond, that a thread of GNU's OpenMP spins before it sleeps until the others are done.

By itself it spins thirty times as long. Where another program wants a core, too, the threads that spin then take it
from the one that they wait for, and a run takes nine times as long."""
_WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Make the settings, leaving alone what the user set in the environment.

    Args:
        environ: Environment variables of this process.
    """
    if not any(name.startswith("MALLOC_") for name in environ):
        keep_memory()
    if "OMP_NUM_THREADS" not in environ and (threads := usable_cores()) is not None:
        environ["OMP_NUM_THREADS"] = str(threads)
    if not _WAITING & environ.keys():
        environ["GOMP_SPINCOUNT"] = str(SPINS)
    # What torch cannot do on an Apple GPU, such as antialiased scaling, is then done on the CPU instead of failing.
    environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def keep_memory() -> bool:
    """Have glibc keep freed memory; as fast as the variables by which QGIS's side asks for it, without a restart.

    It hands large blocks back to the kernel at every free, and fetching them again costs a CPU run more than the
    arithmetic that fills them.

    Returns:
        Whether there is a glibc that took the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST))
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)


def usable_cores() -> int | None:
    """Return how many cores matrix products are worth spreading over; ``None`` where torch's own count is right.

    Two hyper-threads share the units that multiply, so a core counts once; and a container may be given less time than
    it sees cores, where more threads would wait for each other.
    """
    if not sys.platform.startswith("linux"):
        return None
    allowed = os.sched_getaffinity(0)
    try:
        cores = {(CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text() for cpu in allowed}
    except OSError:
        return None
    quota = _quota()
    return max(1, len(cores) if quota is None else min(len(cores), math.ceil(quota)))


def _quota() -> float | None:
    """Processor time that the control group gets, in cores; ``None`` without a limit."""
    try:
        quota, period = (CONTROL_GROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:  # version 1
        quota = (CONTROL_GROUP / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (CONTROL_GROUP / "cpu" / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None
