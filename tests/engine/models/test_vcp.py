"""The prompt encoder beside torch's attention over all cells."""

import pytest
import torch
from torch import nn

from refsam_qgis.engine.models.config import ViRefSAMConfig
from refsam_qgis.engine.models.prototypes import Prototypes
from refsam_qgis.engine.models.sam import CHANNELS
from refsam_qgis.engine.models.vcp import VCPEncoder, attend_few
from tests.engine.models.conftest import randomise

HEIGHT, WIDTH = 5, 7


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_attention_of_few_queries_equals_torchs():
    """Results, and gradients of queries, tokens and weights."""
    attention = nn.MultiheadAttention(CHANNELS, 8, batch_first=True)
    with torch.no_grad():
        for weight in attention.parameters():
            weight.copy_(drawn(*weight.shape) * (0.1 if weight.ndim > 1 else 1.0))
    queries, tokens = drawn(2, 3, CHANNELS, seed=1).requires_grad_(), drawn(2, 35, CHANNELS, seed=2).requires_grad_()
    result, expected = attend_few(attention, queries, tokens), attention(queries, tokens, tokens)[0]
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 0.1
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    wanted, slope = [queries, tokens, *attention.parameters()], drawn(*expected.shape, seed=3)
    for own, their in zip(
        torch.autograd.grad((result * slope).sum(), wanted),
        torch.autograd.grad((expected * slope).sum(), wanted),
        strict=True,
    ):
        assert their.abs().max() > 0.1
        torch.testing.assert_close(own, their, atol=1e-3, rtol=1e-4)


def whole(encoder, vector, values, position, hard):
    """Object queries that attend over all cells, those outside the pseudo-mask hidden from them (method Eq. 4)."""
    outside = ~hard.flatten(1)
    outside[outside.all(1)] = False
    queries = encoder.queries[None] + encoder.class_to_query(vector)[:, None]
    attended, _ = encoder.mask_attention(queries, values + position, values, key_padding_mask=outside)
    queries = encoder.mask_norm(queries + attended)
    return encoder.self_norm(queries + encoder.self_attention(queries, queries, queries)[0])


@pytest.mark.parametrize("shares", [(0.1, 0.6), (0.0, 0.1), (1.0, 0.3), (0.0, 0.0)])
def test_queries_that_see_the_pseudo_mask_only_equal_attention_over_all_cells(shares):
    """Few cells beside many, none, and all; gradients too."""
    encoder = VCPEncoder(ViRefSAMConfig(queries=4))
    randomise(encoder, 0)
    features = drawn(2, CHANNELS, HEIGHT, WIDTH).requires_grad_()
    position = drawn(1, CHANNELS, HEIGHT, WIDTH, seed=1)
    prototypes = Prototypes(drawn(2, 3, CHANNELS, seed=2), torch.ones(2, 3, dtype=torch.bool))
    chance = torch.rand(2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3))
    marked = chance < torch.tensor(shares)[:, None, None]
    prior = (marked.float() * 2 - 1).repeat_interleave(4, 1).repeat_interleave(4, 2)
    refined, pseudo, ours = encoder(features, position, prototypes, prior)
    assert torch.equal(pseudo.hard, marked)
    tokens, places = (grid.flatten(2).transpose(1, 2) for grid in (features, position))
    expected = whole(encoder, refined.vectors[:, 0], tokens, places, marked)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    slope = drawn(*expected.shape, seed=4)
    own, their = (torch.autograd.grad((out * slope).sum(), features, retain_graph=True)[0] for out in (ours, expected))
    torch.testing.assert_close(own, their, atol=1e-4, rtol=1e-4)
