import pytest
import torch

from refsam_qgis.engine.models.blend import PriorBlend


def numbers(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHTS = {
    "gain": 1.3,
    "offset": -0.4,
    "decoded_weight": 0.7,
    "prior_weight": 0.2,
    "cosine_weight": 0.5,
    "shift": 0.1,
}
CLOSE = torch.tensor([1.0, 0.25, 1.5], dtype=torch.float64)


def blend_of():
    blend = PriorBlend().double()
    for name, value in WEIGHTS.items():
        torch.nn.init.constant_(getattr(blend, name), value)
    return blend


def coarse(seed, count):
    """Cosines that are the same everywhere, so that their enlarging is known; and as they are then."""
    values = numbers(seed, count, 1, 1)
    return values.expand(-1, 2, 2), values


def test_it_is_a_weighted_sum():
    blend, decoded, fitted = blend_of(), numbers(0, 3, 8, 8), numbers(1, 3, 8, 8)
    prior = blend.calibrate(fitted)
    torch.testing.assert_close(prior, 1.3 * fitted - 0.4)
    cosine, everywhere = coarse(2, 3)
    expected = CLOSE[:, None, None] * (0.7 * decoded + 0.2 * (1.3 * fitted - 0.4)) + 0.5 * everywhere + 0.1
    torch.testing.assert_close(blend(decoded, prior, cosine, CLOSE), expected)


def test_setting_it_leaves_what_the_fitted_values_mean():
    blend = blend_of()
    blend.set(2.0, 3.0, 4.0, 5.0)
    expected = {**WEIGHTS, "decoded_weight": 2, "prior_weight": 3, "cosine_weight": 4, "shift": 5}
    assert {name: float(value) for name, value in blend.state_dict().items()} == pytest.approx(expected)


def test_untrained_it_is_the_mean_of_both():
    decoded, fitted = numbers(0, 2, 8, 8).float(), numbers(1, 2, 8, 8).float()
    blend = PriorBlend()
    found = blend(decoded, blend.calibrate(fitted), torch.full((2, 2, 2), 7.0), torch.ones(2))
    torch.testing.assert_close(found, (decoded + fitted) / 2)
    assert {name: value.numel() for name, value in blend.named_parameters()} == dict.fromkeys(WEIGHTS, 1)


def test_gradients_equal_those_by_hand():
    blend, decoded, fitted, slope = blend_of(), numbers(0, 3, 4, 4), numbers(1, 3, 4, 4), numbers(2, 3, 4, 4)
    decoded.requires_grad_()
    cosine, everywhere = coarse(3, 3)
    (blend(decoded, blend.calibrate(fitted), cosine, CLOSE) * slope).sum().backward()
    trusted = CLOSE[:, None, None] * slope
    expected = {
        "gain": 0.2 * (trusted * fitted).sum(),
        "offset": 0.2 * trusted.sum(),
        "decoded_weight": (trusted * decoded).sum(),
        "prior_weight": (trusted * (1.3 * fitted - 0.4)).sum(),
        "cosine_weight": (slope * everywhere).sum(),
        "shift": slope.sum(),
    }
    for name, weight in blend.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name].detach())
    torch.testing.assert_close(decoded.grad, 0.7 * trusted)
