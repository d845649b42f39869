"""Peak memory of processes."""

from __future__ import annotations

import resource
import sys

BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024
"""What ``ru_maxrss`` counts in."""


def peak_bytes(whose: int = resource.RUSAGE_SELF) -> int:
    """Largest resident memory so far of this process, or of the largest of its children that ended."""
    return resource.getrusage(whose).ru_maxrss * BYTES_PER_UNIT
