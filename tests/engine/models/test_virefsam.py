"""Properties of the whole model, on small windows of SAM's frame."""

import pytest
import torch

from refsam_qgis.engine.models.decoder import decode
from refsam_qgis.engine.models.encoder import embed_patches, encode, project, run_blocks
from refsam_qgis.engine.models.prototypes import Prototypes
from refsam_qgis.engine.models.pseudo_mask import compute_pseudo_mask, geometric_prompts
from refsam_qgis.engine.models.segmenter import FOREGROUND, IGNORE, Shots
from refsam_qgis.engine.models.virefsam import FrozenEncoding, ViRefSAM, ViRefSAMSegmenter


def pixels(batch, seed):
    return torch.randn(batch, 3, 256, 256, generator=torch.Generator().manual_seed(seed))


def encoding(model, values):
    with torch.no_grad():
        return FrozenEncoding(values, encode(model.sam.image_encoder, values))


def adapt(model, values, vectors, assignment):
    encoder = model.sam.image_encoder
    adapters = model.dta.bind(vectors, assignment)
    return project(encoder, run_blocks(encoder, embed_patches(encoder, values), range(6), adapters))


def prototypes_of(model, values, cells=3):
    """Prototypes pooled from a target's own features, so that the pseudo-mask is neither empty nor full."""
    features = encoding(model, values).features
    vectors = features[..., 2 : 2 + 4 * (cells + 1) : 4, 5].transpose(1, 2)
    return Prototypes(vectors.contiguous(), torch.ones(vectors.shape[:2], dtype=torch.bool))


@torch.no_grad()
def test_zero_initialised_adapters_leave_sam_unchanged(model):
    values = pixels(2, 0)
    prototypes = prototypes_of(model, values)
    target = encoding(model, values)
    pseudo = compute_pseudo_mask(target.features, prototypes, 20.0)
    adapted = adapt(model, values, prototypes.vectors, pseudo.assignment)
    assert (adapted - target.features).abs().max() <= 1e-6


@torch.no_grad()
def test_opened_adapters_change_sam_and_follow_the_prototypes(trained):
    values = pixels(1, 0)
    prototypes = prototypes_of(trained, values)
    target = encoding(trained, values)
    assignment = compute_pseudo_mask(target.features, prototypes, 20.0).assignment
    adapted = adapt(trained, values, prototypes.vectors, assignment)
    other = adapt(trained, values, prototypes.vectors.flip(1), assignment)
    assert (adapted - target.features).abs().max() > 1e-3
    assert (adapted - other).abs().max() > 1e-3


@torch.no_grad()
def test_untrained_refinement_gives_the_training_free_prior(model):
    values = pixels(1, 0)
    target, prototypes = encoding(model, values), prototypes_of(model, values)
    position = model.dense_position(target.features.shape[-2:], (0, 0))
    refined, pseudo, _ = model.vcp(target.features, position, prototypes)
    assert torch.equal(refined.vectors, prototypes.vectors)
    plain = compute_pseudo_mask(target.features, prototypes, model.config.sharpness)
    assert torch.equal(pseudo.logits, plain.logits)


@torch.no_grad()
def test_another_target_changes_the_prompts(trained):
    prototypes = prototypes_of(trained, pixels(1, 0))
    first, second = (trained(encoding(trained, pixels(1, seed)), prototypes) for seed in (0, 1))
    assert (first[2] - second[2]).abs().max() > 1e-3
    assert (first[1].logits - second[1].logits).abs().max() > 1e-3


