import numpy as np
import pytest
import torch
from scipy import ndimage

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.baselines.pixel_features import SIGMAS, pixel_features
from refsam_qgis.engine.evaluation.baselines.random_forest import RandomForestSegmenter
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
