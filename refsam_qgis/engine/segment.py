"""The main job: find the classes of marked examples over a whole raster."""

from __future__ import annotations

import json
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.special import expit

from .errors import RefSAMError
from .events import Reporter, check_cancelled
from .job import ModelOptions, SegmentJob, to_dict
from .models.segmenter import ReferenceSegmenter
from .rasters.grid import Extent, Tile, TileGrid
from .rasters.mosaic import RowBlock, TileLogits, blend
from .rasters.outputs import OutputFiles, disk_errors
from .rasters.source import CACHE_BYTES, RasterSource
from .rasters.vectorise import ObjectTable, Vectoriser
from .rasters.writers import (
    MASK_NODATA,
    PROBABILITY_NODATA,
    RowWriter,
    mask_writer,
    probability_writer,
    write_polygons,
)
from .references import ReferenceSet, read_references

MIN_TILE, MAX_TILE = 64, 8192
"""Bounds of the automatic tile size, in pixels of the input."""
PREFETCHED_TILES = 2
"""Tiles read ahead while the model works."""
SUFFIXES = {
    "polygons": (".gpkg",),
    "mask": (".tif", ".tiff"),
    "probability": (".tif", ".tiff"),
    "report": (".json",),
}
PACKAGES = ("torch", "numpy", "rasterio", "shapely", "geopandas", "pyproj")
LOADED = 0.05
"""Share of the progress given to reading references and loading the model."""

Loader = Callable[[ModelOptions], ReferenceSegmenter]
TileRead = tuple[Tile, NDArray[np.uint8], NDArray[np.bool_]]


def run_segment(job: SegmentJob, reporter: Reporter, load: Loader | None = None) -> dict[str, Any]:
    """Segment a raster and write polygons, mask, probabilities and report as the job asks.

    Args:
        job: What to do.
        reporter: Hears the progress and says when to stop.
        load: Gives the model; ``None`` loads it from its checkpoint.

    Returns:
        ``object_count``, ``device``, ``classes`` (name, id, object_count, area_m2), ``tiles``, ``tile_size``,
        ``seconds``, ``seconds_per_tile`` and ``outputs`` (paths by name).

    Raises:
        RefSAMError: When the job cannot be done; no output is left then.
    """
    started = time.monotonic()
    inputs = [job.input, *job.references.files(), *job.model.files()]
    with ExitStack() as stack:
        stack.enter_context(_memory_errors())
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
        outputs = stack.enter_context(
            OutputFiles(asdict(job.outputs), SUFFIXES, inputs)
        )
        raster = stack.enter_context(RasterSource(job.input, job.raster.bands, job.raster.stretch))
        window, extent = _target_window(job, raster)
        reporter.progress(0.0, "Reading references")
        references, side = _references_and_tile(job, raster, reporter)
        names = [reference.name for reference in references.classes]
        check_cancelled(reporter)
        reporter.progress(LOADED / 2, "Loading the model")
        model = (load or _load_segmenter())(job.model)
        grid = TileGrid(raster.width, raster.height, side, round(side * job.raster.overlap / 100))
        run = _TileRun(raster, grid, window)
        table = run.segment(model, references, outputs, extent, job, reporter)
        if (path := outputs["polygons"]) is not None:
            write_polygons(path, table, names, raster.crs)
        result = {
            "object_count": len(table.polygons),
            "device": str(model.device),
            "classes": _class_summary(names, table),
            "tiles": run.tiles_done,
            "tile_size": side,
            "seconds": round(time.monotonic() - started, 3),
            "seconds_per_tile": round(run.seconds / max(1, run.tiles_done), 4),
            "outputs": {name: path for name, path in asdict(job.outputs).items() if path is not None},
        }
        if (path := outputs["report"]) is not None:
            _write_report(path, job, raster, references, run, result)
        outputs.commit()
        reporter.progress(1.0, "Done", 0.0)
        return result


