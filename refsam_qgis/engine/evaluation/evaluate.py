"""The `evaluate` job: a result against the truth, by pixels, boundaries and objects."""

from __future__ import annotations

import csv
import json
import math
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import numpy as np
import rasterio
import shapely
from pyproj.exceptions import ProjError
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from refsam_qgis import __version__

from ..errors import RefSAMError
from ..events import Reporter, check_cancelled
from ..job import EvaluateJob, to_dict
from ..rasters.geodesy import GroundMeasure
from ..rasters.grid import Extent
from ..rasters.map_shapes import ForeignRectangle
from ..rasters.outputs import OutputFiles, disk_errors
from ..rasters.parts import files_of
from ..rasters.source import CACHE_BYTES
from ..runner import Loader
from .boundary import BoundaryAgreement
from .class_matching import MatchedClasses, match_classes
from .confusion import Confusion
from .confusion_picture import draw_confusion
from .layers import IGNORE, Grid, Layer, PolygonLayer, RasterLayer, open_layer
from .metrics import mean_defined
from .objects import ObjectCounts, ObjectMatcher
from .outline_objects import match_outlines

BLOCK_PIXELS = 2**20
"""Pixels compared at a time."""
PIXELS_PER_OBJECT = 20
"""Automatic ground sample distance of two vector data sets: so many pixels along the side of the median object."""
AUTOMATIC_SIDE, LARGEST_SIDE = 8192, 65536
"""Longest side in pixels of the grid of two vector data sets: chosen automatically, and at all."""
FEW_PIXELS = 20
"""Pixels of the median object below which an automatic grid is coarse."""
SUFFIXES = {"report": (".json",), "picture": (".png",), "table": (".csv",)}
SEARCHED = 0.15
"""Share of the progress given to looking for the classes."""


def run_evaluate(job: EvaluateJob, reporter: Reporter, load: Loader | None = None) -> dict[str, Any]:
    """Compare a result with the truth.

    Both are brought onto one grid: that of a raster result, else that of a raster truth, else one made for two vector
    data sets. Pixels without data on either side do not count, but 0 is background also where a raster declares it to
    be no data; polygons are taken to be complete, so that all the rest is background. Classes are matched by name,
    whatever their case; a lone class without a name is the other side's lone class, unless the two have different
    numbers (255 stands for any). Connected regions of a raster are its objects; polygons are objects as they are, also
    where they touch. Objects of two vector data sets are matched by their shapes, whatever the grid; a polygon beside a
    raster that no pixel shows counts as missed or wrong.

    Args:
        job: What to compare.
        reporter: Hears the progress and says when to stop.
        load: Not needed; every job's function takes it.

    Returns:
        ``miou``, ``fb_iou``, ``accuracy``, ``boundary_f``, ``object_precision``, ``object_recall``, ``object_f1``,
        ``object_iou``, ``panoptic_quality`` (each 0..1 or ``None``), ``classes`` (one row a class), ``confusion``
        (``names``, ``matrix``: rows truth, columns result, pixels), ``aligned`` (a sentence, or ``None``),
        ``unmatched`` (class names of ``truth`` and ``result`` alone), ``grid``, ``seconds`` and ``outputs``.

    Raises:
        RefSAMError: When the two cannot be compared; no output is left then.
    """
    started = time.monotonic()
    paths = {"report": job.report, "picture": job.picture, "table": job.table}
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
        outputs = stack.enter_context(OutputFiles(paths, SUFFIXES, files_of([job.result, job.truth])))
        result = open_layer(job.result, job.result_field, job.result_classes, stack)
        truth = open_layer(job.truth, job.truth_field, job.truth_classes, stack)
        grid, aligned = _common_grid(job, result, truth)
        if aligned is not None:
            reporter.log(aligned)
        _log_backgrounds((result, truth), reporter)
        _log_pictures((result, truth), reporter)
        _log_coarse_grid(job, result, truth, grid, reporter)
        window, extent = _target(job, truth, grid)
        blocks = list(_blocks(window))
        for part, layer in enumerate((result, truth)):
            layer.place(grid)
            layer.prepare(_searched(blocks, part, reporter))
        matched = match_classes(result, truth, reporter)
        comparison = _Comparison(matched, job, window, extent)
        for block in _timed(blocks, reporter):
            comparison.add(block, truth, result)
        if not comparison.confusion.counts.sum():
            raise RefSAMError(
                "input",
                f"'{job.result}' and '{job.truth}' share no pixel that both have data for; check the CRS and the "
                "extent of both.",
            )
        reporter.progress(1.0, "Matching objects")
        record = comparison.record(_match_objects(job, result, truth, comparison, reporter))
        _log_hints(record, truth, reporter)
        record |= {
            "aligned": aligned,
            "unmatched": {"truth": matched.truth_only, "result": matched.result_only},
            "grid": {
                "crs": None if grid.crs is None else grid.crs.to_string(),
                "width": int(window.width),
                "height": int(window.height),
                "gsd": grid.gsd,
                "pixels_compared": int(comparison.confusion.counts.sum()),
            },
            "seconds": round(time.monotonic() - started, 3),
            "outputs": {name: path for name, path in paths.items() if path is not None},
        }
        _write(outputs, job, record)
        check_cancelled(reporter)
        outputs.commit()
    reporter.progress(1.0, "Done", 0.0)
    return record


