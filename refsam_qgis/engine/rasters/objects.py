"""The objects found in a raster, and where its pixels lie on the map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.windows import Window

from .geodesy import GroundMeasure
from .source import RasterSource


@dataclass(frozen=True)
class ObjectTable:
    """Objects ordered by id, that is from top to bottom, then left to right, by their first pixel.

    Attributes:
        polygons: ``(N,)`` shapely polygons in map coordinates.
        object_ids: ``(N,)`` ints, see `PixelGrid.object_ids`.
        class_ids: ``(N,)`` ints.
        scores: ``(N,)`` mean probability in 0..1.
        areas: ``(N,)`` square metres on the ellipsoid.
    """

    polygons: NDArray[Any]
    object_ids: NDArray[np.int64]
    class_ids: NDArray[np.int32]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]


@dataclass(frozen=True)
class PixelGrid:
    """Where the pixels of a part of a raster lie on the map and in the whole raster.

    Attributes:
        transform: Pixel-to-map transform of the part.
        measure: Measures areas in the raster's CRS.
        gsd: Ground sample distance in metres.
        raster_width: Width of the whole raster in pixels.
        origin: Row and column of the part's first pixel in the whole raster.
    """

    transform: Affine
    measure: GroundMeasure
    gsd: float
    raster_width: int
    origin: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, raster: RasterSource, window: Window) -> PixelGrid:
        """Return the grid of a window of a raster."""
        row, column = int(window.row_off), int(window.col_off)
        transform = raster.transform @ Affine.translation(column, row)
        return cls(transform, raster.measure, raster.gsd, raster.width, (row, column))

    @property
    def pixel_side(self) -> float:
        """Side of a square of a pixel's area, in map units."""
        return math.sqrt(abs(self.transform.determinant))

    def object_ids(self, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.int64]:
        """Return ``1 + row * raster_width + column`` in the whole raster: the number of an object's first pixel.

        It is the same whatever part of the raster was read and whatever else was found.

        Args:
            rows: ``(N,)`` row in the part of each object's first pixel, in reading order.
            columns: ``(N,)`` its column.
        """
        top, left = self.origin
        return 1 + (np.asarray(rows, np.int64) + top) * self.raster_width + np.asarray(columns, np.int64) + left

    def to_map(self, polygons: NDArray[Any]) -> NDArray[Any]:
        """Move polygons from pixels of the part to the map."""
        return _moved(polygons, self.transform)

    def to_pixels(self, polygons: NDArray[Any]) -> NDArray[Any]:
        """Move polygons from the map to pixels of the part."""
        return _moved(polygons, ~self.transform)

    def areas(self, polygons: NDArray[Any]) -> NDArray[np.float64]:
        """Return the area in square metres of each polygon ``(N,)`` in map coordinates."""
        return self.measure.areas(self.measure.split_edges(polygons, self.transform, self.gsd))


def _moved(polygons: NDArray[Any], transform: Affine) -> NDArray[Any]:
    a, b, c, d, e, f = tuple(transform)[:6]
    moved: NDArray[Any] = shapely.transform(
        polygons, lambda x, y: (a * x + b * y + c, d * x + e * y + f), interleaved=False
    )
    return moved
