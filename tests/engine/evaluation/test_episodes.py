import dataclasses

import numpy as np
import pytest

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.episodes import draw_episodes
from refsam_qgis.engine.image_folder import cut_samples, scan_folder


def test_references_show_the_class_and_come_from_other_files(write_folder):
    rng = np.random.default_rng(0)
    masks = {f"i{i}": np.kron(rng.integers(0, 3, (4, 4)), np.ones((10, 10))).astype(np.uint8) for i in range(5)}
    scanned = scan_folder(write_folder(masks), crop=20)
    for episode in draw_episodes(scanned, shots=2, count=200, seed=1):
        samples = [scanned.samples[i] for i in (episode.query, *episode.supports)]
        assert len({sample.image for sample in samples}) == 3
        assert all(episode.class_id in sample.classes for sample in samples)


def test_only_the_classes_of_a_fold_are_sought(folder):
    scanned = scan_folder(folder)
    episodes = draw_episodes(scanned, shots=1, count=40, seed=0, classes=[2])
    assert {e.class_id for e in episodes} == {2} and {e.query for e in episodes} == {2, 3}
    with pytest.raises(
        RefSAMError, match=r"roof is present in 3 images .* with as many pixels .* fewer shots or pixels\."
    ):
        draw_episodes(scanned, shots=2, count=1, seed=0, classes=[2])


def test_parts_of_one_image_refer_to_each_other_only_where_they_may(write_folder):
    mask = np.ones((20, 40), np.uint8)
    scanned = scan_folder(write_folder({"a": mask, "b": mask}), crop=20)
    path = scanned.samples[0].image

    def partners(samples):
        episodes = draw_episodes(dataclasses.replace(scanned, samples=samples), shots=1, count=50, seed=0)
        return {(e.query, *e.supports) for e in episodes}

    assert partners(scanned.samples) == {(q, s) for q in range(4) for s in range(4) if q // 2 != s // 2}
    free = cut_samples(path, path.with_name("a_mask.png"), scanned.decode, [1], 20, 1, parts_refer=True)
    assert partners(tuple(free)) == {(0, 1), (1, 0)}


def test_links_to_one_image_never_refer_to_each_other(folder):
    for ending in (".png", "_mask.png"):
        (folder / f"image1{ending}").unlink()
        (folder / f"image1{ending}").symlink_to(folder / f"image0{ending}")
    episodes = draw_episodes(scan_folder(folder), shots=1, count=100, seed=0, classes=[1])
    pairs = {frozenset((episode.query, *episode.supports)) for episode in episodes}
    assert frozenset((0, 1)) not in pairs and len(pairs) == 5


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