class _Comparison:
    """Everything that is counted over the blocks."""

    def __init__(self, matched: MatchedClasses, job: EvaluateJob, window: Window, extent: Extent | None) -> None:
        count = len(matched.names)
        self.matched = matched
        self.confusion = Confusion(count)
        self.boundary = BoundaryAgreement(count, job.tolerance)
        self.objects = ObjectMatcher(job.min_iou)
        self.extent = extent
        self._window = window

    def add(self, block: Window, truth: Layer, result: Layer) -> None:
        """Count a block of whole rows; they come from top to bottom."""
        top, rows = int(block.row_off), int(block.height)
        start = max(int(self._window.row_off), top - self.boundary.halo)
        stop = min(int(self._window.row_off + self._window.height), top + rows + self.boundary.halo)
        wider = Window(block.col_off, start, block.width, stop - start)
        true, found = truth.labels(wider, self.matched.truth), result.labels(wider, self.matched.result)
        ignored = (true.classes == IGNORE) | (found.classes == IGNORE)
        if self.extent is not None:
            ignored |= ~self.extent.contains(wider)
        true.classes[ignored] = IGNORE
        found.classes[ignored] = IGNORE
        self.boundary.add(true.classes, found.classes, top - start, rows)
        true, found = true.in_rows(top - start, rows), found.in_rows(top - start, rows)
        self.confusion.add(true.classes, found.classes)
        if not (isinstance(truth, PolygonLayer) and isinstance(result, PolygonLayer)):
            self.objects.add(true, found)

    def record(self, objects: Sequence[ObjectCounts]) -> dict[str, Any]:
        """All figures with those of the objects of each class, rounded; ratios of nothing are ``None``."""
        names = self.matched.names
        counts = self.confusion.counts
        rows: list[dict[str, Any]] = [
            {
                "class": name,
                **self.confusion.scores(i),
                **self.boundary.scores(i),
                **counted.scores,
                "truth_pixels": int(counts[i].sum()),
                "result_pixels": int(counts[:, i].sum()),
                "truth_objects": counted.true,
                "result_objects": counted.found,
                "matched_objects": counted.matched,
            }
            for i, (name, counted) in enumerate(zip(names, objects, strict=True), 1)
        ]
        whole = _sum(objects).scores | {
            "panoptic_quality": mean_defined([row["panoptic_quality"] for row in rows]),
        }
        return {
            "miou": _ratio(self.confusion.miou),
            "fb_iou": _ratio(self.confusion.fb_iou),
            "accuracy": _ratio(self.confusion.accuracy),
            "boundary_f": _ratio(mean_defined([row["boundary_f"] for row in rows])),
            **{name: _ratio(value) for name, value in whole.items()},
            "classes": [
                {key: _ratio(value) if isinstance(value, float) else value for key, value in row.items()}
                for row in rows
            ],
            "confusion": {"names": ["background", *names], "matrix": counts.tolist()},
        }


def _sum(objects: Sequence[ObjectCounts]) -> ObjectCounts:
    return ObjectCounts(
        sum(item.true for item in objects),
        sum(item.found for item in objects),
        sum(item.matched for item in objects),
        sum(item.iou_sum for item in objects),
    )


def _match_objects(
    job: EvaluateJob, result: Layer, truth: Layer, comparison: _Comparison, reporter: Reporter
) -> list[ObjectCounts]:
    """Match two vector data sets by their shapes, and others by the pixels that were compared."""
    matched, count = comparison.matched, len(comparison.matched.names)
    if isinstance(truth, PolygonLayer) and isinstance(result, PolygonLayer):
        true, found = truth.outlines(matched.truth), result.outlines(matched.result)
        within = None if comparison.extent is None else _frame(comparison.extent)
        return match_outlines(true, found, within, job.min_iou, count, reporter)
    _log_hidden(job, comparison.objects, reporter)
    return comparison.objects.finish(count)


def _frame(extent: Extent) -> Any:
    """Return an extent as a polygon in pixels, on a grid that is not rotated."""
    (left, bottom), (right, top) = (~extent.transform * corner for corner in (extent.bounds[:2], extent.bounds[2:]))
    return shapely.box(left, top, right, bottom)


