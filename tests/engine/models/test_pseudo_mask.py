"""The coarse class map against its formula, position by position."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from refsam_qgis.engine.models.prototypes import Prototypes
from refsam_qgis.engine.models.pseudo_mask import compute_pseudo_mask, geometric_prompts, pool_prior
from tests.engine.pocket_sam import pocket_sam

TAU = 10.0
VALID = {
    "all cells": [[1, 1, 1], [1, 1, 1]],
    "one cell less": [[1, 1, 0], [1, 1, 1]],
    "one shot without background": [[0, 0, 0], [1, 0, 1]],
    "no background": [[0, 0, 0], [0, 0, 0]],
}


@pytest.fixture(params=VALID)
def compared(request):
    """Features of two targets, and prototypes of two shots with three background cells each."""
    generator = torch.Generator().manual_seed(0)
    features, vectors = torch.randn(2, 8, 4, 5, generator=generator), torch.randn(2, 7, 8, generator=generator)
    cells = torch.tensor(VALID[request.param], dtype=torch.bool)
    valid = torch.cat([torch.ones(1, dtype=torch.bool), cells.flatten()]).expand(2, -1)
    # What cells that do not exist hold must not matter: here it is very like the features.
    vectors[:, 1:][:, ~cells.flatten()] = features.mean((2, 3))[:, None]
    return features, Prototypes(vectors, valid, 2)


def expected(features, prototypes):
    """Contrast, likeness and the most similar background cell (0 for none) in plain loops."""
    contrast, likeness = torch.zeros(2, 2, 4, 5)
    nearest = torch.zeros(2, 4, 5, dtype=torch.long)
    for episode in range(2):
        for row in range(4):
            for column in range(5):
                place = features[episode, :, row, column]
                cosines = [float(F.cosine_similarity(place, vector, dim=0)) for vector in prototypes.vectors[episode]]
                real = {i: c for i, c in enumerate(cosines) if i and prototypes.valid[episode, i]}
                best = [max(of) for of in ([c for i, c in real.items() if (i - 1) // 3 == k] for k in (0, 1)) if of]
                likeness[episode, row, column] = cosines[0]
                contrast[episode, row, column] = TAU * (cosines[0] - sum(best) / max(1, len(best)))
                nearest[episode, row, column] = max(real, key=real.get) if real else 0
    return contrast, likeness, nearest


def test_each_shot_compares_the_class_with_its_own_background(compared):
    contrast, likeness, nearest = expected(*compared)
    found = compute_pseudo_mask(*compared, TAU)
    torch.testing.assert_close(found.logits, contrast)
    torch.testing.assert_close(found.likeness, likeness)
    assert torch.equal(found.cosine, found.logits) and torch.equal(found.hard, contrast > 0)
    assert torch.equal(found.assignment, torch.where(contrast > 0, 0, nearest))


def test_a_given_map_decides_where_the_class_is_and_prototypes_which_background(compared):
    contrast, likeness, nearest = expected(*compared)
    prior = torch.randn(2, 16, 20, generator=torch.Generator().manual_seed(1))
    coarse = prior.view(2, 4, 4, 5, 4).mean((2, 4))
    assert 0 < (coarse > 0).sum() < coarse.numel()
    found = pool_prior(prior, *compared, TAU)
    torch.testing.assert_close(found.logits, coarse)
    torch.testing.assert_close(found.cosine, contrast)
    torch.testing.assert_close(found.likeness, likeness)
    assert torch.equal(found.assignment, torch.where(coarse > 0, 0, nearest))


@torch.no_grad()
def test_prompts_of_a_part_of_the_frame_are_those_of_the_frame():
    """Points and box lie where the part does: at its row and column, which differ."""
    part, frame = torch.full((1, 6, 7), -5.0), torch.full((1, 64, 64), -5.0)
    part[0, 1:4, 4:6] = torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 2.0]])
    frame[:, 20:26, 50:57] = part
    seen, whole = (
        geometric_prompts(pocket_sam(), part, 2, 0, (20, 50))[0],
        geometric_prompts(pocket_sam(), frame, 2, 0)[0],
    )
    torch.testing.assert_close(seen, whole)
    assert not torch.allclose(seen, geometric_prompts(pocket_sam(), part, 2, 0)[0])
