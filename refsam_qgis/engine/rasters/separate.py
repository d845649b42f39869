"""Touching objects kept apart where the probability dips between them.

Every pixel of an object drains uphill to a peak. Peaks are then joined over the passes between them, the highest pass
first, unless both rise at least the dip above the pass: what is left are the peaks that stand for objects of their own,
each with the pixels that drain to it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from ..events import Reporter, check_cancelled
from .objects import ObjectTable, PixelGrid
from .vectorise import pixel_outlines

MAX_PIXELS = 2**23
"""Objects whose bounding box holds more pixels are left whole, which bounds the memory."""

ReadProbability = Callable[[int, Window], NDArray[np.float32]]
"""Gives the probabilities ``(h, w)`` of a class id in a window (pixels of the `PixelGrid`)."""


def separate_touching(
    table: ObjectTable, grid: PixelGrid, read: ReadProbability, dip: float, reporter: Reporter
) -> ObjectTable:
    """Cut objects apart between peaks of their probability.

    Two peaks of one object become two objects when every way between them inside it falls at least `dip` below the
    lower one. Each object is looked at as a whole, so the result does not depend on how the raster was read.

    Call it on pixel outlines: after `Vectoriser.finish`, before `outlines.finish_objects`.

    Args:
        table: Objects with pixel outlines.
        grid: The raster's pixels.
        read: Gives the probabilities.
        dip: Smallest dip that parts two objects, in 0..1; more than 0.
        reporter: Hears of objects that are too large, and says when to stop.

    Returns:
        The objects with their parts in place of those that were cut; ids, scores and areas are those of the parts.
    """
    polygons = grid.to_pixels(table.polygons)
    bounds = np.rint(shapely.bounds(polygons)).astype(int).reshape(-1, 4)
    pieces: list[tuple[int, BaseGeometry, tuple[int, int], float]] = []
    cut: list[int] = []
    too_large = 0
    for i, (left, top, right, bottom) in enumerate(bounds):
        check_cancelled(reporter)
        height, width = bottom - top, right - left
        if height * width > MAX_PIXELS:
            too_large += 1
            continue
        placement = Affine.translation(left, top)
        mask = rasterize([polygons[i]], (height, width), transform=placement, dtype=np.uint8) > 0
        probability = read(int(table.class_ids[i]), Window(left, top, width, height))
        labels = split(mask, probability, dip)
        if labels.max() < 2:
            continue
        cut.append(i)
        _, first = np.unique(labels, return_index=True)
        sums = np.bincount(labels.ravel(), np.where(mask, probability, 0).ravel())
        scores = sums / np.bincount(labels.ravel())
        # Where the object fills its bounding box no pixel is 0, so the first entry is that of label 1.
        first = first[-int(labels.max()) :]
        for outline, value in zip(*pixel_outlines(labels, placement), strict=True):
            row, column = divmod(int(first[value - 1]), width)
            pieces.append((i, outline, (top + row, left + column), float(scores[value])))
    if too_large:
        reporter.log(f"Objects too large to be looked at for a separation: {too_large}; they stay whole.")
    if not cut:
        return table
    return _with_pieces(table, grid, cut, pieces)


def split(mask: NDArray[np.bool_], probability: NDArray[np.float32], dip: float) -> NDArray[np.int32]:
    """Split one object at the dips of its probability.

    Args:
        mask: ``(h, w)`` its pixels, 4-connected.
        probability: ``(h, w)`` in 0..1; only pixels of the mask count.
        dip: As in `separate_touching`.

    Returns:
        ``(h, w)`` labels 1, 2, … of 4-connected parts that cover the mask, 0 outside it.
    """
    heights = np.where(mask, probability, -np.inf).astype(np.float32)
    basins, summits = _basins(mask, heights)
    pairs, passes = _passes(basins, heights)
    joined = list(range(len(summits)))

    def root(basin: int) -> int:
        while joined[basin] != basin:
            joined[basin] = joined[joined[basin]]
            basin = joined[basin]
        return basin

    for one, other, height in zip(*pairs.tolist(), passes.tolist(), strict=True):
        low, high = sorted((root(one), root(other)), key=lambda basin: (summits[basin], -basin))
        if low != high and summits[low] - height < dip:
            joined[low] = high
    _, parts = np.unique([root(basin) for basin in range(len(summits))], return_inverse=True)
    return np.where(mask, parts.astype(np.int32)[basins] + 1, np.int32(0))


def _basins(mask: NDArray[np.bool_], heights: NDArray[np.float32]) -> tuple[NDArray[np.int32], list[float]]:
    """Let each pixel drain to its highest neighbour, and on to a peak.

    Returns:
        The number ``(h, w)`` of the peak that each pixel drains to, -1 outside the mask; and the height of each peak.
    """
    height, width = heights.shape
    own = np.arange(heights.size, dtype=np.int32).reshape(heights.shape)
    padded = np.pad(heights, 1, constant_values=-np.inf)
    highest, target = np.full_like(heights, -np.inf), own.copy()
    # In the order of their numbers: of equal heights the last wins, so that plateaus drain somewhere too.
    for step, down, right in ((-width, 0, 1), (-1, 1, 0), (0, 1, 1), (1, 1, 2), (width, 2, 1)):
        neighbour = padded[down : down + height, right : right + width]
        rising = (neighbour >= highest) & mask & (neighbour > -np.inf)
        np.copyto(highest, neighbour, where=rising)
        np.copyto(target, own + np.int32(step), where=rising)
    flat = target.ravel()
    while not np.array_equal(further := flat[flat], flat):
        flat = further
    is_peak = (flat == own.ravel()) & mask.ravel()
    numbers = np.cumsum(is_peak, dtype=np.int32) - 1
    basins = np.where(mask, numbers[flat].reshape(mask.shape), np.int32(-1))
    return basins, heights.ravel()[is_peak].tolist()


def _passes(basins: NDArray[np.int32], heights: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the pairs ``(2, P)`` of basins that touch and the height of a pass between them, from the highest down."""
    pairs, passes = [], []
    for one, other in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
    ):
        across = (basins[one] != basins[other]) & (basins[one] >= 0) & (basins[other] >= 0)
        pairs.append(np.sort(np.stack([basins[one][across], basins[other][across]]), axis=0))
        passes.append(np.minimum(heights[one][across], heights[other][across]))
    pair, height = np.concatenate(pairs, axis=1), np.concatenate(passes)
    order = np.lexsort((pair[1], pair[0], -height))
    return pair[:, order], height[order]


def _with_pieces(
    table: ObjectTable, grid: PixelGrid, cut: list[int], pieces: list[tuple[int, BaseGeometry, tuple[int, int], float]]
) -> ObjectTable:
    """Return the table with pieces (object, outline in pixels, first pixel, score) in place of the objects cut."""
    owners = np.array([owner for owner, _, _, _ in pieces])
    polygons = grid.to_map(np.array([outline for _, outline, _, _ in pieces], dtype=object))
    rows, columns = np.array([first for _, _, first, _ in pieces]).T
    whole = np.setdiff1d(np.arange(len(table.polygons)), cut)
    ids = np.concatenate([table.object_ids[whole], grid.object_ids(rows, columns)])
    order = np.argsort(ids)
    return ObjectTable(
        np.concatenate([table.polygons[whole], polygons])[order],
        ids[order],
        np.concatenate([table.class_ids[whole], table.class_ids[owners]])[order],
        np.concatenate([table.scores[whole], [score for _, _, _, score in pieces]])[order],
        np.concatenate([table.areas[whole], grid.areas(polygons)])[order],
    )
