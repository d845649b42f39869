import numpy as np
import pytest
import torch
from scipy import ndimage

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.baselines import random_forest
from refsam_qgis.engine.evaluation.baselines.pixel_features import SIGMAS, pixel_features
from refsam_qgis.engine.evaluation.baselines.random_forest import (
    Forests,
    PixelEncoding,
    RandomForestSegmenter,
    balanced_counts,
    natural_counts,
)
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED, Shots


def textured(seed):
    """Two halves of equal mean colour, one of them rough; the mask is of the rough one."""
    rng = np.random.default_rng(seed)
    image = np.full((3, 64, 64), 120.0)
    image[:, :, 32:] += rng.normal(0, 25, (3, 64, 32))
    mask = torch.full((64, 64), BACKGROUND, dtype=torch.uint8)
    mask[:, 32:] = FOREGROUND
    return torch.from_numpy(image.clip(0, 255).astype(np.uint8)), mask


def shots(image, mask):
    return Shots(image[None], mask[None], torch.ones(1, *mask.shape, dtype=torch.bool))


def search(described, image):
    forest = RandomForestSegmenter()
    return forest.segment(forest.encode(image[None], torch.ones(1, 64, 64, dtype=torch.bool)), described)[0]


def test_texture_is_found_where_colour_is_equal():
    described = RandomForestSegmenter().describe(shots(*textured(0)))
    image, mask = textured(1)
    found = search(described, image) > 0
    truth = mask == FOREGROUND
    assert (found & truth).sum() / (found | truth).sum() > 0.9


def test_ignored_pixels_change_nothing():
    image, mask = textured(0)
    mask[:48] = IGNORE
    spoilt = image.clone()
    spoilt[:, :15] = 0  # farther from the marked rows than the 32 pixels that the widest filter reaches
    target, _ = textured(1)
    one, other = (search(RandomForestSegmenter().describe(shots(i, mask)), target) for i in (image, spoilt))
    assert torch.equal(one, other)


def test_unmarked_pixels_are_background_only_for_want_of_better():
    image, mask = textured(0)
    target, truth = textured(1)
    partial = torch.where(mask == BACKGROUND, UNMARKED, mask)
    assert torch.equal(
        search(RandomForestSegmenter().describe(shots(image, partial)), target),
        search(RandomForestSegmenter().describe(shots(image, mask)), target),
    )
    partial = mask.clone()
    partial[:32, 32:] = UNMARKED  # objects of the class that nobody marked
    found = search(RandomForestSegmenter().describe(shots(image, partial)), target) > 0
    assert (found == (truth == FOREGROUND)).float().mean() > 0.9


def test_a_reference_without_background_is_class_everywhere():
    image, mask = textured(0)
    described = RandomForestSegmenter().describe(shots(image, torch.full_like(mask, FOREGROUND)))
    assert (search(described, image) > 0).all()


def test_a_reference_without_the_class_is_refused():
    image, mask = textured(0)
    with pytest.raises(RefSAMError, match="mark no pixel"):
        RandomForestSegmenter().describe(shots(image, torch.full_like(mask, BACKGROUND)))


def test_pixels_are_taken_half_and_half_or_in_the_references_proportions():
    assert balanced_counts(300, 9_700, 1_000) == (300, 500) and balanced_counts(0, 9_700, 1_000) == (0, 500)
    assert natural_counts(300, 9_700, 1_000) == (30, 970)
    assert natural_counts(30, 70, 1_000) == (30, 70)
    assert natural_counts(1, 99_999, 1_000) == (1, 999), "the rarest class is still seen"
    assert natural_counts(0, 500, 100) == (0, 100) and natural_counts(0, 0, 100) == (0, 0)


def test_one_forest_is_balanced_and_one_is_as_frequent_as_the_reference(monkeypatch):
    """Where nothing tells the class apart, a forest answers with the frequency that it was taught."""
    monkeypatch.setattr(random_forest, "MAX_PIXELS", 600)  # of 4096: there is a choice
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 255, (3, 64, 64)).astype(np.uint8))
    mask = torch.from_numpy((rng.random((64, 64)) < 0.1).astype(np.uint8))
    forests = RandomForestSegmenter().describe(shots(image, mask))
    other = pixel_features(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).reshape(-1, 39)
    balanced, natural = (one.predict_proba(other)[:, 1].mean() for one in (forests.balanced, forests.natural))
    assert (natural, balanced) == (pytest.approx(0.1, abs=0.03), pytest.approx(0.5, abs=0.1))


