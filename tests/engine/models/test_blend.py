from dataclasses import replace

import pytest
import torch

from refsam_qgis.engine.models.blend import PriorBlend
from refsam_qgis.engine.models.fit_rules import REGRESSION_ALONE, FitRules
from refsam_qgis.engine.models.fitted_prior import FittedMap
from refsam_qgis.engine.models.pseudo_mask import PseudoMask


def numbers(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHTS = {
    "gain": 1.3,
    "offset": -0.4,
    "decoded_weight": 0.7,
    "prior_weight": 0.2,
    "cosine_weight": 0.5,
    "likeness_weight": 0.3,
    "trees_weight": 0.6,
    "learned_weight": 0.8,
    "shift": 0.1,
}
CLOSE = torch.tensor([1.0, 0.25, 1.5], dtype=torch.float64)


def blend_of():
    blend = PriorBlend().double()
    for name, value in WEIGHTS.items():
        torch.nn.init.constant_(getattr(blend, name), value)
    return blend


def everywhere(seed, count):
    """Cosine and likeness that are the same at all positions, so that their enlarging is known; and what they are."""
    cosine, likeness = numbers(seed, 2, count, 1, 1)
    nowhere = torch.zeros(count, 2, 2)
    return PseudoMask(nowhere, cosine.expand(-1, 2, 2), likeness.expand(-1, 2, 2), nowhere), cosine, likeness


def test_it_is_a_weighted_sum():
    blend, decoded, fitted = blend_of(), numbers(0, 3, 8, 8), numbers(1, 3, 8, 8)
    prior = blend.calibrate(fitted)
    torch.testing.assert_close(prior, 1.3 * fitted - 0.4)
    pseudo, cosine, likeness = everywhere(2, 3)
    contrast = 0.7 * decoded + 0.2 * (1.3 * fitted - 0.4) + 0.5 * cosine
    votes, learned = numbers(4, 2, 3, 8, 8)
    expected = CLOSE[:, None, None] * contrast + 0.3 * likeness + 0.6 * votes
    expected = expected + 0.8 * learned + 0.1
    torch.testing.assert_close(blend(decoded, FittedMap(prior, CLOSE, votes, learned), pseudo), expected)


def test_without_the_decoder_it_is_the_sum_of_the_others():
    blend, fitted = blend_of(), numbers(1, 3, 8, 8)
    pseudo, cosine, likeness = everywhere(2, 3)
    votes, learned = numbers(4, 2, 3, 8, 8)
    expected = CLOSE[:, None, None] * (0.2 * fitted + 0.5 * cosine) + 0.3 * likeness + 0.6 * votes
    expected = expected + 0.8 * learned + 0.1
    torch.testing.assert_close(blend(None, FittedMap(fitted, CLOSE, votes, learned), pseudo), expected)


def test_what_weighs_something_is_asked():
    blend = blend_of()
    assert blend.asks_decoder and blend.rules == FitRules()
    blend.set(prior=3.0, trees=6.0, learned=2.0)
    assert not blend.asks_decoder and blend.rules == FitRules()
    blend.set(decoded=2.0, cosine=4.0, likeness=5.0, shift=7.0)
    assert blend.asks_decoder and blend.rules == REGRESSION_ALONE
    blend.set(trees=1.0)
    assert not blend.asks_decoder and blend.rules == replace(FitRules(), learned=False)
    blend.set(decoded=-2.0, learned=-6.0)  # a weight below zero is one too
    assert blend.asks_decoder and blend.rules == replace(FitRules(), trees=0)


def test_setting_it_leaves_what_the_fitted_values_mean():
    blend = blend_of()
    blend.set(2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    names = (
        "decoded_weight",
        "prior_weight",
        "cosine_weight",
        "likeness_weight",
        "trees_weight",
        "learned_weight",
        "shift",
    )
    weights = dict(zip(names, range(2, 9), strict=True))
    found = {name: float(value) for name, value in blend.state_dict().items()}
    assert found == pytest.approx({**WEIGHTS, **weights})


def test_untrained_it_is_the_mean_of_both():
    decoded, fitted = numbers(0, 2, 8, 8).float(), numbers(1, 2, 8, 8).float()
    blend = PriorBlend()
    pseudo = PseudoMask(*[torch.full((2, 2, 2), 7.0)] * 4)
    found = blend(decoded, FittedMap(blend.calibrate(fitted), torch.ones(2), 9 * fitted, 9 * fitted), pseudo)
    torch.testing.assert_close(found, (decoded + fitted) / 2)
    assert {name: value.numel() for name, value in blend.named_parameters()} == dict.fromkeys(WEIGHTS, 1)


def test_gradients_equal_those_by_hand():
    blend, decoded, fitted, slope = blend_of(), numbers(0, 3, 4, 4), numbers(1, 3, 4, 4), numbers(2, 3, 4, 4)
    decoded.requires_grad_()
    pseudo, cosine, likeness = everywhere(3, 3)
    votes, learned = numbers(4, 2, 3, 4, 4)
    (blend(decoded, FittedMap(blend.calibrate(fitted), CLOSE, votes, learned), pseudo) * slope).sum().backward()
    trusted = CLOSE[:, None, None] * slope
    expected = {
        "gain": 0.2 * (trusted * fitted).sum(),
        "offset": 0.2 * trusted.sum(),
        "decoded_weight": (trusted * decoded).sum(),
        "prior_weight": (trusted * (1.3 * fitted - 0.4)).sum(),
        "cosine_weight": (trusted * cosine).sum(),
        "likeness_weight": (slope * likeness).sum(),
        "trees_weight": (slope * votes).sum(),
        "learned_weight": (slope * learned).sum(),
        "shift": slope.sum(),
    }
    for name, weight in blend.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name].detach())
    torch.testing.assert_close(decoded.grad, 0.7 * trusted)
