import numpy as np
import pytest
import torch

from refsam_qgis.engine.evaluation.episodes import Episode, draw_episodes
from refsam_qgis.engine.evaluation.measure import evaluate_method
from refsam_qgis.engine.evaluation.methods import least_probability
from refsam_qgis.engine.image_folder import scan_folder
from refsam_qgis.engine.job import THRESHOLD

from .conftest import ColourSegmenter


class AllOfIt(ColourSegmenter):
    """Marks everything."""

    def segment(self, encoding, reference):
        return super().segment(encoding, reference) * 0 + 1


def test_figures_are_those_of_the_summed_pixels(write_folder):
    masks = {name: np.zeros((20, 20), np.uint8) for name in "abc"}
    masks["a"][:5] = 1  # 100 of 400 pixels
    masks["b"][:10] = 1  # 200 of 400
    masks["c"][:] = 1
    masks["c"][10:] = 255  # 200 of 200 that count
    scanned = scan_folder(write_folder(masks))
    episodes = [Episode(1, 2, (0,)), Episode(1, 0, (1,)), Episode(1, 1, (2,))]
    result = evaluate_method(AllOfIt(), scanned, episodes, "mask")
    assert result.metrics.miou == pytest.approx((100 + 200 + 200) / (400 + 400 + 200))
    assert result.metrics.fb_iou == pytest.approx((0.5 + 0) / 2)
    assert [episode.query for episode in result.episodes] == [0, 1, 2]
    assert result.metrics.episode_ious == pytest.approx([0.25, 0.5, 1.0])


def test_whoever_listens_sees_every_episode_with_logits_and_label(folder):
    scanned = scan_folder(folder)
    episodes = draw_episodes(scanned, 1, 7, seed=1)
    heard = []
    evaluate_method(ColourSegmenter(), scanned, episodes, "mask", lambda *found: heard.append(found))
    assert sorted(map(hash, episodes)) == sorted(hash(episode) for episode, _, _ in heard)
    for episode, logits, label in heard:
        assert (label == scanned.read_label(scanned.samples[episode.query], episode.class_id)).all()
        assert logits.dtype == np.float32 and ((logits > 0) == (label == 1)).all()


def test_a_method_is_judged_where_it_ships_to_cut(write_folder):
    class Doubtful(ColourSegmenter):
        """Gives the class a probability of 0.4, the rest one of 0.2."""

        def segment(self, encoding, reference):
            near = super().segment(encoding, reference) > 0
            return torch.where(near, torch.tensor(0.4).logit(), torch.tensor(0.2).logit())

    masks = {name: np.zeros((64, 64), np.uint8) for name in ("a", "b")}
    for mask in masks.values():
        mask[8:40, 8:40] = 1
    scanned = scan_folder(write_folder(masks))
    episodes = draw_episodes(scanned, 1, 2, seed=0)
    ious = [evaluate_method(Doubtful(), scanned, episodes, "mask", threshold=t).metrics.miou for t in (0.5, 0.3)]
    assert ious == [0.0, 1.0]
    assert [least_probability(method) for method in ("fitted", "random_forest")] == [THRESHOLD, 0.5]
