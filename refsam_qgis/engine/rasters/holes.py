"""Small holes of polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from .objects import PixelGrid


def filled_areas(
    polygons: NDArray[Any], areas: NDArray[np.float64], grid: PixelGrid, largest: float
) -> NDArray[np.float64]:
    """Return the area in square metres that each polygon would have with its small holes filled.

    Args:
        polygons: ``(N,)`` shapely polygons or multipolygons in map coordinates.
        areas: ``(N,)`` their areas as they are.
        grid: Measures areas.
        largest: Holes smaller than this are filled, in square metres.
    """
    if largest <= 0:
        return areas
    holes, owners = _holes(polygons)
    sizes = grid.areas(holes)
    small = sizes < largest
    filled: NDArray[np.float64] = areas + np.bincount(owners[small], sizes[small], minlength=len(polygons))
    return filled


def fill_holes(polygons: NDArray[Any], grid: PixelGrid, largest: float, overlapping: bool) -> NDArray[Any]:
    """Fill small holes.

    Args:
        polygons: ``(N,)`` shapely polygons or multipolygons in map coordinates.
        grid: Measures areas.
        largest: Holes smaller than this are filled, in square metres.
        overlapping: Whether polygons may overlap; if not, holes with another polygon in them stay.
    """
    holes, owners = _holes(polygons)
    fill = grid.areas(holes) < largest
    if not overlapping and fill.any():
        # A point in each polygon tells: rounded corners on the rim of a hole lie a hair outside it on rotated rasters.
        occupied, _ = shapely.STRtree(shapely.point_on_surface(polygons)).query(holes, predicate="contains")
        fill[occupied] = False
    filled: NDArray[Any] = polygons.copy()
    changed, starts = np.unique(owners[fill], return_index=True)  # owners rise
    for owner, holes_of_owner in zip(changed, np.split(holes[fill], starts[1:]), strict=False):
        filled[owner] = shapely.union_all([polygons[owner], *holes_of_owner])
    return filled


def _holes(polygons: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return every hole as a polygon, and the index of the polygon it is in."""
    parts, owners = shapely.get_parts(polygons, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    # The first ring of each part is its shell.
    inner = np.flatnonzero(part[1:] == part[:-1]) + 1
    holes: NDArray[Any] = shapely.polygons(rings[inner])
    return holes, owners[part[inner]]
