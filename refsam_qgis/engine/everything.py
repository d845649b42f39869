"""Outline everything in a raster: SAM's automatic masks, tile by tile, each object once and whole."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from .events import Reporter, check_cancelled
from .job import EverythingJob
from .journal import Journal, open_journal
from .models.automatic_masks import AutomaticMasks, MaskRules, generate_masks, point_grid
from .models.promptable import PromptableSegmenter, load_promptable, stock_options
from .models.weight_files import identify_model
from .object_results import SUFFIXES, FoundObjects, pixel_outlines_of, write_objects
from .raster_run import raster_run
from .rasters.grid import Extent, Tile, TileGrid, overlap_pixels, target_window
from .rasters.outlines import mask_outline
from .rasters.source import RasterSource
from .rasters.stitch import SeenObject, Stitcher
from .tile_key import tile_key

if TYPE_CHECKING:
    from .runner import Loader

TILE = 1024
"""Automatic side of a tile: SAM's own input, so that nothing is scaled."""
MASK_SIDE = 256
"""Side of SAM's own masks: nearer to a border than one of their pixels, an object may be cut off."""
LEAST_OVERLAP = 4
"""Pixels of SAM's own masks that neighbouring tiles share at least: by what both show, two parts are one object."""
MAX_ID = 2**31 - 1
"""Largest object number that the mask can hold."""
LOADED, FINISHED = 0.02, 0.97
"""Progress when the model is loaded, and when the last tile is done."""


def run_everything(job: EverythingJob, reporter: Reporter, load: Loader) -> dict[str, Any]:
    """Outline everything in a raster, and write polygons, mask and report as the job asks.

    The masks of finished tiles are kept while the run lasts, so that the next run goes on where one was stopped.

    Args:
        job: What to do.
        reporter: Hears the progress and says when to stop.
        load: Gives the model.

    Returns:
        ``object_count``, ``area_m2``, ``tiles`` (that the model saw), ``tiles_kept`` (by an earlier run),
        ``tile_size``, ``device``, ``seconds`` and ``outputs`` (paths by name).

    Raises:
        RefSAMError: When the job cannot be done; no output is left then. `JobCancelled` says how many tiles are kept.
    """
    with raster_run(job, SUFFIXES, [], reporter) as run:
        raster = run.open(job.raster.stretch)
        raster.tell_bands(reporter)
        window, extent = target_window(job.extent, raster.path, raster.transform, raster.width, raster.height)
        check_cancelled(reporter)
        reporter.progress(0.0, "Loading the model")
        with run.clock.stage("model"):
            segmenter = load_promptable(job.model, load)
        side = min(job.raster.tile_size or TILE, max(raster.width, raster.height))
        grid = _grid(raster, side, job.raster.overlap, reporter)
        with open_journal(_journal_key(job, run.source, grid, segmenter), reporter) as journal:
            tiles = _TilePass(job, raster, grid, segmenter, journal, reporter)
            with run.clock.stage("tiles"):
                seen = tiles.look(window)
            check_cancelled(reporter)
            reporter.progress(FINISHED, "Writing polygons")
            with run.clock.stage("writing"):
                found = _numbered(_inside(seen, window, extent), raster)
                written = write_objects(found, run.outputs, raster, window, job.polygons, reporter)
            if not seen:
                reporter.log(
                    "The model is sure of nothing here; lower the thresholds, or use one of SAM's published "
                    "checkpoints, which answer points better than the compact model."
                )
            result = {
                "object_count": written.count,
                "area_m2": written.area,
                "tiles": tiles.done,
                "tiles_kept": tiles.kept,
                "tile_size": side,
                "device": str(segmenter.device),
                "seconds": round(run.clock.seconds, 3),
                "outputs": run.outputs.wanted,
            }
            if run.outputs["report"] is not None:
                seen_by_tiles = {"side": side, "overlap": grid.overlap, "skipped": tiles.skipped}
                run.report(job, stock_options(job.model), segmenter.device, result, {"tiles": seen_by_tiles})
            run.publish()
            journal.finish()
        reporter.progress(1.0, "Done", 0.0)
        return result


