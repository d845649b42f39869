"""Results and truth of either kind, read as class maps on one common grid."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from ..class_polygons import ClassPolygons, read_class_polygons
from ..errors import RefSAMError
from ..rasters.drawing import DrawnPolygons
from ..rasters.geodesy import GroundMeasure
from ..rasters.georeference import map_transform, open_raster, pyproj_crs
from ..rasters.source import reading_failure
from ..references.marks import MAX_CLASSES
from .first_band import open_first_band

IGNORE = 255
"""Class of pixels that are not compared."""
ALIGNMENT = 1e-3
"""How far, in pixels, the pixels of two grids may lie apart and still be the same."""
PLANE = CRS.from_epsg(3857)
"""Stands for both sides' unknown CRS where GDAL asks for one; nothing is transformed by it."""


@dataclass(frozen=True)
class Grid:
    """The pixels that are compared.

    Attributes:
        crs: CRS, or ``None``.
        transform: Pixel-to-map transform.
        width: In pixels.
        height: In pixels.
    """

    crs: CRS | None
    transform: Affine
    width: int
    height: int

    @property
    def gsd(self) -> float:
        """Ground sample distance in metres (in map units without a CRS)."""
        return GroundMeasure(self.crs).pixel_size(self.transform, self.width, self.height)

    def shares_pixels(self, other: Grid) -> bool:
        """Whether the other's pixels are the same as far as both reach."""
        if self.crs != other.crs:
            return False
        corners = [(0, 0), (self.width, 0), (0, self.height)]
        shifts = np.array([np.subtract(~other.transform * (self.transform * corner), corner) for corner in corners])
        return bool((np.abs(shifts - np.rint(shifts[0])) < ALIGNMENT).all())

    def describe(self) -> str:
        """Say in a few words what it is."""
        crs = "no CRS" if self.crs is None else self.crs.to_string()
        return f"{crs if len(crs) < 40 else 'its own CRS'}, {self.gsd:.3g} m"


@dataclass(frozen=True)
class Anchors:
    """Pixels of a window in which given objects have a point, whether or not the pixels show them.

    Attributes:
        numbers: ``(N,)`` numbers of the objects, from 1.
        classes: ``(N,)`` their classes, from 1.
        rows: ``(N,)`` rows of the pixels.
        columns: ``(N,)`` columns of the pixels.
    """

    numbers: NDArray[np.int64]
    classes: NDArray[np.uint8]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    def where(self, there: NDArray[np.bool_]) -> Anchors:
        """Return those whose pixel is set in ``(h, w)``."""
        kept = there[self.rows, self.columns]
        return Anchors(self.numbers[kept], self.classes[kept], self.rows[kept], self.columns[kept])

    def in_rows(self, top: int, rows: int) -> Anchors:
        """Return those in some rows of the window, in pixels of these."""
        kept = (self.rows >= top) & (self.rows < top + rows)
        return Anchors(self.numbers[kept], self.classes[kept], self.rows[kept] - top, self.columns[kept])


@dataclass(frozen=True)
class Labels:
    """A window of a class map.

    Attributes:
        classes: ``(h, w)`` uint8: 0 background, `IGNORE` what does not count.
        objects: ``(h, w)`` int32 numbers of given objects, 0 for none; ``None`` where objects are connected regions.
        anchors: Where given objects are; ``None`` to know only of those that pixels show.
    """

    classes: NDArray[np.uint8]
    objects: NDArray[np.int32] | None
    anchors: Anchors | None = None

    def in_rows(self, top: int, rows: int) -> Labels:
        """Return some rows of the window."""
        part = slice(top, top + rows)
        return Labels(
            self.classes[part],
            None if self.objects is None else self.objects[part],
            None if self.anchors is None else self.anchors.in_rows(top, rows),
        )


@dataclass(frozen=True)
class Outlines:
    """Objects as polygons.

    Attributes:
        polygons: ``(N,)`` valid shapely polygons.
        classes: ``(N,)`` uint8 classes from 1, `IGNORE` for areas that do not count.
    """

    polygons: NDArray[Any]
    classes: NDArray[np.uint8]


@dataclass(frozen=True)
class LoneClass:
    """The only class of a layer.

    Attributes:
        name: What it is called.
        number: Its id in a raster, or the number that is its name among polygons; ``None`` for others.
        named: Whether anyone gave it that name; otherwise it is the id, or a word for polygons without a class field.
    """

    name: str
    number: int | None
    named: bool


