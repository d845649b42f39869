import numpy as np
import pytest
import shapely
from rasterio.features import rasterize

from refsam_qgis.engine.evaluation.layers import IGNORE, Labels
from refsam_qgis.engine.evaluation.objects import ObjectMatcher


def regions(array):
    return Labels(np.array(array, np.uint8), None)


def match(truth, result, min_iou=0.5, rows=None):
    matcher = ObjectMatcher(min_iou)
    height = len(truth.classes)
    for top in range(0, height, rows or height):
        part = slice(top, top + (rows or height))
        matcher.add(
            *(
                Labels(side.classes[part], None if side.objects is None else side.objects[part])
                for side in (truth, result)
            )
        )
    return matcher.finish(2)


def boxes(seed, count=12):
    """Disjoint rectangles on whole pixels of a 60 x 60 frame."""
    rng = np.random.default_rng(seed)
    chosen = []
    while len(chosen) < count:
        x, y = rng.integers(0, 50, 2)
        box = shapely.box(x, y, x + rng.integers(3, 11), y + rng.integers(3, 11))
        if not any(box.intersects(other) for other in chosen):
            chosen.append(box)
    return chosen


def drawn(polygons):
    numbers = rasterize(zip(polygons, range(1, len(polygons) + 1), strict=True), (60, 60), dtype="int32")
    return Labels((numbers > 0).astype(np.uint8), numbers)


@pytest.mark.parametrize("as_regions", [False, True])
@pytest.mark.parametrize("rows", [None, 1, 7])
def test_matches_equal_shapely_on_rectangles(as_regions, rows):
    true = boxes(0)
    found = [shapely.affinity.translate(box, 1, 1) for box in true[:8]]
    labels = [Labels(side.classes, None if as_regions else side.objects) for side in (drawn(true), drawn(found))]
    counts = match(*labels, min_iou=0.4, rows=rows)[0]
    ious = [one.intersection(other).area / one.union(other).area for one, other in zip(true, found, strict=False)]
    matched = [value for value in ious if value >= 0.4]
    assert 0 < len(matched) < 8
    assert (counts.true, counts.matched) == (12, len(matched))
    assert counts.found == 8
    assert counts.iou_sum == pytest.approx(sum(matched))
    assert counts.scores["panoptic_quality"] == pytest.approx(2 * sum(matched) / (12 + 8))


def test_touching_polygons_stay_apart_and_touching_regions_do_not():
    polygons = [shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10)]
    given = drawn(polygons)
    apart = match(given, given)[0]
    joined = match(given, Labels(given.classes, None))[0]
    assert (apart.true, apart.found, apart.matched) == (2, 2, 2)
    assert (joined.true, joined.found, joined.matched) == (2, 1, 1)


def test_regions_are_connected_by_edges_alone_and_of_one_class():
    truth = regions([[1, 0, 1, 2], [0, 1, 1, 2], [1, 0, 0, 2]])
    first, second = match(truth, truth)
    assert (first.true, first.matched) == (3, 3)
    assert (second.true, second.matched) == (1, 1)


def test_a_region_whose_arms_meet_later_is_one_object():
    truth = regions([[1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 0, 1], [0, 0, 1, 1, 1]])
    for rows in (1, 2, 3, 4):
        assert match(truth, truth, rows=rows)[0].true == 1


def test_an_object_is_taken_once_and_by_the_best():
    truth = regions([[1] * 10])
    result = Labels(np.array([[1] * 10], np.uint8), np.array([[1] * 4 + [2] * 6], np.int32))
    counts = match(truth, result, min_iou=0.3)[0]
    assert (counts.found, counts.matched) == (2, 1)
    assert counts.iou_sum == pytest.approx(0.6)


def test_other_classes_do_not_match_and_ignored_pixels_do_not_count():
    counts = match(regions([[1, 1, 0, 0]]), regions([[2, 2, 0, 0]]))
    assert [(item.true, item.found, item.matched) for item in counts] == [(1, 0, 0), (0, 1, 0)]
    hidden = match(regions([[1, 1, IGNORE, IGNORE]]), regions([[1, 1, IGNORE, IGNORE]]))[0]
    assert hidden.scores["object_iou"] == 1


def test_ignored_pixels_are_no_part_of_given_objects():
    """A polygon that lies half over a hole in the raster is compared by its other half."""
    numbers = np.array([[1] * 8 + [2] * 2], np.int32)
    polygons = Labels(np.array([[1] * 4 + [IGNORE] * 4 + [1, IGNORE]], np.uint8), numbers)
    raster = regions([[1] * 4 + [IGNORE] * 4 + [1, IGNORE]])
    for sides in ((polygons, raster), (raster, polygons)):
        counts = match(*sides)[0]
        assert (counts.true, counts.found, counts.matched, counts.iou_sum) == (2, 2, 2, 2)
