"""Objects of a class raster as polygons, from rows that stream past.

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
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.geometry.base import BaseGeometry

from ..job import PolygonOptions
from .holes import filled_areas
from .objects import ObjectTable, PixelGrid


@dataclass
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
    """Collects the objects of a class raster given in blocks of rows from top to bottom.

    Memory holds the objects kept, not the pixels.

    Args:
        grid: The raster's pixels.
        options: Objects that `finish_objects` would find too small in any case are left out at once.
    """

    def __init__(self, grid: PixelGrid, options: PolygonOptions) -> None:
        self._grid = grid
        self._options = options
        self._open: list[_Object] = []
        # Index into the open objects of each pixel of the last row seen, -1 where there is none.
        self._border: NDArray[np.intp] | None = None
        self._row = 0
        self._closed: list[tuple[_Object, BaseGeometry, float]] = []

    def add(self, class_ids: NDArray[np.uint8], scores: NDArray[np.float32]) -> None:
        """Take the next rows.

        Args:
            class_ids: ``(h, W)``; 0 where there is no object.
            scores: ``(h, W)`` probability of the pixel's class in 0..1.
        """
        labels, found = _label(class_ids, scores, self._row)
        membership, merged = self._join(labels[0], found)
        last = np.where(labels[-1] > 0, membership[len(self._open) + labels[-1] - 1] if found else -1, -1)
        still_open = np.unique(last[last >= 0])
        position = np.full(len(merged), -1)
        position[still_open] = np.arange(len(still_open))
        self._border = np.where(last >= 0, position[last] if len(merged) else -1, -1)
        self._open = [merged[i] for i in still_open]
        self._close([item for i, item in enumerate(merged) if position[i] < 0])
        self._row += len(class_ids)

    def finish(self) -> ObjectTable:
        """Close what is still open and return all objects with their pixel outlines."""
        self._close(self._open)
        self._open, self._border = [], None
        objects = sorted(self._closed, key=lambda entry: entry[0].first)
        first = np.array([item.first for item, _, _ in objects], dtype=np.int64).reshape(-1, 2)
        return ObjectTable(
            np.array([polygon for _, polygon, _ in objects], dtype=object),
            self._grid.object_ids(first[:, 0], first[:, 1]),
            np.array([item.class_id for item, _, _ in objects], dtype=np.int32),
            np.array([item.score_sum / item.pixels for item, _, _ in objects], dtype=np.float64),
            np.array([area for _, _, area in objects], dtype=np.float64),
        )

    def _join(self, first_row: NDArray[np.int32], found: Sequence[_Object]) -> tuple[NDArray[np.intp], list[_Object]]:
        """Merge new objects with the open ones they touch.

        Returns:
            The index of the merged object of every open, then every new object; and the merged objects.
        """
        count = len(self._open) + len(found)
        if count == 0:
            return np.zeros(0, np.intp), []
        above: NDArray[Any] = np.zeros(0, np.intp)
        below: NDArray[Any] = above
        if self._border is not None:
            touching = (self._border >= 0) & (first_row > 0)
            above, below = self._border[touching], first_row[touching] - 1
            classes_above = np.array([item.class_id for item in self._open], dtype=int)
            classes_below = np.array([item.class_id for item in found], dtype=int)
            same = classes_above[above] == classes_below[below]
            above, below = above[same], below[same] + len(self._open)
        links = coo_array((np.ones(len(above), np.int8), (above, below)), shape=(count, count))
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
        outlines = [_outline(item.parts) for item in objects]
        polygons = self._grid.to_map(np.array(outlines, dtype=object))
        areas = self._grid.areas(polygons)
        large = filled_areas(polygons, areas, self._grid, self._options.fill_holes) >= self._options.least_area
        for item, polygon, area, kept in zip(objects, polygons, areas, large, strict=True):
            item.parts = []
            if kept:
                self._closed.append((item, polygon, float(area)))


def _label(
    class_ids: NDArray[np.uint8], scores: NDArray[np.float32], top: int
) -> tuple[NDArray[np.int32], list[_Object]]:
    """Label the objects of a block 1..N and measure them; polygons are in pixels of the whole raster."""
    labels = np.zeros(class_ids.shape, np.int32)
    classes: list[int] = []
    for class_id in np.unique(class_ids[class_ids > 0]):
        of_class: NDArray[np.int32]
        of_class, count = label(class_ids == class_id)
        labels += np.where(of_class > 0, of_class + len(classes), 0).astype(np.int32)
        classes += [int(class_id)] * count
    pixels = np.bincount(labels.ravel(), minlength=len(classes) + 1)
    sums = np.bincount(labels.ravel(), weights=scores.ravel(), minlength=len(classes) + 1)
    first = np.zeros(len(classes) + 1, np.intp)
    occupied = np.flatnonzero(labels)[::-1]
    first[labels.ravel()[occupied]] = occupied  # the last assignment, that of the first pixel, stays
    width = class_ids.shape[1]
    objects = [
        _Object(class_id, (top + int(first[i]) // width, int(first[i]) % width), int(pixels[i]), float(sums[i]))
        for i, class_id in enumerate(classes, 1)
    ]
    for polygon, value in zip(*pixel_outlines(labels, Affine.translation(0, top)), strict=True):
        objects[value - 1].parts.append(polygon)
    return labels, objects


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
