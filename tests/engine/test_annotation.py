import numpy as np
import pytest

from refsam_qgis.engine.annotation import GUARD, POINT_RADIUS, POINTS, boxes, partial, points, scribble, simulate
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED


def l_shape():
    label = np.full((128, 128), BACKGROUND, np.uint8)
    label[20:110, 20:40] = FOREGROUND
    label[90:110, 20:110] = FOREGROUND
    label[:, 120:] = IGNORE
    return label


def test_strokes_stay_inside_the_object_behind_a_guard():
    label = l_shape()
    for seed in range(10):
        marked = scribble(label, np.random.default_rng(seed), 128)
        strokes = marked == FOREGROUND
        assert strokes.any() and (label[strokes] == FOREGROUND).all()
        assert strokes.sum() < (label == FOREGROUND).sum()
        assert (marked[label == IGNORE] == IGNORE).all()
        rows, columns = np.nonzero(strokes)
        reach = round(GUARD * 128)
        for row, column in np.argwhere(marked == BACKGROUND)[::50]:
            assert np.maximum(abs(rows - row), abs(columns - column)).min() > reach


def test_points_are_discs_inside_the_object_behind_a_guard():
    label = l_shape()
    marked_pixels = set()
    for seed in range(30):
        marked = points(label, np.random.default_rng(seed), 128)
        discs = marked == FOREGROUND
        assert (label[discs] == FOREGROUND).all() and (marked[label == IGNORE] == IGNORE).all()
        assert 1 <= discs.sum() <= POINTS[1] * (2 * POINT_RADIUS + 1) ** 2
        marked_pixels.add(int(discs.sum()))
        rows, columns = np.nonzero(discs)
        reach = round(GUARD * 128)
        for row, column in np.argwhere(marked == BACKGROUND)[::50]:
            assert np.maximum(abs(rows - row), abs(columns - column)).min() > reach
    assert len(marked_pixels) > 10


def test_boxes_cover_each_object_and_nothing_farther():
    label = np.full((64, 64), BACKGROUND, np.uint8)
    label[4:8, 4:8] = FOREGROUND
    label[8, 8] = FOREGROUND  # touches at a corner: one object with the square
    for i in range(10):
        label[30 + i, 20 + i] = FOREGROUND
    label[50, 50] = FOREGROUND
    label[35, 20:30] = np.where(label[35, 20:30] == FOREGROUND, FOREGROUND, IGNORE)
    expected = np.full((64, 64), BACKGROUND, np.uint8)
    expected[4:9, 4:9] = expected[30:40, 20:30] = expected[50, 50] = FOREGROUND
    expected[label == IGNORE] = IGNORE
    assert (boxes(label) == expected).all()


@pytest.mark.parametrize("support", ["scribble", "point"])
def test_the_seed_fixes_the_marks(support):
    first, again, other = (simulate(l_shape(), support, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("support", ["mask", "scribble", "point", "box"])
def test_an_object_of_one_pixel_is_still_marked(support):
    label = np.zeros((32, 32), np.uint8)
    label[7, 9] = FOREGROUND
    assert np.argwhere(simulate(label, support, np.random.default_rng(0)) == FOREGROUND).tolist() == [[7, 9]]


def test_supports_are_what_they_are_called():
    label = l_shape()
    marks = {
        s: simulate(label, s, np.random.default_rng(0)) == FOREGROUND for s in ("mask", "scribble", "point", "box")
    }
    assert (marks["mask"] == (label == FOREGROUND)).all()
    assert marks["point"].sum() < marks["scribble"].sum() < marks["mask"].sum() < marks["box"].sum()


def test_partial_marks_some_objects_and_says_nothing_of_the_rest():
    label = np.full((64, 64), BACKGROUND, np.uint8)
    label[:4] = IGNORE
    instances = np.zeros((64, 64), np.uint16)
    for number, corner in enumerate((10, 30, 50), 1):
        label[corner : corner + 8, corner : corner + 8] = FOREGROUND
        instances[corner : corner + 8, corner : corner + 8] = number
    for seed in range(5):
        marked = partial(label, instances, np.random.default_rng(seed))
        kept = np.unique(instances[marked == FOREGROUND])
        assert 1 <= len(kept) < 3
        assert ((marked == FOREGROUND) == np.isin(instances, kept)).all()
        assert (marked[:4] == IGNORE).all()
        assert set(np.unique(marked)) == {FOREGROUND, UNMARKED, IGNORE}
