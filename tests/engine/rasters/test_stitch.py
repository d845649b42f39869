from __future__ import annotations

import numpy as np
import pytest
import shapely
from rasterio.windows import Window
from shapely.geometry import Point, box

from refsam_qgis.engine.rasters.grid import TileGrid
from refsam_qgis.engine.rasters.stitch import SeenObject, Stitcher

WIDTH, HEIGHT, SIDE, OVERLAP = 260, 180, 100, 20


def tiles(width=WIDTH, height=HEIGHT, side=SIDE, overlap=OVERLAP):
    for tile in TileGrid(width, height, side, overlap).tiles(Window(0, 0, width, height)):
        yield Window(min(tile.column, width - side), min(tile.row, height - side), side, side)


def frame(window):
    return box(window.col_off, window.row_off, window.col_off + window.width, window.row_off + window.height)


def stitch(objects, see=lambda shape, window: shape, max_overlap=0.7, **options):
    """Show each tile what lies in it of every object, and collect."""
    stitcher = Stitcher(WIDTH, HEIGHT, 2, max_overlap)
    for window in tiles():
        stitcher.release(window.row_off)
        views = [see(shape, window) for shape in objects]
        parts = [shape.intersection(frame(window)) for shape in views if shape is not None]
        stitcher.add(window, [SeenObject(part, 0.9, 0.95) for part in parts if part.area > 0])
    return stitcher.finish()


def test_each_object_comes_once_and_whole():
    rng = np.random.default_rng(1)
    objects = [box(x, y, x + 7, y + 7) for x in range(3, WIDTH - 8, 16) for y in range(3, HEIGHT - 8, 16)]
    objects += [box(60, 50, 200, 58), box(20, 10, 30, 175), Point(130, 120).buffer(45)]
    rng.shuffle(objects)
    found = stitch(objects)
    assert len(found) == len(objects)
    for shape in objects:
        assert sum(shape.symmetric_difference(item.outline).area < 1e-6 * shape.area for item in found) == 1


def test_a_ring_through_all_tiles_is_one():
    ring = box(10, 10, 250, 170).difference(box(22, 22, 238, 158))
    found = stitch([ring])
    assert len(found) == 1 and found[0].outline.symmetric_difference(ring).area < 1e-6


def test_views_that_differ_a_little_are_one():
    def see(shape, window):
        return shapely.affinity.translate(shape, 0.5 * (window.col_off > 0), 0.5 * (window.row_off > 0))

    found = stitch([box(85, 30, 95, 40), box(60, 60, 140, 75), box(200, 100, 220, 120)], see)
    assert len(found) == 3 and sorted(round(item.outline.area, -2) for item in found) == [100, 400, 1200]


def test_the_better_of_two_whole_views_stays():
    stitcher = Stitcher(180, 100, 2, 0.7)
    stitcher.add(Window(0, 0, 100, 100), [SeenObject(box(84, 40, 94, 50), 0.8, 0.9)])
    stitcher.add(Window(80, 0, 100, 100), [SeenObject(box(84, 40, 95, 50), 0.9, 0.8)])
    (found,) = stitcher.finish()
    assert (found.score, found.stability, found.outline.bounds) == (0.9, 0.8, (84, 40, 95, 50))


def side_by_side(left, right, max_overlap=0.7):
    """Show one tile some outlines and its right neighbour others; return the outlines that come of it."""
    stitcher = Stitcher(180, 100, 2, max_overlap)
    stitcher.add(Window(0, 0, 100, 100), [SeenObject(shape, 0.9, 0.9) for shape in left])
    stitcher.add(Window(80, 0, 100, 100), [SeenObject(shape, 0.8, 0.8) for shape in right])
    return sorted(shapely.simplify(item.outline, 0).normalize().wkt for item in stitcher.finish())


def outlines(*shapes):
    return sorted(shape.normalize().wkt for shape in shapes)


def test_the_better_view_stays_also_where_it_came_first():
    stitcher = Stitcher(180, 100, 2, 0.7)
    stitcher.add(Window(0, 0, 100, 100), [SeenObject(box(84, 40, 95, 50), 0.9, 0.8)])
    stitcher.add(Window(80, 0, 100, 100), [SeenObject(box(84, 40, 94, 50), 0.8, 0.9)])
    (found,) = stitcher.finish()
    assert (found.score, found.stability, found.outline.bounds) == (0.9, 0.8, (84, 40, 95, 50))