class RasterLayer:
    """A raster of class ids in its first band.

    Id 0 is background also where it is the nodata value, as in many masks of one class: what is found there would count
    for nothing otherwise. Pixels of another nodata value do not count. An engineering CRS is none, as for polygons.

    Args:
        path: The raster.
        stack: Closes it.
        names: Names of the ids 1, 2, …; when empty, those that RefSAM's masks carry, else the band's description if
            there is only one class, else the ids themselves.

    Raises:
        RefSAMError: With code ``input`` when it cannot be read.
    """

    def __init__(self, path: str, names: Sequence[str], stack: ExitStack) -> None:
        self.path = path
        self._dataset = stack.enter_context(open_raster(path))
        self._stack = stack
        self.background_is_nodata = self._dataset.nodata == 0
        self.is_picture = self._dataset.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        self._names = {i: name.strip() for i, name in enumerate(names, 1)} or _tagged_names(self._dataset)
        self._reader: Any = self._dataset
        self.grid = Grid(_crs(self._dataset), map_transform(self._dataset), self._dataset.width, self._dataset.height)
        self._named = bool(self._names)

    @property
    def crs(self) -> CRS | None:
        """Its CRS."""
        return self.grid.crs

    @property
    def classes(self) -> list[str]:
        """The class names in the order of their ids; whole after `prepare`."""
        return [self._names[value] for value in sorted(self._names)]

    @property
    def lone(self) -> LoneClass | None:
        """Its class, if there is but one; after `prepare`."""
        if len(self._names) != 1:
            return None
        ((number, name),) = self._names.items()
        return LoneClass(name, number, self._named)

    def place(self, grid: Grid) -> None:
        """Read on `grid` from now on, by the nearest pixel."""
        if grid == self.grid:
            return
        crs = grid.crs or PLANE
        try:
            band = open_first_band(self._dataset, self.path, masked=not self.background_is_nodata)
            # An alpha band tells background from what the raster does not cover.
            self._reader = self._stack.enter_context(
                WarpedVRT(
                    self._stack.enter_context(band), src_crs=self.grid.crs or PLANE, src_transform=self.grid.transform,
                    crs=crs, transform=grid.transform, width=grid.width, height=grid.height,
                    resampling=Resampling.nearest, add_alpha=True,
                )
            )  # fmt: skip
        except RasterioError as error:
            raise RefSAMError("input", f"'{self.path}' cannot be brought into {crs.to_string()} ({error}).") from error

    def prepare(self, windows: Iterable[Window]) -> None:
        """Look for the ids that occur, and name those that have no name yet.

        Raises:
            RefSAMError: With code ``input`` when the raster has no data there, or no class ids.
        """
        found: set[int] = set()
        has_data = False
        for window in windows:
            values, valid = self._read(window)
            has_data = has_data or bool(valid.any())
            found.update(np.unique(values[valid]).tolist())
            if len(found) > 2 * MAX_CLASSES:
                break
        if not has_data:
            raise RefSAMError(
                "input", f"'{self.path}' has no data where the comparison is; check the CRS and the extent of both."
            )
        found.discard(0)
        if len(found) > MAX_CLASSES or min(found, default=0) < 0:
            raise RefSAMError(
                "input",
                f"'{self.path}' holds more than {MAX_CLASSES} different or negative values; give a raster of class "
                "ids from 1 on, with 0 for the background.",
            )
        description = self._dataset.descriptions[0]
        if not self._names and len(found) == 1 and description:
            self._names = {next(iter(found)): description}
            self._named = True
        self._names |= {value: str(value) for value in found if value not in self._names}

    def labels(self, window: Window, index: Mapping[str, int]) -> Labels:
        """Read a window of the grid; `index` gives the class of each name."""
        values, valid = self._read(window)
        ids = np.array([0, *sorted(self._names)])
        table = np.array([0, *(index[name] for name in self.classes)], np.uint8)
        classes = table[np.clip(np.searchsorted(ids, values), 0, len(ids) - 1)]
        return Labels(np.where(valid, classes, np.uint8(IGNORE)), None)

    def _read(self, window: Window) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        try:
            values = self._reader.read(1, window=window)
            if self._reader is not self._dataset:
                # GDAL takes alpha for a mask in some data types alone.
                valid = self._reader.read(2, window=window) > 0
            elif self.background_is_nodata:
                # Its own mask would leave out the background.
                valid = np.ones(values.shape, bool)
            else:
                valid = self._reader.read_masks(1, window=window) > 0
        except RasterioError as error:
            raise RefSAMError(
                "input",
                f"Raster '{self.path}' cannot be read near row {int(window.row_off)} ({reading_failure(error)}); "
                "restore or export it anew.",
            ) from error
        valid &= np.isfinite(values)
        ids = np.where(valid, values, 0)
        if not np.issubdtype(ids.dtype, np.integer) and (ids != np.rint(ids)).any():
            raise RefSAMError(
                "input", f"'{self.path}' holds fractions, so no class ids; give a raster of class ids or polygons."
            )
        return ids.astype(np.int64), valid


