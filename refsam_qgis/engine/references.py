"""Marked examples turned into reference chips."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import shapely
import torch
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import ProjError
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from .errors import RefSAMError
from .events import Reporter
from .job import ReferenceSource
from .models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED, Shots
from .rasters.cover import cover
from .rasters.source import RasterSource

MAX_CHIPS = 10
"""Most chips taken of a class."""
MAX_CLASSES = 254
"""Most classes a mask of 8 bits can tell apart beside background and nodata."""
CHIP_PER_OBJECT = 8
"""Side of a chip in sides of the median object: an object then takes 8 of the 64 cells of SAM's feature grid."""
MIN_CHIP, MAX_CHIP = 256, 1024
"""Bounds of the automatic side of a chip, in pixels of the reference raster."""
CHIP_STEP = 32
LARGEST_CHIP = 8192
GUARD_CELLS = 4
"""Feature cells (of 64 along a chip) around a scribble that nobody can say belong to the object or not."""
SCRIBBLE_RADIUS = 1.5
"""Half the width of a drawn line, in pixels."""
POINT_RADIUS = 2.0
"""Radius of a drawn point, in pixels."""
TINY_AREA = 4.0
"""Polygons smaller than this, in pixels, may miss every pixel centre and are checked for it."""
DEFAULT_CLASS = "object"
"""Name of the class when the marks have no class field."""


@dataclass(frozen=True)
class ClassReference:
    """The reference chips of one class, with its name and its id (1, 2, …)."""

    name: str
    class_id: int
    shots: Shots


@dataclass(frozen=True)
class ReferenceSet:
    """The reference chips of all classes.

    Attributes:
        classes: In the order of their ids.
        chip_ground_size: Side of the chips in metres (in map units without a CRS).
        gsd: Ground sample distance of the reference raster in the same unit.
    """

    classes: tuple[ClassReference, ...]
    chip_ground_size: float
    gsd: float


@dataclass(frozen=True)
class _Mark:
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


def read_references(
    source: ReferenceSource,
    default_raster: str,
    bands: tuple[int, ...] | None,
    stretch: str,
    reporter: Reporter,
    ground_size: float | None = None,
) -> ReferenceSet:
    """Read marked examples as chips of one ground size.

    Args:
        source: Where the marks are.
        default_raster: Raster of the marks if `source` names none.
        bands: Bands of `default_raster`; another reference raster chooses its own.
        stretch: As in `RasterSource`.
        reporter: Hears about what was left out.
        ground_size: Side of the chips in metres (map units without a CRS); ``None`` takes `CHIP_PER_OBJECT` times the
            median object, within `MIN_CHIP` to `MAX_CHIP` pixels and no larger than the raster.

    Raises:
        RefSAMError: With code ``reference`` for marks that cannot be used, ``input`` for the raster.
    """
    path = source.raster or default_raster
    if os.path.realpath(path) != os.path.realpath(default_raster):
        bands = None
    with RasterSource(path, bands, stretch) as raster:
        marks = _read_marks(source, raster, reporter)
        side = _chip_side(marks, raster) if ground_size is None else max(1, round(ground_size / raster.gsd))
        if side > LARGEST_CHIP:
            raise RefSAMError(
                "reference",
                f"A tile covers {side} pixels of the reference raster '{path}'; use a smaller tile size or a coarser "
                "reference raster.",
            )
        classes = tuple(
            ClassReference(name, class_id, _shots(name, marks, raster, side, source, reporter))
            for class_id, name in enumerate(marks, 1)
        )
        size = ground_size if ground_size is not None else side * raster.gsd
        return ReferenceSet(classes, size, raster.gsd)


def _read_marks(source: ReferenceSource, raster: RasterSource, reporter: Reporter) -> dict[str, list[_Mark]]:
    """Read the marks of each class, in pixels of the raster, ordered by class name."""
    frame = _in_crs_of(raster, _read_layer(source), source, reporter)
    names = _class_names(frame, source, reporter)
    in_pixels = frame.geometry.force_2d().affine_transform(_coefficients(~raster.transform))
    bounds = shapely.box(0, 0, raster.width, raster.height)
    marks: dict[str, list[_Mark]] = {}
    for name in sorted(set(names[names != ""]), key=_class_order):
        shapes = in_pixels[names == name].explode(index_parts=False)
        marks[name] = [_mark(shape) for shape in shapes if shape.intersects(bounds)]
    if not any(marks.values()):
        raise RefSAMError(
            "reference",
            f"No geometry of '{source.vector}' falls on raster '{raster.path}'; check the CRS of both, or give the "
            "raster they were drawn on.",
        )
    for name, of_class in marks.items():
        if not of_class:
            raise _no_pixels(name, source, raster)
    if len(marks) > MAX_CLASSES:
        raise RefSAMError(
            "reference",
            f"Field '{source.class_field}' of '{source.vector}' holds {len(marks)} classes; use at most {MAX_CLASSES}.",
        )
    return marks