class _TilePass:
    """One pass over the tiles of a raster.

    Attributes:
        done: Tiles that the model saw.
        kept: Tiles whose masks an earlier run had kept.
        skipped: Tiles without a valid pixel.
    """

    def __init__(
        self,
        job: EverythingJob,
        raster: RasterSource,
        grid: TileGrid,
        segmenter: PromptableSegmenter,
        journal: Journal,
        reporter: Reporter,
    ) -> None:
        self.done = 0
        self.kept = 0
        self.skipped = 0
        self._points_per_side = job.points_per_side
        self._rules = mask_rules(job)
        self._raster = raster
        self._grid = grid
        self._segmenter = segmenter
        self._journal = journal
        self._reporter = reporter
        self._outlines = pixel_outlines_of(raster)
        self._began = time.monotonic()
        self._looked = 0.0

    def look(self, window: Window) -> list[SeenObject]:
        """Return what the tiles that touch a window show."""
        raster, grid = self._raster, self._grid
        border = grid.side / MASK_SIDE
        stitcher = Stitcher(raster.width, raster.height, border, self._rules.max_overlap)
        tiles = list(full_tiles(grid, window))
        for number, tile in enumerate(tiles):
            check_cancelled(self._reporter)
            stitcher.release(tile.row)
            place = Window(tile.column, tile.row, min(grid.side, raster.width), min(grid.side, raster.height))
            rgb, valid = raster.read(place)
            if not valid.any():
                self.skipped += 1
                continue
            masks = self._masks(tile, rgb, valid, number, len(tiles))
            stitcher.add(place, list(self._seen(masks, place, valid)))
        return stitcher.finish()

    def _masks(
        self, tile: Tile, rgb: NDArray[np.uint8], valid: NDArray[np.bool_], number: int, total: int
    ) -> AutomaticMasks:
        """Return the masks of a tile, those that an earlier run has kept if there are."""
        kept = self._journal.get(tile)
        if kept is not None:
            self.kept += 1
            return AutomaticMasks.from_array(kept.ravel().view(np.int32))
        points = point_grid(self._points_per_side, valid.shape)
        points = points[valid[points[:, 1].astype(int), points[:, 0].astype(int)]]
        self._tell(number, total, 0.0)
        image = self._segmenter.encode(torch.from_numpy(rgb), torch.from_numpy(valid))

        def on_points(done: int) -> None:
            check_cancelled(self._reporter)
            self._tell(number, total, done / len(points))

        masks = generate_masks(self._segmenter, image, points, self._rules, on_points)
        self.done += 1
        self._looked += 1
        # The journal keeps 32 bits a value whatever they mean.
        self._journal.add(tile, masks.to_array().view(np.float32)[None, None])
        return masks

    def _seen(self, masks: AutomaticMasks, place: Window, valid: NDArray[np.bool_]) -> Iterator[SeenObject]:
        """Yield the masks of a tile as outlines, in pixels of the raster."""
        for index in range(len(masks)):
            left, top, right, bottom = masks.boxes[index].tolist()
            part = slice(top, bottom + 1), slice(left, right + 1)
            mask = masks.mask(index)[part] & valid[part]
            outline = mask_outline(mask, int(place.row_off) + top, int(place.col_off) + left, self._outlines)
            if outline is not None:
                yield SeenObject(outline, float(masks.predicted_iou[index]), float(masks.stability[index]))

    def _tell(self, number: int, total: int, share: float) -> None:
        """Report progress when a share of a tile is done."""
        looked = self._looked + share
        spent = time.monotonic() - self._began
        left = spent / looked * (total - number - share) if looked else None
        self._reporter.progress(LOADED + (FINISHED - LOADED) * (number + share) / total, "Segmenting", left)


def mask_rules(job: EverythingJob) -> MaskRules:
    """Return which masks a job keeps."""
    return MaskRules(job.min_predicted_iou, job.min_stability, job.max_overlap)


