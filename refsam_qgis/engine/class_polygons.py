"""Class polygons: outlined objects with a class each, as results, truth and training labels come."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.transform import Affine

from .errors import RefSAMError
from .rasters.georeference import pyproj_crs
from .rasters.map_shapes import to_pixels
from .references.marks import DEFAULT_CLASS
from .vectors import crs_of, field_values, polygons_of, read_features, value_order


@dataclass(frozen=True)
class ClassPolygons:
    """Outlined objects; the parts of a multi-part feature are objects of their own.

    Attributes:
        path: Where they were read.
        polygons: ``(N,)`` valid shapely polygons.
        names: ``(N,)`` class names, empty where a feature has none.
        crs: CRS of the coordinates, or ``None``.
    """

    path: str
    polygons: NDArray[Any]
    names: NDArray[Any]
    crs: pyproj.CRS | None

    @property
    def classes(self) -> list[str]:
        """The class names, numbers before words."""
        return sorted(set(self.names) - {""}, key=value_order)

    @property
    def digest(self) -> str:
        """SHA-256 of shapes, classes and CRS, whatever file they are in."""
        sha256 = hashlib.sha256(b"" if self.crs is None else self.crs.to_wkt().encode())
        for polygon, name in zip(shapely.to_wkb(self.polygons), self.names, strict=True):
            sha256.update(polygon + name.encode() + b"\0")
        return sha256.hexdigest()

    def in_pixels(self, transform: Affine, crs: CRS | None, centre: tuple[float, float]) -> ClassPolygons:
        """Return them in the pixel coordinates of a raster, without those that its CRS cannot show.

        A missing CRS on either side is taken to be that of the other.

        Args:
            transform: Pixel-to-map transform of the raster.
            crs: Its CRS, or ``None``.
            centre: Column and row of its centre.

        Raises:
            RefSAMError: With code ``input`` when there is no way between the two CRS.
        """
        polygons, names = self.polygons, self.names
        if self.crs is not None and crs is not None:
            try:
                series = gpd.GeoSeries(polygons, crs=self.crs).to_crs(pyproj_crs(crs))
            except ProjError as error:
                raise RefSAMError(
                    "input", f"'{self.path}' cannot be transformed into {crs.to_string()}; save it in that CRS."
                ) from error
            polygons = np.asarray(series)
        shown = np.isfinite(shapely.bounds(polygons)).all(axis=1)
        moved = to_pixels(polygons[shown], transform, crs, centre)
        return replace(self, polygons=moved, names=names[shown], crs=None)


def read_class_polygons(path: str, field: str | None) -> ClassPolygons:
    """Read the first layer of a vector data set; points and lines are left out.

    Args:
        path: Vector data set; may be empty.
        field: Attribute that holds the class; ``None`` when all are `DEFAULT_CLASS`.

    Raises:
        RefSAMError: With code ``input`` when the file cannot be read, has no polygons but other shapes, or lacks the
            field.
    """
    frame = read_features(path, "polygons", may_be_empty=True)
    names = _names(frame, path, field)
    shapes = shapely.force_2d(np.asarray(frame.geometry))
    polygons, origin = polygons_of(shapes)
    if len(shapes) and not len(polygons):
        raise RefSAMError("input", f"'{path}' holds no polygons; give a layer of polygons.")
    return ClassPolygons(path, polygons, names[origin], crs_of(frame))


def _names(frame: gpd.GeoDataFrame, path: str, field: str | None) -> NDArray[Any]:
    if field is None:
        return np.full(len(frame), DEFAULT_CLASS, dtype=object)
    names = field_values(frame, path, field)
    if names and not any(names):
        raise RefSAMError("input", f"Field '{field}' of '{path}' is empty; fill in the classes.")
    return np.array(names, dtype=object)
