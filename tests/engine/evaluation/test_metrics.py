import math

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from refsam_qgis.engine.evaluation.metrics import FewShotMetrics
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE


def as_logits(mask):
    return np.where(mask, 2.0, -2.0).astype(np.float32)


def test_ratios_equal_scikit_learn_on_the_pooled_pixels():
    rng = np.random.default_rng(0)
    metrics = FewShotMetrics()
    pooled = {1: ([], []), 2: ([], [])}
    for i in range(6):
        class_id = 1 + i % 2
        label = rng.choice(np.array([BACKGROUND, FOREGROUND, IGNORE], np.uint8), size=(9 + i, 7))
        logits = rng.normal(size=label.shape).astype(np.float32)
        metrics.add(class_id, logits, label)
        counted = label != IGNORE
        pooled[class_id][0].append(label[counted] == FOREGROUND)
        pooled[class_id][1].append(logits[counted] > 0)
    truth, found = ({c: np.concatenate(pooled[c][side]) for c in pooled} for side in (0, 1))
    per_class = {c: jaccard_score(truth[c], found[c]) for c in pooled}
    everything = np.concatenate(list(truth.values())), np.concatenate(list(found.values()))
    assert metrics.class_iou == pytest.approx(per_class)
    assert metrics.miou == pytest.approx(np.mean(list(per_class.values())))
    assert metrics.fb_iou == pytest.approx(jaccard_score(*everything, average="macro"))


def test_episodes_of_a_class_are_summed_before_the_ratio():
    metrics = FewShotMetrics()
    small, large = np.zeros((1, 2), np.uint8), np.zeros((10, 10), np.uint8)
    small[0, 0] = FOREGROUND
    large[:9] = FOREGROUND
    metrics.add(1, as_logits(small == 0), small)  # 0 of 2
    metrics.add(1, as_logits(large == 1), large)  # 90 of 90
    assert metrics.miou == pytest.approx(90 / 92)
    assert metrics.mean_episode_iou == pytest.approx(0.5)
    assert metrics.fb_iou == pytest.approx((90 / 92 + 10 / 12) / 2)


def test_an_empty_union_has_no_ratio_and_leaves_the_mean_alone():
    metrics = FewShotMetrics()
    empty, full = np.full((3, 3), BACKGROUND, np.uint8), np.full((3, 3), FOREGROUND, np.uint8)
    metrics.add(1, as_logits(empty == 1), empty)
    assert math.isnan(metrics.miou)
    assert metrics.fb_iou == 1
    metrics.add(2, as_logits(full == 1), full)
    assert math.isnan(metrics.class_iou[1])
    assert metrics.miou == 1
    assert metrics.mean_episode_iou == 1


def test_ignored_pixels_change_nothing():
    label = np.array([[FOREGROUND, BACKGROUND, IGNORE, IGNORE]], np.uint8)
    one, other = FewShotMetrics(), FewShotMetrics()
    one.add(1, np.array([[1, 1, 1, -1]], np.float32), label)
    other.add(1, np.array([[1, 1, -1, 1]], np.float32), label)
    assert one == other
    assert one.miou == 0.5


def test_an_answer_without_an_opinion_finds_nothing():
    """A logit of 0, half a chance, is not yet of the class."""
    metrics = FewShotMetrics()
    label = np.array([[FOREGROUND, BACKGROUND, BACKGROUND]], np.uint8)
    metrics.add(1, np.zeros((1, 3), np.float32), label)
    assert metrics.miou == 0 and metrics.background.iou == pytest.approx(2 / 3)


def test_classes_are_listed_by_their_ids_whatever_the_order_of_the_episodes():
    metrics = FewShotMetrics()
    for class_id in (7, 2, 5):
        metrics.add(class_id, as_logits(np.eye(3) > 0), np.eye(3).astype(np.uint8))
    assert list(metrics.class_iou) == [2, 5, 7]


def test_a_label_of_another_size_is_refused():
    with pytest.raises(ValueError, match="resized"):
        FewShotMetrics().add(1, np.zeros((2, 2), np.float32), np.zeros((4, 4), np.uint8))
