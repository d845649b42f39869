"""The parts of ViRefSAM that can be left out or placed elsewhere, on small windows of SAM's frame."""

from dataclasses import replace

import pytest
import torch

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.models.config import ViRefSAMConfig
from refsam_qgis.engine.models.decoder import decode
from refsam_qgis.engine.models.encoder import embed_patches, encode, project, run_blocks
from refsam_qgis.engine.models.fitted_prior import FittedMap
from refsam_qgis.engine.models.prototypes import Prototypes
from refsam_qgis.engine.models.pseudo_mask import geometric_prompts
from refsam_qgis.engine.models.virefsam import FrozenEncoding, ViRefSAM
from tests.engine.models.conftest import randomise

DEPTH = 6
SHARED = ViRefSAMConfig(adapted_blocks="last_2", feature_block=3)
"""The pseudo-mask comes from the very tokens that the adapted blocks start from."""


@pytest.fixture
def make(sam):
    """Return a function that builds a variant, by default with its gates and adapters open."""

    def build(config, opened=True):
        torch.manual_seed(1)
        model = ViRefSAM(sam, config).eval()
        if opened:
            randomise(model.vcp, 2)
            randomise(model.dta, 3)
        return model

    return build


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def pooled(features, cells=3):
    """Prototypes from a target's own features, so that the pseudo-mask is neither empty nor full."""
    vectors = features[:, :, 1 : 2 + cells, 5].transpose(1, 2).contiguous()
    return Prototypes(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool))


@torch.no_grad()
def run(model, pixels):
    encoding = model.encode(pixels)
    return model(encoding, pooled(encoding.features))


@pytest.fixture
def count_blocks(sam):
    """Return a function that says how many encoder blocks a call runs."""

    def count(call):
        counted = []
        hooks = [block.norm1.register_forward_hook(lambda *_: counted.append(1)) for block in sam.image_encoder.blocks]
        try:
            call()
        finally:
            for hook in hooks:
                hook.remove()
        return len(counted)

    return count


@pytest.mark.parametrize(
    ("rule", "adapted"),
    [("all", range(6)), ("none", []), ("global", [2, 5]), ("last_1", [5]), ("last_6", range(6))],
)
def test_rules_name_the_adapted_blocks(make, rule, adapted):
    model = make(ViRefSAMConfig(adapted_blocks=rule))
    assert list(model.dta) == [str(block) for block in adapted]


@pytest.mark.parametrize("rule", ["last_0", "last_7", "last_-1", "first_2", ""])
def test_an_unknown_rule_is_refused(make, rule):
    with pytest.raises(RefSAMError, match=f"'{rule}' do not exist in an encoder of 6 blocks") as caught:
        make(ViRefSAMConfig(adapted_blocks=rule))
    assert caught.value.code == "checkpoint"


@pytest.mark.parametrize("block", [-1, 6])
def test_a_feature_block_that_is_not_there_is_refused(make, block):
    with pytest.raises(RefSAMError, match=f"block {block} do not exist"):
        make(ViRefSAMConfig(feature_block=block))