def _common_grid(job: EvaluateJob, result: Layer, truth: Layer) -> tuple[Grid, str | None]:
    """Choose the grid, and say so when a raster has to be aligned to it."""
    if (result.crs is None) != (truth.crs is None):
        bare, other = (result, truth) if result.crs is None else (truth, result)
        raise RefSAMError("input", f"'{bare.path}' has no CRS, but '{other.path}' has one; assign its CRS to it first.")
    if isinstance(result, RasterLayer):
        if isinstance(truth, RasterLayer) and not result.grid.shares_pixels(truth.grid):
            return result.grid, (
                f"The truth '{job.truth}' ({truth.grid.describe()}) was aligned to the pixels of the result "
                f"({result.grid.describe()})."
            )
        return result.grid, None
    if isinstance(truth, RasterLayer):
        return truth.grid, None
    return _grid_of_polygons(job, result, truth), None


def _grid_of_polygons(job: EvaluateJob, result: PolygonLayer, truth: PolygonLayer) -> Grid:
    """Make a grid over two vector data sets, in the CRS of the truth."""
    if len(truth.given.polygons) == 0:
        raise RefSAMError("input", f"The truth '{job.truth}' holds no polygon; there is nothing to compare with.")
    west, south, east, north = shapely.total_bounds(truth.given.polygons)
    found = result.given.in_pixels(Affine.identity(), truth.crs, ((west + east) / 2, (south + north) / 2))
    shapes = [truth.given.polygons, found.polygons]
    boxes = [shapely.box(*shapely.total_bounds(each)) for each in shapes if len(each)]
    if len(boxes) == 2 and not boxes[0].intersects(boxes[1]):
        raise RefSAMError("input", f"'{job.result}' and '{job.truth}' lie apart; check the CRS of both.")
    xmin, ymin, xmax, ymax = shapely.total_bounds(np.array(boxes, dtype=object)).tolist()
    metres = GroundMeasure(truth.crs).pixel_size(
        Affine.translation((xmin + xmax) / 2, (ymin + ymax) / 2) * Affine.scale(1e-5), 0, 0
    )
    extent = max(xmax - xmin, ymax - ymin)
    if job.gsd:
        pixel = job.gsd / (metres * 1e5)
        if extent / pixel > LARGEST_SIDE:
            raise RefSAMError(
                "input",
                f"A ground sample distance of {job.gsd:g} gives {extent / pixel:.0f} pixels along the longer side; "
                f"use one that gives at most {LARGEST_SIDE}.",
            )
    else:
        side = math.sqrt(float(np.median(shapely.area(truth.given.polygons))))
        pixel = max(side / PIXELS_PER_OBJECT, extent / AUTOMATIC_SIDE)
    left, top = math.floor(xmin / pixel) * pixel, math.ceil(ymax / pixel) * pixel
    width, height = math.ceil((xmax - left) / pixel), math.ceil((top - ymin) / pixel)
    return Grid(truth.crs, Affine(pixel, 0, left, 0, -pixel, top), max(1, width), max(1, height))


def _target(job: EvaluateJob, truth: Layer, grid: Grid) -> tuple[Window, Extent | None]:
    """The window of the grid to compare, and the extent where it does not fill it."""
    if job.extent is None:
        return Window(0, 0, grid.width, grid.height), None
    bounds, drawn = job.extent, None
    if truth.crs is not None and grid.crs is not None and truth.crs != grid.crs:
        outside = RefSAMError(
            "input",
            f"The extent cannot be transformed into {grid.crs.to_string()}; choose one that overlaps '{job.truth}'.",
        )
        try:
            bounds = transform_bounds(truth.crs, grid.crs, *job.extent)
            drawn = ForeignRectangle(job.extent, truth.crs, grid.crs)
        except (RasterioError, ProjError) as error:
            raise outside from error
        if not all(map(math.isfinite, bounds)):
            raise outside
    extent = Extent(bounds, grid.transform, drawn)
    window = extent.window(grid.width, grid.height)
    if window is None:
        raise RefSAMError(
            "input",
            f"The extent holds no pixel of '{job.result}' and '{job.truth}' that is compared; choose an extent that "
            "overlaps both.",
        )
    return window, extent


