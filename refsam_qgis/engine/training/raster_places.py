"""The user's own rasters with class polygons, as places to draw training views from."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.windows import Window

from ..class_polygons import ClassPolygons, read_class_polygons
from ..errors import RefSAMError
from ..events import OnceReporter, Reporter, check_cancelled
from ..image_folder import IGNORE_ID, MIN_PIXELS
from ..rasters.drawing import DrawnPolygons
from ..rasters.source import RasterSource
from ..references.marks import MAX_CLASSES
from .sources import NOWHERE
from .views import LabelledImage

FEWEST_RASTERS = 4
"""Rasters from which each is one scene; fewer are parted into about `PARTS` scenes in all."""
PARTS = 9
SMALLEST_PART = 128
"""Shortest side of a part in pixels: a view shows up to some hundred."""
LEAST_MARGIN = 16
TRIES = 16
"""Points drawn to hit a polygon before any of its points will do."""
LOOKS, LOOK_SIDE = 200, 64
"""Views, and their side in pixels, in which a class is looked for before it is taken to be hidden."""


class LabelledRaster:
    """A raster with class polygons, read window by window; every process that draws from it opens it for itself.

    Args:
        path: The raster.
        bands: As in `RasterSource`.
        stretch: As in `RasterSource`.
        labels: The polygons; those without a class are areas that do not count.
        ids: Class id of each name.
    """

    def __init__(
        self, path: str, bands: tuple[int, ...] | None, stretch: str, labels: ClassPolygons, ids: dict[str, int]
    ) -> None:
        self.path = path
        self._reading = bands, stretch
        self._opened: tuple[int, RasterSource] | None = None
        source = self._source()
        self._frame = shapely.box(0, 0, source.width, source.height)
        here = labels.in_pixels(source.transform, source.crs, (source.width / 2, source.height / 2))
        near = shapely.intersects(here.polygons, self._frame)
        self.polygons: NDArray[Any] = here.polygons[near]
        self.class_ids = np.array([ids.get(name, IGNORE_ID) for name in here.names[near]], np.uint8)
        self._drawn = DrawnPolygons(self.polygons)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def tell_bands(self, reporter: Reporter) -> None:
        """As of `RasterSource`."""
        self._source().tell_bands(reporter)

    @property
    def annotated(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom pixel of the part that counts as annotated.

        It is the rectangle around the polygons, and around it as much as the median polygon is wide, for the
        surroundings of the outermost; nobody said that there is nothing farther away.
        """
        margin = max(LEAST_MARGIN, math.sqrt(float(np.median(shapely.area(self.polygons)))))
        xmin, ymin, xmax, ymax = shapely.total_bounds(self.polygons)
        part = shapely.box(xmin - margin, ymin - margin, xmax + margin, ymax + margin).intersection(self._frame)
        left, top, right, bottom = part.bounds
        return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)

    def read(self, window: Window) -> LabelledImage:
        """Read a window that lies in the raster."""
        pixels, valid = self._source().read(window)
        objects = self._drawn.draw(window)
        classes = np.concatenate([np.zeros(1, np.uint8), self.class_ids])[objects]
        numbers = np.unique(objects, return_inverse=True)[1].reshape(objects.shape)
        return LabelledImage(
            image=np.ascontiguousarray(pixels.transpose(1, 2, 0)),
            classes=np.where(valid, classes, np.uint8(IGNORE_ID)),
            instances=np.where(objects > 0, numbers + 1, 0).astype(np.uint16),
            ignore=IGNORE_ID,
            namespace=self.path,
        )

    def _source(self) -> RasterSource:
        # A forked process may not use the open file of its parent: both would move one file position.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), RasterSource(self.path, *self._reading)
        return self._opened[1]


