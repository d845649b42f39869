"""The encoder beside segment_anything's own, whatever way attention is computed."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from refsam_qgis.engine.models import attention as attention_module
from refsam_qgis.engine.models.encoder import embed_patches, encode, project, run_blocks
from refsam_qgis.engine.models.sam import segment_anything_modules
from tests.engine.models.conftest import randomise


def build(grid=20, window=14, depth=2, heads=2, width=32, **options):
    """A small encoder with vit_b's windows, which do not divide its grid."""
    encoder = segment_anything_modules().modeling.ImageEncoderViT(
        img_size=16 * grid, embed_dim=width, depth=depth, num_heads=heads, mlp_ratio=2, window_size=window,
        global_attn_indexes=(depth - 1,), out_chans=16, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        **{"use_rel_pos": True, **options},
    )  # fmt: skip
    randomise(encoder, 0)
    for name, weight in encoder.named_parameters():
        if "rel_pos" in name or name.endswith("qkv.bias"):  # positions and padding are to matter
            torch.nn.init.normal_(weight, std=0.5)
    return encoder.requires_grad_(False)


def pixels(batch, grid=20, seed=0):
    return torch.randn(batch, 3, 16 * grid, 16 * grid, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scores", [1, 2**12, 2**30])
@pytest.mark.parametrize("options", [{}, {"window": 5}, {"qkv_bias": False}, {"use_rel_pos": False}, {"heads": 4}])
@torch.no_grad()
def test_inference_equals_segment_anything(monkeypatch, options, scores):
    """Whatever is computed at a time: one row of queries, some windows, or everything."""
    monkeypatch.setattr(attention_module, "SCORES_IN_CACHE", scores)
    monkeypatch.setattr(attention_module, "SCORES_AT_ONCE", {"cpu": scores})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    encoder, values = build(**options), pixels(2)
    expected = encoder(values)
    assert expected.std() > 0.1
    torch.testing.assert_close(encode(encoder, values), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("queries", [20, 100, 256])
def test_training_equals_segment_anything(monkeypatch, queries):
    """Gradients of every weight too, with blocks recomputed and without."""
    monkeypatch.setattr(attention_module, "LEAST_QUERIES", queries)
    monkeypatch.setattr(attention_module, "SCORES_AT_ONCE", {"cpu": 1})
    encoder, values = build().requires_grad_(True), pixels(1)
    encoder(values).square().sum().backward()
    expected = {name: weight.grad for name, weight in encoder.named_parameters()}
    for checkpointing in (False, True):
        encoder.zero_grad()
        tokens = run_blocks(encoder, embed_patches(encoder, values), range(2), checkpointing=checkpointing)
        project(encoder, tokens).square().sum().backward()
        for name, weight in encoder.named_parameters():
            torch.testing.assert_close(weight.grad, expected[name], atol=1e-3, rtol=1e-3)
    assert expected["blocks.0.attn.rel_pos_h"].abs().max() > 0


@torch.no_grad()
def test_the_ways_agree_on_a_window_of_the_frame():
    encoder, values = build(), pixels(2, grid=9, seed=3)
    plain = encode(encoder, values, (4, 7))
    with torch.enable_grad():
        fused = encode(encoder, values, (4, 7))
    torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-5)
    assert (plain - encode(encoder, values, (0, 0))).abs().max() > 1e-3


@torch.no_grad()
def test_adapters_and_tokens_given_are_left_alone():
    """The second pass starts from tokens that every class shares."""
    encoder = build()
    tokens = embed_patches(encoder, pixels(2))
    before = tokens.clone()
    seen = []
    run_blocks(encoder, tokens, range(2), {0: lambda own: seen.append(own.clone()) or torch.zeros_like(own)})
    assert torch.equal(tokens, before) and torch.equal(seen[0], before)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes, and how many tokens were multiplied with each weight."""

    def __init__(self):
        super().__init__()
        self.elements, self.rows = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not result._is_view():
            self.elements = max(self.elements, result.untyped_storage().nbytes() // result.element_size())
        if func is torch.ops.aten.addmm.default:
            self.rows.add(args[1].shape[0])
        return result


@torch.no_grad()
def test_no_attention_map_is_whole_and_no_padding_is_projected(monkeypatch):
    monkeypatch.setattr(attention_module, "SCORES_IN_CACHE", 2**14)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    encoder = build()
    patches = embed_patches(encoder, pixels(1))
    with Largest() as noted:
        run_blocks(encoder, patches, range(2))
    tokens, heads = 20 * 20, 2
    assert noted.elements < heads * tokens**2 / 4
    # One row of windows after the other; segment_anything projects the 28 * 28 of the padded ones.
    assert noted.rows == {tokens, 14 * 20, 6 * 20}


def test_a_bias_of_further_channels_is_the_bias():
    """What processors with bfloat16 are given, in single precision, on a grid that is not square."""
    draws = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return 3 * torch.randn(2, 3, *shape, generator=draws)

    query, key, value, vertical, horizontal = drawn(4, 6, 8), drawn(24, 8), drawn(24, 8), drawn(4, 6, 4), drawn(4, 6, 6)
    expected = attention_module._fused(query, key, value, vertical, horizontal)
    assert not torch.allclose(attention_module._fused(query, key, value, vertical, horizontal * 0), expected, atol=0.1)
    torch.testing.assert_close(
        attention_module._as_channels(query, key, value, vertical, horizontal), expected, atol=1e-5, rtol=1e-5
    )
