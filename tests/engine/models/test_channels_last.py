"""Layers over tokens beside the modules whose weights they use."""

import pytest
import torch

from refsam_qgis.engine.models.channels_last import mix_channels, normalise_channels, split_cells
from refsam_qgis.engine.models.sam import segment_anything_modules
from tests.engine.models.conftest import randomise


def norm(channels):
    return segment_anything_modules().modeling.common.LayerNorm2d(channels, eps=0.1)  # an eps that shows


def joined(split):
    """``(B, h, w, k, k, D)`` -> ``(B, k*h, k*w, D)``."""
    return split.transpose(2, 3).flatten(3, 4).flatten(1, 2)


LAYERS = {
    "norm": (norm(6), normalise_channels),
    "mix": (torch.nn.Conv2d(6, 10, 1), mix_channels),
    "mix without bias": (torch.nn.Conv2d(6, 10, 1, bias=False), mix_channels),
    "split": (torch.nn.ConvTranspose2d(6, 4, 2, 2), lambda *given: joined(split_cells(*given))),
    "split in nine": (torch.nn.ConvTranspose2d(6, 4, 3, 3, bias=False), lambda *given: joined(split_cells(*given))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_their_modules(name):
    """Results, and gradients of input and weights."""
    module, ours = LAYERS[name]
    randomise(module, 1)
    values = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expected = module(values)
    tokens = values.permute(0, 2, 3, 1)
    result = ours(module, tokens).permute(0, 3, 1, 2)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-5)
    wanted = [values, *module.parameters()]
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    for own, their in zip(
        torch.autograd.grad((result * slope).sum(), wanted),
        torch.autograd.grad((expected * slope).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(own, their, atol=1e-5, rtol=1e-4)
