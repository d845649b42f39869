"""The colour of each class, in the engine's rasters and in QGIS alike. Standard library only."""

from __future__ import annotations

COLOURS = (
    (230, 85, 13), (49, 130, 189), (49, 163, 84), (222, 45, 138), (253, 208, 23), (117, 107, 177), (20, 180, 180),
)  # fmt: skip


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return red, green and blue (0..255) of class 1, 2, …; they repeat when there are more classes than colours."""
    return COLOURS[(class_id - 1) % len(COLOURS)]