def test_a_view_that_is_cut_off_agrees_with_a_whole_one_from_a_half_on():
    # Where both look they share 120 of 200 pixels: too little for two whole views.
    whole = box(88, 40, 130, 50)
    assert side_by_side([box(70, 40, 100, 50)], [whole]) == outlines(whole)


def test_views_that_are_cut_off_need_no_more_overlap_than_whole_ones():
    pieces = box(60, 40, 100, 50), box(80, 40, 140, 65)  # they share 200 of 500 pixels where both look
    assert len(side_by_side(pieces[:1], pieces[1:], max_overlap=0.3)) == 1
    assert len(side_by_side(pieces[:1], pieces[1:], max_overlap=0.7)) == 2


def test_the_best_of_a_tiles_pieces_is_continued_and_the_other_stays():
    low, high = box(60, 40, 100, 50), box(60, 40, 100, 54)
    for pieces in ([low, high], [high, low]):
        assert side_by_side(pieces, [box(80, 40, 140, 50)]) == outlines(high, box(60, 40, 140, 50))


def test_a_piece_is_continued_once():
    low, high = box(80, 40, 140, 50), box(80, 40, 140, 54)
    for pieces in ([low, high], [high, low]):
        assert side_by_side([box(60, 40, 100, 50)], pieces) == outlines(box(60, 40, 140, 50), high)


def test_what_one_tile_shows_whole_need_not_be_found_by_another():
    whole = box(84, 40, 94, 50)
    assert side_by_side([whole], []) == outlines(whole)
    assert side_by_side([], [whole]) == outlines(whole)


def test_a_piece_that_two_tiles_show_is_not_dropped():
    """A third one shows its place whole and finds nothing there, but is outvoted."""
    piece = box(84, 88, 96, 100)
    stitcher = Stitcher(180, 180, 2, 0.7)
    for column in (0, 80):
        stitcher.add(Window(column, 0, 100, 100), [SeenObject(piece, 0.9, 0.9)])
    stitcher.release(80)
    stitcher.add(Window(0, 80, 100, 100), [])
    assert [item.outline.bounds for item in stitcher.finish()] == [piece.bounds]


def test_nested_objects_stay_two():
    house, yard = box(70, 40, 110, 70), box(40, 20, 160, 90)
    found = stitch([house, yard])
    assert sorted(item.outline.area for item in found) == [house.area, yard.area]


def test_a_piece_is_dropped_where_the_neighbour_sees_more():
    # The right tile shows the whole object; the left one only its end, misshapen, and a sliver nobody else confirms.
    stitcher = Stitcher(180, 100, 2, 0.7)
    stitcher.add(
        Window(0, 0, 100, 100),
        [SeenObject(box(90, 40, 100, 50), 0.9, 0.9), SeenObject(box(88, 70, 100, 74), 0.9, 0.9)],
    )
    stitcher.add(Window(80, 0, 100, 100), [SeenObject(box(89, 39, 120, 50), 0.7, 0.7)])
    (found,) = stitcher.finish()
    assert found.outline.equals(box(89, 39, 120, 50)) and found.score == 0.7


def test_a_piece_that_no_neighbour_could_see_stays():
    stitcher = Stitcher(180, 100, 2, 0.7)
    stitcher.add(Window(0, 0, 100, 100), [SeenObject(box(20, 40, 100, 50), 0.9, 0.9)])
    stitcher.add(Window(80, 0, 100, 100), [])
    assert len(stitcher.finish()) == 1


def test_stitched_pieces_share_their_scores_by_area():
    stitcher = Stitcher(180, 100, 2, 0.7)
    stitcher.add(Window(0, 0, 100, 100), [SeenObject(box(40, 40, 100, 50), 0.6, 1.0)])
    stitcher.add(Window(80, 0, 100, 100), [SeenObject(box(80, 40, 110, 50), 0.9, 0.4)])
    (found,) = stitcher.finish()
    assert found.outline.equals(box(40, 40, 110, 50))
    assert found.score == pytest.approx(0.7) and found.stability == pytest.approx(0.8)


def test_only_what_later_tiles_can_touch_is_compared():
    stitcher = Stitcher(WIDTH, HEIGHT, 2, 0.7)
    stitcher.add(Window(0, 0, 100, 100), [SeenObject(box(10, 10, 20, 20), 0.9, 0.9)])
    stitcher.release(80)
    stitcher.add(Window(0, 80, 100, 100), [SeenObject(box(10, 90, 20, 100), 0.9, 0.9)])
    assert len(stitcher.finish()) == 2
