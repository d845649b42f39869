"""Objects of a class raster as polygons, from pieces that stream past.

Objects are 4-connected pixels of one class. Pixels that touch only at a corner stay apart: joined (8-connected), their
outlines would cross themselves and make invalid polygons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.transform import Affine
from scipy.ndimage import find_objects, label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.geometry.base import BaseGeometry

from ..job import PolygonOptions
from .holes import filled_areas
from .objects import ObjectTable, PixelGrid


@dataclass(slots=True)
class _Object:
    """An object, or as much of it as has streamed past."""

    class_id: int
    first: tuple[int, int]
    pixels: int = 0
    score_sum: float = 0.0
    parts: list[BaseGeometry] = field(default_factory=list)

    def absorb(self, other: _Object) -> None:
        self.first = min(self.first, other.first)
        self.pixels += other.pixels
        self.score_sum += other.score_sum
        self.parts += other.parts


class Vectoriser:
    """Collects the objects of a class raster given in pieces, row by row of them.

    Memory holds the objects kept, not the pixels.

    Args:
        grid: The raster's pixels.
        width: Of the raster, in pixels.
        options: Objects that `finish_objects` would find too small in any case are left out at once.
    """

    def __init__(self, grid: PixelGrid, width: int, options: PolygonOptions) -> None:
        self._grid = grid
        self._options = options
        # What later pieces may touch. The arrays hold indices into it, -1 where there is no object.
        self._open: list[_Object] = []
        self._above = np.full(width, -1, np.intp)  # the row of pixels above the present pieces
        self._below = np.full(width, -1, np.intp)  # the last row of pixels of the present pieces
        self._beside = np.full(0, -1, np.intp)  # the last column of pixels of the last piece
        self._rows = (0, 0)
        self._end_column = 0
        self._closed: list[tuple[int, int, float, float, BaseGeometry]] = []

    @property
    def waiting(self) -> int:
        """Number of objects that may go on in later pieces."""
        return len(self._open)

    def add(self, row: int, column: int, class_ids: NDArray[np.uint8], scores: NDArray[np.float32]) -> None:
        """Take the next piece: right of the last one and with the same rows, or below.

        Args:
            row: Its first row.
            column: Its first column.
            class_ids: ``(h, w)``; 0 where there is no object. Nor is there one where no piece is.
            scores: ``(h, w)`` probability of the pixel's class in 0..1.
        """
        height, width = class_ids.shape
        if (row, row + height) != self._rows:
            self._next_row(row, row + height)
        columns = slice(column, column + width)
        beside = self._beside if column == self._end_column else np.full(height, -1, np.intp)
        labels, found = _objects(class_ids, scores, row, column)
        membership, merged = self._join(
            np.concatenate([self._above[columns], beside]), np.concatenate([labels[0], labels[:, 0]]) - 1, found
        )
        was_open, new = membership[: len(self._open)], membership[len(self._open) :]
        touching = np.unique(np.concatenate([labels[-1], labels[:, -1]]))
        position = self._keep_open(merged, np.union1d(was_open, new[touching[touching > 0] - 1]))
        self._above, self._below = (_looked_up(position[was_open], border) for border in (self._above, self._below))
        self._below[columns] = _looked_up(position[new], labels[-1] - 1)
        self._beside = _looked_up(position[new], labels[:, -1] - 1)
        self._end_column = column + width

    def finish(self) -> ObjectTable:
        """Close what is still open and return all objects with their pixel outlines."""
        self._close(self._open)
        self._open = []
        closed, self._closed = sorted(self._closed, key=lambda entry: entry[0]), []
        ids, class_ids, scores, areas, polygons = zip(*closed, strict=True) if closed else ([],) * 5
        return ObjectTable(
            np.array(polygons, dtype=object),
            np.array(ids, dtype=np.int64),
            np.array(class_ids, dtype=np.int32),
            np.array(scores, dtype=np.float64),
            np.array(areas, dtype=np.float64),
        )

    def _next_row(self, top: int, bottom: int) -> None:
        """Go on to the next row of pieces."""
        if top != self._rows[1]:  # nothing is in between
            self._below[:] = -1
        position = self._keep_open(self._open, np.unique(self._below[self._below >= 0]))
        self._above = _looked_up(position, self._below)
        self._below = np.full_like(self._above, -1)
        self._end_column = -1
        self._rows = top, bottom

    def _keep_open(self, objects: list[_Object], kept: NDArray[np.intp]) -> NDArray[np.intp]:
        """Keep some objects open and close the others; return where each is now among the open ones, or -1."""
        position = np.full(len(objects), -1, np.intp)
        position[kept] = np.arange(len(kept))
        self._open = [objects[i] for i in kept]
        self._close([item for item, place in zip(objects, position, strict=True) if place < 0])
        return position

    def _join(
        self, open_side: NDArray[np.intp], new_side: NDArray[np.integer[Any]], found: Sequence[_Object]
    ) -> tuple[NDArray[np.intp], list[_Object]]:
        """Merge new objects with the open ones they touch.

        Args:
            open_side: ``(E,)`` index of the open object on one side of each pixel edge, or -1.
            new_side: ``(E,)`` index of the new object on the other side, or -1.
            found: The new objects.

        Returns:
            The index of the merged object of every open, then every new object; and the merged objects.
        """
        count = len(self._open) + len(found)
        if count == 0:
            return np.zeros(0, np.intp), []
        touching = (open_side >= 0) & (new_side >= 0)
        one, other = open_side[touching], new_side[touching] + len(self._open)
        classes = np.array([item.class_id for item in [*self._open, *found]])
        same = classes[one] == classes[other]
        one, other = one[same], other[same]
        links = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(count, count))
        groups, membership = connected_components(links, directed=False)
        merged: list[_Object | None] = [None] * groups
        for item, group in zip([*self._open, *found], membership, strict=True):
            if (known := merged[group]) is None:
                merged[group] = item
            else:
                known.absorb(item)
        return membership.astype(np.intp), [item for item in merged if item is not None]

    def _close(self, objects: list[_Object]) -> None:
        """Keep the finished objects that are large enough."""
        if not objects:
            return
        outlines = [_outline(item.parts) for item in objects]
        polygons = self._grid.to_map(np.array(outlines, dtype=object))
        areas = self._grid.areas(polygons)
        large = filled_areas(polygons, areas, self._grid, self._options.fill_holes) >= self._options.least_area
        first = np.array([item.first for item in objects])
        ids = self._grid.object_ids(first[:, 0], first[:, 1])
        for i in np.flatnonzero(large):
            item = objects[i]
            self._closed.append(
                (int(ids[i]), item.class_id, item.score_sum / item.pixels, float(areas[i]), polygons[i])
            )


def _looked_up(table: NDArray[np.intp], indices: NDArray[Any]) -> NDArray[np.intp]:
    """Return the entries of a table at some indices, -1 at -1."""
    found: NDArray[np.intp] = np.append(table, -1)[indices]
    return found


def _objects(
    class_ids: NDArray[np.uint8], scores: NDArray[np.float32], top: int, left: int
) -> tuple[NDArray[np.int32], list[_Object]]:
    """Label the objects of a piece 1..N and measure them; polygons are in pixels of the whole raster."""
    labels, classes, inside = _label(class_ids)
    if not classes:
        return labels, []
    occupied = np.flatnonzero(labels)
    of_pixel = labels.ravel()[occupied]
    pixels = np.bincount(of_pixel, minlength=len(classes) + 1)
    sums = np.bincount(of_pixel, weights=scores.ravel()[occupied], minlength=len(classes) + 1)
    first = np.zeros(len(classes) + 1, np.intp)
    first[of_pixel[::-1]] = occupied[::-1]  # the last assignment, that of the first pixel, stays
    width = class_ids.shape[1]
    objects = [
        _Object(class_id, (top + int(first[i]) // width, left + int(first[i]) % width), int(pixels[i]), float(sums[i]))
        for i, class_id in enumerate(classes, 1)
    ]
    rows, columns = inside
    place = Affine.translation(left + columns.start, top + rows.start)
    for polygon, value in zip(*pixel_outlines(labels[inside], place), strict=True):
        objects[value - 1].parts.append(polygon)
    return labels, objects


def _label(class_ids: NDArray[np.uint8]) -> tuple[NDArray[np.int32], list[int], tuple[slice, slice]]:
    """Return the labels 1..N of a piece's objects, their classes, and the rows and columns that hold them all."""
    labels = np.zeros(class_ids.shape, np.int32)
    classes: list[int] = []
    boxes = {class_id: box for class_id, box in enumerate(find_objects(class_ids), 1) if box is not None}
    for class_id, box in boxes.items():
        of_class: NDArray[np.int32]
        of_class, count = label(class_ids[box] == class_id)
        np.add(labels[box], of_class + len(classes), out=labels[box], where=of_class > 0)
        classes += [class_id] * count
    rows, columns = (_hull([box[axis] for box in boxes.values()]) for axis in (0, 1))
    return labels, classes, (rows, columns)


