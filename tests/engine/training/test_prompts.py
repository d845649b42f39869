"""Simulated prompts of promptable segmentation."""

import numpy as np
import pytest
import torch

from refsam_qgis.engine.models.fitted_prior import FittedPrior
from refsam_qgis.engine.models.pixel_features import pixel_features
from refsam_qgis.engine.training import prompts
from refsam_qgis.engine.training.fitted_masks import FittedMasks
from refsam_qgis.engine.training.prompts import coarse_mask, sample_prompts
from refsam_qgis.engine.training.views import LabelledImage

SIDE = 256


@pytest.fixture
def target():
    target = np.zeros((SIDE, SIDE), bool)
    target[37:151, 90:202] = True
    return target


@pytest.mark.parametrize("cell", prompts.MASK_CELLS)
def test_coarse_masks_are_about_their_target_whatever_their_cells(target, cell, monkeypatch):
    monkeypatch.setattr(prompts, "MASK_CELLS", (cell,))
    inside = target[2::4, 2::4]
    masks = [coarse_mask(target, np.random.default_rng(seed)) for seed in range(20)]
    assert {mask.shape for mask in masks} == {(SIDE // 4, SIDE // 4)}
    found = np.stack(masks) > 0
    right = (found & inside).sum((1, 2)) / (found | inside).sum((1, 2))
    assert np.median(right) > 0.5 and right.min() < 0.9  # good for something, and never merely a copy


def test_finer_cells_follow_an_edge_more_closely(target, monkeypatch):
    def edge_error(cell):
        monkeypatch.setattr(prompts, "MASK_CELLS", (cell,))
        mean = np.mean([coarse_mask(target, np.random.default_rng(seed)) for seed in range(60)], axis=0)
        # The left edge is at pixel 90: between values 22 and 23 of the prompt, where evidence rises the most.
        profile = mean[12:36, 14:32].mean(0)
        rise = np.diff(profile)
        return rise.max() / (profile.max() - profile.min())

    assert edge_error(4) > 2 * edge_error(16)


def view_of(*places, ignore=-1, seed=0):
    """A rough grey view with blue squares of class 7."""
    rng = np.random.default_rng(seed)
    classes = np.zeros((SIDE, SIDE), np.uint8)
    for place in places:
        classes[place] = 7
    colours = np.where(classes[..., None] == 7, (40, 60, 200), (120, 120, 110)) + rng.normal(0, 6, (SIDE, SIDE, 3))
    image = colours.clip(0, 255).astype(np.uint8)
    return LabelledImage(image, classes, (classes > 0).astype(np.uint16), ignore, "test")


HERE, THERE = (slice(20, 90), slice(30, 120)), (slice(130, 210), slice(96, 192))


def test_a_fitted_mask_is_what_a_prior_of_the_other_view_says():
    target, reference = view_of(THERE, seed=1), view_of(HERE)
    prior = FittedPrior(torch.device("cpu"))
    masks = FittedMasks(prior, target, reference)
    found = masks(7)
    features = [pixel_features(torch.from_numpy(v.image).permute(2, 0, 1)[None] / 255.0) for v in (reference, target)]
    head = prior.fit(features[0], torch.from_numpy((reference.classes == 7).astype(np.uint8))[None])
    np.testing.assert_allclose(found, prior.logits(features[1], head)[0].numpy(), atol=1e-3)
    truth = target.classes[2::4, 2::4] == 7
    assert ((found > 0) & truth).sum() / ((found > 0) | truth).sum() > 0.8
    assert masks(5) is None  # the reference holds none of it


def test_unlabelled_pixels_are_not_fitted_to():
    reference = view_of(HERE, ignore=255)
    reference.classes[:, 128:] = 255
    kept = FittedMasks(FittedPrior(torch.device("cpu")), view_of(THERE, seed=1), reference)(7)
    reference.image[:, 140:] = 255 - reference.image[:, 140:]
    again = FittedMasks(FittedPrior(torch.device("cpu")), view_of(THERE, seed=1), reference)(7)
    np.testing.assert_allclose(kept, again, atol=0.2)


@pytest.mark.parametrize("placed", [0.0, 1.0])
def test_whole_classes_are_asked_for_as_virefsam_asks(placed, monkeypatch):
    view = view_of(HERE)
    view.instances[:] = 0  # nothing but the class to ask for
    said = np.full((SIDE // 4, SIDE // 4), -1, np.float32)
    said[5:20, 8:30], said[12, 25], said[40, 50] = 1, 3, -4
    monkeypatch.setattr(prompts, "FITTED_SHARE", 1.0)
    monkeypatch.setattr(prompts, "PLACED_SHARE", placed)
    (sample,) = sample_prompts(view, frozenset({7}), 1, np.random.default_rng(0), {7: said}.get)
    assert sample.has_mask and np.array_equal(sample.mask, said)
    assert np.array_equal(sample.target, view.classes == 7)
    assert sample.has_box == bool(placed)
    if placed:
        assert sample.points[:2].tolist() == [[102, 50], [202, 162]] and sample.labels.tolist() == [1, 0, -1, -1]
        assert sample.box.tolist() == [32, 20, 116, 76]
    else:
        assert (sample.labels == -1).all()


def test_without_a_fitted_mask_a_coarse_one_asks(monkeypatch):
    monkeypatch.setattr(prompts, "FITTED_SHARE", 1.0)
    view = view_of(HERE)
    view.instances[:] = 0
    (sample,) = sample_prompts(view, frozenset({7}), 1, np.random.default_rng(0))
    assert sample.has_mask and sample.mask.shape == (SIDE // 4, SIDE // 4) and sample.mask.std() > 0
