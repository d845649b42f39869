"""Outlines of buildings made right-angled.

An outline is turned so that its walls run along the axes, its edges are taken for horizontal or vertical walls, each
wall is put at the mean of the outline's points along it, and walls that are too short to be meant are merged with their
neighbours. Two directions are tried: that of the smallest rectangle around the outline and that of its long edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

MIN_IOU = 0.7
"""Outlines that would change more keep their shape."""
TOLERANCE = 1.5
"""In pixels: how far an outline may leave a wall and still follow it."""
SHORTEST_WALL = 3.0
"""In pixels."""


def right_angled(polygons: NDArray[Any], shortest: float = SHORTEST_WALL) -> NDArray[Any]:
    """Return right-angled polygons.

    Args:
        polygons: ``(N,)`` valid shapely polygons whose unit is about a pixel.
        shortest: Shortest wall.

    Returns:
        ``(N,)`` valid polygons; ``None`` where nothing right-angled is like the polygon.
    """
    dense = shapely.segmentize(polygons, 1.0)
    best = np.full(len(polygons), None, dtype=object)
    best_iou = np.full(len(polygons), MIN_IOU)
    for angles in (_rectangle_angles(polygons), _edge_angles(polygons)):
        turned = _turned(dense, -angles)
        squared = _turned(np.array([_squared(polygon, shortest) for polygon in turned], dtype=object), angles)
        iou = _iou(squared, polygons)
        better = iou >= best_iou
        best[better], best_iou[better] = squared[better], iou[better]
    return best


def _rectangle_angles(polygons: NDArray[Any]) -> NDArray[np.float64]:
    """Return the direction in radians of the smallest rectangle around each polygon."""
    boxes = shapely.minimum_rotated_rectangle(polygons)
    start, end = (shapely.get_point(shapely.get_exterior_ring(boxes), i) for i in (0, 1))
    angles: NDArray[np.float64] = np.arctan2(
        shapely.get_y(end) - shapely.get_y(start), shapely.get_x(end) - shapely.get_x(start)
    )
    return angles


def _edge_angles(polygons: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean direction in radians, up to right angles, of the edges of each polygon; long ones count more."""
    rings = shapely.get_exterior_ring(shapely.simplify(polygons, TOLERANCE))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    edges = np.diff(points, axis=0) @ np.array([1, 1j])
    edges[ring[1:] != ring[:-1]] = 0
    length = np.maximum(np.abs(edges), 1e-12)
    # Angles that differ by right angles are equal when multiplied by four.
    fourfold = length**2 * (edges / length) ** 4
    sums = [np.bincount(ring[:-1], part, minlength=len(polygons)) for part in (fourfold.real, fourfold.imag)]
    angles: NDArray[np.float64] = np.arctan2(sums[1], sums[0]) / 4
    return angles


def _turned(polygons: NDArray[Any], angles: NDArray[np.float64]) -> NDArray[Any]:
    """Turn each polygon about the origin."""
    points, polygon = shapely.get_coordinates(polygons, return_index=True)
    cos, sin = np.cos(angles)[polygon], np.sin(angles)[polygon]
    x, y = points.T
    turned: NDArray[Any] = shapely.set_coordinates(polygons.copy(), np.stack([cos * x - sin * y, sin * x + cos * y], 1))
    return turned


def _iou(squared: NDArray[Any], polygons: NDArray[Any]) -> NDArray[np.float64]:
    """Return the IoU of each pair, 0 where the first is none or invalid."""
    iou = np.zeros(len(polygons))
    usable = np.flatnonzero(shapely.is_valid(squared))
    common = shapely.area(shapely.intersection(squared[usable], polygons[usable]))
    either = shapely.area(squared[usable]) + shapely.area(polygons[usable]) - common
    iou[usable] = common / either
    return iou


def _squared(polygon: Any, shortest: float) -> Any:
    """Return the polygon with horizontal and vertical walls only, or ``None``; holes that collapse go."""
    shell, *holes = (_walls(shapely.get_coordinates(ring), shortest) for ring in (polygon.exterior, *polygon.interiors))
    return None if shell is None else shapely.Polygon(shell, [hole for hole in holes if hole is not None])


def _walls(ring: NDArray[np.float64], shortest: float) -> NDArray[np.float64] | None:
    """Return the corners of horizontal and vertical walls along a closed ring ``(n, 2)``, or ``None``."""
    points = ring[:-1]
    corners = shapely.get_coordinates(shapely.simplify(shapely.LinearRing(ring), TOLERANCE))
    places = np.sort(_places(points, corners[:-1]))
    edges = np.roll(points[places], -1, axis=0) - points[places]
    horizontal = np.abs(edges[:, 0]) >= np.abs(edges[:, 1])
    turns = np.flatnonzero(horizontal != np.roll(horizontal, 1))
    if len(turns) < 4:
        return None
    starts = places[turns]
    first_horizontal = bool(horizontal[turns[0]])
    # A wall's position is the mean of its points, both ends included: of y for horizontal ones, else of x.
    across = [1, 0] if first_horizontal else [0, 1]
    ends = np.append(starts[1:], starts[0] + len(points))
    totals: list[float] = []
    counts: list[int] = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        values = points[np.arange(start, end + 1) % len(points), across[i % 2]]
        totals.append(float(values.sum()))
        counts.append(len(values))
    while len(totals) > 4:
        positions = np.array(totals) / counts
        lengths = np.abs(np.roll(positions, -1) - np.roll(positions, 1))
        short = int(lengths.argmin())
        if lengths[short] >= shortest:
            break
        before, after = (short - 1) % len(totals), (short + 1) % len(totals)
        totals[before] += totals[after]
        counts[before] += counts[after]
        for i in sorted((short, after), reverse=True):
            del totals[i], counts[i]
        if after == 0:
            first_horizontal = not first_horizontal
    positions = np.array(totals) / counts
    following = np.roll(positions, -1)
    is_horizontal = (np.arange(len(positions)) % 2 == 0) == first_horizontal
    return np.where(is_horizontal[:, None], np.stack([following, positions], 1), np.stack([positions, following], 1))


def _places(points: NDArray[np.float64], some: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return where in a ring's points, which are all different, some of them stand."""
    whole, part = points @ np.array([1, 1j]), some @ np.array([1, 1j])
    order = np.argsort(whole)
    places: NDArray[np.intp] = order[np.searchsorted(whole, part, sorter=order)]
    return places
