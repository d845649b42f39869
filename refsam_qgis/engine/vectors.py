"""Features of vector files, in the pixels of a raster."""

from __future__ import annotations

import math
import os
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import ProjError

from .errors import RefSAMError
from .events import Reporter
from .rasters.georeference import pyproj_crs
from .rasters.map_shapes import to_pixels
from .rasters.source import RasterSource

LARGEST_EXACT = 2**53
"""Integers from here on are not all floats."""


def read_features(
    path: str, wanted: str, layer: str | None = None, code: str = "input", may_be_empty: bool = False
) -> gpd.GeoDataFrame:
    """Read the features of a layer that have a geometry.

    Args:
        path: Vector data set.
        wanted: What is to be in it, for messages, such as ``points``.
        layer: Layer inside it; ``None`` for its only or first one.
        code: Of the failures.
        may_be_empty: Whether a layer without features is none.

    Raises:
        RefSAMError: When the file cannot be read, lacks the layer or holds no feature with a geometry.
    """
    try:
        layers = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
        frame = _read(path, layer or layers[0]) if layers else gpd.GeoDataFrame()
    except DataLayerError as error:
        raise RefSAMError(code, f"'{path}' has no layer '{layer}'; it has {', '.join(layers)}.") from error
    except (DataSourceError, OSError, UnicodeError) as error:
        raise unreadable(path, wanted, code) from error
    if len(frame) == 0:
        if may_be_empty:
            return frame if isinstance(frame, gpd.GeoDataFrame) else gpd.GeoDataFrame(geometry=[])
        raise RefSAMError(code, f"The layer of '{path}' is empty; draw {wanted} into it first.")
    if isinstance(frame, gpd.GeoDataFrame):
        frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)].reset_index(drop=True)
    if not isinstance(frame, gpd.GeoDataFrame) or len(frame) == 0:
        raise RefSAMError(code, f"'{path}' has no geometry; give a layer of {wanted}.")
    return frame


def unreadable(path: str, wanted: str, code: str = "input") -> RefSAMError:
    """Return what is wrong with a file that cannot be opened as a vector data set; arguments as of `read_features`."""
    what = "cannot be read as a vector data set" if os.path.exists(path) else "does not exist"
    return RefSAMError(code, f"'{path}' {what}; give a file of {wanted}.")


def crs_of(frame: gpd.GeoDataFrame) -> pyproj.CRS | None:
    """Return the CRS of features; ``None`` for a local one and where none is known.

    GeoPackages have two undefined CRS for a missing one, of which GDAL and so QGIS took the geographic one for long.
    """
    crs = frame.crs
    return None if crs is None or crs.is_engineering or crs.name.lower().startswith("undefined") else crs


def count_features(path: str, layer: str | None = None) -> int:
    """Return the number of features of a layer that can be read; `layer` as in `read_features`."""
    return int(pyogrio.read_info(path, layer=layer or 0, force_feature_count=True)["features"])


def in_pixels_of(
    raster: RasterSource, frame: gpd.GeoDataFrame, path: str, reporter: Reporter, code: str = "input"
) -> NDArray[Any]:
    """Return the geometries ``(N,)`` in pixels of a raster, whose first pixel reaches from (0, 0) to (1, 1).

    Features without a CRS are taken to be in the raster's. What the raster's CRS cannot show comes out empty.

    Raises:
        RefSAMError: With that code when there is no way between the two CRS.
    """
    geometries = frame.geometry
    if raster.crs is not None:
        if crs_of(frame) is None:
            reporter.log(f"'{path}' has no CRS; it is taken to be in that of '{raster.path}'.")
        else:
            try:
                geometries = geometries.to_crs(pyproj_crs(raster.crs))
            except ProjError as error:
                raise RefSAMError(
                    code,
                    f"'{path}' cannot be transformed into the CRS of raster '{raster.path}'; save it in that CRS.",
                ) from error
    shapes = shapely.force_2d(np.asarray(geometries))
    return to_pixels(shapes, raster.transform, raster.crs, (raster.width / 2, raster.height / 2))


def simple_parts(shapes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the polygons, lines and points that shapes consist of, however deep in collections they are.

    Args:
        shapes: ``(N,)`` shapely geometries.

    Returns:
        The parts, in order, and the index of the shape that each is of.
    """
    parts, origin = shapely.get_parts(shapes, return_index=True)
    while (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
        parts, within = shapely.get_parts(parts, return_index=True)
        origin = origin[within]
    return parts, origin


def polygons_of(shapes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return valid polygons of the area that shapes cover, and the index of the shape that each is of.

    Lines and points are left out, and so are spikes, where an outline runs out along a line and back.
    """
    parts, origin = simple_parts(shapes)
    invalid = ~shapely.is_valid(parts)
    parts[invalid] = shapely.make_valid(parts[invalid])
    pieces, within = simple_parts(parts)
    areal = shapely.get_type_id(pieces) == shapely.GeometryType.POLYGON
    return pieces[areal], origin[within][areal]


def field_values(frame: gpd.GeoDataFrame, path: str, field: str, code: str = "input") -> list[str]:
    """Return the value of a field as text for each feature, empty where it has none.

    Raises:
        RefSAMError: With that code when there is no such field.
    """
    fields = [str(name) for name in frame.columns if name != frame.geometry.name]
    if field not in fields:
        known = f"it has {', '.join(fields)}" if fields else "it has no fields"
        raise RefSAMError(code, f"'{path}' has no field '{field}'; {known}.")
    missing = frame[field].isna()
    return ["" if absent else _text(value) for value, absent in zip(frame[field], missing, strict=True)]


def value_order(value: str) -> tuple[bool, float, str]:
    """Key that sorts field values: numbers before words, by value."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    # "nan" has no order and so would leave one to chance; it and "inf" are words.
    return (False, number, value) if math.isfinite(number) else (True, 0.0, value)


def _read(path: str, layer: str) -> gpd.GeoDataFrame:
    """Read a layer with the types that its fields have: pandas has no dates, nor missing truth values and integers."""
    frame = gpd.read_file(path, layer=layer, engine="pyogrio", fid_as_index=True)
    info = pyogrio.read_info(path, layer=layer)
    for field, kind in zip(info["fields"], map(str, info["dtypes"]), strict=True):
        values = frame[field]
        if kind == "datetime64[D]" and values.dtype.kind == "M":
            frame[field] = values.dt.date
        elif kind == "bool" and values.dtype.kind == "f":
            frame[field] = values.map({1.0: True, 0.0: False})
        elif kind == "int64" and values.dtype.kind == "f" and (values.abs() >= LARGEST_EXACT).any():
            there = values.index[values.notna()]
            exact = pyogrio.read_dataframe(
                path, layer=layer, columns=[field], fids=there, read_geometry=False, fid_as_index=True
            )
            frame[field] = exact[field].astype(object).reindex(frame.index)
    return frame


def _text(value: object) -> str:
    # Integer fields with an empty value arrive as floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
