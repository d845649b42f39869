import pytest
import torch
from sklearn.metrics import jaccard_score

from refsam_qgis.engine.training.losses import (
    binary_cross_entropy,
    class_contrast,
    dice,
    diversity,
    mask_ious,
    mask_loss,
    mask_losses,
)


def test_bce_and_dice_by_formula():
    logits = torch.tensor([[[2.0, -1.0], [0.5, 3.0]]])
    target = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    weight = torch.ones_like(target)
    p = torch.sigmoid(logits)
    bce = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert binary_cross_entropy(logits, target, weight).item() == pytest.approx(bce.item(), rel=1e-5)
    expected = 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
    assert dice(logits, target, weight).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [binary_cross_entropy, dice])
def test_ignored_pixels_do_not_matter(loss):
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 6, 6, generator=generator), torch.rand(2, 6, 6, generator=generator).round()
    weight = torch.ones(2, 6, 6)
    weight[:, 3:] = 0
    changed = logits.clone()
    changed[:, 3:] = 50.0
    torch.testing.assert_close(loss(logits, target, weight), loss(changed, target, weight))


@pytest.mark.parametrize("loss", [binary_cross_entropy, dice])
def test_what_counts_is_all_there_is(loss):
    """Ignored pixels neither dilute the mean nor bring truth of their own."""
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 6, 6, generator=generator), torch.rand(2, 6, 6, generator=generator).round()
    weight = torch.zeros(2, 6, 6)
    weight[:, :3] = 1
    target[:, 3:] = 1
    part = [values[:, :3] for values in (logits, target, weight)]
    torch.testing.assert_close(loss(logits, target, weight), loss(*part))
    assert torch.isfinite(loss(logits, target, torch.zeros_like(weight))).all()


def test_each_of_several_answers_has_a_loss_and_an_iou_of_its_own():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 6, generator=generator)
    target, counted = (torch.rand(2, 6, 6, generator=generator) < share for share in (0.5, 0.8))
    losses = mask_losses(logits, target.float(), counted.float())
    ious = mask_ious(logits, target[:, None], counted[:, None])
    assert losses.shape == ious.shape == (2, 3)
    for sample in range(2):
        for answer in range(3):
            one = logits[sample : sample + 1, answer], target[sample : sample + 1].float(), counted[sample : sample + 1]
            torch.testing.assert_close(losses[sample, answer], mask_loss(*one)[0])
            torch.testing.assert_close(mask_loss(*one), binary_cross_entropy(*one) + dice(*one))
            there = counted[sample]
            expected = jaccard_score(target[sample][there], logits[sample, answer][there] > 0)
            assert float(ious[sample, answer]) == pytest.approx(expected)
    nothing = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    assert float(mask_ious(torch.full((1, 1, 6, 6), -1.0), nothing, ~nothing)) == 0


def test_diversity_bounds():
    same = torch.ones(1, 4, 3)
    assert diversity(same, "cosine").item() == pytest.approx(1.0)
    angled = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    assert diversity(angled, "cosine").item() == pytest.approx(0.6)
    assert diversity(angled, "squared").item() == pytest.approx(0.36)
    orthogonal = torch.eye(4)[None]
    assert diversity(orthogonal, "squared").item() == pytest.approx(0.0)
    simplex = torch.eye(4)[None] - 0.25
    assert diversity(simplex, "cosine").item() == pytest.approx(-1 / 3, abs=1e-5)


def test_contrast_compares_within_a_place_only():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    places = torch.tensor([0, 0, 0, 1, 1])
    # Anchors 0 and 1: one positive at similarity 1, one rival at 0. Anchors 3 and 4: only each other.
    score = torch.tensor(1 / 0.5)
    expected = -(score - torch.logaddexp(score, torch.tensor(0.0))) * 2 / 4
    assert class_contrast(features, labels, places, 0.5).item() == pytest.approx(expected.item(), abs=1e-5)


def test_positions_of_no_class_are_rivals_but_draw_nobody_near():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    found = class_contrast(features, torch.tensor([0, 0, -1, -1]), torch.zeros(4), 0.5)
    assert found.item() == pytest.approx(float(torch.logsumexp(torch.tensor([2.0, 0.0, 0.0]), 0)) - 2, abs=1e-5)


def test_contrast_without_positives_is_zero():
    assert class_contrast(torch.randn(3, 4), torch.tensor([0, 1, -1]), torch.zeros(3)).item() == 0.0
