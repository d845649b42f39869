"""Objects that may overlap, written as polygons and as a raster of their numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.windows import Window

from .events import Reporter, check_cancelled
from .job import PolygonOptions
from .rasters.drawing import DrawnPolygons
from .rasters.objects import PixelGrid
from .rasters.outlines import finish_outlines
from .rasters.outputs import OutputFiles
from .rasters.source import RasterSource
from .rasters.writers import BLOCK, PieceWriter, write_prompted

SUFFIXES = {"polygons": (".gpkg",), "mask": (".tif", ".tiff"), "report": (".json",)}
NOTHING = 0
"""Value of the mask where there is no object."""


@dataclass(frozen=True)
class FoundObjects:
    """Objects with what SAM thinks of them, ordered by their numbers.

    Attributes:
        object_ids: ``(N,)`` numbers from 1 on.
        outlines: ``(N,)`` shapely polygons or multipolygons along the borders of the raster's pixels, in pixels.
        scores: ``(N,)`` IoU that SAM predicts.
        stabilities: ``(N,)`` stability scores in 0..1.
    """

    object_ids: NDArray[np.int64]
    outlines: NDArray[Any]
    scores: NDArray[np.float64]
    stabilities: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.object_ids)

    def take(self, kept: NDArray[np.intp]) -> FoundObjects:
        """Return some of them."""
        return FoundObjects(*(getattr(self, field.name)[kept] for field in dataclasses.fields(self)))


@dataclass(frozen=True)
class Written:
    """What became of the objects: how many there are, and their area in square metres."""

    count: int
    area: float


def pixel_outlines_of(raster: RasterSource) -> PixelGrid:
    """Return a grid whose map is the raster's own pixels."""
    return PixelGrid(Affine.identity(), raster.measure, raster.gsd, raster.width)


def write_objects(
    found: FoundObjects,
    outputs: OutputFiles,
    raster: RasterSource,
    window: Window,
    options: PolygonOptions,
    reporter: Reporter,
) -> Written:
    """Write polygons and mask where they are asked for.

    Args:
        found: The objects.
        outputs: Where they go.
        raster: The raster they lie on.
        window: The part of it that the mask covers.
        options: How outlines become polygons; the mask shows the pixels of those that are kept.
        reporter: Says when to stop.
    """
    grid = PixelGrid.of(raster, Window(0, 0, raster.width, raster.height))
    finished = finish_outlines(grid.to_map(found.outlines), grid, options, overlapping=True)
    kept = found.take(finished.kept)
    check_cancelled(reporter)
    if (path := outputs["polygons"]) is not None:
        write_prompted(
            path, finished.polygons, kept.object_ids, kept.scores, kept.stabilities, finished.areas, raster.crs
        )
    if (path := outputs["mask"]) is not None:
        _write_numbers(path, kept, raster, window, reporter)
    return Written(len(kept), float(finished.areas.sum()))


def _write_numbers(path: str, found: FoundObjects, raster: RasterSource, window: Window, reporter: Reporter) -> None:
    """Write the object numbers, rows by rows; where objects overlap, the better score wins."""
    # The last one drawn stays: the best, and of equals the first.
    drawn = DrawnPolygons(found.outlines, np.lexsort((-found.object_ids, found.scores)))
    numbers = np.concatenate([[NOTHING], found.object_ids]).astype(np.int32)
    left, top, width, height = (int(v) for v in (window.col_off, window.row_off, window.width, window.height))
    transform = raster.transform * Affine.translation(left, top)
    with PieceWriter(path, width, height, raster.crs, transform, "int32", NOTHING, ["object number"]) as writer:
        for row in range(0, height, BLOCK):
            check_cancelled(reporter)
            rows = Window(left, top + row, width, min(BLOCK, height - row))
            writer.write(row, 0, numbers[drawn.draw(rows)][None])
