import numpy as np
import pytest
import torch
from scipy import ndimage

from refsam_qgis.engine.models import training_free
from refsam_qgis.engine.models.segmenter import FOREGROUND, UNMARKED, Shots
from refsam_qgis.engine.models.training_free import (
    TrainingFreeConfig,
    TrainingFreeSegmenter,
    best_threshold,
    connected_components,
)


@pytest.mark.parametrize("seed", range(3))
def test_components_equal_scipy(seed):
    mask = np.random.default_rng(seed).random((40, 40)) < 0.35
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    ours = connected_components(torch.from_numpy(mask), 1000).numpy()
    assert len(ours) == count
    theirs = {frozenset(np.flatnonzero(labels == n)) for n in range(1, count + 1)}
    assert {frozenset(np.flatnonzero(part)) for part in ours} == theirs
    sizes = [part.sum() for part in ours]
    assert sizes == sorted(sizes, reverse=True)


def test_components_of_nothing():
    assert connected_components(torch.zeros(8, 8, dtype=torch.bool), 5).shape == (0, 8, 8)


def test_threshold_is_the_best_of_all():
    generator = torch.Generator().manual_seed(0)
    prior = torch.randn(2, 12, 12, generator=generator)
    share = ((prior + torch.randn(2, 12, 12, generator=generator)) > 0.8).float()
    counted = torch.ones_like(share)

    def iou(threshold):
        marked = prior > threshold
        return float((marked * share).sum() / (marked + share).clamp_max(1).sum())

    best = max(iou(float(t)) for t in torch.linspace(-4, 4, 4001))
    assert iou(best_threshold(prior, share, counted)) == pytest.approx(best, abs=1e-3)


def test_uncounted_cells_do_not_move_the_threshold():
    prior = torch.tensor([[[5.0, 4.0, 3.0, 2.0]]])
    share = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    assert 2 < best_threshold(prior, share, torch.ones_like(share)) < 3
    counted = torch.tensor([[[0.0, 1.0, 1.0, 1.0]]])
    assert 2 < best_threshold(prior, share, counted) < 3


def test_objects_nobody_marked_do_not_raise_the_threshold(sam):
    """Marking one of two squares nearly alike must find a threshold that lets the other through."""
    segmenter = TrainingFreeSegmenter(sam, TrainingFreeConfig(background_cells=2))
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[:, :, 8:24, 8:24] = 255
    images[:, :, 32:64, 24:64] = 215
    masks = torch.full((1, 64, 64), UNMARKED, dtype=torch.uint8)
    masks[:, 8:24, 8:24] = FOREGROUND
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    partial = segmenter.describe(Shots(images, masks, valid))
    prior = segmenter._prior(segmenter.encode(images, valid).features, partial.prototypes)[0] - partial.threshold
    assert prior[36:60, 28:60].mean() > 0 > prior[8:24, 40:60].mean()


def test_the_prior_stands_where_sam_finds_no_supported_mask(sam, monkeypatch):
    segmenter = TrainingFreeSegmenter(sam)
    nothing = torch.full((1, 1, 256, 256), -9.0)
    monkeypatch.setattr(training_free, "decode", lambda *arguments: (nothing, torch.zeros(1, 1)))
    prior = torch.full((64, 64), -2.0)
    prior[20:30, 20:30] = 3.0
    fine = prior.repeat_interleave(4, 0).repeat_interleave(4, 1)
    found = segmenter.draw(torch.zeros(1, 256, 64, 64), prior[None], fine[None])[0] > 0
    assert found[84:116, 84:116].all()
    assert not found[130:].any()


def test_result_follows_the_references(sam):
    """With random weights the features still tell a white square from black ground."""
    segmenter = TrainingFreeSegmenter(sam, TrainingFreeConfig(background_cells=2))
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[:, :, 16:40, 16:40] = 255
    masks = (images[:, 0] > 0).to(torch.uint8)
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    square = segmenter.describe(Shots(images, masks, valid))
    ground = segmenter.describe(Shots(images, 1 - masks, valid))
    prior = segmenter._prior(segmenter.encode(images, valid).features, square.prototypes)[0] - square.threshold
    other = segmenter._prior(segmenter.encode(images, valid).features, ground.prototypes)[0] - ground.threshold
    inside, outside = (slice(20, 36), slice(20, 36)), (slice(48, 60), slice(48, 60))
    assert prior[inside].mean() > 0 > prior[outside].mean()
    assert other[outside].mean() > 0 > other[inside].mean()
    logits = segmenter.segment(segmenter.encode(images, valid), square)
    assert logits.shape == (1, 256, 256)
    assert torch.isfinite(logits).all()
