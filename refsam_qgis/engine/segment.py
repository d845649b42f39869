"""The main job: find the classes of marked examples over a whole raster."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from .background import consumer
from .decision import Decided, decide
from .encodings import EncodingCache, open_encodings
from .events import Reporter, check_cancelled
from .job import ModelOptions, SegmentJob
from .journal import Journal, open_journal
from .models.segmenter import ReferenceSegmenter, resize_logits
from .models.weight_files import identify_model
from .raster_run import raster_run
from .rasters.grid import Extent, Tile, TileGrid, overlap_pixels, target_window
from .rasters.mosaic import Piece, TileLogits, blend
from .rasters.objects import ObjectTable, PixelGrid
from .rasters.outlines import finish_objects
from .rasters.outputs import OutputFiles
from .rasters.separate import separate_touching
from .rasters.source import RasterSource
from .rasters.vectorise import Vectoriser
from .rasters.writers import (
    MASK_NODATA,
    PieceWriter,
    mask_writer,
    probability_writer,
    write_polygons,
)
from .references.gather import ReferenceSet
from .runner import Loader, load_from_disk
from .session import Session, Showing
from .tile_answers import TileAnswers, TileRead
from .tile_key import tile_key

MIN_TILE, MAX_TILE = 64, 8192
"""Bounds of the automatic tile size, in pixels of the input."""
READERS, READERS_FOR_BATCHES = 2, 4
"""Threads that read the raster; a GPU gets more, as decoding a tile takes longer than a fast one takes to answer it."""
PREFETCHED_BATCHES = 2
"""Batches of tiles read ahead while the model works."""
WAITING_TILES = 4
"""Answers of the model that may wait to be blended, and their pixels to be given their classes, by one thread."""
WAITING_PIECES = 2
"""Pieces with their classes that may wait to be written and made polygons of, by another."""
SUFFIXES = {
    "polygons": (".gpkg",),
    "mask": (".tif", ".tiff"),
    "probability": (".tif", ".tiff"),
    "report": (".json",),
}
LOADED = 0.05
"""Share of the progress given to reading references and loading the model."""
SEGMENTED = 0.97
"""Progress when the last tile is done and polygons are to be finished."""


class _Result(NamedTuple):
    """The model's answer on a tile: ``(C, h, w)`` float32 in its own resolution, and validity ``(side, side)``."""

    tile: Tile
    logits: NDArray[np.float32]
    valid: NDArray[np.bool_]


def run_segment(job: SegmentJob, reporter: Reporter, load: Loader | None = None) -> dict[str, Any]:
    """Segment a raster and write polygons, mask, probabilities and report as the job asks.

    Args:
        job: What to do.
        reporter: Hears the progress and says when to stop.
        load: Gives the model; ``None`` loads it from its checkpoint.

    Returns:
        See `segment_raster`.

    Raises:
        RefSAMError: When the job cannot be done; no output is left then.
    """
    session = Session(job.references, job.input, job.raster, job.model, load or load_from_disk, reporter)
    return segment_raster(job, session, reporter)


