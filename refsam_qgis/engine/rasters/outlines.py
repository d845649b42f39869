"""Outlines that people can use: holes filled, simplified, right-angled, large enough, valid.

The steps, in this order:

1. objects that would be too small even with their holes filled are left out;
2. holes smaller than asked are filled, unless another object lies in them;
3. outlines are simplified, both sides of a shared border alike;
4. outlines are made right-angled where that changes little; neighbours are cut where they would overlap, and may stand
   apart by a gap;
5. polygons that are too small now are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine
from shapely.geometry.base import BaseGeometry

from ..job import PolygonOptions
from .holes import fill_holes, filled_areas
from .objects import ObjectTable, PixelGrid
from .right_angles import MIN_IOU, SHORTEST_WALL, right_angled
from .vectorise import pixel_outlines

MAX_TAKEN = 0.1
"""Share of a neighbour's outline that a right-angled outline may cover."""


@dataclass(frozen=True)
class Outlines:
    """Finished outlines.

    Attributes:
        polygons: ``(N,)`` valid shapely polygons (or multipolygons, where one came in) in map coordinates.
        kept: ``(N,)`` index of the polygon each was made from, rising.
        areas: ``(N,)`` square metres on the ellipsoid.
    """

    polygons: NDArray[Any]
    kept: NDArray[np.intp]
    areas: NDArray[np.float64]


def finish_objects(table: ObjectTable, grid: PixelGrid, options: PolygonOptions) -> ObjectTable:
    """Finish the outlines of the objects of a class raster, which touch but do not overlap.

    Args:
        table: Objects with pixel outlines.
        grid: The raster's pixels.
        options: What is asked for.
    """
    outlines = _finish(table.polygons, table.areas, grid, options, overlapping=False)
    kept = outlines.kept
    return ObjectTable(
        outlines.polygons, table.object_ids[kept], table.class_ids[kept], table.scores[kept], outlines.areas
    )


def finish_outlines(
    polygons: NDArray[Any], grid: PixelGrid, options: PolygonOptions, overlapping: bool = False
) -> Outlines:
    """Finish pixel outlines.

    Args:
        polygons: ``(N,)`` valid shapely polygons or multipolygons along pixel borders, in map coordinates.
        grid: The pixels.
        options: What is asked for.
        overlapping: Whether polygons may overlap; each is then finished as if it were alone.
    """
    return _finish(polygons, grid.areas(polygons), grid, options, overlapping)


def _finish(
    polygons: NDArray[Any], areas: NDArray[np.float64], grid: PixelGrid, options: PolygonOptions, overlapping: bool
) -> Outlines:
    kept = np.flatnonzero(filled_areas(polygons, areas, grid, options.fill_holes) >= options.least_area)
    outlines, areas = polygons[kept], areas[kept]
    if len(kept) == 0 or not (options.fill_holes > 0 or options.simplify > 0 or options.right_angles):
        return Outlines(outlines, kept, areas)
    if options.fill_holes > 0:
        outlines = fill_holes(outlines, grid, options.fill_holes, overlapping)
    finished = outlines
    if options.simplify > 0:
        finished = _simplified(outlines, grid, options.simplify, overlapping)
    if options.right_angles:
        squared = _squared(outlines, grid, options.simplify)
        if overlapping:
            finished = np.where(shapely.is_geometry(squared), squared, finished)
        else:
            finished = _placed(squared, finished)
    areas = grid.areas(finished)
    large = (areas >= options.least_area) & (areas > 0)
    return Outlines(finished[large], kept[large], areas[large])


def mask_outline(mask: NDArray[np.bool_], row: int, column: int, grid: PixelGrid) -> BaseGeometry | None:
    """Return the outline of one object's mask in map coordinates; ``None`` for an empty mask.

    Args:
        mask: ``(h, w)`` bool.
        row: Row of its first pixel in the grid.
        column: Its column.
        grid: The pixels.

    Returns:
        A polygon, or a multipolygon where the mask has several parts.
    """
    parts, _ = pixel_outlines(mask.astype(np.int32), Affine.translation(column, row))
    if len(parts) == 0:
        return None
    moved = grid.to_map(parts)
    return moved[0] if len(moved) == 1 else shapely.multipolygons(list(moved))