def _read_layer(source: ReferenceSource) -> gpd.GeoDataFrame:
    """Read the layer's features that have a geometry."""
    path = source.vector
    try:
        layers = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
        if not layers:
            raise RefSAMError("reference", f"'{path}' has no layer; draw examples into it first.")
        frame = gpd.read_file(path, layer=source.layer or layers[0], engine="pyogrio")
    except DataLayerError as error:
        raise RefSAMError(
            "reference", f"'{path}' has no layer '{source.layer}'; it has {', '.join(layers)}."
        ) from error
    except (DataSourceError, OSError, UnicodeError) as error:
        what = "cannot be read as a vector data set" if os.path.exists(path) else "does not exist"
        raise RefSAMError("reference", f"'{path}' {what}; give a file of polygons, lines or points.") from error
    if len(frame) == 0:
        raise RefSAMError("reference", f"The layer of '{path}' is empty; outline at least one example.")
    if isinstance(frame, gpd.GeoDataFrame):
        frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    if not isinstance(frame, gpd.GeoDataFrame) or len(frame) == 0:
        raise RefSAMError("reference", f"'{path}' has no geometry; give a layer of polygons, lines or points.")
    return frame


def _in_crs_of(
    raster: RasterSource, frame: gpd.GeoDataFrame, source: ReferenceSource, reporter: Reporter
) -> gpd.GeoDataFrame:
    if raster.crs is None:
        return frame
    if frame.crs is None or frame.crs.is_engineering:  # GeoPackages store a missing CRS as an undefined local one
        reporter.log(f"'{source.vector}' has no CRS; it is taken to be in that of '{raster.path}'.")
        return frame
    try:
        moved = frame.to_crs(pyproj.CRS.from_user_input(raster.crs))
    except ProjError as error:
        raise RefSAMError(
            "reference",
            f"'{source.vector}' cannot be transformed into the CRS of raster '{raster.path}'; save it in that CRS.",
        ) from error
    return moved[np.isfinite(moved.bounds).all(axis=1)]


def _class_names(frame: gpd.GeoDataFrame, source: ReferenceSource, reporter: Reporter) -> NDArray[Any]:
    """Return the class name of each feature, empty where it has none."""
    field = source.class_field
    if field is None:
        return np.full(len(frame), DEFAULT_CLASS, dtype=object)
    fields = [str(name) for name in frame.columns if name != frame.geometry.name]
    if field not in fields:
        known = f"it has {', '.join(fields)}" if fields else "it has no fields"
        raise RefSAMError("reference", f"'{source.vector}' has no field '{field}'; {known}.")
    missing = frame[field].isna()
    names = np.array(
        ["" if absent else _class_name(value) for value, absent in zip(frame[field], missing, strict=True)],
        dtype=object,
    )
    nameless = int((names == "").sum())
    if nameless == len(names):
        raise RefSAMError("reference", f"Field '{field}' of '{source.vector}' is empty; fill in the classes.")
    if nameless:
        reporter.log(f"{nameless} marks of '{source.vector}' have no class in field '{field}' and are left out.")
    return names


