"""Simulated prompts of promptable segmentation."""

import numpy as np
import pytest

from refsam_qgis.engine.training import prompts
from refsam_qgis.engine.training.prompts import coarse_mask

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