class RasterPlace:
    """A rectangle of a labelled raster.

    Args:
        raster: The raster.
        box: Left, top, right and bottom pixel of the rectangle.
        ids: Class id of each name.
        name: What the card calls it.
    """

    def __init__(self, raster: LabelledRaster, box: tuple[int, int, int, int], ids: dict[str, int], name: str) -> None:
        self.name = name
        self._raster = raster
        self._box = box
        self._ids = ids
        self._shapes: dict[str, NDArray[Any]] = {}
        for label, class_id in ids.items():
            inside = shapely.clip_by_rect(raster.polygons[raster.class_ids == class_id], *box)
            inside = inside[shapely.area(inside) > 0]
            if shapely.area(inside).sum() >= MIN_PIXELS and self._shows(inside, class_id):
                self._shapes[label] = inside

    def class_names(self) -> Sequence[str]:
        """Classes that cover enough of it and can be seen."""
        return tuple(self._shapes)

    def class_id(self, name: str) -> int:
        """Value in the class maps."""
        return self._ids.get(name, NOWHERE)

    def draw(self, rng: np.random.Generator, side: int, focus: str | None) -> LabelledImage:
        """Cut a square of `side` pixels or what fits, around a point of an object of the focus class if there is one.

        Every object of the class is as likely, whatever its size.
        """
        left, top, right, bottom = self._box
        shapes = self._shapes.get(focus or "")
        if shapes is None:
            x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        else:
            x, y = _point_in(shapes[int(rng.integers(len(shapes)))], rng)
        side = self._fitting(side)
        return self._raster.read(self._window(int(x) - int(rng.integers(side)), int(y) - int(rng.integers(side)), side))

    def _shows(self, shapes: NDArray[Any], class_id: int) -> bool:
        """Whether some pixel is of a class: all may lie below smaller polygons, or where the raster has no data."""
        rng = np.random.default_rng(0)
        side = self._fitting(LOOK_SIDE)
        for _ in range(LOOKS):
            x, y = _point_in(shapes[int(rng.integers(len(shapes)))], rng)
            view = self._raster.read(self._window(int(x) - side // 2, int(y) - side // 2, side))
            if (view.classes == class_id).any():
                return True
        return False

    def _fitting(self, side: int) -> int:
        left, top, right, bottom = self._box
        return min(side, right - left, bottom - top)

    def _window(self, column: int, row: int, side: int) -> Window:
        """Return a square, moved into the rectangle."""
        left, top, right, bottom = self._box
        return Window(min(max(column, left), right - side), min(max(row, top), bottom - side), side, side)


def without_repeats(rasters: Sequence[str], reporter: Reporter) -> list[str]:
    """Return the paths without those of a file that is named before: it would be a scene to train and one to validate.

    Args:
        rasters: Paths.
        reporter: Hears how many were left out.
    """
    first: dict[str, str] = {}
    for path in rasters:
        first.setdefault(os.path.realpath(path), path)
    if repeats := len(rasters) - len(first):
        reporter.log(f"Rasters that are given more than once are used once ({repeats} left out).")
    return list(first.values())


def read_raster_places(
    rasters: Sequence[str],
    labels: str,
    class_field: str | None,
    bands: tuple[int, ...] | None,
    stretch: str,
    reporter: Reporter,
) -> tuple[list[RasterPlace], ClassPolygons]:
    """Read the user's rasters as scenes.

    Each raster's part around its polygons is taken to be annotated completely: there, all outside them is background.
    Four rasters or more are a scene each; fewer are parted into about nine blocks in all.

    Args:
        rasters: Paths, each of another file.
        labels: Vector data set of class polygons over them.
        class_field: Its attribute that holds the class; ``None`` when all are one class.
        bands: As in `RasterSource`.
        stretch: As in `RasterSource`.
        reporter: Hears what was left out, and says when to stop.

    Returns:
        The scenes that show a class, and the polygons.

    Raises:
        RefSAMError: With code ``input`` when a file cannot be read, a raster shows no polygon, or none is large enough.
    """
    given = read_class_polygons(labels, class_field)
    if len(given.classes) > MAX_CLASSES:
        raise RefSAMError("input", f"Field '{class_field}' of '{labels}' holds more than {MAX_CLASSES} classes.")
    ids = {name: i for i, name in enumerate(given.classes, 1)}
    nameless = int((given.names == "").sum())
    if nameless:
        reporter.log(f"{nameless} polygons of '{labels}' have no class; nothing is learned from what they cover.")
    places: list[RasterPlace] = []
    once = OnceReporter(reporter)
    wanted = 1 if len(rasters) >= FEWEST_RASTERS else -(-PARTS // len(rasters))
    for path, title in zip(rasters, _titles(rasters), strict=True):
        check_cancelled(reporter)
        raster = LabelledRaster(path, bands, stretch, given, ids)
        raster.tell_bands(once)
        if not (raster.class_ids != IGNORE_ID).any():
            raise RefSAMError(
                "input", f"No polygon of '{labels}' lies on raster '{path}'; check the CRS of both, or leave it out."
            )
        parts = _parts(raster.annotated, wanted)
        names = [title] if len(parts) == 1 else [f"{title}, part {i}" for i in range(1, len(parts) + 1)]
        places += [RasterPlace(raster, part, ids, name) for part, name in zip(parts, names, strict=True)]
    places = [place for place in places if place.class_names()]
    lost = set(ids) - {name for place in places for name in place.class_names()}
    if not places:
        raise RefSAMError(
            "input",
            f"The polygons of '{labels}' cover fewer than {MIN_PIXELS} pixels with data of any class; outline more.",
        )
    if lost:
        reporter.log(
            f"{', '.join(sorted(lost))} covers fewer than {MIN_PIXELS} pixels of any scene, or lies where there is no "
            "data or below smaller polygons, and is not trained on."
        )
    return places, given


def _titles(rasters: Sequence[str]) -> list[str]:
    """Name each raster by its stem; where others have the same, by its file name and the folders that tell it apart."""
    stems = [Path(path).stem for path in rasters]
    parts = [Path(os.path.abspath(path)).parts for path in rasters]

    def title(own: int) -> str:
        rivals = [parts[i] for i, stem in enumerate(stems) if i != own and stem == stems[own]]
        if not rivals:
            return stems[own]
        depths = range(1, len(parts[own]) + 1)
        enough = next(depth for depth in depths if all(rival[-depth:] != parts[own][-depth:] for rival in rivals))
        return "/".join(parts[own][-enough:])

    return [title(own) for own in range(len(rasters))]


def _parts(box: tuple[int, int, int, int], wanted: int) -> list[tuple[int, int, int, int]]:
    """Cut a rectangle into about `wanted` blocks of about equal sides, none shorter than `SMALLEST_PART`."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    columns = min(max(1, round(math.sqrt(wanted * width / height))), wanted, max(1, width // SMALLEST_PART))
    rows = min(max(1, round(wanted / columns)), max(1, height // SMALLEST_PART))
    x = [left + round(i * width / columns) for i in range(columns + 1)]
    y = [top + round(i * height / rows) for i in range(rows + 1)]
    return [(x[j], y[i], x[j + 1], y[i + 1]) for i in range(rows) for j in range(columns)]


def _point_in(shape: Any, rng: np.random.Generator) -> tuple[float, float]:
    xmin, ymin, xmax, ymax = shape.bounds
    x, y = rng.uniform(xmin, xmax, TRIES), rng.uniform(ymin, ymax, TRIES)
    inside = np.flatnonzero(shapely.contains_xy(shape, x, y))
    if len(inside):
        return float(x[inside[0]]), float(y[inside[0]])
    point = shapely.point_on_surface(shape)
    return float(point.x), float(point.y)
