from __future__ import annotations

import warnings

import numpy as np
import pytest
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window

from refsam_qgis.engine.rasters.grid import Extent, TileGrid, overlap_pixels

GRIDS = [(100, 70, 32, 8), (64, 64, 64, 32), (65, 31, 64, 32), (200, 33, 32, 0), (96, 96, 32, 16), (5, 5, 64, 8)]


@pytest.mark.parametrize("grid", [TileGrid(*sizes) for sizes in GRIDS])
def test_weights_sum_to_one_everywhere(grid):
    total = np.zeros((grid.height + grid.side, grid.width + grid.side))
    for tile in grid.tiles(Window(0, 0, grid.width, grid.height)):
        rows, columns = grid.weights(tile)
        assert rows.min() > 0 and columns.min() > 0
        total[tile.row : tile.row + grid.side, tile.column : tile.column + grid.side] += np.outer(rows, columns)
    assert np.allclose(total[: grid.height, : grid.width], 1, atol=1e-6)


@pytest.mark.parametrize("grid", [TileGrid(*sizes) for sizes in GRIDS])
def test_no_tile_lies_in_what_the_one_before_shows(grid):
    for count, length in ((grid.rows, grid.height), (grid.columns, grid.width)):
        shown = (count - 2) * grid.stride + grid.side  # by all tiles but the last
        assert count == 1 or shown < length


def test_more_than_half_a_tile_is_no_overlap():
    """A pixel would lie in three tiles of a row, whose weights do not sum to one."""
    for overlap in (-1, 17, 32):
        with pytest.raises(ValueError, match="half a tile"):
            TileGrid(100, 100, 32, overlap)


def test_half_a_tile_of_any_side_is_an_overlap():
    for side in range(1, 300):
        assert TileGrid(1000, 1000, side, overlap_pixels(side, 50)).overlap == side // 2
    assert [overlap_pixels(100, percent) for percent in (0, 12.5, 50)] == [0, 12, 50]
    assert overlap_pixels(100, 1, least=4) == 4 and overlap_pixels(100, 20, least=4) == 20
    assert overlap_pixels(5, 0, least=4) == 2


def test_tiles_of_an_extent_are_those_of_the_whole_that_touch_it():
    grid = TileGrid(200, 150, 32, 8)
    every = list(grid.tiles(Window(0, 0, 200, 150)))
    assert every == sorted(every, key=lambda tile: (tile.row, tile.column))
    windows = [(0, 0, 1, 1), (23, 31, 2, 2), (24, 24, 8, 8), (199, 149, 1, 1), (32, 40, 16, 8)]
    for window in (Window(*place) for place in windows):
        right, bottom = window.col_off + window.width, window.row_off + window.height
        touching = [
            tile for tile in every
            if tile.row < bottom and tile.row + 32 > window.row_off
            and tile.column < right and tile.column + 32 > window.col_off
        ]  # fmt: skip
        assert list(grid.tiles(window)) == touching
        assert grid.count(window) == len(touching)


@pytest.mark.parametrize("transform", [from_origin(100, 50, 0.1, 0.1), Affine(0.1, 0, 100, 0, 0.1, 40)])
def test_extent_takes_pixels_whose_centres_lie_in_it(transform):
    left, top = transform * (20, 30)
    right, bottom = transform * (50, 70)
    bounds = (left, min(top, bottom), right, max(top, bottom))
    assert Extent(bounds, transform).window(100, 100) == Window(20, 30, 30, 40)
    wider = (bounds[0] - 0.04, bounds[1] - 0.04, bounds[2] + 0.06, bounds[3] + 0.04)
    assert Extent(wider, transform).window(100, 100) == Window(20, 30, 31, 40)
    assert Extent((0, 0, 1, 1), transform).window(100, 100) is None
    everywhere = (bounds[0] - 50, bounds[1] - 50, bounds[2] + 50, bounds[3] + 50)
    assert Extent(everywhere, transform).window(100, 80) == Window(0, 0, 100, 80)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert Extent((-1e300, -1e300, 1e300, 1e300), transform).window(100, 90) == Window(0, 0, 100, 90)
        assert Extent((1e300, 0, 2e300, 1), transform).window(100, 90) is None


@pytest.mark.parametrize("side", [0.1, 0.3, 0.7])
def test_an_extent_whose_sides_run_through_pixel_centres_holds_these_pixels(side):
    transform = from_origin(413_000.3, 5_600_000.7, side, side)
    for first in range(60):
        left, top = transform * (first + 0.5, first + 0.5)
        right, bottom = transform * (first + 10.5, first + 20.5)
        assert Extent((left, bottom, right, top), transform).window(100, 100) == Window(first, first, 11, 21)


def test_extent_on_a_rotated_raster():
    transform = Affine.translation(100, 50) * Affine.rotation(30) * Affine.scale(0.5, -0.5)
    middle_x, middle_y = transform * (40, 40)
    extent = Extent((middle_x - 5, middle_y - 5, middle_x + 5, middle_y + 5), transform)
    window = extent.window(80, 80)
    inside = extent.contains(window)
    for row, column in np.ndindex(inside.shape):
        x, y = transform * (window.col_off + column + 0.5, window.row_off + row + 0.5)
        assert inside[row, column] == (abs(x - middle_x) <= 5 and abs(y - middle_y) <= 5)
    assert inside.sum() * 0.25 == pytest.approx(100, rel=0.05)
