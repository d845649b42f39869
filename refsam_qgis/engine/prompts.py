"""Segment what points and boxes show: SAM proper, on windows of a raster."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from .errors import RefSAMError
from .events import Reporter, check_cancelled
from .job import PromptsJob
from .models.promptable import EncodedImage, PromptableSegmenter, Prompts, load_promptable, stock_options
from .object_results import SUFFIXES, FoundObjects, pixel_outlines_of, write_objects
from .prompt_layers import PromptedObject, read_prompts
from .raster_run import raster_run
from .rasters.outlines import mask_outline
from .rasters.source import RasterSource

if TYPE_CHECKING:
    from .runner import Loader

POINT_WINDOW = 1024
"""Automatic side of the window around points, which do not say how large their object is: SAM's own input."""
SMALLEST_WINDOW = 256
"""Smallest automatic side of a window around a box."""
BOX_CONTEXT = 4
"""Least automatic side of a window in sides of the box, so that SAM sees what surrounds the object."""
LARGEST_WINDOW = 8192
"""Largest side of a window, which bounds the memory."""
OBJECTS_AT_ONCE = 8
"""Objects decoded together."""
LOADED, FINISHED = 0.05, 0.97
"""Progress when the model is loaded, and when the last window is done."""


def run_prompts(job: PromptsJob, reporter: Reporter, load: Loader) -> dict[str, Any]:
    """Segment what the prompts of a job show, and write polygons, mask and report as it asks.

    Args:
        job: What to do.
        reporter: Hears the progress and says when to stop.
        load: Gives the model.

    Returns:
        ``object_count``, ``area_m2``, ``prompted`` (objects asked for), ``windows``, ``device``, ``seconds`` and
        ``outputs`` (paths by name).

    Raises:
        RefSAMError: When the job cannot be done; no output is left then.
    """
    further = [path for path in (job.points, job.boxes) if path is not None]
    with raster_run(job, SUFFIXES, further, reporter) as run:
        raster = run.open(job.raster.stretch)
        raster.tell_bands(reporter)
        check_cancelled(reporter)
        reporter.progress(0.0, "Reading prompts")
        with run.clock.stage("prompts"):
            objects = read_prompts(job, raster, reporter)
            windows = prompt_windows(objects, (raster.height, raster.width), job.raster.tile_size)
        check_cancelled(reporter)
        reporter.progress(LOADED / 2, "Loading the model")
        with run.clock.stage("model"):
            segmenter = load_promptable(job.model, load)
        with run.clock.stage("windows"):
            found = _segment(segmenter, raster, windows, len(objects), job.best_of_three, reporter)
        check_cancelled(reporter)
        reporter.progress(FINISHED, "Writing polygons")
        with run.clock.stage("writing"):
            whole = Window(0, 0, raster.width, raster.height)
            written = write_objects(found, run.outputs, raster, whole, job.polygons, reporter)
        result = {
            "object_count": written.count,
            "area_m2": written.area,
            "prompted": len(objects),
            "windows": len(windows),
            "device": str(segmenter.device),
            "seconds": round(run.clock.seconds, 3),
            "outputs": run.outputs.wanted,
        }
        if run.outputs["report"] is not None:
            looked_at = [
                {"column": w.col_off, "row": w.row_off, "width": w.width, "height": w.height, "objects": len(of)}
                for w, of in windows
            ]
            run.report(job, stock_options(job.model), segmenter.device, result, {"windows": looked_at})
        run.publish()
        reporter.progress(1.0, "Done", 0.0)
        return result


def prompt_windows(
    objects: Sequence[PromptedObject], shape: tuple[int, int], tile_size: int
) -> list[tuple[Window, list[PromptedObject]]]:
    """Choose the windows that SAM looks at, each with the objects it is asked for there.

    Windows lie on grids of half-overlapping tiles, so that objects near each other share one; an object goes to the
    tile whose middle is nearest. They never stick out of the raster. One that fits into SAM's input is a window itself,
    unless a side is given.

    Args:
        objects: With prompts in pixels of the raster.
        shape: Height and width of the raster.
        tile_size: Side of a window in pixels, 0 for automatic; prompts that reach over half of it get twice the side,
            and so on.

    Raises:
        RefSAMError: With code ``input`` for prompts of one object that are too far apart.
    """
    grouped: dict[tuple[int, int, int], list[PromptedObject]] = {}
    for item in objects:
        left, top, right, bottom = item.bounds
        reach = max(right - left, bottom - top)
        side = _side(item, reach, tile_size or (POINT_WINDOW if max(shape) <= POINT_WINDOW else 0))
        if side > LARGEST_WINDOW and max(shape) > LARGEST_WINDOW:
            raise RefSAMError(
                "input",
                f"The prompts of object {item.object_id} are {math.ceil(reach)} pixels apart; keep "
                f"those of one object within {LARGEST_WINDOW // 2}, or give a coarser raster.",
            )
        row = _start((top + bottom) / 2, side, shape[0])
        column = _start((left + right) / 2, side, shape[1])
        grouped.setdefault((row, column, side), []).append(item)
    return [
        (Window(column, row, min(side, shape[1]), min(side, shape[0])), of_window)
        for (row, column, side), of_window in sorted(grouped.items(), key=lambda entry: entry[0])
    ]