@torch.no_grad()
def test_permuted_batch_permutes_the_output(trained):
    values = pixels(3, 0)
    prototypes = prototypes_of(trained, values)
    order = torch.tensor([2, 0, 1])
    logits, pseudo, embeddings = trained(encoding(trained, values), prototypes)
    permuted = Prototypes(prototypes.vectors[order], prototypes.valid[order])
    logits_p, pseudo_p, embeddings_p = trained(encoding(trained, values[order]), permuted)
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    torch.testing.assert_close(logits_p, logits[order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pseudo_p.logits, pseudo.logits[order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(embeddings_p, embeddings[order], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_batch_equals_one_by_one(trained):
    values = pixels(2, 0)
    prototypes = prototypes_of(trained, values)
    together = trained(encoding(trained, values), prototypes)[0]
    for i in range(2):
        alone = Prototypes(prototypes.vectors[i : i + 1], prototypes.valid[i : i + 1])
        single = trained(encoding(trained, values[i : i + 1]), alone)[0]
        torch.testing.assert_close(single[0], together[i], atol=1e-4, rtol=1e-4)


def chips(seed=0, shots=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=generator).repeat(shots, 1, 1, 1)
    masks = torch.zeros(shots, 64, 64, dtype=torch.uint8)
    masks[:, 10:30, 12:40] = FOREGROUND
    return Shots(images, masks, torch.ones(shots, 64, 64, dtype=torch.bool))


def test_copies_of_one_shot_equal_one_shot(trained):
    segmenter = ViRefSAMSegmenter(trained)
    target = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    encoded = segmenter.encode(target, torch.ones(1, 64, 64, dtype=torch.bool))
    one = segmenter.segment(encoded, segmenter.describe(chips()))
    three = segmenter.segment(encoded, segmenter.describe(chips(shots=3)))
    assert one.std() > 0
    torch.testing.assert_close(three, one, atol=1e-4, rtol=1e-4)


def test_marking_pixels_as_ignored_removes_their_influence(trained):
    segmenter = ViRefSAMSegmenter(trained)
    shots = chips()
    shots.masks[:, 40:] = IGNORE
    relabelled = chips()
    relabelled.masks[:, 40:] = IGNORE
    described, again = segmenter.describe(shots), segmenter.describe(relabelled)
    assert torch.equal(described.vectors, again.vectors)
    counted = chips()
    assert not torch.equal(segmenter.describe(counted).vectors, described.vectors)


@torch.no_grad()
def test_decoder_pairs_images_with_their_own_prompts(sam):
    """Reference: segment_anything's decoder, one image at a time."""
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(3, 256, 16, 16, generator=generator)
    sparse = torch.randn(3, 5, 256, generator=generator)
    dense = torch.randn(3, 256, 16, 16, generator=generator)
    position = sam.prompt_encoder.get_dense_pe()[..., :16, :16]
    for multimask in (False, True):
        ours = decode(sam, embedding, position, sparse, dense, multimask)
        for i in range(3):
            of_one = (embedding[i : i + 1], position, sparse[i : i + 1], dense[i : i + 1])
            theirs = sam.mask_decoder(*of_one, multimask)
            for mine, expected in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine[i : i + 1], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_geometric_prompts_equal_the_prompt_encoder(sam):
    """Reference: the prompt encoder called with the peak, the box and the mask that the logits imply."""
    logits = torch.full((1, 64, 64), -5.0)
    logits[0, 10:14, 20:26] = 2.0
    logits[0, 12, 22] = 6.0
    sparse, dense = geometric_prompts(sam, logits, positive=1, negative=0)
    points = torch.tensor([[[22.5 * 16 - 0.5, 12.5 * 16 - 0.5]]])
    box = torch.tensor([[20.0 * 16, 10.0 * 16, 26.0 * 16, 14.0 * 16]]) - 0.5
    mask = torch.nn.functional.interpolate(logits[:, None], scale_factor=4, mode="bilinear")
    expected, expected_dense = sam.prompt_encoder(points=(points, torch.ones(1, 1)), boxes=box, masks=mask)
    torch.testing.assert_close(sparse, expected)
    torch.testing.assert_close(dense, expected_dense)


@torch.no_grad()
def test_empty_pseudo_mask_gives_no_points_and_finite_output(trained):
    sparse, _ = geometric_prompts(trained.sam, torch.full((1, 64, 64), -1.0), positive=2, negative=0)
    nothing = trained.sam.prompt_encoder.not_a_point_embed.weight
    torch.testing.assert_close(sparse[0], nothing.expand(4, -1))
    values = pixels(1, 0)
    far = prototypes_of(trained, values)
    far.vectors[:, 0] = -far.vectors[:, 1:].mean(1)
    logits, pseudo, _ = trained(encoding(trained, values), far)
    assert not pseudo.hard.any()
    assert torch.isfinite(logits).all()


def test_only_prompt_encoder_adapters_and_blend_learn(model):
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.startswith(("vcp.", "dta.", "blend.")) for name in learning)
    assert set(model.trainable_state()) == learning


def test_more_shots_do_not_lower_the_pseudo_mask():
    """The best of 45 random cells beats the best of 5; the mean of nine shots' best does not."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 32, 40, 40, generator=generator)
    means = []
    for shots in (1, 9):
        background = torch.randn(1, 5 * shots, 32, generator=generator)
        vectors = torch.cat([torch.ones(1, 1, 32), background], dim=1)
        prototypes = Prototypes(vectors, torch.ones(1, 1 + 5 * shots, dtype=torch.bool), shots)
        means.append(float(compute_pseudo_mask(features, prototypes, 20.0).logits.mean()))
    assert abs(means[1] - means[0]) < 1.0


@torch.no_grad()
def test_a_shot_without_background_does_not_count(model):
    values = pixels(1, 0)
    features = encoding(model, values).features
    one = prototypes_of(model, values)
    nothing = torch.zeros(1, 3, 256)
    two = Prototypes(torch.cat([one.vectors, nothing], 1), torch.cat([one.valid, torch.zeros(1, 3).bool()], 1), 2)
    expected = compute_pseudo_mask(features, one, 20.0)
    ours = compute_pseudo_mask(features, two, 20.0)
    torch.testing.assert_close(ours.logits, expected.logits)
    assert torch.equal(ours.assignment, expected.assignment)


@pytest.mark.parametrize("missing", [True, False])
@torch.no_grad()
def test_invalid_background_cells_never_win(model, missing):
    values = pixels(1, 0)
    features = encoding(model, values).features
    prototypes = prototypes_of(model, values)
    valid = prototypes.valid.clone()
    valid[:, 2] = not missing
    assignment = compute_pseudo_mask(features, Prototypes(prototypes.vectors, valid), 20.0).assignment
    assert bool((assignment == 2).any()) is not missing


def test_vcp_width_matches_published_count():
    from refsam_qgis.engine.models.sam import build_sam

    vcp = ViRefSAM(build_sam("compact")).vcp
    assert sum(p.numel() for p in vcp.parameters()) == 873_216 + 1  # method A3, and the gate
