"""One tile of a generated scene with its exact class and object maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import grounds, objects, roads, structures
from .canvas import SUPERSAMPLING, Canvas
from .classes import CLASS_ID, CLASSES, REGION_CLASSES
from .regions import connected_regions
from .sensor import observe
from .shading import shaded
from .style import SceneStyle

_ATTEMPTS = 8
"""Layouts to try until the class in focus is in sight; it can miss a small tile or be built over."""


@dataclass(frozen=True)
class Scene:
    """A tile and what is in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        classes: (H, W) uint8 class ids, indices into ``CLASSES``.
        instances: (H, W) uint16; 0 for background, else the number of the object or connected region.
        gsd: Ground size of a pixel in metres.
    """

    image: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    gsd: float


def render_scene(
    style: SceneStyle, rng: np.random.Generator, size: int | tuple[int, int], focus: str | None = None
) -> Scene:
    """Draw a tile of a place.

    Args:
        style: The sensor and the place; tiles of one style look alike class by class.
        rng: Source of randomness of this tile.
        size: Pixels of a side, or (height, width).
        focus: Class that should be plentiful, one of ``CLASSES`` other than background, or None.

    Returns:
        The tile; the same for the same style, state of ``rng``, size and focus.

    Raises:
        ValueError: If ``focus`` is not a class.
    """
    if focus is not None and (focus not in CLASS_ID or focus == "background"):
        raise ValueError(f"There is no class {focus!r}; the classes are {', '.join(CLASSES[1:])}.")
    height, width = (size, size) if isinstance(size, int) else size
    for _ in range(_ATTEMPTS):
        canvas = grounds.base_canvas(style, rng, height, width)
        _lay_out(canvas, focus)
        labels = np.asarray(canvas.labels)[::SUPERSAMPLING, ::SUPERSAMPLING].astype(np.int32)
        classes = np.array(canvas.class_of, np.uint8)[labels]
        if focus is None or (classes == CLASS_ID[focus]).any():
            break
    image = observe(shaded(canvas, labels, rng), style.sensor, rng)
    return Scene(image, classes, _instances(labels, classes), style.gsd)


def _lay_out(canvas: Canvas, focus: str | None) -> None:
    """Draw everything, from the ground up."""
    r, style = canvas.r, canvas.style
    usual = style.settlement.usual

    def happens(name: str, cap: float = 1.0) -> bool:
        return focus == name or r.random() < min(cap, usual.get(name, 0.0))

    def plenty(name: str, few: int, many: int, otherwise: int = 3) -> int:
        """The least number of things of a class."""
        if focus == name:
            return r.randint(few, many)
        return r.randint(1, otherwise) if r.random() < usual.get(name, 0.0) else 0

    if happens("field"):
        grounds.lay_fields(canvas)
    for name in ("grass", "bare_soil", "paved"):
        grounds.lay_patches(canvas, name, plenty(name, 2, 6))
    objects.lay_ground_clutter(canvas)
    grounds.lay_woods(canvas, plenty("wood", 1, 4))
    if focus == "novel_ground" or r.random() < 0.15:
        grounds.lay_novel_ground(canvas, r.randint(2, 8))
    if happens("water") or (focus == "ship" and r.random() < 0.95):
        grounds.lay_water(canvas)
    network = roads.plan_roads(canvas, wanted=focus == "road")
    if happens("railway"):
        roads.lay_railway(canvas)
    roads.lay_roads(canvas, network)
    car_parks = [
        park
        for attempt in range(plenty("paved", 1, 4) + (1 if focus == "vehicle" else 0))
        if (park := roads.lay_car_park(canvas, anywhere=focus == "paved" and attempt == 0)) is not None
    ]
    objects.lay_ships(canvas, plenty("ship", 4, 24, 12))
    objects.lay_planes(canvas, plenty("plane", 1, 8, 4))
    structures.lay_tanks(canvas, plenty("storage_tank", 3, 14, 5))
    structures.lay_courts(canvas, plenty("sports_court", 1, 6))
    if focus == "solar_panel" or (happens("solar_panel") and r.random() < 0.3):
        for _ in range(r.randint(1, 3)):
            structures.lay_solar_field(canvas)
    yards = structures.lay_buildings(canvas, network, plenty=focus == "building")
    structures.lay_roof_panels(canvas, yards, 0.8 if focus == "solar_panel" else usual.get("solar_panel", 0.0))
    pool_chance = 0.85 if focus == "swimming_pool" else usual.get("swimming_pool", 0.0) * 0.7
    structures.lay_pools(canvas, yards, pool_chance, r.randint(3, 10) if focus == "swimming_pool" else 0)
    objects.lay_standing_clutter(canvas)
    objects.lay_vehicles(
        canvas,
        network,
        car_parks,
        usual.get("vehicle", 0.1) * r.uniform(0.3, 1.5),
        r.randint(8, 50) if focus == "vehicle" else 0,
    )
    objects.lay_novel_objects(canvas, *_novel_count(canvas, focus))
    objects.lay_trees(canvas, network, usual.get("tree", 0.3), r.randint(8, 60) if focus == "tree" else 0)


def _novel_count(canvas: Canvas, focus: str | None) -> tuple[int, int]:
    """How many invented objects to try, and how many to draw in any case."""
    if focus == "novel_object":
        return canvas.r.randint(8, 40), 2
    return canvas.r.randint(0, canvas.style.novel_object.usual_count), 0


def _instances(labels: NDArray[np.int32], classes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Number the objects from 1; parts of regions that do not touch become regions of their own."""
    is_region = np.array([name in REGION_CLASSES for name in CLASSES])[classes]
    # Regions are joined across the patches they were drawn from, so their key is the class; the offset keeps the
    # keys of objects apart from those of classes.
    keys = np.where(is_region, classes.astype(np.int64), labels.astype(np.int64) + len(CLASSES))
    regions = connected_regions(np.where(is_region | (classes == 0), keys, 0))
    distinct = np.where(is_region, labels.max() + 1 + regions, labels)
    distinct[classes == 0] = 0
    used = np.zeros(int(distinct.max()) + 1, bool)
    used[distinct] = True
    used[0] = False
    return np.cumsum(used).astype(np.uint16)[distinct] * (classes > 0)