class KnownForest:
    """Votes with one of the features."""

    classes_ = np.array([False, True])

    def __init__(self, feature):
        self.feature = feature

    def predict_proba(self, features):
        vote = features[:, self.feature].astype(np.float64)
        return np.stack([1 - vote, vote], axis=1)


def test_the_answer_is_the_log_odds_of_the_smoothed_mean():
    rng = np.random.default_rng(0)
    votes = rng.random((1, 40, 50, 2)).astype(np.float16)
    valid = np.ones((1, 40, 50), bool)
    valid[0, 30:] = False
    valid[0, 10, 20] = False
    votes[~valid] = 1  # must not be seen
    logits = RandomForestSegmenter().segment(PixelEncoding(votes, valid), Forests(KnownForest(0), KnownForest(1)))
    mean = votes[0].astype(np.float64).mean(-1)
    rows, columns = np.mgrid[:40, :50]
    for row, column in ((0, 0), (15, 25), (29, 49), (10, 21)):
        weights = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 3.0**2))
        weights *= (abs(rows - row) <= 12) & (abs(columns - column) <= 12) & valid[0]  # cut off at four sigma
        expected = (weights * mean).sum() / weights.sum()
        assert logits[0, row, column] == pytest.approx(np.log(expected / (1 - expected)), abs=1e-3)
    assert logits.dtype == torch.float32 and (logits[0, 30:] < -6).all() and logits[0, 10, 20] < -6


def test_padding_does_not_leak_into_features():
    image, _ = textured(0)
    padded = torch.nn.functional.pad(image, (0, 16, 0, 32))
    valid = torch.zeros(1, 96, 80, dtype=torch.bool)
    valid[:, :64, :64] = True
    forest = RandomForestSegmenter()
    alone = forest.encode(image[None], torch.ones(1, 64, 64, dtype=torch.bool)).features
    np.testing.assert_array_equal(forest.encode(padded[None], valid).features[:, :64, :64], alone)
    assert forest.encode(padded[None], torch.zeros_like(valid)).features.shape == (1, 96, 80, 39)


def test_encodings_at_hand_are_used(monkeypatch):
    forest = RandomForestSegmenter()
    both = [textured(0), textured(2)]
    pair = Shots(torch.stack([i for i, _ in both]), torch.stack([m for _, m in both]), torch.ones(2, 64, 64) > 0)
    target, _ = textured(1)
    expected = search(forest.describe(pair), target)
    encodings = [forest.encode(pair.images[k : k + 1], pair.valid[k : k + 1]) for k in range(2)]
    encoded = forest.encode(target[None], torch.ones(1, 64, 64) > 0)
    monkeypatch.setattr(random_forest, "pixel_features", None)
    assert torch.equal(forest.segment(encoded, forest.describe(pair, encodings))[0], expected)


def test_features_are_colour_gaussian_gradient_and_deviation():
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    features = pixel_features(image)
    assert features.shape == (40, 40, 3 + 9 * len(SIGMAS)) and np.isfinite(features).all()
    np.testing.assert_array_equal(features[..., :3], image)
    band = image[..., 0].astype(np.float64)
    smooth, gradient, deviation = features[..., 3], features[..., 4], features[..., 5]
    np.testing.assert_allclose(smooth, ndimage.gaussian_filter(band, 1), atol=1e-3)
    slope = np.hypot(*(ndimage.gaussian_filter(band, 1, order=order) for order in ((0, 1), (1, 0))))
    np.testing.assert_allclose(gradient, slope, atol=1e-2)
    weights = np.zeros((40, 40))
    weights[20, 20] = 1
    weights = ndimage.gaussian_filter(weights, 1)
    expected = np.sqrt((weights * (band - (weights * band).sum()) ** 2).sum())
    assert deviation[20, 20] == pytest.approx(expected, rel=1e-3)
