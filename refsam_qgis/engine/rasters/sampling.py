"""Pixels of a raster that its statistics are taken from.

They are the raster's own. A read at a lower resolution would be quicker, but takes the values of pyramids where there
are some, and those are averages: the statistics would depend on whether somebody had built pyramids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

SIDE = 1024
"""Pixels taken along the longer side of a raster, if all of it is looked at."""
SMALL = 2**24
"""Rasters of up to so many pixels are looked at all over, which takes about a second."""
SPOTS, SPOT = 32, 32
"""Spots along each side of a larger raster, and the side of a spot in pixels; a thousand blocks are soon read."""
ENOUGH = 2**17
"""Valid pixels other than 0 in the spots below which all is looked at after all: what there is may lie between them."""
AT_ONCE = 2**22
"""Pixels that are read at once, if a block has no more."""

Read = Callable[[Window], tuple[NDArray[Any] | None, NDArray[np.bool_]]]
"""Gives the values ``(bands, h, w)`` of a window, ``None`` if none are valid, and their validity ``(h, w)``."""


def sample_pixels(read: Read, width: int, height: int, block: tuple[int, int]) -> NDArray[Any] | None:
    """Return valid pixels from all over a raster, ``(bands, n)``; about a million, or all there are.

    Args:
        read: Reads a window of the raster in its own resolution.
        width: Of the raster, in pixels.
        height: Of the raster, in pixels.
        block: Rows and columns of the blocks of its file.

    Returns:
        Always the same pixels of the same raster; ``None`` if none is valid.
    """
    found: list[NDArray[Any]] = []
    if width * height > SMALL:
        found = _valid(read, _spots(width, height), 1)
    if sum(np.count_nonzero(part.any(axis=0)) for part in found) < ENOUGH:
        step = max(1, round(max(width, height) / SIDE))
        found = _valid(read, _blocks(width, height, block), step)
    return np.concatenate(found, axis=1) if found else None


def _valid(read: Read, windows: Iterator[Window], step: int) -> list[NDArray[Any]]:
    """Return the valid pixels of the windows in every `step`-th row and column of the raster."""
    found = []
    for window in windows:
        rows = slice((step // 2 - int(window.row_off)) % step, None, step)
        columns = slice((step // 2 - int(window.col_off)) % step, None, step)
        values, valid = read(window)
        inside = valid[rows, columns]
        if values is not None and inside.any():
            found.append(values[:, rows, columns][:, inside])
    return found


def _spots(width: int, height: int) -> Iterator[Window]:
    """Yield small windows at equal distances, row by row, so that no strip of a file is read twice."""
    for top, bottom in _scattered(height):
        for left, right in _scattered(width):
            yield Window(left, top, right - left, bottom - top)


def _scattered(length: int) -> list[tuple[int, int]]:
    if length <= SPOTS * SPOT:
        return [(0, length)]
    starts = [round((i + 0.5) * length / SPOTS - SPOT / 2) for i in range(SPOTS)]
    return [(start, start + SPOT) for start in starts]


def _blocks(width: int, height: int, block: tuple[int, int]) -> Iterator[Window]:
    """Yield windows of whole blocks, so that no block is read twice."""
    rows, columns = block
    columns *= max(1, min(AT_ONCE // (rows * columns), -(-width // columns)))
    rows *= max(1, AT_ONCE // (rows * columns))
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield Window(left, top, min(columns, width - left), min(rows, height - top))
