"""Marked examples, read from vector files into the pixels of the raster they are drawn on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from ..errors import RefSAMError
from ..events import Reporter
from ..job import ReferenceSource
from ..rasters.source import RasterSource
from ..vectors import field_values, in_pixels_of, polygons_of, read_features, simple_parts, value_order

MAX_CLASSES = 254
"""Most classes a mask of 8 bits can tell apart beside background and nodata."""
SCRIBBLE_RADIUS = 1.5
"""Half the width of a drawn line, in pixels."""
POINT_RADIUS = 2.0
"""Radius of a drawn point, in pixels."""
TINY_AREA = 4.0
"""Polygons smaller than this, in pixels, may miss every pixel centre and are checked for it."""
LEAST_AREA = 1e-6
"""Polygons smaller than this, in pixels, are clicks or lines there and back: rounding leaves them as much."""
DEFAULT_CLASS = "object"
"""Name of the class when the marks have no class field."""
WANTED = "polygons, lines or points"
CODE = "reference"


@dataclass(frozen=True)
class Mark:
    """One drawn polygon, line or point.

    Attributes:
        outline: Polygon of what is drawn, in pixel coordinates.
        size: Side in pixels of the object it shows; ``None`` for a point, which does not say.
        is_area: Whether it outlines its object, rather than lying in it.
        all_touched: Whether it holds no pixel centre, so that every pixel it touches is drawn.
    """

    outline: BaseGeometry
    size: float | None
    is_area: bool
    all_touched: bool


@dataclass
class _LeftOut:
    """How many parts of features can be no marks on a raster: they lie beside it, or are polygons without area."""

    beside: int = 0
    flat: int = 0

    def tell(self, path: str, raster: RasterSource, reporter: Reporter) -> None:
        if self.beside:
            reporter.log(f"{self.beside} marks of '{path}' lie beside raster '{raster.path}' and are left out.")
        if self.flat:
            reporter.log(f"{self.flat} polygons of '{path}' have no area and are left out.")


@dataclass(frozen=True)
class Marks:
    """What is marked on one raster.

    Attributes:
        classes: Marks of each class by its name, ordered by the names; a class may have none on this raster.
        negatives: Marks on what is to be told apart from every class.
    """

    classes: dict[str, list[Mark]]
    negatives: list[Mark]


def read_marks(source: ReferenceSource, raster: RasterSource, reporter: Reporter) -> Marks:
    """Read the marks that fall on a raster, in its pixel coordinates.

    Args:
        source: Names the vector files; its raster is not looked at.
        raster: The raster they are drawn on.
        reporter: Hears about what was left out or assumed.

    Raises:
        RefSAMError: With code ``reference`` for files that cannot be read and where no mark is on the raster, or none
            there has an area. Negatives that do so, or an empty layer of them, are only told of: the classes can be
            found without them.
    """
    path = source.vector
    if path is None:
        raise RefSAMError("reference", f"There are no marks for raster '{raster.path}'; give a layer of them.")
    frame = read_features(path, WANTED, source.layer, CODE)
    names = _class_names(frame, path, source.class_field, reporter)
    shapes = in_pixels_of(raster, frame, path, reporter, CODE)
    left_out = _LeftOut()
    classes = {
        name: _on_raster(shapes[names == name], raster, left_out) for name in sorted(set(names) - {""}, key=value_order)
    }
    if not any(classes.values()) and left_out.flat:
        raise RefSAMError(
            "reference", f"The polygons of '{path}' on raster '{raster.path}' have no area; outline the examples anew."
        )
    if not any(classes.values()):
        raise RefSAMError(
            "reference",
            f"No geometry of '{path}' falls on raster '{raster.path}'; check the CRS of both, or give the raster they "
            "were drawn on.",
        )
    if len(classes) > MAX_CLASSES:
        raise RefSAMError(
            "reference",
            f"Field '{source.class_field}' of '{path}' holds {len(classes)} classes; use at most {MAX_CLASSES}.",
        )
    left_out.tell(path, raster, reporter)
    return Marks(classes, _read_negatives(source.negatives, raster, reporter))


def _read_negatives(path: str | None, raster: RasterSource, reporter: Reporter) -> list[Mark]:
    if path is None:
        return []
    frame = read_features(path, WANTED, code=CODE, may_be_empty=True)
    left_out = _LeftOut()
    marks = _on_raster(in_pixels_of(raster, frame, path, reporter, CODE), raster, left_out) if len(frame) else []
    if marks or left_out.flat:
        left_out.tell(path, raster, reporter)
    if not marks:
        reporter.log(f"No negative of '{path}' falls on raster '{raster.path}'; it is searched without.")
    return marks


def _class_names(frame: gpd.GeoDataFrame, path: str, field: str | None, reporter: Reporter) -> NDArray[Any]:
    """Return the class name of each feature, empty where it has none."""
    if field is None:
        return np.full(len(frame), DEFAULT_CLASS, dtype=object)
    names = np.array(field_values(frame, path, field, CODE), dtype=object)
    nameless = int((names == "").sum())
    if nameless == len(names):
        raise RefSAMError("reference", f"Field '{field}' of '{path}' is empty; fill in the classes.")
    if nameless:
        reporter.log(f"{nameless} marks of '{path}' have no class in field '{field}' and are left out.")
    return names


def _on_raster(shapes: NDArray[Any], raster: RasterSource, left_out: _LeftOut) -> list[Mark]:
    """Turn the shapes that fall on a raster, in whose pixels they are, into marks, counting the parts left out."""
    parts, _ = simple_parts(shapes)
    inside = shapely.intersects(parts, shapely.box(0, 0, raster.width, raster.height))
    marks = [_mark(part) for part in parts[inside]]
    whole = [mark for mark in marks if not mark.is_area or mark.outline.area >= LEAST_AREA]
    left_out.beside += len(parts) - len(marks)
    left_out.flat += len(marks) - len(whole)
    return whole


def _mark(shape: BaseGeometry) -> Mark:
    if shape.geom_type == "Polygon":
        outline = shape if shape.is_valid else shapely.multipolygons(polygons_of(np.array([shape]))[0])
        return Mark(outline, float(np.sqrt(outline.area)), True, _misses_centres(outline))
    if shape.geom_type == "Point":
        return Mark(shape.buffer(POINT_RADIUS), None, False, False)
    xmin, ymin, xmax, ymax = shape.bounds
    return Mark(shape.buffer(SCRIBBLE_RADIUS), float(max(xmax - xmin, ymax - ymin)), False, False)


def _misses_centres(outline: BaseGeometry) -> bool:
    if outline.is_empty or outline.area >= TINY_AREA:
        return False
    xmin, ymin, xmax, ymax = outline.bounds
    x, y = np.meshgrid(np.arange(np.floor(xmin), xmax) + 0.5, np.arange(np.floor(ymin), ymax) + 0.5)
    return not bool(shapely.contains_xy(outline, x, y).any())
