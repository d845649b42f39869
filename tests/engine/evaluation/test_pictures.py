import math

import numpy as np

from refsam_qgis.engine.evaluation.episodes import Episode, draw_episodes
from refsam_qgis.engine.evaluation.measure import MethodResult, evaluate_method
from refsam_qgis.engine.evaluation.metrics import FewShotMetrics
from refsam_qgis.engine.evaluation.pictures import (
    COLUMNS,
    FOUND,
    GAP,
    HEAD,
    MARGIN,
    MARKS,
    PANEL,
    TRUTH,
    choose_episodes,
    draw_pictures,
    picture_rows,
)
from refsam_qgis.engine.evaluation.search import Encodings
from refsam_qgis.engine.image_folder import scan_folder

from .conftest import ColourSegmenter


def result(*ious):
    episodes = tuple(Episode(1, i, (9,)) for i in range(len(ious)))
    return MethodResult(FewShotMetrics(episode_ious=list(ious)), episodes, 0.0, 0.0)


def test_best_median_and_worst_of_all_runs_are_chosen():
    chosen = choose_episodes([result(0.5, math.nan, 0.9), result(0.2, 0.6, 0.1)])
    assert {word: episode.query for word, episode in chosen.items()} == {"best": 2, "median": 0, "worst": 2}
    assert choose_episodes([result(math.nan)]) == {}
    assert len(set(choose_episodes([result(0.4)]).values())) == 1


def test_a_row_shows_marks_result_and_truth(folder):
    scanned, segmenter = scan_folder(folder), ColourSegmenter()
    encodings = Encodings(segmenter, scanned)
    results = [evaluate_method(segmenter, scanned, draw_episodes(scanned, 1, 6, seed=0), "mask", None, encodings)]
    rows = picture_rows("virefsam", encodings, results, "mask")
    assert [row.title.split(",")[0] for row in rows] == ["virefsam: best", "virefsam: median", "virefsam: worst"]
    assert all("IoU 1.00, image" in row.title and ".png from (0, 0) → image" in row.title for row in rows)
    for row in rows:
        for panel, colour in zip(row.panels, (MARKS, None, FOUND, TRUTH), strict=True):
            assert panel.size == (PANEL, PANEL * 40 // 60)
            outlined = [(np.asarray(panel) == c).all(-1).any() for c in (MARKS, FOUND, TRUTH)]
            assert outlined == [c == colour for c in (MARKS, FOUND, TRUTH)]
    picture = draw_pictures(rows)
    assert picture.width == 2 * MARGIN + len(COLUMNS) * (PANEL + GAP) - GAP
    assert picture.height > HEAD + 3 * PANEL * 40 // 60