def _blocks(window: Window) -> Iterator[Window]:
    rows = max(1, BLOCK_PIXELS // int(window.width))
    stop = int(window.row_off + window.height)
    for top in range(int(window.row_off), stop, rows):
        yield Window(window.col_off, top, window.width, min(rows, stop - top))


def _searched(blocks: Sequence[Window], part: int, reporter: Reporter) -> Iterator[Window]:
    for number, block in enumerate(blocks):
        check_cancelled(reporter)
        reporter.progress(SEARCHED * (part + number / len(blocks)) / 2, "Looking for the classes")
        yield block


def _timed(blocks: Sequence[Window], reporter: Reporter) -> Iterator[Window]:
    started = time.monotonic()
    for number, block in enumerate(blocks):
        check_cancelled(reporter)
        left = (time.monotonic() - started) / number * (len(blocks) - number) if number else None
        reporter.progress(SEARCHED + (1 - SEARCHED) * number / len(blocks), "Comparing", left)
        yield block


def _log_backgrounds(layers: Sequence[Layer], reporter: Reporter) -> None:
    for layer in layers:
        if isinstance(layer, RasterLayer) and layer.background_is_nodata:
            reporter.log(
                f"'{layer.path}' declares 0 to be no data; it is taken as background, which counts. Declare another "
                "value for pixels that should not count."
            )


def _log_pictures(layers: Sequence[Layer], reporter: Reporter) -> None:
    for layer in layers:
        if isinstance(layer, RasterLayer) and layer.is_picture:
            reporter.log(
                f"'{layer.path}' is a picture with a red, a green and a blue band; the red one alone is read as class "
                "numbers. If colours stand for classes there, such as in a rendered image, export the raw data instead."
            )


def _log_coarse_grid(job: EvaluateJob, result: Layer, truth: Layer, grid: Grid, reporter: Reporter) -> None:
    if job.gsd or not (isinstance(truth, PolygonLayer) and isinstance(result, PolygonLayer)):
        return
    pixels = float(np.median(shapely.area(truth.given.polygons))) / abs(grid.transform.determinant)
    if pixels < FEW_PIXELS:
        finest = 1.1 * max(grid.width, grid.height) / LARGEST_SIDE  # rounded below, it must still be allowed
        advised = grid.gsd * max(math.sqrt(pixels / FEW_PIXELS), finest)
        reporter.log(
            f"The automatic pixel size of {grid.gsd:.2g} m is coarse: the median object of the truth has the area of "
            f"{pixels:.2g} pixels. Objects are matched by their shapes, but areas and boundaries are rough; give a "
            f"finer pixel size (GSD), such as {advised:.2g}."
        )


def _log_hidden(job: EvaluateJob, matcher: ObjectMatcher, reporter: Reporter) -> None:
    for path, what, count in zip((job.truth, job.result), ("missed", "wrong"), matcher.hidden, strict=True):
        if count:
            reporter.log(
                f"Of the polygons of '{path}', {count} hold no pixel's centre or lie under others; they are counted as "
                f"{what}."
            )


def _log_hints(record: dict[str, Any], truth: Layer, reporter: Reporter) -> None:
    if isinstance(truth, PolygonLayer):
        matrix = record["confusion"]["matrix"]
        outlined = sum(sum(row) for row in matrix[1:]) / max(1, sum(sum(row) for row in matrix))
        reporter.log(
            f"The truth's polygons cover {outlined:.1%} of what was compared; the rest is taken to be background. Give "
            "an extent when only a part was mapped."
        )


def _ratio(value: float) -> float | None:
    """Round a ratio for the record; JSON knows no NaN."""
    return None if math.isnan(value) else round(value, 4)


def _write(outputs: OutputFiles, job: EvaluateJob, record: dict[str, Any]) -> None:
    if (path := outputs["picture"]) is not None:
        with disk_errors(path):
            draw_confusion(record).save(path)
    if (path := outputs["table"]) is not None:
        with disk_errors(path), open(path, "w", encoding="utf-8", newline="") as stream:
            rows = record["classes"]
            table = csv.DictWriter(stream, list(rows[0]))
            table.writeheader()
            table.writerows([*rows, _all_row(record)])
    if (path := outputs["report"]) is not None:
        versions = {name: version(name) for name in ("numpy", "rasterio", "shapely", "scipy")}
        document = {
            "refsam": __version__,
            "job": to_dict(job),
            "result": record,
            "versions": {"python": platform.python_version(), "gdal": rasterio.__gdal_version__, **versions},
        }
        with disk_errors(path), open(path, "w", encoding="utf-8", errors="backslashreplace") as stream:
            json.dump(document, stream, ensure_ascii=False, indent=2)


def _all_row(record: dict[str, Any]) -> dict[str, Any]:
    """The last row of the table: means over the classes, and sums of pixels and objects."""
    summed = {
        key: sum(row[key] for row in record["classes"])
        for key, value in record["classes"][0].items()
        if isinstance(value, int)
    }
    whole = {key: record[key] for key in record["classes"][0] if key in record}
    means = {
        key: _ratio(mean_defined([math.nan if row[key] is None else row[key] for row in record["classes"]]))
        for key in ("precision", "recall", "f1", "boundary_precision", "boundary_recall")
    }
    return {"class": "all", "iou": record["miou"], **means, **summed, **whole}
