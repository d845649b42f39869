"""Shapes on this or another map, and the pixels of a raster."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine

from .georeference import pyproj_crs


def to_pixels(
    shapes: NDArray[Any], transform: Affine, crs: CRS | None, centre: tuple[float, float]
) -> NDArray[np.object_]:
    """Return shapes in pixels of a raster, whose first pixel reaches from (0, 0) to (1, 1).

    Longitudes are the same after a whole turn, and PROJ gives those of -180 to 180 degrees, wherever the raster lies.
    On a map of longitudes each part of a shape therefore moves by the whole turns that bring it nearest to the raster.
    What the map cannot show, as its coordinates are infinite, comes out empty.

    Args:
        shapes: ``(N,)`` shapely geometries of two dimensions in map coordinates.
        transform: Pixel-to-map transform of the raster.
        crs: CRS of both, or ``None``.
        centre: Column and row of the raster's centre.
    """
    shapes = np.where(np.isfinite(shapely.bounds(shapes)).all(axis=1), shapes, shapely.Point())
    turn = None if crs is None else _whole_turn(pyproj_crs(crs))
    if turn is not None:
        shapes = _turned(shapes, float((transform * centre)[0]), turn)
    back = ~transform
    moved: NDArray[np.object_] = shapely.transform(
        shapes, lambda x, y: (back.a * x + back.b * y + back.c, back.d * x + back.e * y + back.f), interleaved=False
    )
    return moved


class ForeignRectangle:
    """A rectangle of another map than a raster's, on which it is none.

    Args:
        bounds: ``(xmin, ymin, xmax, ymax)`` in units of its own map.
        crs: CRS of its own map.
        raster_crs: CRS of the raster.

    Raises:
        ProjError: When there is no way between the two CRS.
    """

    def __init__(self, bounds: tuple[float, float, float, float], crs: CRS, raster_crs: CRS) -> None:
        own = pyproj_crs(crs)
        self._bounds = bounds
        self._to_own = pyproj.Transformer.from_crs(pyproj_crs(raster_crs), own, always_xy=True)
        self._turn = _whole_turn(own)

    def contains(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which places lie in it.

        Args:
            x: Coordinates on the raster's map, of any shape.
            y: The same.
        """
        xmin, ymin, xmax, ymax = self._bounds
        x, y = self._to_own.transform(x, y)
        if self._turn is not None:
            x = xmin + (x - xmin) % self._turn
        inside: NDArray[np.bool_] = (x >= xmin) & (x <= xmax) & (y >= ymin) & (y <= ymax)
        return inside


def _whole_turn(crs: pyproj.CRS) -> float | None:
    """Return a whole turn in the units of a map of longitudes, ``None`` of another map."""
    return 360 / math.degrees(crs.axis_info[0].unit_conversion_factor) if crs.is_geographic else None


def _turned(shapes: NDArray[Any], longitude: float, turn: float) -> NDArray[np.object_]:
    """Add to each part of shapes the whole turns that bring its middle nearest to a longitude."""
    points, part = shapely.get_coordinates(shapely.get_parts(shapes), return_index=True)
    if len(points) == 0:
        return shapes
    _, first, part = np.unique(part, return_index=True, return_inverse=True)
    along = points[:, 0]
    # An edge from 179 to -179 degrees is none of 358: PROJ tore it. One of a whole turn goes around the globe.
    edges = np.abs(np.diff(along))
    tears = (part[1:] == part[:-1]) & (edges > turn / 2) & (edges < turn)
    torn = np.bincount(part[1:], tears, minlength=len(first)) > 0
    along = np.where(torn[part], along + _turns(along[first][part] - along, turn), along)
    middle = (np.minimum.reduceat(along, first) + np.maximum.reduceat(along, first)) / 2
    points[:, 0] = along + _turns(longitude - middle, turn)[part]
    turned: NDArray[np.object_] = shapely.set_coordinates(shapes.copy(), points)
    return turned


def _turns(angles: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    """Return the whole turns nearest to angles, as angles."""
    return turn * np.round(angles / turn)