def _grid(raster: RasterSource, side: int, percent: float, reporter: Reporter) -> TileGrid:
    """Return the tiles of a raster, which overlap by what was asked for or, if that is too little, by a little more."""
    asked = overlap_pixels(side, percent)
    overlap = overlap_pixels(side, percent, math.ceil(LEAST_OVERLAP * side / MASK_SIDE))
    grid = TileGrid(raster.width, raster.height, side, overlap)
    if overlap > asked and (grid.rows > 1 or grid.columns > 1):
        reporter.log(
            f"Tiles overlap by {overlap} pixels instead of {asked}, so that objects across their borders stay whole."
        )
    return grid


def full_tiles(grid: TileGrid, window: Window) -> Iterator[Tile]:
    """Yield the tiles that touch a window, row by row, the last ones moved back into the raster."""
    top, left = int(window.row_off), int(window.col_off)
    for i in range(grid.rows):
        row = min(i * grid.stride, max(0, grid.height - grid.side))
        if row >= top + window.height or row + grid.side <= top:
            continue
        for j in range(grid.columns):
            column = min(j * grid.stride, max(0, grid.width - grid.side))
            if column < left + window.width and column + grid.side > left:
                yield Tile(i, j, row, column)


def _inside(seen: list[SeenObject], window: Window, extent: Extent | None) -> list[SeenObject]:
    """Cut objects off at the extent."""
    if extent is None:
        return seen
    area = _outline_of(window, extent)
    clipped = []
    for item in seen:
        outline = item.outline if area.covers(item.outline) else shapely.intersection(item.outline, area)
        parts = shapely.get_parts(outline)
        parts = parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)]
        if len(parts):
            clipped.append(replace(item, outline=parts[0] if len(parts) == 1 else shapely.multipolygons(parts)))
    return clipped


def _outline_of(window: Window, extent: Extent) -> BaseGeometry:
    """The extent in pixels: whole ones, or the rectangle itself where a rotated raster has it across its pixels."""
    pixels = shapely.box(window.col_off, window.row_off, window.col_off + window.width, window.row_off + window.height)
    if extent.transform.is_rectilinear:
        return pixels
    xmin, ymin, xmax, ymax = extent.bounds
    corners = [~extent.transform * corner for corner in ((xmin, ymin), (xmax, ymin), (xmax, ymax), (xmin, ymax))]
    return shapely.intersection(pixels, shapely.Polygon(corners))


def _numbered(seen: list[SeenObject], raster: RasterSource) -> FoundObjects:
    """Number objects by their first pixel; of those with the same one, the largest comes first.

    On a raster with more pixels than the mask can count, they are numbered from 1 on instead.
    """
    firsts = [_first_pixel(item.outline) for item in seen]
    grid = pixel_outlines_of(raster)
    numbers = grid.object_ids(np.array([row for row, _ in firsts]), np.array([column for _, column in firsts]))
    areas = np.array([item.outline.area for item in seen])
    order = np.lexsort((-areas, numbers))
    numbers = numbers[order]
    for index in range(1, len(numbers)):
        numbers[index] = max(numbers[index], numbers[index - 1] + 1)
    if raster.width * raster.height + len(numbers) > MAX_ID:
        numbers = np.arange(1, len(numbers) + 1, dtype=np.int64)
    outlines = np.empty(len(seen), dtype=object)
    outlines[:] = [seen[index].outline for index in order]
    return FoundObjects(
        numbers,
        outlines,
        np.array([seen[index].score for index in order], np.float64),
        np.array([seen[index].stability for index in order], np.float64),
    )


def _first_pixel(outline: BaseGeometry) -> tuple[int, int]:
    """Row and column of the first pixel of an outline, in reading order."""
    corners = shapely.get_coordinates(outline)
    top = corners[:, 1].min()
    return int(np.floor(top)), int(np.floor(corners[corners[:, 1] == top, 0].min()))


def _journal_key(
    job: EverythingJob, source: dict[str, Any], grid: TileGrid, segmenter: PromptableSegmenter
) -> str | None:
    """Digest all that the masks of a tile depend on; ``None`` where it might change unnoticed."""
    further = {
        "kind": "everything",
        "tiles": [grid.side, grid.overlap],
        "points": job.points_per_side,
        "rules": asdict(mask_rules(job)),
        "model": identify_model(stock_options(job.model)),
    }
    return tile_key(source, segmenter.device, further)
