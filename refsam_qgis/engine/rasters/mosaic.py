"""Tiles blended into rows of a mosaic, streaming from top to bottom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from .grid import Tile, TileGrid

BLOCK_ROWS = 256
"""Rows of a finished block: a whole number of the output GeoTIFFs' blocks, so that none is written twice."""


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
class RowBlock:
    """Finished rows of a mosaic.

    Attributes:
        row: First row, counted from the top of the mosaic's window.
        logits: ``(C, h, W)`` float32.
        valid: ``(h, W)`` bool.
    """

    row: int
    logits: NDArray[np.float32]
    valid: NDArray[np.bool_]


def blend(grid: TileGrid, window: Window, tiles: Iterable[TileLogits], classes: int) -> Iterator[RowBlock]:
    """Blend tiles into the rows of a window.

    Memory is bounded by ``classes x (side + BLOCK_ROWS) x window width``: rows leave as soon as no later tile can touch
    them. Every pixel sums its tiles in the grid's order, so a run on a part gives the same bits as a run on the whole.

    Args:
        grid: The raster's tiles.
        window: The part of the raster to fill.
        tiles: Predictions in the order of ``grid.tiles(window)``; tiles without a valid pixel may be left out.
        classes: Number of classes C.

    Yields:
        Blocks of `BLOCK_ROWS` rows (the last may be lower) that cover the window from top to bottom.
    """
    height, width = int(window.height), int(window.width)
    unfinished: dict[int, RowBlock] = {}

    def block(index: int) -> RowBlock:
        if index not in unfinished:
            rows = min(BLOCK_ROWS, height - index * BLOCK_ROWS)
            unfinished[index] = RowBlock(
                index * BLOCK_ROWS,
                np.zeros((classes, rows, width), np.float32),
                np.zeros((rows, width), np.bool_),
            )
        return unfinished[index]

    finished = 0
    for result in tiles:
        top = result.tile.row - int(window.row_off)
        while (finished + 1) * BLOCK_ROWS <= top:
            yield block(finished)
            del unfinished[finished]
            finished += 1
        first_row, last_row = max(0, top), min(height, top + grid.side) - 1
        for index in range(first_row // BLOCK_ROWS, last_row // BLOCK_ROWS + 1):
            _add(block(index), grid, window, result)
    while finished * BLOCK_ROWS < height:
        yield block(finished)
        del unfinished[finished]
        finished += 1


def _add(block: RowBlock, grid: TileGrid, window: Window, result: TileLogits) -> None:
    """Add the part of a tile that falls on a block."""
    rows, tile_rows = _common(block.row, block.valid.shape[0], result.tile.row - int(window.row_off), grid.side)
    columns, tile_columns = _common(0, block.valid.shape[1], result.tile.column - int(window.col_off), grid.side)
    along_rows, along_columns = grid.weights(result.tile)
    weights = along_rows[tile_rows, None] * along_columns[None, tile_columns]
    block.logits[:, rows, columns] += result.logits[:, tile_rows, tile_columns] * weights
    block.valid[rows, columns] |= result.valid[tile_rows, tile_columns]


def _common(a_start: int, a_length: int, b_start: int, b_length: int) -> tuple[slice, slice]:
    """Return the overlap of two intervals, relative to the start of each."""
    start, stop = max(a_start, b_start), min(a_start + a_length, b_start + b_length)
    return slice(start - a_start, stop - a_start), slice(start - b_start, stop - b_start)