def _hull(slices: Sequence[slice]) -> slice:
    """Return the smallest slice that holds all of some; an empty one where there is none."""
    return slice(min((each.start for each in slices), default=0), max((each.stop for each in slices), default=0))


def pixel_outlines(labels: NDArray[np.int32], transform: Affine) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the pixel outline of each 4-connected part of equal labels above 0, and its label.

    Args:
        labels: ``(h, w)``.
        transform: From pixels of `labels` to the coordinates wanted.
    """
    corners: list[tuple[float, float]] = []
    ring_sizes: list[int] = []
    ring_counts: list[int] = []
    values: list[int] = []
    for outline, value in shapes(labels, labels > 0, connectivity=4, transform=transform):
        rings = outline["coordinates"]
        for ring in rings:
            corners += ring
            ring_sizes.append(len(ring))
        ring_counts.append(len(rings))
        values.append(int(value))
    if not values:
        return np.array([], dtype=object), np.array([], dtype=np.intp)
    # All at once: shapely is slow at making polygons one by one.
    rings = shapely.linearrings(np.array(corners), indices=np.repeat(np.arange(len(ring_sizes)), ring_sizes))
    return shapely.polygons(rings, indices=np.repeat(np.arange(len(ring_counts)), ring_counts)), np.array(values)


def _outline(parts: list[BaseGeometry]) -> BaseGeometry:
    """Return the one valid polygon that edge-adjacent parts form, without vertices on straight edges."""
    if len(parts) == 1:
        return parts[0]
    whole: BaseGeometry = shapely.simplify(shapely.union_all(parts), 0)
    return whole