def _class_name(value: object) -> str:
    # Integer fields with an empty value arrive as floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _class_order(name: str) -> tuple[bool, float, str]:
    """Numbers before words, by value."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name


def _mark(shape: BaseGeometry) -> _Mark:
    if shape.geom_type == "Polygon":
        outline = shape if shape.is_valid else shapely.make_valid(shape)
        return _Mark(outline, float(np.sqrt(outline.area)), True, _misses_centres(outline))
    if shape.geom_type == "Point":
        return _Mark(shape.buffer(POINT_RADIUS), None, False, False)
    xmin, ymin, xmax, ymax = shape.bounds
    return _Mark(shape.buffer(SCRIBBLE_RADIUS), float(max(xmax - xmin, ymax - ymin)), False, False)


def _misses_centres(outline: BaseGeometry) -> bool:
    if outline.area >= TINY_AREA:
        return False
    xmin, ymin, xmax, ymax = outline.bounds
    x, y = np.meshgrid(np.arange(np.floor(xmin), xmax) + 0.5, np.arange(np.floor(ymin), ymax) + 0.5)
    return not bool(shapely.contains_xy(outline, x, y).any())


def _chip_side(marks: dict[str, list[_Mark]], raster: RasterSource) -> int:
    """Choose the side of the chips from the objects' sizes; polygons say it best, then scribbles."""
    every = [mark for of_class in marks.values() for mark in of_class if mark.size is not None]
    sizes = [mark.size for mark in every if mark.is_area] or [mark.size for mark in every]
    wanted = CHIP_PER_OBJECT * float(np.median(np.array(sizes, dtype=float))) if sizes else MIN_CHIP
    whole_raster = -(-max(raster.width, raster.height) // CHIP_STEP) * CHIP_STEP
    return min(round(min(max(wanted, MIN_CHIP), MAX_CHIP) / CHIP_STEP) * CHIP_STEP, whole_raster)


def _shots(
    name: str,
    marks: dict[str, list[_Mark]],
    raster: RasterSource,
    side: int,
    source: ReferenceSource,
    reporter: Reporter,
) -> Shots:
    """Cut the chips of one class."""
    own = marks[name]
    others = [mark for other, of_class in marks.items() if other != name for mark in of_class]
    frame = shapely.total_bounds([mark.outline for mark in [*own, *others]])
    images: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.uint8]] = []
    valids: list[NDArray[np.bool_]] = []
    taken: list[BaseGeometry] = []
    for window in cover(
        [mark.outline for mark in own], (frame[0], frame[1], frame[2], frame[3]), side, (raster.height, raster.width)
    ):
        image, valid = raster.read(window)
        mask = _chip_mask(own, others, window, valid, source.annotation)
        if not (mask == FOREGROUND).any():
            continue
        if len(images) == MAX_CHIPS:
            break
        images.append(image)
        masks.append(mask)
        valids.append(valid)
        taken.append(_box(window))
    if not images:
        raise _no_pixels(name, source, raster)
    unseen = len(own) - int(shapely.intersects([mark.outline for mark in own], shapely.union_all(taken)).sum())
    if unseen:
        reporter.log(f"{unseen} of {len(own)} marks of class '{name}' are left out; {len(images)} chips are used.")
    return Shots(*(torch.from_numpy(np.stack(arrays)) for arrays in (images, masks, valids)))


def _chip_mask(
    own: Sequence[_Mark], others: Sequence[_Mark], window: Window, valid: NDArray[np.bool_], annotation: str
) -> NDArray[np.uint8]:
    """Draw the mask of a chip, ``(S, S)``.

    Around scribbles and points lies a guard ring of `IGNORE`, since their object goes on for an unknown distance; what
    is marked as another class is background for certain, even there.
    """
    frame = _box(window)
    mask = np.full(valid.shape, BACKGROUND if annotation == "complete" else UNMARKED, np.uint8)
    guard = GUARD_CELLS * valid.shape[0] / 64
    rings = [mark.outline.buffer(guard) for mark in own if not mark.is_area]
    mask[_drawn(rings, frame, window)] = IGNORE
    for marks, value in ((others, BACKGROUND), (own, FOREGROUND)):
        for all_touched in (False, True):
            outlines = [mark.outline for mark in marks if mark.all_touched == all_touched]
            mask[_drawn(outlines, frame, window, all_touched)] = value
    mask[~valid] = IGNORE
    return mask


def _drawn(
    outlines: Sequence[BaseGeometry], frame: BaseGeometry, window: Window, all_touched: bool = False
) -> NDArray[np.bool_]:
    """Return which pixels of a window polygons in pixel coordinates cover, ``(h, w)``."""
    shape = (int(window.height), int(window.width))
    near = [outline for outline in outlines if outline.intersects(frame)]
    if not near:
        return np.zeros(shape, np.bool_)
    place = Affine.translation(window.col_off, window.row_off)
    drawn: NDArray[np.uint8] = rasterize(near, shape, transform=place, all_touched=all_touched, dtype="uint8")
    return drawn.astype(np.bool_)


def _box(window: Window) -> shapely.Polygon:
    return shapely.box(window.col_off, window.row_off, window.col_off + window.width, window.row_off + window.height)


def _coefficients(transform: Affine) -> list[float]:
    return [transform.a, transform.b, transform.d, transform.e, transform.c, transform.f]


def _no_pixels(name: str, source: ReferenceSource, raster: RasterSource) -> RefSAMError:
    return RefSAMError(
        "reference",
        f"Class '{name}' of '{source.vector}' marks no valid pixel of raster '{raster.path}'; mark it where the raster "
        "has data, or remove it.",
    )
