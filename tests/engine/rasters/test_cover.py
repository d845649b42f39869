from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry import box

from refsam_qgis.engine.rasters.cover import cover

SIDE = 160  # with cells of 10 pixels


def windows(marks, shape=(1000, 1000), side=SIDE):
    found = list(cover(marks, tuple(shapely.total_bounds(marks)), side, shape))
    return [(int(w.col_off), int(w.row_off), int(w.col_off + w.width), int(w.row_off + w.height)) for w in found]


def test_windows_stay_in_the_raster():
    for x, y in ((0, 0), (980, 5), (3, 985), (978, 978), (500, 990)):
        mark = box(x, y, x + 15, y + 10)
        ((left, top, right, bottom),) = windows([mark])
        assert min(left, top) >= 0 and max(right, bottom) <= 1000
        assert box(left, top, right, bottom).covers(mark)


def test_a_raster_that_is_smaller_than_a_window_lies_at_its_corner():
    assert windows([box(50, 20, 80, 60)], shape=(90, 130)) == [(0, 0, SIDE, SIDE)]
    ((left, top, right, _),) = windows([box(450, 20, 480, 60)], shape=(90, 500))
    assert top == 0 and left > 0 and right <= 500


def test_what_is_smaller_than_a_cell_counts_by_its_area():
    """One mark of 64 pixels is more to see than three specks, wherever these lie in their cells."""
    for shift in range(0, 10, 3):
        specks = [box(100 + shift + 20 * i, 100 + shift, 102 + shift + 20 * i, 102 + shift) for i in range(3)]
        large = box(700, 700, 708, 708)
        first = windows([*specks, large])[0]
        assert box(*first).covers(large)


def test_a_mark_that_lies_mostly_beside_the_raster_draws_no_window_elsewhere():
    marks = [box(-300, 500, 40, 540), box(-200, 700, -100, 800)]
    found = windows(marks)
    assert len(found) == 1 and box(*found[0]).intersects(box(0, 500, 40, 540))


def test_every_mark_is_covered():
    rng = np.random.default_rng(0)
    marks = [
        box(x, y, x + size, y + size)
        for x, y, size in zip(*rng.uniform(20, 900, (2, 30)), rng.uniform(2, 60, 30), strict=True)
    ]
    found = shapely.union_all([box(*window) for window in windows(marks)])
    assert all(found.covers(shapely.point_on_surface(mark)) for mark in marks)


def test_small_marks_in_one_cell_add_up():
    """Nine specks of 4 pixels close together are more to see than one of 25."""
    specks = [box(101 + 2.5 * i, 101 + 2.5 * j, 103 + 2.5 * i, 103 + 2.5 * j) for i in range(3) for j in range(3)]
    first = windows([*specks, box(700, 700, 705, 705)])[0]
    assert all(box(*first).covers(speck) for speck in specks)
