import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.calibration import BINS, PixelSample, Reliability, fit_platt, probabilities
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE


def _logit(probability):
    return np.log(probability / (1 - np.asarray(probability))).astype(np.float32)


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 3, (4, 60, 50)).astype(np.float32)
    # Too sure of itself by a factor of two, and off by one.
    truth = rng.random(logits.shape) < 1 / (1 + np.exp(-(0.5 * logits + 1)))
    return logits, np.where(truth, FOREGROUND, BACKGROUND).astype(np.uint8)


def test_errors_by_hand():
    reliability = Reliability()
    # Bins of a fifteenth: 0.9 and 0.92 share one, 0.1 and 0.5 have their own.
    logits = _logit([[0.9, 0.92], [0.1, 0.5]])
    reliability.add(logits, np.array([[1, 0], [0, 1]], np.uint8))
    assert reliability.ece == pytest.approx((2 * abs(0.91 - 0.5) + 0.1 + 0.5) / 4)
    assert reliability.brier == pytest.approx((0.1**2 + 0.92**2 + 0.1**2 + 0.5**2) / 4)


def test_bins_of_many_images_are_those_of_scikit_learn(scored):
    logits, label = scored
    reliability = Reliability()
    for image in zip(logits, label, strict=True):
        reliability.add(*image)
    probability = 1 / (1 + np.exp(-logits.ravel().astype(np.float64)))
    frequency, mean = calibration_curve(label.ravel(), probability, n_bins=BINS)
    assert reliability.frequency == pytest.approx(frequency)
    assert reliability.mean_probability == pytest.approx(mean)
    assert reliability.brier == pytest.approx(brier_score_loss(label.ravel(), probability))
    weights = reliability.counts / label.size
    assert reliability.ece == pytest.approx((weights * np.abs(frequency - mean)).sum())


def test_parts_merge_into_the_whole(scored):
    whole, halves = Reliability(), [Reliability(), Reliability()]
    for i, image in enumerate(zip(*scored, strict=True)):
        whole.add(*image)
        halves[i % 2].add(*image)
    halves[0].merge(halves[1])
    assert (halves[0].counts == whole.counts).all()
    assert [halves[0].ece, halves[0].brier] == pytest.approx([whole.ece, whole.brier])


def test_unlabelled_pixels_do_not_count_and_extremes_do():
    reliability = Reliability()
    reliability.add(np.array([[-1e4, 1e4, 3.0]], np.float32), np.array([[BACKGROUND, FOREGROUND, IGNORE]], np.uint8))
    assert reliability.counts.tolist() == [1, *[0] * (BINS - 2), 1]
    assert reliability.ece == reliability.brier == 0
    assert np.isnan(reliability.frequency[1]) and np.isnan(Reliability().ece)


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match="resized"):
        Reliability().add(np.zeros((2, 2), np.float32), np.zeros((4, 4), np.uint8))


def test_the_fit_is_the_logistic_regression_of_platts_targets(scored):
    logits, truth = scored[0].ravel(), scored[1].ravel() == FOREGROUND
    platt = fit_platt(logits, truth)
    # A softened target is the pixel once of the class and once beside it, weighed accordingly.
    positive, negative = truth.sum(), (~truth).sum()
    target = np.where(truth, (positive + 1) / (positive + 2), 1 / (negative + 2))
    regression = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.tile(logits, 2)[:, None].astype(np.float64),
        np.repeat([1, 0], len(logits)),
        np.concatenate([target, 1 - target]),
    )
    assert platt.scale == pytest.approx(regression.coef_[0, 0], rel=1e-4)
    assert platt.offset == pytest.approx(regression.intercept_[0], rel=1e-4)
    assert platt.scale == pytest.approx(0.5, abs=0.03) and platt.offset == pytest.approx(1, abs=0.1)


def test_calibrated_logits_are_reliable(scored):
    logits, label = scored
    sample = PixelSample(per_image=2000)
    for image in zip(logits[:2], label[:2], strict=True):
        sample.add(*image)
    platt, before, after = sample.fit(), Reliability(), Reliability()
    for scores, truth in zip(logits[2:], label[2:], strict=True):
        before.add(scores, truth)
        after.add(platt(scores), truth)
    assert before.ece > 0.1 and after.ece < 0.025
    assert after.brier < before.brier


def test_logits_without_error_or_meaning_are_fitted_too():
    truth = np.arange(100) >= 50
    sure = fit_platt(np.arange(100) - 49.5, truth)
    assert sure.scale > 0.1 and np.isfinite(sure.scale) and sure.offset == pytest.approx(0, abs=1e-6)
    empty = fit_platt(np.full(100, 7.0), np.arange(100) < 25)
    assert probabilities(np.array(7 * empty.scale + empty.offset)) == pytest.approx(0.25, abs=0.01)
    huge = fit_platt(np.where(truth, 1e4, -1e4), truth)
    assert np.isfinite([huge.scale, huge.offset]).all() and huge.scale > 0


def test_a_rare_class_that_stands_far_apart_is_fitted_too():
    """Newton's whole step leads astray there. Two logits and two weights: both groups get their targets exactly."""
    logits, truth = np.repeat([-5.0, 40.0], [5000, 3]), np.arange(5003) >= 5000
    platt = fit_platt(logits, truth)
    said = probabilities(platt.scale * np.array([-5.0, 40.0]) + platt.offset)
    assert said == pytest.approx([1 / 5002, 4 / 5], rel=1e-3)


def test_one_sided_pixels_cannot_be_calibrated():
    sample = PixelSample()
    with pytest.raises(RefSAMError, match="0 pixels of the class and 0 beside it"):
        sample.fit()
    sample.add(np.zeros((3, 3), np.float32), np.zeros((3, 3), np.uint8))
    with pytest.raises(RefSAMError, match="0 pixels of the class and 9 beside it"):
        sample.fit()


def test_the_sample_is_bounded_even_and_repeats_itself():
    def draw():
        sample = PixelSample(per_image=10, seed=3)
        for value, side in ((1.0, 40), (-1.0, 5), (0.0, 2)):
            sample.add(np.full((side, side), value, np.float32), np.ones((side, side), np.uint8))
        return sample

    first, second = draw(), draw()
    values = np.concatenate(first._logits)
    assert [(values == v).sum() for v in (1, -1, 0)] == [10, 10, 4]
    assert (values == np.concatenate(second._logits)).all()
