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
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from .geodesy import GroundMeasure


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


@dataclass(frozen=True)
class ObjectTable:
    """Objects ordered from top to bottom, then left to right, by their first pixel.

    Attributes:
        polygons: ``(N,)`` shapely polygons in map coordinates.
        class_ids: ``(N,)`` ints.
        scores: ``(N,)`` mean probability in 0..1.
        areas: ``(N,)`` square metres on the ellipsoid.
    """

    polygons: NDArray[Any]
    class_ids: NDArray[np.int32]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]


class Vectoriser:
    """Collects the objects of a class raster given in blocks of rows from top to bottom.

    Memory holds the objects kept, not the pixels.

    Args:
        transform: Pixel-to-map transform of the class raster.
        measure: Measures areas in the raster's CRS.
        gsd: Ground sample distance in metres.
        min_area: Smallest object kept, in square metres.
        simplify: Tolerance in map units; 0 keeps the pixel outline. Borders shared by neighbours stay shared.
    """

    def __init__(
        self, transform: Affine, measure: GroundMeasure, gsd: float, min_area: float = 0.0, simplify: float = 0.0
    ) -> None:
        self._transform = transform
        self._measure = measure
        self._gsd = gsd
        self._min_area = min_area
        self._simplify = simplify
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
        """Close what is still open and return all objects."""
        self._close(self._open)
        self._open, self._border = [], None
        objects = sorted(self._closed, key=lambda entry: entry[0].first)
        polygons = np.array([polygon for _, polygon, _ in objects], dtype=object)
        areas = np.array([area for _, _, area in objects], dtype=np.float64)
        if self._simplify > 0 and len(objects):
            polygons, origin = self._simplified(polygons)
            objects = [objects[i] for i in origin]
            areas = self._areas(polygons)
        return ObjectTable(
            polygons,
            np.array([item.class_id for item, _, _ in objects], dtype=np.int32),
            np.array([item.score_sum / item.pixels for item, _, _ in objects], dtype=np.float64),
            areas,
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
        polygons = self._to_map(np.array(outlines, dtype=object))
        for item, polygon, area in zip(objects, polygons, self._areas(polygons), strict=True):
            item.parts = []
            if area >= self._min_area:
                self._closed.append((item, polygon, float(area)))

    def _to_map(self, polygons: NDArray[Any]) -> NDArray[Any]:
        a, b, c, d, e, f = tuple(self._transform)[:6]
        moved: NDArray[Any] = shapely.transform(
            polygons, lambda x, y: (a * x + b * y + c, d * x + e * y + f), interleaved=False
        )
        return moved

    def _areas(self, polygons: NDArray[Any]) -> NDArray[np.float64]:
        return self._measure.areas(self._measure.split_edges(polygons, self._transform, self._gsd))

    def _simplified(self, polygons: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Return simplified single polygons and, for each, the index of the object it came from."""
        pixels = shapely.transform(polygons, lambda x, y: ~self._transform * (x, y), interleaved=False)
        # Borders count as shared only where both sides have the same vertices: put one at every pixel corner.
        noded = shapely.transform(shapely.segmentize(pixels, 1.0), np.rint)
        simple = shapely.coverage_simplify(self._to_map(noded), self._simplify)
        invalid = ~shapely.is_valid(simple)
        simple[invalid] = shapely.make_valid(simple[invalid])
        parts, origin = shapely.get_parts(simple, return_index=True)
        kept = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0)
        return parts[kept], origin[kept]


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
    for outline, value in shapes(labels, labels > 0, connectivity=4, transform=Affine.translation(0, top)):
        objects[int(value) - 1].parts.append(shape(outline))
    return labels, objects


def _outline(parts: list[BaseGeometry]) -> BaseGeometry:
    """Return the one valid polygon that edge-adjacent parts form, without vertices on straight edges."""
    if len(parts) == 1:
        return parts[0]
    whole: BaseGeometry = shapely.simplify(shapely.union_all(parts), 0)
    return whole
