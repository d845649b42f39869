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

from .georeference import pyproj_crs

MAX_GEODESIC_EDGE = 1000.0
"""Longest edge, in metres, taken for a geodesic; longer ones are split first, as straight lines on a map are none."""


MAX_LONGITUDE_STEP = math.radians(0.05)
"""Longest edge, in radians of longitude, of polygons that are measured all at once."""


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
        self._geographic = False
        if crs is None:
            return
        horizontal = pyproj_crs(crs).to_2d()
        self._geographic = bool(horizontal.is_geographic)
        if not self._geographic:
            self._unit = float(horizontal.axis_info[0].unit_conversion_factor)
        if horizontal.geodetic_crs is not None:
            self._geod = horizontal.get_geod()
            self._to_geodetic = pyproj.Transformer.from_crs(horizontal, horizontal.geodetic_crs, always_xy=True)
            self._degrees_per_unit = math.degrees(horizontal.geodetic_crs.axis_info[0].unit_conversion_factor)

    def pixel_size(self, transform: Affine, width: int, height: int) -> float:
        """Return the side in metres of a square of the same ground area as the pixel in the middle of a raster."""
        corners = [transform * (width / 2 + dx, height / 2 + dy) for dx, dy in ((0, 0), (1, 0), (0, 1))]
        if self._geod is not None:
            lon, lat = self._degrees(*np.transpose(corners))
            azimuth, _, length = self._geod.inv([lon[0]] * 2, [lat[0]] * 2, lon[1:], lat[1:])
            size = math.sqrt(abs(length[0] * length[1] * math.sin(math.radians(azimuth[1] - azimuth[0]))))
            if math.isfinite(size) and size > 0:
                return size
        return math.sqrt(abs(transform.determinant)) * self._unit

    def aspects(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how long a map unit along x is on the ground, in units along y, at each point.

        It is 1 on projected maps, which are drawn so that angles look right.

        Args:
            points: ``(N, 2)`` map coordinates.
        """
        if self._geod is None or not self._geographic:
            return np.ones(len(points))
        latitude = np.radians(self._degrees(*points.T)[1])
        # Radius of the parallel over that of curvature along the meridian.
        aspects: NDArray[np.float64]
        aspects = np.cos(latitude) * (1 - self._geod.es * np.sin(latitude) ** 2) / (1 - self._geod.es)
        return aspects

    def areas(self, polygons: NDArray[Any]) -> NDArray[np.float64]:
        """Return the area in square metres of each polygon.

        Args:
            polygons: ``(N,)`` shapely polygons in map coordinates.
        """
        planar: NDArray[np.float64] = shapely.area(polygons) * self._unit**2
        if self._geod is None or len(polygons) == 0:
            return planar
        # PROJ subtracts holes only where they run against the outer ring.
        on_globe = shapely.transform(shapely.orient_polygons(polygons), self._degrees, interleaved=False)
        areas, exact = self._equal_area(on_globe)
        globe = 2 * abs(self._geod.polygon_area_perimeter([0, 120, 240], [0, 0, 0])[0])
        for i in np.flatnonzero(~exact):
            measured = abs(self._geod.geometry_area_perimeter(on_globe[i])[0])
            # Of the two sides that a ring has on the globe, PROJ measures the smaller one.
            areas[i] = min(measured, globe - measured, key=lambda side: abs(side - areas[i]))
        return np.where(np.isfinite(areas), areas, planar)

    def _degrees(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return longitude and latitude in degrees, whatever the geodetic CRS counts in, such as grads."""
        longitude, latitude = self._to_geodetic.transform(x, y)
        return longitude * self._degrees_per_unit, latitude * self._degrees_per_unit

    def _equal_area(self, polygons: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Measure oriented polygons in degrees all at once on a cylindrical equal-area map of the ellipsoid.

        Returns:
            The area of each, and whether it can be trusted: edges must be short in longitude for their image on that
            map to be straight, which they are not near a pole, and no ring may go around one.
        """
        assert self._geod is not None
        parts, part_owners = shapely.get_parts(polygons, return_index=True)
        rings, ring_parts = shapely.get_rings(parts, return_index=True)
        owners = part_owners[ring_parts]
        points, ring = shapely.get_coordinates(rings, return_index=True)
        along = np.radians(points[:, 0])
        sine = np.sin(np.radians(points[:, 1]))
        e = math.sqrt(self._geod.es)
        # Height on the equal-area cylinder, in units of half the squared semi-major axis over radians of longitude.
        height = 2 * sine
        if e > 0:
            height = (1 - e * e) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
        first = np.flatnonzero(np.diff(ring, prepend=-1))
        height -= height[first][ring]  # keeps the digits of small polygons
        step = np.diff(along)
        step = (step + math.pi) % (2 * math.pi) - math.pi
        same = ring[1:] == ring[:-1]
        strips = np.where(same, -step * (height[1:] + height[:-1]) / 2, 0.0) * self._geod.a**2 / 2
        areas = np.abs(np.bincount(owners[ring[:-1]], strips, minlength=len(polygons)))
        turned = np.abs(np.bincount(ring[:-1], np.where(same, step, 0.0)))
        wide = (same & ~(np.abs(step) <= MAX_LONGITUDE_STEP)) | ~(turned[ring[:-1]] < math.pi)
        exact = np.bincount(owners[ring[:-1]], wide, minlength=len(polygons)) == 0
        return areas, exact

    def split_edges(self, polygons: NDArray[Any], transform: Affine, gsd: float) -> NDArray[Any]:
        """Split edges longer than `MAX_GEODESIC_EDGE` (but no shorter than a pixel) in map coordinates.

        Args:
            polygons: ``(N,)`` shapely polygons in map coordinates.
            transform: The raster's pixel-to-map transform.
            gsd: The raster's ground sample distance in metres.
        """
        pixels = max(1.0, MAX_GEODESIC_EDGE / gsd)
        longest = pixels * math.sqrt(abs(transform.determinant))
        west, south, east, north = shapely.bounds(polygons).reshape(-1, 4).T
        large = np.hypot(east - west, north - south) > longest
        split: NDArray[Any] = polygons.copy()
        split[large] = shapely.segmentize(polygons[large], longest)
        return split
