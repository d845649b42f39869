"""The land-cover and object classes of generated scenes."""

from __future__ import annotations

CLASSES: tuple[str, ...] = (
    "background",
    "building",
    "road",
    "water",
    "tree",
    "wood",
    "field",
    "bare_soil",
    "grass",
    "vehicle",
    "ship",
    "plane",
    "storage_tank",
    "swimming_pool",
    "sports_court",
    "solar_panel",
    "paved",
    "railway",
    "novel_object",
    "novel_ground",
)
"""Class names; the index is the class id. ``background`` is ground that carries no label."""

CLASS_ID: dict[str, int] = {name: index for index, name in enumerate(CLASSES)}

REGION_CLASSES: frozenset[str] = frozenset(
    {"road", "water", "wood", "bare_soil", "grass", "paved", "railway", "novel_ground"}
)
"""Classes without countable objects: touching parts are one region, parts that do not touch are several."""