class PolygonLayer:
    """Polygons with a class each; those without a class are areas that do not count.

    Args:
        path: The vector data set.
        field: Attribute that holds the class; ``None`` when all are one class.

    Raises:
        RefSAMError: With code ``input`` when it cannot be read or lacks the field.
    """

    def __init__(self, path: str, field: str | None) -> None:
        self.path = path
        self._named = field is not None
        self.given: ClassPolygons = read_class_polygons(path, field)
        self.crs = None if self.given.crs is None else CRS.from_user_input(self.given.crs)
        self.classes = self.given.classes
        if len(self.classes) > MAX_CLASSES:
            raise RefSAMError("input", f"Field '{field}' of '{path}' holds more than {MAX_CLASSES} classes.")

    @property
    def lone(self) -> LoneClass | None:
        """Its class, if there is but one."""
        if len(self.classes) != 1:
            return None
        (name,) = self.classes
        return LoneClass(name, int(name) if name.isdecimal() else None, self._named)

    def place(self, grid: Grid) -> None:
        """Draw on `grid` from now on.

        Raises:
            RefSAMError: With code ``input`` when there are polygons, but none of them there.
        """
        here = self.given.in_pixels(grid.transform, grid.crs, (grid.width / 2, grid.height / 2))
        frame = shapely.box(0, 0, grid.width, grid.height)
        if len(self.given.polygons) and not shapely.intersects(here.polygons, frame).any():
            raise RefSAMError(
                "input", f"No polygon of '{self.path}' lies where the other layer is; check the CRS of both."
            )
        self._here = here
        self._drawn = DrawnPolygons(here.polygons)
        points = shapely.point_on_surface(here.polygons)
        self._anchors = np.floor([shapely.get_y(points), shapely.get_x(points)]).astype(np.int64)

    def prepare(self, windows: Iterable[Window]) -> None:
        """Nothing has to be looked for."""

    def labels(self, window: Window, index: Mapping[str, int]) -> Labels:
        """Draw a window of the grid; `index` gives the class of each name."""
        objects = self._drawn.draw(window)
        classes = self._classes(index)
        table = np.concatenate([np.zeros(1, np.uint8), classes])
        return Labels(table[objects], objects, self._anchors_in(window, classes))

    def outlines(self, index: Mapping[str, int]) -> Outlines:
        """Return the polygons in pixels of the grid; `index` gives the class of each name."""
        polygons = self._here.polygons.copy()
        # Another CRS may have crossed a few.
        crossed = ~shapely.is_valid(polygons)
        polygons[crossed] = shapely.make_valid(polygons[crossed], method="structure", keep_collapsed=False)
        return Outlines(polygons, self._classes(index))

    def _classes(self, index: Mapping[str, int]) -> NDArray[np.uint8]:
        return np.array([index.get(name, IGNORE) for name in self._here.names], np.uint8)

    def _anchors_in(self, window: Window, classes: NDArray[np.uint8]) -> Anchors:
        rows, columns = self._anchors - np.array([[window.row_off], [window.col_off]], np.int64)
        inside = (rows >= 0) & (rows < window.height) & (columns >= 0) & (columns < window.width)
        there = np.flatnonzero(inside & (classes != IGNORE))
        return Anchors(there + 1, classes[there], rows[there], columns[there])


Layer = RasterLayer | PolygonLayer


def open_layer(path: str, field: str | None, names: Sequence[str], stack: ExitStack) -> Layer:
    """Open a result or a truth of either kind.

    Args:
        path: Raster of class ids, or vector data set of polygons.
        field: Attribute that holds the class of polygons.
        names: Names of a raster's class ids 1, 2, …
        stack: Closes it.

    Raises:
        RefSAMError: With code ``input`` when it is neither.
    """
    try:
        layer = RasterLayer(path, names, stack)
    except UnicodeEncodeError as error:
        raise RefSAMError("input", f"'{path}' has a name that is no UTF-8; rename it.") from error
    except RasterioError as error:
        try:
            pyogrio.list_layers(path)
        except DataSourceError:
            if not os.path.exists(path):  # asked only now, as what lies inside an archive or a database is no path
                raise RefSAMError("input", f"'{path}' does not exist; check its path.") from error
            raise RefSAMError(
                "input", f"'{path}' is neither a raster nor polygons; give a file that GDAL opens."
            ) from error
        return PolygonLayer(path, field)
    if field is not None:
        raise RefSAMError("input", f"'{path}' is a raster and has no field '{field}'; leave the field empty.")
    return layer


def _crs(dataset: rasterio.DatasetReader) -> CRS | None:
    crs: CRS | None = dataset.crs
    return None if crs is None or pyproj_crs(crs).is_engineering else crs


def _tagged_names(dataset: rasterio.DatasetReader) -> dict[int, str]:
    """Class names as RefSAM's own masks carry them."""
    tags = dataset.tags(1)
    return {int(key[6:]): name for key, name in tags.items() if key.startswith("CLASS_") and key[6:].isdigit()}