def _side(item: PromptedObject, reach: float, tile_size: int) -> int:
    """Side of the window of an object whose prompts reach over so many pixels."""
    if tile_size:
        side, share = tile_size, 2
    elif item.box is not None:
        side, share = SMALLEST_WINDOW, BOX_CONTEXT
    else:
        side, share = POINT_WINDOW, 2
    while side < share * reach:
        side *= 2
    return side


def _start(middle: float, side: int, size: int) -> int:
    """First pixel of the tile whose middle is nearest, moved into the raster."""
    stride = side // 2
    return min(max(round((middle - side / 2) / stride), 0) * stride, max(0, size - side))


def _segment(
    segmenter: PromptableSegmenter,
    raster: RasterSource,
    windows: Sequence[tuple[Window, list[PromptedObject]]],
    total: int,
    best_of_three: bool,
    reporter: Reporter,
) -> FoundObjects:
    """Ask for the objects window by window."""
    started = time.monotonic()
    grid = pixel_outlines_of(raster)
    rows: list[tuple[int, Any, float, float]] = []
    done, cut = 0, 0
    for window, objects in windows:
        check_cancelled(reporter)
        left = (time.monotonic() - started) / done * (total - done) if done else None
        reporter.progress(LOADED + (FINISHED - LOADED) * done / total, "Segmenting", left)
        rgb, valid = raster.read(window)
        if valid.any():
            image = segmenter.encode(torch.from_numpy(rgb), torch.from_numpy(valid))
            for item, mask, score, stability in _decode(segmenter, image, window, objects, best_of_three, reporter):
                mask &= valid
                outline = mask_outline(mask, int(window.row_off), int(window.col_off), grid)
                if outline is not None:
                    rows.append((item.object_id, outline, score, stability))
                    cut += _is_cut(mask, window, raster)
        done += len(objects)
    if cut:
        reporter.log(f"{cut} objects reach over the border of the window they were seen in; use a larger tile size.")
    if lost := total - len(rows):
        reporter.log(
            f"The model finds nothing at the prompts of {lost} of {total} objects; they are left out. SAM's published "
            "checkpoints answer points and boxes better than the compact model."
        )
    rows.sort(key=lambda row: row[0])
    outlines = np.empty(len(rows), dtype=object)
    outlines[:] = [row[1] for row in rows]
    return FoundObjects(
        np.array([row[0] for row in rows], np.int64),
        outlines,
        np.array([row[2] for row in rows], np.float64),
        np.array([row[3] for row in rows], np.float64),
    )


def _decode(
    segmenter: PromptableSegmenter,
    image: EncodedImage,
    window: Window,
    objects: Sequence[PromptedObject],
    best_of_three: bool,
    reporter: Reporter,
) -> Iterator[tuple[PromptedObject, NDArray[np.bool_], float, float]]:
    """Yield each object with its mask ``(h, w)``, its predicted IoU and its stability."""
    alike: dict[tuple[int, bool], list[PromptedObject]] = {}
    for item in objects:
        alike.setdefault((len(item.points), item.box is not None), []).append(item)
    for (points, has_box), group in alike.items():
        multimask = best_of_three and points + has_box == 1
        for start in range(0, len(group), OBJECTS_AT_ONCE):
            check_cancelled(reporter)
            batch = group[start : start + OBJECTS_AT_ONCE]
            logits, predicted = segmenter.predict(image, _prompts(batch, window), multimask)
            best = predicted.argmax(dim=1)
            for item, masks, ious, chosen in zip(batch, logits, predicted, best.tolist(), strict=True):
                large = segmenter.enlarge(image, masks[chosen : chosen + 1])
                stability = float(segmenter.stability(large)[0])
                mask = (large[0] > segmenter.sam.mask_threshold).cpu().numpy()
                yield item, mask, float(ious[chosen]), stability


def _prompts(objects: Sequence[PromptedObject], window: Window) -> Prompts:
    """Put the equally many prompts of objects together, in pixels of a window as SAM counts them."""
    corner = np.array([window.col_off, window.row_off]) + 0.5
    points = np.stack([item.points - corner for item in objects])
    boxes = [np.array(item.box) - np.tile(corner, 2) for item in objects if item.box is not None]
    has_points = points.shape[1] > 0
    return Prompts(
        torch.from_numpy(points).float() if has_points else None,
        torch.from_numpy(np.stack([item.labels for item in objects])) if has_points else None,
        torch.from_numpy(np.stack(boxes)).float() if boxes else None,
    )


def _is_cut(mask: NDArray[np.bool_], window: Window, raster: RasterSource) -> bool:
    """Whether a mask reaches a border of the window that is none of the raster."""
    bottom, right = int(window.row_off + window.height), int(window.col_off + window.width)
    return bool(
        (window.row_off > 0 and mask[0].any())
        or (window.col_off > 0 and mask[:, 0].any())
        or (bottom < raster.height and mask[-1].any())
        or (right < raster.width and mask[:, -1].any())
    )
