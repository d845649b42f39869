"""The tile grid of a raster, and windows of map extents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.windows import Window

from ..errors import RefSAMError
from .map_shapes import ForeignRectangle


@dataclass(frozen=True)
class Tile:
    """One square of the grid: its place in the grid and its upper left pixel in the raster."""

    grid_row: int
    grid_column: int
    row: int
    column: int


@dataclass(frozen=True)
class TileGrid:
    """Overlapping square tiles anchored at a raster's first pixel.

    Tiles start at multiples of ``side - overlap`` and may stick out at the right and bottom. The grid depends on the
    raster alone, never on the extent of a run, so that every run sees the same tiles.

    Attributes:
        width: Of the raster, in pixels.
        height: Of the raster, in pixels.
        side: Of a tile, in pixels.
        overlap: Pixels that neighbouring tiles share; at most half a tile, so no pixel lies in more than two tiles
            of a row or column.
    """

    width: int
    height: int
    side: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= self.side // 2:
            raise ValueError("overlap must be 0 to half a tile")

    @property
    def stride(self) -> int:
        """Distance between the starts of neighbouring tiles."""
        return self.side - self.overlap

    @property
    def rows(self) -> int:
        """Number of tile rows."""
        return max(1, math.ceil((self.height - self.overlap) / self.stride))

    @property
    def columns(self) -> int:
        """Number of tile columns."""
        return max(1, math.ceil((self.width - self.overlap) / self.stride))

    def tiles(self, window: Window) -> Iterator[Tile]:
        """Yield the tiles that touch a window of the raster, row by row."""
        columns = self.columns_touching(window)
        for i in self._rows_touching(window):
            for j in columns:
                yield Tile(i, j, i * self.stride, j * self.stride)

    def count(self, window: Window) -> int:
        """Number of tiles that touch a window of the raster."""
        return len(self._rows_touching(window)) * len(self.columns_touching(window))

    def columns_touching(self, window: Window) -> range:
        """Columns of the grid whose tiles touch a window of the raster."""
        return self._touching(int(window.col_off), int(window.width), self.columns)

    def weights(self, tile: Tile) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the blending weights along the rows and along the columns of a tile, each ``(side,)`` in 0..1.

        A raised cosine rises over each overlap with a neighbour and falls over the next one. The products of the two
        over all tiles of the grid sum to one at every pixel, so blending needs no division.
        """
        return self._profile(tile.grid_row, self.rows), self._profile(tile.grid_column, self.columns)

    def _rows_touching(self, window: Window) -> range:
        return self._touching(int(window.row_off), int(window.height), self.rows)

    def _touching(self, start: int, length: int, count: int) -> range:
        first = max(0, (start - self.side) // self.stride + 1)
        return range(first, min(count, (start + length - 1) // self.stride + 1))

    def _profile(self, index: int, count: int) -> NDArray[np.float32]:
        profile = np.ones(self.side)
        rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(self.overlap) + 0.5) / max(1, self.overlap))
        if index > 0:
            profile[: self.overlap] = rise
        if index < count - 1:
            profile[self.side - self.overlap :] = rise[::-1]
        return profile.astype(np.float32)


@dataclass(frozen=True)
class Extent:
    """The pixels of a raster whose centres lie in a rectangle of map coordinates.

    Attributes:
        bounds: ``(xmin, ymin, xmax, ymax)`` in map units.
        transform: The raster's pixel-to-map transform.
        drawn: The rectangle as it was drawn on another map, where it was: on the raster's, `bounds` are around it.
    """

    bounds: tuple[float, float, float, float]
    transform: Affine
    drawn: ForeignRectangle | None = None

    def window(self, width: int, height: int) -> Window | None:
        """Return the smallest window of a raster that holds them, or ``None`` if there are none."""
        xmin, ymin, xmax, ymax = self.bounds
        corners = np.array([~self.transform * (x, y) for x in (xmin, xmax) for y in (ymin, ymax)])
        # Sides through the centres of pixels carry rounding errors; no row may be gained or lost by them.
        low = np.ceil(np.round(corners.min(axis=0) - 0.5, 6))
        high = np.floor(np.round(corners.max(axis=0) - 0.5, 6)) + 1
        # Limited before they become integers, for which they may be too large.
        left, top = (int(side) for side in np.clip(low, 0, (width, height)))
        right, bottom = (int(side) for side in np.clip(high, 0, (width, height)))
        return Window(left, top, right - left, bottom - top) if left < right and top < bottom else None

    def contains(self, window: Window) -> NDArray[np.bool_]:
        """Return ``(h, w)``: whether each pixel's centre lies in the rectangle.

        On a rotated raster not all do, nor where the rectangle was drawn on another map.
        """
        shape = (int(window.height), int(window.width))
        if self.transform.is_rectilinear and self.drawn is None:
            return np.ones(shape, np.bool_)
        rows = np.arange(shape[0])[:, None] + window.row_off + 0.5
        columns = np.arange(shape[1])[None, :] + window.col_off + 0.5
        x, y = self.transform * (columns, rows)
        if self.drawn is not None:
            return self.drawn.contains(x, y)
        xmin, ymin, xmax, ymax = self.bounds
        inside: NDArray[np.bool_] = (x >= xmin) & (x <= xmax) & (y >= ymin) & (y <= ymax)
        return inside


def overlap_pixels(side: int, percent: float, least: int = 0) -> int:
    """Return how many pixels neighbouring tiles share.

    Args:
        side: Of a tile, in pixels.
        percent: Shared part of the side, 0..50.
        least: Fewest pixels, whatever the percentage says.

    Returns:
        At most half a tile, rounded down: half of an odd side would be rounded up to more than `TileGrid` takes.
    """
    return min(max(round(side * percent / 100), least), side // 2)


def target_window(
    bounds: tuple[float, float, float, float] | None, path: str, transform: Affine, width: int, height: int
) -> tuple[Window, Extent | None]:
    """Return the window of a raster that a job is about, and its extent if it has one.

    Args:
        bounds: ``(xmin, ymin, xmax, ymax)`` in map units; ``None`` for the whole raster.
        path: Of the raster, for the message.
        transform: Its pixel-to-map transform.
        width: In pixels.
        height: In pixels.

    Raises:
        RefSAMError: With code ``input`` when there is no pixel in it.
    """
    if bounds is None:
        return Window(0, 0, width, height), None
    extent = Extent(bounds, transform)
    window = extent.window(width, height)
    if window is None:
        raise RefSAMError(
            "input",
            f"The extent holds no pixel of raster '{path}'; choose an extent that overlaps the raster.",
        )
    return window, extent


def common(a_start: int, a_length: int, b_start: int, b_length: int) -> tuple[slice, slice]:
    """Return what two intervals share, counted from the start of each; it ends before it starts if that is nothing."""
    start, stop = max(a_start, b_start), min(a_start + a_length, b_start + b_length)
    return slice(start - a_start, stop - a_start), slice(start - b_start, stop - b_start)
