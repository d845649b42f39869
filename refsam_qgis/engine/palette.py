"""The colour of each class, in the engine's rasters and in QGIS alike. Standard library only."""

from __future__ import annotations

COLOURS = (
    (240, 30, 160), (20, 200, 220), (253, 208, 23), (130, 80, 230), (240, 110, 20), (40, 110, 220), (60, 220, 110),
)  # fmt: skip
"""The first ones are those that imagery of the ground seldom holds."""


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return red, green and blue (0..255) of class 1, 2, …; they repeat when there are more classes than colours."""
    return COLOURS[(class_id - 1) % len(COLOURS)]
