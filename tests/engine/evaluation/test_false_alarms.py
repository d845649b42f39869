import json

import numpy as np
import pytest
from PIL import Image

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.false_alarms import FalseAlarms, Pairing, draw_empty_episodes
from refsam_qgis.engine.evaluation.measure import evaluate_method
from refsam_qgis.engine.image_folder import scan_folder
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE

from .conftest import ColourSegmenter


@pytest.fixture
def roofs(tmp_path):
    """Three images of another folder, whose number 1 is a roof; one of them shows a pixel of pool, one pool alone."""
    folder = tmp_path / "roofs"
    folder.mkdir()
    for i in range(3):
        mask = np.zeros((40, 60), np.uint8)
        mask[5:25, 5:25] = 1
        mask[30:, :] = 9
        if i == 1:
            mask[0, 0] = 2
        image = np.zeros((40, 60, 3), np.uint8)
        image[:] = (90, 120, 60)
        image[mask == 1] = (200, 30, 30)
        image[mask == 9] = (30, 30, 200)  # looks like a pool, but nobody labelled it
        Image.fromarray(image).save(folder / f"r{i}.png")
        Image.fromarray(mask).save(folder / f"r{i}_mask.png")
    (folder / "classes.json").write_text(json.dumps({0: "background", 1: "roof", 2: "pool", 9: "void"}))
    return folder


def test_shares_by_hand():
    alarms = FalseAlarms()
    label = np.zeros((10, 20), np.uint8)
    label[:, 10:] = IGNORE
    logits = np.full((10, 20), 5, np.float32)
    logits[:, :10] = -1
    alarms.add(logits, label)
    logits[0, 0] = 0.1
    alarms.add(logits, label)
    logits[:5, :10] = 0.1
    alarms.add(logits, label)
    assert alarms.shares == [0, 0.01, 0.5]
    assert alarms.mean_share == pytest.approx(0.17) and alarms.quiet == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [FOREGROUND, IGNORE])
def test_a_target_with_the_class_or_without_labels_is_refused(value):
    with pytest.raises(ValueError, match="hold none"):
        FalseAlarms().add(np.zeros((2, 2), np.float32), np.full((2, 2), value, np.uint8))


def test_targets_of_the_same_folder_lack_the_class_and_references_are_others(folder):
    scanned = scan_folder(folder)
    dataset, episodes = draw_empty_episodes(scanned, scanned, 20, seed=1)
    assert dataset is scanned and len(episodes) == 20
    # Pools are in all four images, roofs in the last two.
    assert {episode.class_id for episode in episodes} == {2}
    assert {episode.query for episode in episodes} == {0, 1}
    assert {episode.supports for episode in episodes} == {(2,), (3,)}
    assert draw_empty_episodes(scanned, scanned, 20, seed=1)[1] == episodes
    assert draw_empty_episodes(scanned, scanned, 20, seed=2)[1] != episodes


def test_targets_of_another_folder_are_found_by_the_name_of_the_class(folder, roofs):
    pools, other = scan_folder(folder), scan_folder(roofs)
    dataset, episodes = draw_empty_episodes(pools, other, 30, seed=0)
    # Each of the others shows a roof; one has a single pixel of pool, too few to count as present, and is no target.
    assert {(episode.class_id, episode.query) for episode in episodes} == {(1, 4), (1, 6)}
    assert {index for episode in episodes for index in episode.supports} == {0, 1, 2, 3}
    target, reference = dataset.samples[4], dataset.samples[0]
    assert np.unique(dataset.read_label(target, 1)).tolist() == [BACKGROUND, IGNORE]
    assert (dataset.read_label(reference, 1) == pools.read_label(reference, 1)).all()
    assert (dataset.read_image(target) == other.read_image(target)).all()


def test_a_class_that_targets_do_not_label_needs_to_be_known_to_be_absent(folder, roofs):
    (roofs / "classes.json").write_text(json.dumps({0: "background", 1: "roof", 2: "lake", 9: "void"}))
    pools, other = scan_folder(folder), scan_folder(roofs)
    with pytest.raises(RefSAMError, match="lack pool, roof"):
        draw_empty_episodes(pools, other, 5, seed=0)
    _, episodes = draw_empty_episodes(pools, other, 50, seed=0, absent=("pool",))
    assert {(episode.class_id, episode.query) for episode in episodes} == {(1, 4), (1, 5), (1, 6)}


def test_a_method_is_measured_on_what_is_labelled(folder, roofs):
    class Loud(ColourSegmenter):
        def segment(self, encoding, reference):
            return super().segment(encoding, reference).abs() + 1

    dataset, episodes = draw_empty_episodes(scan_folder(folder), scan_folder(roofs), 10, seed=0)
    assert isinstance(dataset, Pairing)
    quiet, loud = FalseAlarms(), FalseAlarms()
    for segmenter, alarms in ((ColourSegmenter(), quiet), (Loud(), loud)):
        evaluate_method(
            segmenter, dataset, episodes, "mask", lambda _, logits, label, alarms=alarms: alarms.add(logits, label)
        )
    assert quiet.shares == [0] * 10 and loud.shares == [1] * 10


def test_what_counts_as_marked_is_the_methods_own():
    label = np.zeros((4, 5), np.uint8)
    logits = np.full(label.shape, np.log(0.4 / 0.6), np.float32)
    shares = []
    for threshold in (0.5, 0.3):
        alarms = FalseAlarms(threshold)
        alarms.add(logits, label)
        shares.append(alarms.mean_share)
    assert shares == [0.0, 1.0]
