from __future__ import annotations

import numpy as np
import pytest
from rasterio.windows import Window

from refsam_qgis.engine.rasters.grid import TileGrid
from refsam_qgis.engine.rasters.mosaic import BLOCK_ROWS, TileLogits, blend


def mosaic(grid, window, predict, classes=1):
    tiles = (TileLogits(tile, predict(tile), np.ones((grid.side, grid.side), bool)) for tile in grid.tiles(window))
    blocks = list(blend(grid, window, tiles, classes))
    assert [block.row for block in blocks] == list(range(0, int(window.height), BLOCK_ROWS))
    return np.concatenate([block.logits for block in blocks], axis=1)


def from_map(field, side):
    """Return a prediction that says of a pixel the same in every tile."""
    padded = np.pad(field, ((0, 0), (0, side), (0, side)))
    return lambda tile: padded[:, tile.row : tile.row + side, tile.column : tile.column + side]


def test_two_tilings_agree_and_classes_stay_apart():
    field = np.random.default_rng(0).normal(size=(2, 600, 300)).astype(np.float32)
    for side, overlap in ((128, 16), (200, 100), (64, 0), (1024, 128)):
        got = mosaic(TileGrid(300, 600, side, overlap), Window(0, 0, 300, 600), from_map(field, side), 2)
        assert np.allclose(got, field, atol=1e-5)


def test_blending_is_continuous():
    side = 128
    ramp = np.linspace(-4, 4, side, dtype=np.float32)
    tile = np.broadcast_to(ramp[:, None] + ramp[None, :], (1, side, side))
    got = mosaic(TileGrid(400, 400, side, 64), Window(0, 0, 400, 400), lambda _: tile)[0]
    # Over 64 pixels of overlap neighbouring tiles differ by 4; a hard seam would step by as much at once.
    assert np.abs(np.diff(got, axis=0)).max() < 0.25 and np.abs(np.diff(got, axis=1)).max() < 0.25


@pytest.mark.parametrize("window", [Window(37, 211, 150, 300), Window(0, 599, 1, 1), Window(200, 0, 100, 600)])
def test_a_part_has_the_bits_of_the_whole(window):
    grid = TileGrid(300, 600, 96, 24)
    noise = {}

    def predict(tile):
        seed = tile.row * 1000 + tile.column
        return noise.setdefault(seed, np.random.default_rng(seed).normal(size=(2, 96, 96)).astype(np.float32))

    whole = mosaic(grid, Window(0, 0, 300, 600), predict, 2)
    rows = slice(window.row_off, window.row_off + window.height)
    columns = slice(window.col_off, window.col_off + window.width)
    assert np.array_equal(mosaic(grid, window, predict, 2), whole[:, rows, columns])


def test_tiles_left_out_stay_invalid_and_blocks_still_cover_the_window():
    grid = TileGrid(100, 2000, 64, 0)
    window = Window(0, 0, 100, 2000)
    kept = [tile for tile in grid.tiles(window) if tile.row in (0, 64 * 20)]
    results = (TileLogits(t, np.ones((1, 64, 64), np.float32), np.ones((64, 64), bool)) for t in kept)
    blocks = list(blend(grid, window, results, 1))
    valid = np.concatenate([block.valid for block in blocks])
    expected = np.zeros((2000, 100), bool)
    expected[0:64] = expected[1280:1344] = True
    assert np.array_equal(valid, expected)
    assert len(list(blend(grid, window, iter([]), 1))) == len(blocks)