class _TileRun:
    """One pass of the model over the tiles of a raster.

    Attributes:
        tiles_done: Tiles the model saw; those without a valid pixel are skipped.
        tiles_skipped: Tiles without a valid pixel.
        seconds: Wall time of the pass.
    """

    def __init__(self, raster: RasterSource, grid: TileGrid, window: Window) -> None:
        self.grid = grid
        self.window = window
        self.tiles_done = 0
        self.tiles_skipped = 0
        self.seconds = 0.0
        self._raster = raster

    def segment(
        self,
        model: ReferenceSegmenter,
        references: ReferenceSet,
        outputs: OutputFiles,
        extent: Extent | None,
        job: SegmentJob,
        reporter: Reporter,
    ) -> ObjectTable:
        """Write the mask and the probabilities where asked, and return the objects."""
        raster, window = self._raster, self.window
        names = [reference.name for reference in references.classes]
        transform = raster.transform * raster.transform.translation(window.col_off, window.row_off)
        vectoriser = Vectoriser(transform, raster.measure, raster.gsd, job.polygons.min_area, job.polygons.simplify)
        started = time.monotonic()
        with ExitStack() as stack:
            mask, probability = (
                None if path is None else stack.enter_context(open_writer(path, window, raster.crs, transform, names))
                for path, open_writer in (
                    (outputs["mask"], mask_writer),
                    (outputs["probability"], probability_writer),
                )
            )
            # Shut down before the raster closes: a read may still be under way when something fails.
            reader = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="tile-reader"))
            with torch.inference_mode():
                described = [model.describe(reference.shots) for reference in references.classes]
                tiles = self._predict(model, described, reader, reporter)
                for block in blend(self.grid, window, tiles, len(names)):
                    inside = _inside(block, window, extent)
                    _use(block, inside, job.threshold, mask, probability, vectoriser)
        self.seconds = time.monotonic() - started
        reporter.progress(1.0, "Writing polygons")
        return vectoriser.finish()

    def _predict(
        self, model: ReferenceSegmenter, described: Sequence[Any], reader: ThreadPoolExecutor, reporter: Reporter
    ) -> Iterator[TileLogits]:
        """Run the model on the tiles that hold a valid pixel."""
        started = time.monotonic()
        total = sum(1 for _ in self.grid.tiles(self.window))
        for number, (tile, rgb, valid) in enumerate(self._read_ahead(reader)):
            check_cancelled(reporter)
            left = (time.monotonic() - started) / number * (total - number) if number else None
            reporter.progress(LOADED + (1 - LOADED) * number / total, "Segmenting", left)
            if not valid.any():
                self.tiles_skipped += 1
                continue
            encoding = model.encode(
                torch.from_numpy(rgb)[None].to(model.device), torch.from_numpy(valid)[None].to(model.device)
            )
            logits = torch.cat([model.segment(encoding, reference) for reference in described])
            self.tiles_done += 1
            yield TileLogits(tile, logits.float().cpu().numpy(), valid)

    def _read_ahead(self, reader: ThreadPoolExecutor) -> Iterator[TileRead]:
        """Yield the tiles in order, reading the next ones in the background."""
        pending: deque[Future[TileRead]] = deque()
        for tile in self.grid.tiles(self.window):
            pending.append(reader.submit(self._read, tile))
            if len(pending) > PREFETCHED_TILES:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _read(self, tile: Tile) -> TileRead:
        side = self.grid.side
        return tile, *self._raster.read(Window(tile.column, tile.row, side, side))


def _target_window(job: SegmentJob, raster: RasterSource) -> tuple[Window, Extent | None]:
    if job.extent is None:
        return Window(0, 0, raster.width, raster.height), None
    extent = Extent(job.extent, raster.transform)
    window = extent.window(raster.width, raster.height)
    if window is None:
        raise RefSAMError(
            "input",
            f"Extent {', '.join(f'{v:g}' for v in job.extent)} holds no pixel of raster '{job.input}'; give xmin, "
            "ymin, xmax, ymax in the raster's CRS.",
        )
    return window, extent