def _simplified(polygons: NDArray[Any], grid: PixelGrid, tolerance: float, overlapping: bool) -> NDArray[Any]:
    """Simplify by `tolerance` in map units; what two polygons share stays shared."""
    # Borders count as shared only where both sides have the same vertices: put one at every pixel corner.
    noded = grid.to_map(shapely.transform(shapely.segmentize(grid.to_pixels(polygons), 1.0), np.rint))
    simple: NDArray[Any]
    if overlapping:
        simple = np.array([shapely.coverage_simplify([polygon], tolerance)[0] for polygon in noded], dtype=object)
    else:
        simple = shapely.coverage_simplify(noded, tolerance)
    return simple


def _squared(polygons: NDArray[Any], grid: PixelGrid, tolerance: float) -> NDArray[Any]:
    """Return right-angled outlines, ``None`` where there is none."""
    parts, owners = shapely.get_parts(polygons, return_index=True)
    # Work in units of about a pixel, in which angles are those on the ground.
    centres = shapely.get_coordinates(shapely.centroid(parts))
    scales = np.stack([grid.measure.aspects(centres), np.ones(len(parts))], 1) / grid.pixel_side
    near = _scaled(parts, -centres, scales)
    squared = right_angled(near, max(SHORTEST_WALL, tolerance / grid.pixel_side))
    found = np.flatnonzero(shapely.is_geometry(squared))
    squared[found] = _scaled(squared[found], centres[found] * scales[found], 1 / scales[found])
    whole = np.full(len(polygons), None, dtype=object)
    single = np.bincount(owners, minlength=len(polygons))[owners] == 1
    whole[owners[single]] = squared[single]
    for owner in np.unique(owners[~single]):
        if None not in (of_owner := list(squared[owners == owner])):
            whole[owner] = shapely.union_all(of_owner)
    return whole


def _scaled(polygons: NDArray[Any], shifts: NDArray[np.float64], scales: NDArray[np.float64]) -> NDArray[Any]:
    """Shift and then scale each polygon; `shifts` and `scales` are ``(N, 2)``."""
    points, polygon = shapely.get_coordinates(polygons, return_index=True)
    scaled: NDArray[Any] = shapely.set_coordinates(polygons.copy(), (points + shifts[polygon]) * scales[polygon])
    return scaled


def _placed(squared: NDArray[Any], outlines: NDArray[Any]) -> NDArray[Any]:
    """Put right-angled outlines in the place of others without any overlap.

    Large ones go first; the next are cut where they would overlap those placed. What has no right-angled outline, or
    would be cut to another shape, keeps its outline as far as there is room.

    Args:
        squared: ``(N,)`` polygons or ``None``.
        outlines: ``(N,)`` polygons that do not overlap.
    """
    is_squared = shapely.is_geometry(squared)
    wanted = np.where(is_squared, squared, outlines)
    tree = shapely.STRtree(wanted)
    pairs = np.concatenate([tree.query(wanted, "intersects"), tree.query(outlines, "intersects")], axis=1)
    pairs = np.unique(np.sort(pairs[:, pairs[0] != pairs[1]], axis=0), axis=1)
    pairs = np.concatenate([pairs, pairs[::-1]], axis=1)
    pairs = pairs[:, np.argsort(pairs[0], kind="stable")]
    starts = np.searchsorted(pairs[0], np.arange(len(wanted) + 1))
    placed: NDArray[Any] = wanted.copy()
    is_placed = ~is_squared | (starts[1:] == starts[:-1])
    areas = shapely.area(outlines)
    for i in np.argsort(-areas, kind="stable"):
        if is_placed[i]:
            continue
        neighbours = pairs[1, starts[i] : starts[i + 1]]
        # A large one must not swallow a small one whose turn comes later.
        taken = shapely.area(shapely.intersection(wanted[i], outlines[neighbours]))
        spared = outlines[neighbours[~is_placed[neighbours] & (taken > MAX_TAKEN * areas[neighbours])]]
        barred = shapely.union_all([*placed[neighbours[is_placed[neighbours]]], *spared])
        placed[i] = _largest_part(shapely.difference(wanted[i], barred))
        if _iou(placed[i], outlines[i]) < MIN_IOU:
            placed[i] = _largest_part(shapely.difference(outlines[i], barred))
        is_placed[i] = True
    return placed


def _iou(one: BaseGeometry, other: BaseGeometry) -> float:
    return float(shapely.intersection(one, other).area / shapely.union(one, other).area)


def _largest_part(geometry: BaseGeometry) -> BaseGeometry:
    parts = shapely.get_parts(geometry)
    return parts[shapely.area(parts).argmax()] if len(parts) else shapely.Polygon()
