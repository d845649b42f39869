"""Tiles blended into pieces of a mosaic, streaming from top to bottom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from .grid import Tile, TileGrid, common

PIECE_PIXELS = 2**20
"""Pixels from which a piece is handed on: enough that what is done piece by piece is done quickly."""


@dataclass(frozen=True)
class TileLogits:
    """What the model found in one tile.

    Attributes:
        tile: Its place.
        logits: ``(C, side, side)`` float32.
        valid: ``(side, side)`` bool.
    """

    tile: Tile
    logits: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Piece:
    """A finished rectangle of a mosaic.

    Attributes:
        row: First row, counted from the top of the mosaic's window.
        column: First column, counted from its left.
        logits: ``(C, h, w)`` float32; they mean nothing where `valid` is False.
        valid: ``(h, w)`` bool.
    """

    row: int
    column: int
    logits: NDArray[np.float32]
    valid: NDArray[np.bool_]


def blend(grid: TileGrid, window: Window, tiles: Iterable[TileLogits], classes: int) -> Iterator[Piece]:
    """Blend tiles into pieces of a window.

    What a tile does not share with later ones is finished with it, so all that waits is what a row of tiles shares with
    the next: memory is bounded by ``classes x (overlap x window width + a piece + a tile)``. Every pixel sums its tiles
    in the grid's order, so a run on a part gives the same bits as a run on the whole.

    Args:
        grid: The raster's tiles.
        window: The part of the raster to fill.
        tiles: Predictions in the order of ``grid.tiles(window)``; tiles without a valid pixel may be left out.
        classes: Number of classes C.

    Yields:
        Pieces that do not overlap, row by row: those beside each other have the same rows. Together they hold every
        valid pixel of the window.
    """
    seams = _Seams(grid, window, classes)
    beside: list[Piece] = []
    for result in tiles:
        finished = _inside(seams.join(result), result, grid, window)
        if finished is None:
            continue
        if beside and not (_adjoin(beside[-1], finished) and sum(p.valid.size for p in beside) < PIECE_PIXELS):
            yield _joined(beside)
            beside = []
        beside.append(finished)
    if beside:
        yield _joined(beside)


class _Seams:
    """What tiles share with later ones: a band along a row of tiles, and a strip beside the last tile.

    Where tiles were left out there is no valid pixel, so it does not matter that band and strip are then of others.
    """

    def __init__(self, grid: TileGrid, window: Window, classes: int) -> None:
        self._grid = grid
        self._columns = grid.columns_touching(window)
        width = len(self._columns) * grid.stride + grid.overlap
        self._band = np.zeros((classes, grid.overlap, width), np.float32)
        self._strip = np.zeros((classes, grid.side, grid.overlap), np.float32)
        self._last = (-1, -1)

    def join(self, result: TileLogits) -> NDArray[np.float32]:
        """Add a tile to what the earlier ones left for it.

        Returns:
            ``(C, side, side)``: sums that are finished but for what is shared with the next tiles, below and right.
        """
        grid, tile = self._grid, result.tile
        first = (tile.grid_column - self._columns.start) * grid.stride
        width = _finished_length(tile.grid_column, grid.columns, grid)
        shared = grid.overlap
        below = self._band[:, :, first : first + width]
        along_rows, along_columns = grid.weights(tile)
        total = result.logits * (along_rows[:, None] * along_columns[None])
        if self._last == (tile.grid_row, tile.grid_column - 1):
            total[:, :shared, :shared] += below[:, :, :shared] + self._strip[:, :shared]
            total[:, :shared, shared:width] += below[:, :, shared:]
            total[:, shared:, :shared] += self._strip[:, shared:]
        else:
            total[:, :shared, :width] += below
        below[:] = total[:, grid.stride :, :width]
        self._strip = total[:, :, grid.stride :].copy()
        self._last = tile.grid_row, tile.grid_column
        return total


def _finished_length(index: int, count: int, grid: TileGrid) -> int:
    """Pixels from the start of a tile along one axis that no next tile shares; nothing follows the last one."""
    return grid.side if index == count - 1 else grid.stride


def _inside(total: NDArray[np.float32], result: TileLogits, grid: TileGrid, window: Window) -> Piece | None:
    """Cut out what is finished with a tile and lies in the window."""
    tile = result.tile
    height = _finished_length(tile.grid_row, grid.rows, grid)
    width = _finished_length(tile.grid_column, grid.columns, grid)
    in_window, rows = common(int(window.row_off), int(window.height), tile.row, height)
    across_window, columns = common(int(window.col_off), int(window.width), tile.column, width)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    return Piece(in_window.start, across_window.start, total[:, rows, columns], result.valid[rows, columns])


def _adjoin(left: Piece, right: Piece) -> bool:
    return left.row == right.row and left.column + left.valid.shape[1] == right.column


def _joined(beside: list[Piece]) -> Piece:
    """Make one piece of some beside each other."""
    return Piece(
        beside[0].row,
        beside[0].column,
        np.concatenate([piece.logits for piece in beside], axis=2),
        np.concatenate([piece.valid for piece in beside], axis=1),
    )
