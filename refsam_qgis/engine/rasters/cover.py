"""Which square windows of a raster show the marked objects of a class best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

CELLS = 16
"""Resolution of the search: cells along the side of a window."""
MARGIN = 1 / 8
"""How far windows may reach past the marks, in sides: enough to see what surrounds them, but hardly beyond the part
of the raster that was looked at when they were drawn."""


def cover(
    marks: Sequence[BaseGeometry], frame: tuple[float, float, float, float], side: int, shape: tuple[int, int]
) -> Iterator[Window]:
    """Yield windows that cover marks, each time the one with the most class not shown yet.

    Every other window, the first to begin with, is one that shows the surroundings of the class too, where there is
    any. Ends when all marks are covered.

    Args:
        marks: Polygons of one class in pixel coordinates; scribbles and points as their drawn outlines.
        frame: ``(xmin, ymin, xmax, ymax)`` of the marks of all classes in pixels.
        side: Of a window, in pixels.
        shape: ``(height, width)`` of the raster.
    """
    left, right = _frame_axis(frame[0], frame[2], side, shape[1])
    top, bottom = _frame_axis(frame[1], frame[3], side, shape[0])
    cell = side / CELLS
    rows = max(CELLS, int((bottom - top) / cell))
    columns = max(CELLS, int((right - left) / cell))
    weights = _class_area(marks, (left, top), cell, (rows, columns))
    share = _window_sums(weights) / side**2
    with_surroundings = True
    while weights.any():
        gain = _window_sums(weights)
        # Highest where class and surroundings have equal shares; a class that fills every window leaves no choice.
        balanced = gain * np.clip(1 - share, 0, 1)
        best = int(np.argmax(balanced if with_surroundings and balanced.any() else gain))
        i, j = _centred(weights, *divmod(best, gain.shape[1]))
        weights[i : i + CELLS, j : j + CELLS] = 0
        with_surroundings = not with_surroundings
        yield Window(round(left + j * cell), round(top + i * cell), side, side)


def _frame_axis(low: float, high: float, side: int, size: int) -> tuple[int, int]:
    """Return the interval that windows stay in along one axis: the marks and a margin, inside the raster."""
    middle, half = (low + high) / 2, max(side / 2, (high - low) / 2 + MARGIN * side)
    start, stop = round(middle - half), round(middle + half)
    if size <= side:
        return 0, side
    start = min(max(start, 0), size - side)
    return start, max(min(stop, size), start + side)


def _class_area(
    marks: Sequence[BaseGeometry], origin: tuple[int, int], cell: float, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the area in pixels of the class in each cell, ``(rows, columns)``.

    Marks larger than a cell fill the cells whose centre they hold, smaller ones add up in the cell they lie in.
    """
    to_pixels = Affine.translation(*origin) * Affine.scale(cell)
    weights = np.zeros(shape)
    large = [mark for mark in marks if mark.area >= cell**2]
    if large:
        weights += rasterize(large, out_shape=shape, transform=to_pixels, dtype="uint8") * cell**2
    for mark in marks:
        column, row = ~to_pixels * shapely.get_coordinates(shapely.point_on_surface(mark))[0]
        if 0 <= row < shape[0] and 0 <= column < shape[1]:
            here = int(row), int(column)
            weights[here] = min(weights[here] + mark.area, cell**2)
    return weights


def _window_sums(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum in every window of `CELLS` squared cells, by the upper left cell."""
    total = np.pad(weights.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[CELLS:, CELLS:] - total[:-CELLS, CELLS:] - total[CELLS:, :-CELLS] + total[:-CELLS, :-CELLS]
    # Differences of sums carry rounding errors; what is covered must count as exactly nothing.
    return np.where(sums > 1e-6 * max(1.0, float(weights.max())), sums, 0.0)


def _centred(weights: NDArray[np.float64], i: int, j: int) -> tuple[int, int]:
    """Move a window so that what it covers lies in its middle."""
    rows, columns = np.nonzero(weights[i : i + CELLS, j : j + CELLS])

    def middle(start: int, cells: NDArray[np.intp], size: int) -> int:
        shift = round((int(cells.min()) + int(cells.max()) - CELLS + 1) / 2)
        return min(max(start + shift, 0), size - CELLS)

    return middle(i, rows, weights.shape[0]), middle(j, columns, weights.shape[1])