def segment_raster(
    job: SegmentJob, session: Session, reporter: Reporter, note: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Segment a raster with a session's examples and network.

    Tiles are kept while the run lasts, so that the next run goes on where one was stopped.

    Args:
        job: What to do.
        session: Made of the job's references and options.
        reporter: Hears the progress and says when to stop.
        note: What the report is to hold besides, by name.

    Returns:
        ``object_count``, ``device``, ``classes`` (name, id, object_count, area_m2), ``tiles`` (that the model saw),
        ``tiles_kept`` (by an earlier run), ``encodings_reused`` (for tiles the model saw), ``tile_size``, ``seconds``,
        ``seconds_per_tile`` and ``outputs`` (paths by name).

    Raises:
        RefSAMError: When the job cannot be done; no output is left then. `JobCancelled` says how many tiles are kept.
    """
    with raster_run(job, SUFFIXES, job.references.files(), reporter) as run:
        showing = session.showing(job.input)
        raster = run.open(showing.stretch)
        raster.tell_bands(session.reporter)
        window, extent = target_window(job.extent, job.input, raster.transform, raster.width, raster.height)
        check_cancelled(reporter)
        reporter.progress(0.0, "Reading references")
        with run.clock.stage("references"):
            side, showing = _tile_side(job, raster, session, showing, reporter)
            references = session.references(showing)
        check_cancelled(reporter)
        reporter.progress(LOADED / 3, "Loading the model")
        with run.clock.stage("model"):
            model = session.model
        check_cancelled(reporter)
        reporter.progress(LOADED * 2 / 3, "Looking at the references")
        with run.clock.stage("descriptions"), torch.inference_mode():
            described = session.described(showing)
        job = replace(job, polygons=session.polygon_options(job.polygons, showing))
        grid = TileGrid(raster.width, raster.height, side, overlap_pixels(side, job.raster.overlap))
        key = _journal_key(run.source, grid, references, job.model, model)
        with (
            open_journal(key, reporter) as journal,
            open_encodings(job.keep_encodings, run.source, side, job.model, model) as encodings,
        ):
            tiles = _TilePass(raster, grid, window, journal, encodings, reporter)
            answers = TileAnswers(
                described, journal, encodings, partial(session.described_on_cpu, showing), reporter.log
            )
            with run.clock.stage("tiles"):
                found = tiles.segment(answers, len(described.classes), references, run.outputs, extent, job)
            with run.clock.stage("polygons"):
                table = tiles.finish(found, run.outputs, job)
            names = [reference.name for reference in references.classes]
            with run.clock.stage("writing"):
                if (path := run.outputs["polygons"]) is not None:
                    write_polygons(path, table, names, raster.crs)
            result = {
                "object_count": len(table.polygons),
                "device": str(model.device),
                "classes": _class_summary(names, table),
                "tiles": tiles.done,
                "tiles_kept": tiles.kept,
                "encodings_reused": tiles.encodings_reused,
                "tile_size": side,
                "seconds": round(run.clock.seconds, 3),
                "seconds_per_tile": round(tiles.seconds / max(1, tiles.done), 4),
                "outputs": run.outputs.wanted,
            }
            if run.outputs["report"] is not None:
                further = {
                    "references": _describe_references(references, session.example_count, showing),
                    "tiles": {"side": side, "overlap": grid.overlap, "skipped": tiles.skipped},
                    "files": _describe_files(run.outputs),
                    **(note or {}),
                }
                run.report(job, job.model, model.device, result, further)
            run.publish()
            journal.finish()
        reporter.progress(1.0, "Done", 0.0)
        return result


class _TilePass:
    """One pass of the model over the tiles of a raster.

    Attributes:
        done: Tiles the model saw.
        kept: Tiles that an earlier run had finished.
        skipped: Tiles without a valid pixel.
        encodings_reused: Tiles that the model saw by the encoding that an earlier run had stored.
        seconds: Wall time of the pass.
    """

    def __init__(
        self,
        raster: RasterSource,
        grid: TileGrid,
        window: Window,
        journal: Journal,
        encodings: EncodingCache,
        reporter: Reporter,
    ) -> None:
        self.done = 0
        self.kept = 0
        self.skipped = 0
        self.encodings_reused = 0
        self.seconds = 0.0
        self._raster = raster
        self._grid = grid
        self._window = window
        self._pixels = PixelGrid.of(raster, window)
        self._journal = journal
        self._encodings = encodings
        self._reporter = reporter

    def segment(
        self,
        answers: TileAnswers,
        described: int,
        references: ReferenceSet,
        outputs: OutputFiles,
        extent: Extent | None,
        job: SegmentJob,
    ) -> ObjectTable:
        """Write the mask and the probabilities where asked, and return the objects with their pixel outlines."""
        names = [reference.name for reference in references.classes]
        vectoriser = Vectoriser(self._pixels, int(self._window.width), job.polygons)
        started = time.monotonic()
        with ExitStack() as stack:
            mask, probability = (
                None
                if path is None
                else stack.enter_context(
                    open_writer(path, self._window, self._raster.crs, self._pixels.transform, names)
                )
                for path, open_writer in (
                    (outputs["mask"], mask_writer),
                    (_probability_path(outputs, job), probability_writer),
                )
            )

            # All are shut down before writers and raster close: they may still be at work when something fails.
            readers = READERS if answers.most_at_once == 1 else READERS_FOR_BATCHES
            reader = stack.enter_context(ThreadPoolExecutor(readers, thread_name_prefix="tile-reader"))
            keep = partial(_keep, mask=mask, probability=probability, vectoriser=vectoriser)
            decided = stack.enter_context(consumer(keep, WAITING_PIECES, "piece-keeper", self._reporter))

            @torch.inference_mode()
            def join(results: Iterable[_Result]) -> None:
                tiles = (self._enlarged(result) for result in results)
                for piece in blend(self._grid, self._window, tiles, described):
                    inside = _inside(piece, self._window, extent)
                    decided.put(decide(piece, inside, len(names), job.threshold, probability is not None))

            answered = stack.enter_context(consumer(join, WAITING_TILES, "tile-joiner", self._reporter))
            for result in self._predict(answers, reader):
                answered.put(result)
        self.seconds = time.monotonic() - started
        return vectoriser.finish()

    def finish(self, found: ObjectTable, outputs: OutputFiles, job: SegmentJob) -> ObjectTable:
        """Part touching objects where asked, and finish their outlines."""
        self._reporter.progress(SEGMENTED, "Finishing the polygons")
        path = _probability_path(outputs, job)
        if job.separate > 0 and path is not None:
            with rasterio.open(path) as probability:

                def read(class_id: int, window: Window) -> NDArray[np.float32]:
                    values: NDArray[np.float32] = probability.read(class_id, window=window)
                    return values

                found = separate_touching(found, self._pixels, read, job.separate, self._reporter)
        check_cancelled(self._reporter)
        return finish_objects(found, self._pixels, job.polygons)

    def _predict(self, answers: TileAnswers, reader: ThreadPoolExecutor) -> Iterator[_Result]:
        """Give the logits of the tiles that hold a valid pixel, of the model or of an earlier run."""
        total = self._grid.count(self._window)
        kept = sum(tile in self._journal for tile in self._grid.tiles(self._window))
        if kept:
            self._reporter.log(f"{kept} of {total} tiles were done in an earlier run.")

        def announced() -> Iterator[TileRead]:
            for number, read in enumerate(self._read_ahead(reader, PREFETCHED_BATCHES * answers.most_at_once)):
                check_cancelled(self._reporter)
                to_come = total - number - (kept - self.kept)
                left = answers.seconds / self.done * to_come if self.done else None
                self._reporter.progress(LOADED + (SEGMENTED - LOADED) * number / total, "Segmenting", left)
                yield read

        for read, answer in answers.of(announced()):
            self.encodings_reused += answer.encoding_reused
            if answer.logits is None:
                self.skipped += 1
                continue
            if answer.kept:
                self.kept += 1
            else:
                self.done += 1
            yield _Result(read.tile, answer.logits, read.valid)

    def _enlarged(self, result: _Result) -> TileLogits:
        """Bring the model's answer to the resolution of the tile."""
        logits = resize_logits(torch.from_numpy(result.logits), self._grid.side).numpy()
        return TileLogits(result.tile, logits, result.valid)

    def _read_ahead(self, reader: ThreadPoolExecutor, count: int) -> Iterator[TileRead]:
        """Yield the tiles in order, reading the next ones in the background."""
        pending: deque[Future[TileRead]] = deque()
        for tile in self._grid.tiles(self._window):
            pending.append(reader.submit(self._read, tile))
            if len(pending) > count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _read(self, tile: Tile) -> TileRead:
        side = self._grid.side
        rgb, valid = self._raster.read(Window(tile.column, tile.row, side, side))
        needed = valid.any() and tile not in self._journal
        return TileRead(tile, rgb, valid, self._encodings.load(tile) if needed else None)


def _tile_side(
    job: SegmentJob, raster: RasterSource, session: Session, showing: Showing, reporter: Reporter
) -> tuple[int, Showing]:
    """Choose the side of the tiles and the ground size of the chips so that both are equal on the ground.

    `showing` is how the examples are shown but for that size.

    Returns:
        The side in pixels, and how the examples are shown.
    """
    if job.raster.tile_size:
        return job.raster.tile_size, showing._replace(ground_size=job.raster.tile_size * raster.gsd)
    wanted = round(session.references(showing).chip_ground_size / raster.gsd)
    side = min(max(wanted, MIN_TILE), MAX_TILE)
    if side == wanted:
        return side, showing
    reporter.log(
        f"The examples ask for tiles of {wanted} pixels; {side} are used. Check that they show what the input's "
        "resolution can show."
    )
    return side, showing._replace(ground_size=side * raster.gsd)


def _journal_key(
    source: dict[str, Any],
    grid: TileGrid,
    references: ReferenceSet,
    options: ModelOptions,
    model: ReferenceSegmenter,
) -> str | None:
    """Digest all that the network's answer on a tile depends on; ``None`` where it might change unnoticed."""
    further = {
        "tiles": [grid.side, grid.overlap],
        "references": references.digest,
        "model": [type(model).__qualname__, identify_model(options)],
    }
    return tile_key(source, model.device, further)


def _probability_path(outputs: OutputFiles, job: SegmentJob) -> str | None:
    """Where the probabilities go: to the output asked for, else aside if touching objects are told apart by them."""
    asked = outputs["probability"]
    beside = outputs["polygons"] or outputs["mask"] or outputs["report"]
    if asked is None and job.separate > 0 and beside is not None:
        return str(Path(beside).with_name(".probability.tif"))
    return asked


def _inside(piece: Piece, window: Window, extent: Extent | None) -> NDArray[np.bool_]:
    if extent is None:
        return piece.valid
    height, width = piece.valid.shape
    left, top = window.col_off + piece.column, window.row_off + piece.row
    return piece.valid & extent.contains(Window(left, top, width, height))


def _keep(
    decided: Iterable[Decided], mask: PieceWriter | None, probability: PieceWriter | None, vectoriser: Vectoriser
) -> None:
    """Write pieces and take their objects."""
    for piece in decided:
        if probability is not None and piece.probabilities is not None:
            probability.write(piece.row, piece.column, piece.probabilities)
        if mask is not None:
            classes = np.where(piece.valid, piece.class_ids, np.uint8(MASK_NODATA))
            mask.write(piece.row, piece.column, classes[None])
        vectoriser.add(piece.row, piece.column, piece.class_ids, piece.scores)


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


def _describe_references(references: ReferenceSet, examples: int | None, showing: Showing) -> dict[str, Any]:
    return {
        "examples": examples,
        "digest": references.digest,
        "stretch": showing.stretch,
        "chip_ground_size": references.chip_ground_size,
        "gsd": references.gsd,
        "chips": {reference.name: len(reference.shots.images) for reference in references.classes},
        "negative_chips": 0 if references.negative is None else len(references.negative.images),
    }


def _describe_files(outputs: OutputFiles) -> dict[str, Any]:
    """Return path and size in bytes of each finished output."""
    return {
        name: {"path": path, "size": os.path.getsize(str(outputs[name]))}
        for name, path in outputs.wanted.items()
        if name != "report"
    }
