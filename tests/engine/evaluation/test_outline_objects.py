import numpy as np
import pytest
import shapely
from scipy.optimize import linear_sum_assignment

from refsam_qgis.engine.errors import JobCancelled
from refsam_qgis.engine.evaluation import outline_objects
from refsam_qgis.engine.evaluation.layers import IGNORE, Outlines
from refsam_qgis.engine.evaluation.outline_objects import match_outlines
from refsam_qgis.engine.events import SilentReporter
from tests.engine.stand_ins import Recorder


def outlines(polygons, classes=1):
    return Outlines(np.array(polygons, dtype=object), np.broadcast_to(np.uint8(classes), len(polygons)).copy())


def match(truth, result, within=None, min_iou=0.5, reporter=None):
    return match_outlines(truth, result, within, min_iou, 2, reporter or SilentReporter())


def discs(seed, count=150, side=30.0):
    """Discs that overlap at will, from a tenth of a unit across."""
    rng = np.random.default_rng(seed)
    return shapely.buffer(shapely.points(rng.uniform(0, side, (count, 2))), rng.uniform(0.05, 2, count))


def overlap(one, other):
    return one.intersection(other).area / one.union(other).area


@pytest.mark.parametrize("pairs", [7, 10_000])
def test_matches_are_the_only_possible_ones_above_half(monkeypatch, pairs):
    """Among disjoint objects an IoU above 0.5 leaves no choice, so the best assignment finds the same pairs."""
    monkeypatch.setattr(outline_objects, "PAIRS", pairs)
    rng = np.random.default_rng(0)
    corners = np.stack(np.meshgrid(np.arange(12), np.arange(10)), axis=-1).reshape(-1, 2) * 4.0
    sizes = rng.uniform(0.01, 3, 120)
    shifts = rng.uniform(0, 0.5, 120) * sizes
    true = shapely.box(*corners.T, *(corners + sizes[:, None]).T)
    found = shapely.box(corners[:, 0] + shifts, corners[:, 1], corners[:, 0] + shifts + sizes, corners[:, 1] + sizes)
    found = rng.permutation(found[:100])
    ious = np.array([[overlap(one, other) for other in found] for one in true])
    rows, columns = linear_sum_assignment(-np.where(ious > 0.5, ious, 0))
    expected = ious[rows, columns][ious[rows, columns] > 0.5]
    counts = match(outlines(true), outlines(found))[0]
    assert 0 < len(expected) < 100
    assert (counts.true, counts.found, counts.matched) == (120, 100, len(expected))
    assert counts.iou_sum == pytest.approx(expected.sum())


def test_each_object_is_taken_once_and_by_the_best():
    true, found = discs(1), discs(2)
    pairs = sorted(((overlap(a, b), i, j) for i, a in enumerate(true) for j, b in enumerate(found)), reverse=True)
    taken = []
    for value, i, j in pairs:
        if value >= 0.1 and not any(i == one or j == other for _, one, other in taken):
            taken.append((value, i, j))
    counts = match(outlines(true), outlines(found), min_iou=0.1)[0]
    assert counts.matched == len(taken) > 10
    assert counts.iou_sum == pytest.approx(sum(value for value, *_ in taken))


def test_an_iou_at_the_bound_matches_and_a_common_edge_is_no_overlap():
    left = np.arange(9) / 10
    true, found = (outlines(shapely.box(left, 0.1, left + 0.1, 0.1 + height)) for height in (0.3, 0.15))
    assert match(true, found, min_iou=0.5)[0].matched == 9
    assert match(outlines([shapely.box(0, 0, 1, 1)]), outlines([shapely.box(1, 0, 2, 1)]), min_iou=0)[0].matched == 0


def test_other_classes_do_not_match():
    square = [shapely.box(0, 0, 1, 1)]
    counts = match(outlines(square, 1), outlines(square, 2))
    assert [(item.true, item.found, item.matched) for item in counts] == [(1, 0, 0), (0, 1, 0)]


def test_objects_are_cut_at_the_frame():
    true = outlines([shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10), shapely.box(9.99, 20, 20, 30)])
    found = outlines([shapely.box(0, 0, 5, 10), shapely.box(20, 0, 30, 10)])
    counts = match(true, found, within=shapely.box(-1, -1, 10, 40))[0]
    assert (counts.true, counts.found, counts.matched, counts.iou_sum) == (1, 1, 1, 0.5)
    reaching, kept = outlines([shapely.box(0, 0, 10, 10)]), outlines([shapely.box(0, 0, 5, 10)])
    for sides in ((reaching, kept), (kept, reaching)):
        assert match(*sides, within=shapely.box(-1, -1, 5, 40))[0].iou_sum == 1
    corner = shapely.Polygon([(0, 0), (12, 0), (12, 9), (10, 9), (10, 3), (8, 3), (8, 10), (0, 10)])
    assert match(outlines([corner]), outlines([corner]), within=shapely.box(0, 0, 10, 10))[0].iou_sum == 1


def test_areas_that_do_not_count_take_their_part_but_not_smaller_objects_in_them():
    half, small = shapely.box(0, 0, 5, 10), shapely.box(1, 21, 2, 22)
    true = outlines([shapely.box(0, 0, 10, 10), shapely.box(0, 20, 10, 30), small], [1, IGNORE, 1])
    found = outlines([half, small, shapely.box(4, 24, 8, 28), half], [1, 1, 1, IGNORE])
    counts = match(true, found)[0]
    # Left are the right half of the large object, and the small one on both sides.
    assert (counts.true, counts.found, counts.matched, counts.iou_sum) == (2, 1, 1, 1)


@pytest.mark.parametrize("empty", [0, 1])
def test_a_side_without_objects(empty):
    sides = [outlines([]) if i == empty else outlines([shapely.box(0, 0, 1, 1)]) for i in range(2)]
    counts = match(*sides)[0]
    assert (counts.true, counts.found, counts.matched) == (int(empty != 0), int(empty != 1), 0)


def test_cancelling_is_heard():
    with pytest.raises(JobCancelled):
        match(outlines(discs(1)), outlines(discs(2)), reporter=Recorder(cancel_after=-1))
