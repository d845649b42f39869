import numpy as np

from refsam_qgis.engine.annotation import GUARD, partial, scribble
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


def test_the_seed_fixes_the_strokes():
    first, again, other = (scribble(l_shape(), np.random.default_rng(seed), 128) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_an_object_of_one_pixel_is_still_marked():
    label = np.zeros((32, 32), np.uint8)
    label[7, 9] = FOREGROUND
    assert np.argwhere(scribble(label, np.random.default_rng(0), 32) == FOREGROUND).tolist() == [[7, 9]]


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
