"""Independent computations on a CPU at the same time, each with its share of the cores.

A network that answers one class after the other leaves cores waiting at the end of each of its many small steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 4
"""Most at the same time, since each needs its own memory."""


def side_by_side(compute: Callable[[Item], Result], items: Sequence[Item], device: torch.device) -> list[Result]:
    """Return what a function makes of each item; several items at a time on a CPU of several threads.

    Args:
        compute: Must not change what another call reads.
        items: What it is called with.
        device: Where it computes. A graphics processor takes its work in one queue, so there one follows the other.

    Raises:
        Exception: What the first call that failed raised.
    """
    threads = torch.get_num_threads()
    together = min(MOST, threads, len(items)) if device.type == "cpu" else 1
    if together < 2:
        return [compute(item) for item in items]
    share = threads // together
    # For some libraries the number is of the calling thread, for others of the process.
    torch.set_num_threads(share)
    try:
        with ThreadPoolExecutor(together, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            return list(pool.map(compute, items))
    finally:
        torch.set_num_threads(threads)