def _references_and_tile(job: SegmentJob, raster: RasterSource, reporter: Reporter) -> tuple[ReferenceSet, int]:
    """Read the references and choose the side of the tiles, so that chips and tiles are equal on the ground."""

    def read(ground_size: float | None) -> ReferenceSet:
        return read_references(
            job.references, job.input, job.raster.bands, job.raster.stretch, reporter, ground_size
        )

    if job.raster.tile_size:
        return read(job.raster.tile_size * raster.gsd), job.raster.tile_size
    references = read(None)
    wanted = round(references.chip_ground_size / raster.gsd)
    side = min(max(wanted, MIN_TILE), MAX_TILE)
    if side != wanted:
        reporter.log(
            f"The examples ask for tiles of {wanted} pixels; {side} are used. Check that they show what the input's "
            "resolution can show."
        )
        references = read(side * raster.gsd)
    return references, side


def _inside(block: RowBlock, window: Window, extent: Extent | None) -> NDArray[np.bool_]:
    if extent is None:
        return block.valid
    height, width = block.valid.shape
    return block.valid & extent.contains(Window(window.col_off, window.row_off + block.row, width, height))


def _use(
    block: RowBlock,
    valid: NDArray[np.bool_],
    threshold: float,
    mask: RowWriter | None,
    probability: RowWriter | None,
    vectoriser: Vectoriser,
) -> None:
    """Turn finished rows into classes and hand them on; the most probable class wins if it reaches the threshold."""
    probabilities = expit(block.logits)
    if probability is not None:
        probability.write(block.row, np.where(valid, probabilities, np.float32(PROBABILITY_NODATA)))
    scores = probabilities.max(axis=0)
    class_ids = np.where(valid & (scores >= threshold), probabilities.argmax(axis=0) + 1, 0).astype(np.uint8)
    if mask is not None:
        mask.write(block.row, np.where(valid, class_ids, np.uint8(MASK_NODATA))[None])
    vectoriser.add(class_ids, scores)


def _class_summary(names: Sequence[str], table: ObjectTable) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "id": class_id,
            "object_count": int((table.class_ids == class_id).sum()),
            "area_m2": float(table.areas[table.class_ids == class_id].sum()),
        }
        for class_id, name in enumerate(names, 1)
    ]


def _write_report(
    path: str, job: SegmentJob, raster: RasterSource, references: ReferenceSet, run: _TileRun, result: dict[str, Any]
) -> None:
    from .models.checkpoints import describe_model

    report = {
        "job": to_dict(job),
        "result": result,
        "model": describe_model(job.model),
        "input": {
            "width": raster.width,
            "height": raster.height,
            "bands": list(raster.bands),
            "gsd": raster.gsd,
            "crs": None if raster.crs is None else raster.crs.to_string(),
        },
        "references": {
            "chip_ground_size": references.chip_ground_size,
            "gsd": references.gsd,
            "chips": {reference.name: len(reference.shots.images) for reference in references.classes},
        },
        "tiles": {"side": run.grid.side, "overlap": run.grid.overlap, "skipped": run.tiles_skipped},
        "versions": {
            "python": platform.python_version(),
            "gdal": rasterio.__gdal_version__,
            **{package: version(package) for package in PACKAGES},
        },
    }
    with disk_errors(path), open(path, "w", encoding="utf-8") as stream:
        json.dump(report, stream, ensure_ascii=False, indent=2)


def _load_segmenter() -> Loader:
    from .models.checkpoints import load_segmenter

    loader: Loader = load_segmenter
    return loader


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn running out of memory into a sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On the CPU torch raises a bare RuntimeError; only its text tells.
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error):
            raise RefSAMError(
                "memory", "There is not enough memory; use a smaller model or tile size, or another device."
            ) from error
        raise
