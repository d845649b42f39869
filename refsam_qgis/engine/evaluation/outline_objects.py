"""How many outlined objects were found, each by its own shape.

Where both sides are polygons no pixel has to stand for an object: those smaller than a pixel are told apart, and those
that overlap others of their side stay whole. Pairs are matched as in `objects`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..events import Reporter, check_cancelled
from .layers import IGNORE, Outlines
from .objects import ObjectCounts, count_matches

PAIRS = 10_000
"""Pairs intersected at a time."""
LEAST_LEFT = 0.01
"""Share of an object that has to lie in what is compared; less is what rounding leaves at a common edge."""
ROUNDING = 1e-9
"""How far the IoU of coordinates that are rounded may lie below the bound that it is at."""


def match_outlines(
    truth: Outlines, result: Outlines, within: Any | None, min_iou: float, classes: int, reporter: Reporter
) -> list[ObjectCounts]:
    """Match the polygons of the two by their IoU, and return the counts of class 1 to `classes`.

    Args:
        truth: What is there, in any coordinates.
        result: What was found, in the same coordinates.
        within: Polygon outside of which nothing counts; objects are cut at its edge. ``None`` when all counts.
        min_iou: IoU from which two objects match, 0..1.
        classes: Number of classes beside the background.
        reporter: Says when to stop.
    """
    uncounted = np.concatenate([_uncounted(truth), _uncounted(result)])
    true, found = (_counted(side, within, uncounted) for side in (truth, result))
    pairs, overlap = _overlaps(true, found, reporter)
    return count_matches(true.classes, found.classes, pairs, overlap, min_iou - ROUNDING, classes)


def _uncounted(side: Outlines) -> NDArray[Any]:
    """Return the areas that do not count, without the smaller objects inside them, as when they are drawn."""
    ignored, objects = (side.polygons[there] for there in (side.classes == IGNORE, side.classes != IGNORE))
    areas, tree = shapely.area(objects), shapely.STRtree(objects)
    left = []
    for polygon in ignored:
        inside = tree.query(polygon, predicate="intersects")
        inside = inside[areas[inside] < shapely.area(polygon)]
        left.append(shapely.difference(polygon, shapely.union_all(objects[inside])))
    return np.array(left, dtype=object)


def _counted(side: Outlines, within: Any | None, uncounted: NDArray[Any]) -> Outlines:
    """Return what counts of the objects that lie in what is compared."""
    there = side.classes != IGNORE
    polygons, classes = side.polygons[there], side.classes[there]
    left = polygons.copy()
    if within is not None:
        left = shapely.intersection(left, within)
        mixed = shapely.get_type_id(left) == shapely.GeometryType.GEOMETRYCOLLECTION  # with lines along the edge
        left[mixed] = shapely.buffer(left[mixed], 0)
    cut, by = shapely.STRtree(uncounted).query(left, predicate="intersects")
    for index in np.unique(cut):
        start, stop = np.searchsorted(cut, [index, index + 1])
        left[index] = shapely.difference(left[index], shapely.union_all(uncounted[by[start:stop]]))
    enough = shapely.area(left) > LEAST_LEFT * shapely.area(polygons)
    return Outlines(left[enough], classes[enough])


def _overlaps(true: Outlines, found: Outlines, reporter: Reporter) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs ``(2, N)`` of one class that overlap, as indices, and the IoU of each."""
    one, other = shapely.STRtree(found.polygons).query(true.polygons, predicate="intersects")
    alike = true.classes[one] == found.classes[other]
    one, other = one[alike], other[alike]
    shared = np.zeros(len(one))
    for start in range(0, len(one), PAIRS):
        check_cancelled(reporter)
        part = slice(start, start + PAIRS)
        shared[part] = shapely.area(shapely.intersection(true.polygons[one[part]], found.polygons[other[part]]))
    union = shapely.area(true.polygons)[one] + shapely.area(found.polygons)[other] - shared
    some = shared > 0
    return np.stack([one[some], other[some]]), shared[some] / union[some]
