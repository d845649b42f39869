"""Every variant trains what it has, and nothing else."""

from dataclasses import replace

import pytest
import torch

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.models.config import ViRefSAMConfig
from refsam_qgis.engine.models.encoder import run_blocks
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.virefsam import ViRefSAM
from refsam_qgis.engine.training.episodes import EpisodeConfig, Episodes
from refsam_qgis.engine.training.losses import diversity
from refsam_qgis.engine.training.state import TrainingState
from refsam_qgis.engine.training.trainer import TrainerConfig, encode_views, episode_loss, run_episodes, train_adapters

DRAWS = EpisodeConfig(steps=2, batch=2, window=128, shots=(1,), seed=3)
ENCODER = ViRefSAMConfig(adapted_blocks="none")


@pytest.fixture(scope="module")
def batch():
    return Episodes(DRAWS, ())[0]


def fresh(config=None):
    torch.manual_seed(0)
    return ViRefSAM(build_sam("compact"), config)


def generator():
    return torch.Generator().manual_seed(0)


def train(model, path, config, on_step=lambda step, loss: None):
    train_adapters(model, Episodes(DRAWS, ()), DRAWS, config, TrainingState(path), on_step, workers=0)


@pytest.mark.parametrize(
    "config",
    [
        ViRefSAMConfig(),
        ViRefSAMConfig(visual_interaction=False),
        ViRefSAMConfig(object_queries=False),
        ViRefSAMConfig(adapted_blocks="none"),
        ViRefSAMConfig(adapted_blocks="last_2"),
        ViRefSAMConfig(adapted_blocks="global"),
        ViRefSAMConfig(position_code=False),
        ViRefSAMConfig(background_cells=1),
        ViRefSAMConfig(feature_block=2),
        ViRefSAMConfig(adapted_blocks="last_3", feature_block=2),
    ],
)
def test_every_weight_of_a_variant_learns_and_sam_does_not(batch, config):
    model = fresh(config).train()
    episode_loss(model, batch, TrainerConfig(fitted_share=1.0), generator()).backward()
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning == set(model.trainable_state())
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == learning


def test_without_a_fitted_prior_only_the_blend_learns_nothing(batch):
    model = fresh().train()
    episode_loss(model, batch, TrainerConfig(), generator()).backward()
    idle = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    assert idle == {f"blend.{name}" for name, _ in model.blend.named_parameters()}


@pytest.mark.parametrize(
    "config", [ViRefSAMConfig(adapted_blocks="last_3"), ViRefSAMConfig(adapted_blocks="last_3", feature_block=2)]
)
def test_recomputing_blocks_gives_the_same_gradients(batch, config, monkeypatch):
    gradients = []
    for recompute in (False, True):
        model = fresh(config).train()
        for name, weight in model.dta.named_parameters():
            if name.endswith("up.weight"):
                torch.nn.init.normal_(weight, std=0.02)
        monkeypatch.setattr(ViRefSAM, "_checkpoints", lambda *_, on=recompute: on and torch.is_grad_enabled())
        episode_loss(model, batch, TrainerConfig(), generator()).backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-6, rtol=1e-4)
    assert gradients[0]["dta.3.down.weight"].abs().max() > 0


def test_the_shared_prefix_is_encoded_once_in_training(batch, monkeypatch):
    ran = []

    def note(encoder, tokens, blocks, *others, **named):
        ran.extend((block, len(tokens)) for block in blocks)
        return run_blocks(encoder, tokens, blocks, *others, **named)

    monkeypatch.setattr("refsam_qgis.engine.models.virefsam.run_blocks", note)
    run_episodes(fresh(ViRefSAMConfig(adapted_blocks="last_3", feature_block=2)).eval(), batch, None)
    # References reach the features; targets, in the same pass, as far, and from there the end.
    assert ran == [(block, 2) for block in (0, 1, 2, 0, 1, 2, 3, 4, 5)]


def test_diversity_counts_as_configured(batch):
    model = fresh().eval()
    drawn = generator()
    torch.rand((), generator=drawn)  # as the loss does to choose a prior, before it draws the cells of the background
    embeddings = run_episodes(model, batch, drawn)[2]
    losses = [
        episode_loss(model, batch, TrainerConfig(diversity_weight=weight), generator()).item() for weight in (0.0, 0.5)
    ]
    term = diversity(embeddings, model.config.diversity).item()
    assert 0 < term < 0.5  # queries begin apart
    assert losses[1] - losses[0] == pytest.approx(0.5 * term, rel=1e-3)


@pytest.mark.parametrize("changes", [{"object_queries": False}, {"queries": 1}])
def test_no_pair_of_queries_has_no_diversity(batch, changes):
    model = fresh(ViRefSAMConfig(**changes)).eval()
    with_term, without = (
        episode_loss(model, batch, TrainerConfig(diversity_weight=weight), generator()) for weight in (0.2, 0.0)
    )
    assert torch.isfinite(with_term) and torch.equal(with_term, without)


def test_the_encoder_learns_when_asked(tmp_path):
    model, before = fresh(ENCODER), fresh(ENCODER).sam.state_dict()
    train(model, tmp_path / "s.state", TrainerConfig(warmup=1, train_encoder=True))
    changed = {name for name, value in model.sam.state_dict().items() if not torch.equal(value, before[name])}
    parameters = {f"image_encoder.{name}" for name, _ in model.sam.image_encoder.named_parameters()}
    # Some weights, such as biases of keys, have no effect on the result.
    assert changed <= parameters and len(changed) > 0.9 * len(parameters)
    assert not any(weight.requires_grad for weight in model.sam.parameters())


def test_a_trained_encoder_is_in_its_state(tmp_path):
    config = TrainerConfig(warmup=1, train_encoder=True)
    whole, cut, resumed = fresh(ENCODER), fresh(ENCODER), fresh(ENCODER)
    train(whole, tmp_path / "whole.state", config)

    def stop(step, loss):
        raise JobCancelled

    with pytest.raises(JobCancelled):
        train(cut, tmp_path / "cut.state", config, stop)
    train(resumed, tmp_path / "cut.state", config)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_references_teach_the_encoder_too(batch):
    model = fresh(ENCODER).train()
    images = batch["references"].flatten(0, 1)
    assert not encode_views(model, images, (0, 0)).features.requires_grad
    model.sam.image_encoder.requires_grad_(True)
    assert encode_views(model, images, (0, 0)).features.requires_grad
    with torch.no_grad():
        assert not encode_views(model, images, (0, 0)).features.requires_grad


def test_a_state_knows_whether_the_encoder_learned(tmp_path):
    train(fresh(ENCODER), tmp_path / "s.state", TrainerConfig(warmup=1))
    with pytest.raises(RefSAMError, match="other settings"):
        train(fresh(ENCODER), tmp_path / "s.state", replace(TrainerConfig(warmup=1), train_encoder=True))
