"""Cancelling in the middle of a network's pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .events import Reporter, check_cancelled


@contextmanager
def interruptible(reporter: Reporter) -> Iterator[None]:
    """Raise `JobCancelled` from whichever layer of a network runs next once `reporter` is cancelled.

    A tile of a large model takes many seconds, its longest layer a fraction of one. Without torch in the process,
    which this does not import, nothing is done.
    """
    if "torch" not in sys.modules:
        yield
        return
    from torch.nn.modules.module import register_module_forward_pre_hook

    def stop(module: Any, inputs: Any) -> None:
        check_cancelled(reporter)

    handle = register_module_forward_pre_hook(stop)
    try:
        yield
    finally:
        handle.remove()
