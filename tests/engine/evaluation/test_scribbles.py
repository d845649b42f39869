import numpy as np

from refsam_qgis.engine.evaluation.scribbles import GUARD, scribble
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE


def l_shape():
    label = np.full((128, 128), BACKGROUND, np.uint8)
    label[20:110, 20:40] = FOREGROUND
    label[90:110, 20:110] = FOREGROUND
    label[:, 120:] = IGNORE
    return label


def test_strokes_stay_inside_the_object_behind_a_guard():
    label = l_shape()
    for seed in range(10):
        marked = scribble(label, np.random.default_rng(seed))
        strokes = marked == FOREGROUND
        assert strokes.any() and (label[strokes] == FOREGROUND).all()
        assert strokes.sum() < (label == FOREGROUND).sum()
        assert (marked[label == IGNORE] == IGNORE).all()
        rows, columns = np.nonzero(strokes)
        reach = round(GUARD * 128)
        for row, column in np.argwhere(marked == BACKGROUND)[::50]:
            assert np.maximum(abs(rows - row), abs(columns - column)).min() > reach


def test_the_seed_fixes_the_strokes():
    first, again, other = (scribble(l_shape(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_an_object_of_one_pixel_is_still_marked():
    label = np.zeros((32, 32), np.uint8)
    label[7, 9] = FOREGROUND
    assert np.argwhere(scribble(label, np.random.default_rng(0)) == FOREGROUND).tolist() == [[7, 9]]
