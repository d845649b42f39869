import torch

from refsam_qgis.engine.models.blend import PriorBlend


def numbers(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blend_of(gain=1.3, offset=-0.4, decoded_weight=0.7, prior_weight=0.2, shift=0.1):
    blend = PriorBlend().double()
    for name, value in dict(
        gain=gain, offset=offset, decoded_weight=decoded_weight, prior_weight=prior_weight, shift=shift
    ).items():
        torch.nn.init.constant_(getattr(blend, name), value)
    return blend


def test_it_is_a_weighted_sum():
    blend, decoded, fitted = blend_of(), numbers(0, 2, 8, 8), numbers(1, 2, 8, 8)
    prior = blend.calibrate(fitted)
    torch.testing.assert_close(prior, 1.3 * fitted - 0.4)
    torch.testing.assert_close(blend(decoded, prior), 0.7 * decoded + 0.2 * (1.3 * fitted - 0.4) + 0.1)


def test_untrained_it_is_the_mean_of_both():
    decoded, fitted = numbers(0, 2, 8, 8).float(), numbers(1, 2, 8, 8).float()
    blend = PriorBlend()
    torch.testing.assert_close(blend(decoded, blend.calibrate(fitted)), (decoded + fitted) / 2)
    assert {name: value.numel() for name, value in blend.named_parameters()} == dict.fromkeys(
        ("gain", "offset", "decoded_weight", "prior_weight", "shift"), 1
    )


def test_gradients_equal_those_by_hand():
    blend, decoded, fitted, slope = blend_of(), numbers(0, 3, 4, 4), numbers(1, 3, 4, 4), numbers(2, 3, 4, 4)
    decoded.requires_grad_()
    (blend(decoded, blend.calibrate(fitted)) * slope).sum().backward()
    expected = {
        "gain": 0.2 * (slope * fitted).sum(),
        "offset": 0.2 * slope.sum(),
        "decoded_weight": (slope * decoded).sum(),
        "prior_weight": (slope * (1.3 * fitted - 0.4)).sum(),
        "shift": slope.sum(),
    }
    for name, weight in blend.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name].detach())
    torch.testing.assert_close(decoded.grad, 0.7 * slope)
