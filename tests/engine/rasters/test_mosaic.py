from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from rasterio.windows import Window

from refsam_qgis.engine.rasters import mosaic as module
from refsam_qgis.engine.rasters.grid import TileGrid
from refsam_qgis.engine.rasters.mosaic import TileLogits, blend


def assemble(grid, window, tiles, classes):
    """Put pieces together; logits are NaN where there is none, and no two pieces overlap."""
    height, width = int(window.height), int(window.width)
    logits = np.full((classes, height, width), np.nan, np.float32)
    valid, times = np.zeros((height, width), bool), np.zeros((height, width), int)
    for piece in blend(grid, window, tiles, classes):
        place = np.s_[piece.row : piece.row + piece.valid.shape[0], piece.column : piece.column + piece.valid.shape[1]]
        logits[(..., *place)], valid[place] = piece.logits, piece.valid
        times[place] += 1
    assert times.max(initial=0) <= 1
    return logits, valid


def mosaic(grid, window, predict, classes=1):
    tiles = (TileLogits(tile, predict(tile), np.ones((grid.side, grid.side), bool)) for tile in grid.tiles(window))
    logits, valid = assemble(grid, window, tiles, classes)
    assert valid.all()
    return logits


def noise_of(tile, side, classes=2):
    """Return logits that differ from tile to tile."""
    return np.random.default_rng(tile.row * 1000 + tile.column).normal(size=(classes, side, side)).astype(np.float32)


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
@pytest.mark.parametrize(("side", "overlap"), [(96, 24), (96, 0), (128, 64), (700, 60)])
def test_a_part_has_the_bits_of_the_whole(window, side, overlap):
    grid = TileGrid(300, 600, side, overlap)
    whole = mosaic(grid, Window(0, 0, 300, 600), lambda tile: noise_of(tile, side), 2)
    rows = slice(window.row_off, window.row_off + window.height)
    columns = slice(window.col_off, window.col_off + window.width)
    assert np.array_equal(mosaic(grid, window, lambda tile: noise_of(tile, side), 2), whole[:, rows, columns])


@pytest.mark.parametrize(("side", "overlap"), [(96, 24), (96, 0), (128, 64), (100, 13)])
def test_every_pixel_is_the_sum_of_its_tiles_in_the_order_of_the_grid(side, overlap):
    """To the bit, on a raster with tiles that hold nothing; the sums are made on whole arrays here."""
    height, width = 500, 730
    grid, window = TileGrid(width, height, side, overlap), Window(0, 0, width, height)
    has_data = np.kron(np.random.default_rng(1).random((5, 8)) > 0.75, np.ones((100, 100), bool))
    padded = np.pad(has_data[:height, :width], ((0, side), (0, side)))
    expected = np.zeros((2, height + side, width + side), np.float32)
    results = []
    for tile in grid.tiles(window):
        place = np.s_[tile.row : tile.row + side, tile.column : tile.column + side]
        down, across = grid.weights(tile)
        expected[(..., *place)] += noise_of(tile, side) * (down[:, None] * across[None])
        if padded[place].any():
            results.append(TileLogits(tile, noise_of(tile, side), padded[place]))
    assert len(results) < len(list(grid.tiles(window)))
    logits, valid = assemble(grid, window, results, 2)
    assert np.array_equal(valid, has_data[:height, :width])
    assert np.array_equal(logits[:, valid], expected[:, :height, :width][:, valid])


def test_no_tile_is_no_piece():
    assert list(blend(TileGrid(100, 2000, 64, 0), Window(0, 0, 100, 2000), iter([]), 1)) == []


def test_pieces_are_as_wide_as_asked_and_end_where_tiles_are_left_out(monkeypatch):
    grid, window = TileGrid(1000, 128, 64, 0), Window(0, 0, 1000, 128)
    monkeypatch.setattr(module, "PIECE_PIXELS", 3 * 64 * 64)
    ones = np.ones((1, 64, 64), np.float32), np.ones((64, 64), bool)
    tiles = (TileLogits(tile, *ones) for tile in grid.tiles(window) if tile.grid_column != 4)
    found = [(piece.row, piece.column, piece.valid.shape) for piece in blend(grid, window, tiles, 1)]
    first_row = [(0, 0), (0, 192), (0, 320), (0, 512), (0, 704), (0, 896)]
    assert [place[:2] for place in found] == first_row + [(64, column) for _, column in first_row]
    assert found[0][2] == (64, 192) and found[1][2] == (64, 64) and found[-1][2] == (64, 104)


def test_tiles_of_two_rows_are_no_piece():
    """Also where the next tile with data lies right of the last one, a row below."""
    grid, window = TileGrid(128, 128, 64, 0), Window(0, 0, 128, 128)
    tiles = [tile for tile in grid.tiles(window) if tile.grid_row == tile.grid_column]
    results = [TileLogits(tile, noise_of(tile, 64, 1), np.ones((64, 64), bool)) for tile in tiles]
    _, valid = assemble(grid, window, results, 1)
    assert np.array_equal(valid, np.kron(np.eye(2), np.ones((64, 64))) > 0)


@pytest.mark.parametrize(("side", "overlap", "classes"), [(64, 8, 1), (64, 8, 5), (128, 32, 2)])
def test_what_waits_is_the_overlap_of_a_row_of_tiles(monkeypatch, side, overlap, classes):
    """A raster three times as wide needs no more memory than the wider band, whatever its tiles hold."""
    monkeypatch.setattr(module, "PIECE_PIXELS", 3 * side * side)
    tile_values = np.ones((classes, side, side), np.float32), np.ones((side, side), bool)

    def peak(width):
        grid, window = TileGrid(width, 6 * side, side, overlap), Window(0, 0, width, 6 * side)
        tracemalloc.start()
        for _ in blend(grid, window, (TileLogits(tile, *tile_values) for tile in grid.tiles(window)), classes):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    band = classes * overlap * 4  # bytes for each pixel of width
    assert peak(6000) - peak(2000) < 4000 * band * 1.1 + 50_000