@pytest.mark.parametrize("position_code", [True, False])
@pytest.mark.parametrize("rule", ["all", "none", "global", "last_2"])
def test_untrained_adapters_leave_the_result_of_plain_sam(make, pixels, rule, position_code):
    plain = run(make(ViRefSAMConfig(adapted_blocks="none"), opened=False), pixels)
    # Both draw their prompt encoder first, from the same seed.
    ours = run(make(ViRefSAMConfig(adapted_blocks=rule, position_code=position_code), opened=False), pixels)
    torch.testing.assert_close(ours[0], plain[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_adapters_the_frozen_embedding_is_decoded(make, pixels):
    model = make(ViRefSAMConfig(adapted_blocks="none"))
    frozen = encode(model.sam.image_encoder, pixels)
    prototypes = pooled(frozen)
    position = model.dense_position(frozen.shape[-2:], (0, 0))
    _, pseudo, embeddings = model.vcp(frozen, position, prototypes)
    sparse, dense = geometric_prompts(model.sam, pseudo.logits, 4, 2)
    expected, _ = decode(model.sam, frozen, position, torch.cat([sparse, embeddings], 1), dense)
    torch.testing.assert_close(run(model, pixels)[0], expected[:, 0])


@pytest.mark.parametrize(
    ("config", "blocks"),
    [
        (ViRefSAMConfig(), 2 * DEPTH),
        (ViRefSAMConfig(adapted_blocks="none"), DEPTH),
        (ViRefSAMConfig(adapted_blocks="last_2"), DEPTH + 2),
        (ViRefSAMConfig(adapted_blocks="global"), DEPTH + 4),
        (SHARED, DEPTH),
        (ViRefSAMConfig(feature_block=2), 3 + DEPTH),
        (ViRefSAMConfig(adapted_blocks="none", feature_block=2), DEPTH),
    ],
)
def test_blocks_run_for_a_target(make, pixels, count_blocks, config, blocks):
    model = make(config)
    assert count_blocks(lambda: run(model, pixels)) == blocks


@torch.no_grad()
def test_classes_share_the_attention_of_the_first_adapted_block(make, pixels, count_blocks):
    model = make(ViRefSAMConfig(adapted_blocks="last_2", feature_block=3))
    encoding = model.encode(pixels)
    kept = encoding.attended.clone()
    prototypes = pooled(encoding.features)
    assert count_blocks(lambda: model(encoding, prototypes)) == 1  # the last one
    assert torch.equal(encoding.attended, kept)
    assert model.encode(pixels, only_features=True).attended is None


@pytest.mark.parametrize("origin", [(0, 0), (3, 40)])
@pytest.mark.parametrize(
    "config", [ViRefSAMConfig(adapted_blocks="last_2"), ViRefSAMConfig(adapted_blocks="global"), SHARED]
)
@torch.no_grad()
def test_a_shared_prefix_changes_nothing(make, pixels, config, origin):
    """Reference: the whole second pass from the pixels, and features that are computed for themselves."""
    model = make(config)
    encoder = model.sam.image_encoder
    embedded = embed_patches(encoder, pixels, origin)
    last = DEPTH if config.feature_block is None else config.feature_block + 1
    features = project(encoder, run_blocks(encoder, embedded, range(last)))
    encoding = model.encode(pixels, origin)
    assert torch.equal(encoding.features, features)
    prototypes = pooled(features)
    shared, pseudo, embeddings = model(encoding, prototypes, origin)

    position = model.dense_position(features.shape[-2:], origin)
    refined, _, _ = model.vcp(features, position, prototypes)
    adapters = model.dta.bind(refined.vectors, pseudo.assignment)
    adapted = project(encoder, run_blocks(encoder, embedded, range(DEPTH), adapters))
    assert (adapted - encode(encoder, pixels, origin)).abs().max() > 1e-3
    sparse, dense = geometric_prompts(model.sam, pseudo.logits, 4, 2, origin)
    expected, _ = decode(model.sam, adapted, position, torch.cat([sparse, embeddings], 1), dense)
    torch.testing.assert_close(shared, expected[:, 0], atol=1e-6, rtol=0)

    # Whoever kept no prefix gets the same.
    assert torch.equal(model(FrozenEncoding(pixels, features), prototypes, origin)[0], shared)


def test_adapters_without_position_code_see_the_tokens_alone(make):
    tokens = torch.randn(1, 8, 8, 192, generator=torch.Generator().manual_seed(0))
    vectors = torch.randn(1, 4, 256, generator=torch.Generator().manual_seed(1))
    assignment = torch.arange(64).view(1, 8, 8) % 4
    coded, plain = (make(ViRefSAMConfig(position_code=code)).dta for code in (True, False))
    for adapters, expected in ((coded, False), (plain, True)):
        ours, other = (adapters.bind(vectors, a)[0](tokens) for a in (assignment, 3 - assignment))
        assert ours.abs().max() > 0
        assert torch.equal(ours, other) == expected
    assert not [name for name, _ in plain.named_parameters() if "project" in name]
    first = plain["0"]
    by_hand = torch.relu(tokens @ first.down.weight.T @ first.mix.weight.T + first.down.bias @ first.mix.weight.T
                         + first.mix.bias) @ first.up.weight.T + first.up.bias  # fmt: skip
    torch.testing.assert_close(plain.bind(vectors, assignment)[0](tokens), by_hand, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_without_visual_interaction_prototypes_stay(make, pixels):
    for interaction in (True, False):
        model = make(ViRefSAMConfig(visual_interaction=interaction))
        features = model.encode(pixels).features
        prototypes = pooled(features)
        refined = model.vcp(features, model.dense_position((8, 8), (0, 0)), prototypes)[0]
        assert torch.equal(refined.vectors, prototypes.vectors) != interaction
        assert any("refine" in name for name in model.trainable_state()) == interaction


@torch.no_grad()
def test_without_object_queries_geometry_alone_prompts(make, pixels):
    model = make(ViRefSAMConfig(object_queries=False, adapted_blocks="none"))
    logits, pseudo, embeddings = run(model, pixels)
    assert embeddings.shape == (2, 0, 256)
    frozen = encode(model.sam.image_encoder, pixels)
    sparse, dense = geometric_prompts(model.sam, pseudo.logits, 4, 2)
    expected, _ = decode(model.sam, frozen, model.dense_position((8, 8), (0, 0)), sparse, dense)
    torch.testing.assert_close(logits, expected[:, 0])
    assert not [name for name in model.trainable_state() if "quer" in name or "attention" in name]


def test_each_part_left_out_takes_its_weights_along(make):
    def weights(**changes):
        return sum(value.numel() for value in make(ViRefSAMConfig(**changes), False).trainable_state().values())

    full, attention, norm = weights(), 4 * 256 * 256 + 4 * 256, 2 * 256
    assert full - weights(visual_interaction=False) == attention + norm + 1
    assert full - weights(object_queries=False) == 2 * (attention + norm) + 64 * 256 + 256 * 256 + 256
    # The prototypes' projection, and the half of the mixing that reads it.
    assert full - weights(position_code=False) == DEPTH * (256 * 64 + 64 + 64 * 64)
    assert weights() - weights(adapted_blocks="last_2") == 2 * (weights() - weights(adapted_blocks="last_4"))


def make_prior(rows=32, seed=5):
    """Uneven logits ``(2, 4h, 4w)`` of both signs, in many cells both."""
    return 6 * torch.randn(2, rows, rows, generator=torch.Generator().manual_seed(seed))


def fitted(prior):
    """As a head says it of targets as close as the references themselves."""
    return FittedMap(prior, torch.ones(len(prior)), torch.zeros_like(prior), torch.zeros_like(prior))


@torch.no_grad()
def test_a_prior_is_pseudo_mask_and_assignment(make, pixels):
    model = make(ViRefSAMConfig(visual_interaction=False))
    encoding = model.encode(pixels)
    prototypes = pooled(encoding.features)
    prototypes = replace(prototypes, valid=torch.tensor([[True, True, True, True], [True, False, True, True]]))
    prior = make_prior()
    _, pseudo, _ = model(encoding, prototypes, prior=fitted(prior))
    seen = set()
    for b in range(2):
        for row in range(8):
            for column in range(8):
                cell = prior[b, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                torch.testing.assert_close(pseudo.logits[b, row, column], cell.mean(), atol=1e-5, rtol=1e-4)
                here = encoding.features[b, :, row, column]
                cosines = [
                    torch.dot(v, here) / (v.norm() * here.norm()) if ok else -torch.inf
                    for v, ok in zip(prototypes.vectors[b], prototypes.valid[b], strict=True)
                ]
                expected = 0 if cell.mean() > 0 else 1 + int(torch.tensor(cosines[1:]).argmax())
                assert int(pseudo.assignment[b, row, column]) == expected
                seen.add((b, expected))
    assert {(0, 0), (1, 0)} < seen and (1, 1) not in seen


@torch.no_grad()
def test_a_prior_prompts_at_full_resolution(make, pixels):
    """Reference: SAM's prompt encoder given the prior as its mask."""
    model = make(ViRefSAMConfig(object_queries=False, adapted_blocks="none"))
    encoding = model.encode(pixels)
    prior = make_prior()
    ours, pseudo, _ = model(encoding, pooled(encoding.features), prior=fitted(prior))
    sparse, _ = geometric_prompts(model.sam, pseudo.logits, 4, 2)
    dense = model.sam.prompt_encoder.mask_downscaling(prior[:, None])
    expected, _ = decode(model.sam, encoding.features, model.dense_position((8, 8), (0, 0)), sparse, dense)
    # Untrained, the blend is the mean.
    torch.testing.assert_close(ours, (expected[:, 0] + prior) / 2)
    # Another map of the same cell averages is another prompt.
    turned = prior.view(2, 8, 4, 8, 4).flip(2, 4).reshape(2, 32, 32)
    other, same, _ = model(encoding, pooled(encoding.features), prior=fitted(turned))
    torch.testing.assert_close(same.logits, pseudo.logits, atol=1e-5, rtol=1e-4)
    assert (2 * (other - ours) - (turned - prior)).abs().max() > 1e-3


@torch.no_grad()
def test_a_prior_is_calibrated_before_it_prompts(make, pixels):
    model = make(ViRefSAMConfig())
    encoding = model.encode(pixels)
    prototypes, prior = pooled(encoding.features), make_prior()
    ours, pseudo, embeddings = model(encoding, prototypes, prior=fitted(2.5 * prior - 1))
    torch.nn.init.constant_(model.blend.gain, 2.5)
    torch.nn.init.constant_(model.blend.offset, -1.0)
    calibrated = model(encoding, prototypes, prior=fitted(prior))
    torch.testing.assert_close(calibrated[1].logits, pseudo.logits)
    torch.testing.assert_close(calibrated[2], embeddings)
    torch.testing.assert_close(calibrated[0], ours)


@torch.no_grad()
def test_a_prior_without_background_assigns_the_class(make, pixels):
    model = make(ViRefSAMConfig())
    encoding = model.encode(pixels)
    prototypes = pooled(encoding.features)
    valid = torch.zeros_like(prototypes.valid)
    valid[:, 0] = True
    assert (model(encoding, replace(prototypes, valid=valid), prior=fitted(make_prior()))[1].assignment == 0).all()
