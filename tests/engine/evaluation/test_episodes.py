import numpy as np
import pytest

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.episodes import draw_episodes
from refsam_qgis.engine.image_folder import scan_folder


def test_references_show_the_class_and_come_from_other_files(write_folder):
    rng = np.random.default_rng(0)
    masks = {f"i{i}": np.kron(rng.integers(0, 3, (4, 4)), np.ones((10, 10))).astype(np.uint8) for i in range(5)}
    scanned = scan_folder(write_folder(masks), crop=20)
    for episode in draw_episodes(scanned, shots=2, count=200, seed=1):
        samples = [scanned.samples[i] for i in (episode.query, *episode.supports)]
        assert len({sample.image for sample in samples}) == 3
        assert all(episode.class_id in sample.classes for sample in samples)


def test_every_sample_is_searched_before_any_is_searched_again(folder):
    episodes = draw_episodes(scan_folder(folder), shots=1, count=8, seed=3)
    assert sorted(e.query for e in episodes[:4]) == [0, 1, 2, 3] == sorted(e.query for e in episodes[4:])


def test_the_seed_fixes_the_list(folder):
    scanned = scan_folder(folder)
    assert draw_episodes(scanned, 1, 30, seed=5) == draw_episodes(scanned, 1, 30, seed=5)
    assert draw_episodes(scanned, 1, 30, seed=5) != draw_episodes(scanned, 1, 30, seed=6)


def test_a_class_in_too_few_files_is_not_sought(folder):
    scanned = scan_folder(folder)
    assert {e.class_id for e in draw_episodes(scanned, shots=1, count=60, seed=0)} == {1, 2}
    assert {e.class_id for e in draw_episodes(scanned, shots=2, count=60, seed=0)} == {1}


@pytest.mark.parametrize(
    ("shots", "count", "words"), [(4, 10, "5 images"), (0, 10, "at least 1"), (1, 0, "at least 1")]
)
def test_what_cannot_be_drawn_is_said_in_a_sentence(folder, shots, count, words):
    with pytest.raises(RefSAMError, match=words):
        draw_episodes(scan_folder(folder), shots, count, seed=0)
