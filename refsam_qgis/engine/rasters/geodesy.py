"""Ground sizes and areas on the ellipsoid of a raster's own CRS."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine

MAX_GEODESIC_EDGE = 1000.0
"""Longest edge, in metres, taken for a geodesic; longer ones are split first, as straight lines on a map are none."""


class GroundMeasure:
    """Measures lengths and areas of map coordinates on the ground.

    Coordinates go to the geodetic CRS the raster's CRS is based on (no datum shift), and are measured on its ellipsoid,
    so this holds on other planets too. Without a CRS, or with one that has no ellipsoid (a local engineering system),
    map units stand for metres.

    Args:
        crs: The raster's CRS, or ``None``.
    """

    def __init__(self, crs: CRS | None) -> None:
        self._unit = 1.0
        self._geod: pyproj.Geod | None = None
        if crs is None:
            return
        horizontal = pyproj.CRS.from_user_input(crs).to_2d()
        if not horizontal.is_geographic:
            self._unit = float(horizontal.axis_info[0].unit_conversion_factor)
        if horizontal.geodetic_crs is not None:
            self._geod = horizontal.get_geod()
            self._to_geodetic = pyproj.Transformer.from_crs(horizontal, horizontal.geodetic_crs, always_xy=True)

    def pixel_size(self, transform: Affine, width: int, height: int) -> float:
        """Return the side in metres of a square of the same ground area as the pixel in the middle of a raster."""
        corners = [transform * (width / 2 + dx, height / 2 + dy) for dx, dy in ((0, 0), (1, 0), (0, 1))]
        if self._geod is not None:
            lon, lat = self._to_geodetic.transform(*np.transpose(corners))
            azimuth, _, length = self._geod.inv([lon[0]] * 2, [lat[0]] * 2, lon[1:], lat[1:])
            size = math.sqrt(abs(length[0] * length[1] * math.sin(math.radians(azimuth[1] - azimuth[0]))))
            if math.isfinite(size) and size > 0:
                return size
        return math.sqrt(abs(transform.determinant)) * self._unit

    def areas(self, polygons: NDArray[Any]) -> NDArray[np.float64]:
        """Return the area in square metres of each polygon.

        Args:
            polygons: ``(N,)`` shapely polygons in map coordinates.
        """
        planar: NDArray[np.float64] = shapely.area(polygons) * self._unit**2
        if self._geod is None or len(polygons) == 0:
            return planar
        # PROJ subtracts holes only where they run against the outer ring.
        rings = shapely.transform(shapely.orient_polygons(polygons), self._to_geodetic.transform, interleaved=False)
        areas = np.array([abs(self._geod.geometry_area_perimeter(polygon)[0]) for polygon in rings])
        return np.where(np.isfinite(areas), areas, planar)

    def split_edges(self, polygons: NDArray[Any], transform: Affine, gsd: float) -> NDArray[Any]:
        """Split edges longer than `MAX_GEODESIC_EDGE` (but no shorter than a pixel) in map coordinates.

        Args:
            polygons: ``(N,)`` shapely polygons in map coordinates.
            transform: The raster's pixel-to-map transform.
            gsd: The raster's ground sample distance in metres.
        """
        pixels = max(1.0, MAX_GEODESIC_EDGE / gsd)
        split: NDArray[Any] = shapely.segmentize(polygons, pixels * math.sqrt(abs(transform.determinant)))
        return split
