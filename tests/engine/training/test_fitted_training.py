"""Training with a prior that is fitted to the references of each episode."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from refsam_qgis.engine.job import THRESHOLD
from refsam_qgis.engine.models.fit_rules import REGRESSION_ALONE, FitRules
from refsam_qgis.engine.models.fitted_prior import FittedPrior
from refsam_qgis.engine.models.pixel_features import pixel_features
from refsam_qgis.engine.models.pseudo_mask import PseudoMask
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.segmenter import IGNORE, UNMARKED
from refsam_qgis.engine.models.virefsam import ViRefSAM
from refsam_qgis.engine.training import trainer, validation
from refsam_qgis.engine.training.development import mean_ious
from refsam_qgis.engine.training.episodes import EpisodeConfig, Episodes
from refsam_qgis.engine.training.state import TrainingState
from refsam_qgis.engine.training.trainer import (
    FITTED_SHARE,
    TrainerConfig,
    episode_loss,
    fit_priors,
    run_episodes,
    train_adapters,
)
from refsam_qgis.engine.training.validation import class_ious

DRAWS = EpisodeConfig(steps=2, batch=2, window=128, shots=(2,), seed=3)


@pytest.fixture(scope="module")
def batch():
    return Episodes(DRAWS, ())[0]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ViRefSAM(build_sam("compact")).eval()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_each_target_is_asked_of_its_own_references(model, batch):
    priors = fit_priors(model, batch)
    assert priors.values.shape == (2, 32, 32) and not priors.values.requires_grad
    for i in range(2):
        fitter = FittedPrior(model.device)
        head = fitter.fit(pixel_features(batch["references"][i] / 255), batch["reference_masks"][i])
        expected = fitter.map(pixel_features(batch["target"][i : i + 1] / 255), head)
        torch.testing.assert_close(priors.values[i], expected.values[0], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(priors.closeness[i], expected.closeness[0])
    turned = {key: value.flip(0) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    again = fit_priors(model, turned)
    torch.testing.assert_close(again.values, priors.values.flip(0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(again.closeness, priors.closeness.flip(0))


@torch.no_grad()
def test_the_references_answer_for_themselves(model, batch):
    asked = {**batch, "target": batch["references"][:, 0]}
    found = fit_priors(model, asked).values > 0
    masks = batch["reference_masks"][:, 0]
    counted = (masks != IGNORE) & (masks != UNMARKED)
    right = (found.repeat_interleave(4, 1).repeat_interleave(4, 2) == masks.bool()) & counted
    assert right.sum() / counted.sum() > 0.9


@torch.no_grad()
def test_a_fitted_prior_takes_the_place_of_the_cosine(model, batch):
    prior = fit_priors(model, batch)
    cosine, fitted = (run_episodes(model, batch, None, given) for given in (None, prior))
    assert cosine[0].shape == fitted[0].shape and cosine[2].shape == fitted[2].shape
    assert (cosine[0] - fitted[0]).abs().max() > 0.1
    pooled = torch.nn.functional.avg_pool2d(prior.values[:, None], 4)[:, 0]
    torch.testing.assert_close(fitted[1].logits, pooled, atol=1e-4, rtol=1e-4)
    assert torch.equal(fitted[1].cosine, cosine[1].logits) and torch.equal(cosine[1].cosine, cosine[1].logits)
    # The blend has no say over the cosine's results.
    for weight in model.blend.parameters():
        weight.fill_(9)
    again, other = (run_episodes(model, batch, None, given) for given in (None, prior))
    assert torch.equal(again[0], cosine[0]) and torch.equal(again[1].logits, cosine[1].logits)
    torch.testing.assert_close(other[1].logits, 9 * pooled + 9, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_what_tells_class_from_background_counts_as_far_as_the_target_is_close(model, batch):
    prior = fit_priors(model, batch)
    distant = replace(prior, closeness=prior.closeness / 4)
    for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
        model.blend.set(*weights)
        near, far = (run_episodes(model, batch, None, given)[0] for given in (prior, distant))
        assert near.abs().max() > 0.1
        torch.testing.assert_close(far, near / 4)
    model.blend.set(prior=1.0)
    found = run_episodes(model, batch, None, prior)[0]
    torch.testing.assert_close(found, prior.closeness[:, None, None] * prior.values)


@torch.no_grad()
def test_likeness_counts_however_far_the_target_is(model, batch):
    prior = fit_priors(model, batch)
    model.blend.set(likeness=1.0)
    answer, pseudo, _ = run_episodes(model, batch, None, replace(prior, closeness=0 * prior.closeness))
    torch.testing.assert_close(answer.mean((1, 2)), pseudo.likeness.mean((1, 2)), atol=0.02, rtol=0)
    assert pseudo.likeness.abs().max() <= 1 + 1e-5


@pytest.mark.parametrize(("share", "learns"), [(1.0, True), (0.0, False)])
def test_training_reaches_prompt_encoder_adapters_and_the_blend_of_a_fitted_prior(tmp_path, model, share, learns):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = TrainerConfig(warmup=1, fitted_share=share)
    losses = []
    train_adapters(
        model, Episodes(DRAWS, ()), DRAWS, config, TrainingState(tmp_path / "s.state"),
        lambda step, loss: losses.append(loss), workers=0,
    )  # fmt: skip
    assert len(losses) == 2 and all(torch.isfinite(torch.tensor(losses)))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("sam.") for name in changed)
    assert any(name.startswith("vcp.") for name in changed) and any(name.startswith("dta.") for name in changed)
    # Trees and the learned embedding are asked in training where they have a say already; calibration gives it to them.
    blend = {f"blend.{name}" for name, _ in model.blend.named_parameters()}
    blend -= {"blend.trees_weight", "blend.learned_weight"}
    assert changed & {f"blend.{name}" for name, _ in model.blend.named_parameters()} == (blend if learns else set())


@torch.no_grad()
def test_trees_are_grown_where_the_blend_or_the_caller_asks_for_them(model, batch):
    assert not fit_priors(model, batch).votes.any()
    assert fit_priors(model, batch, FitRules()).votes.any()
    model.blend.set(trees=1.0)
    prior = fit_priors(model, batch)
    assert torch.equal(run_episodes(model, batch, None, prior)[0], prior.votes)
    assert not fit_priors(model, batch, REGRESSION_ALONE).votes.any()


@pytest.mark.parametrize("share", [0.0, FITTED_SHARE, 1.0])
def test_the_share_of_batches_is_as_configured(model, batch, share, monkeypatch):
    asked = []

    nowhere = PseudoMask(*[torch.zeros(2, 8, 8)] * 4)

    def note(model, batch, generator, prior):
        asked.append(prior is not None)
        return torch.zeros(2, 32, 32), nowhere, torch.zeros(2, 0, 256)

    monkeypatch.setattr(trainer, "run_episodes", note)
    monkeypatch.setattr(trainer, "fit_priors", lambda model, batch: nowhere)
    for seed in range(300):
        episode_loss(model, batch, TrainerConfig(fitted_share=share), generator(seed))
    assert sum(asked) / len(asked) == pytest.approx(share, abs=0.08 if 0 < share < 1 else 0)
    first = list(asked)
    for seed in range(300):
        episode_loss(model, batch, TrainerConfig(fitted_share=share), generator(seed))
    assert asked == 2 * first


@pytest.mark.parametrize("fitted", [True, False])
def test_validation_measures_the_method_that_it_is_asked_for(model, batch, fitted, monkeypatch):
    """A perfect answer of the method, a wrong one of the other."""
    single = {key: value[:1] for key, value in batch.items() if key != "origin"} | {"origin": (0, 0)}
    truth = 20 * (torch.nn.functional.avg_pool2d(single["mask"].float()[:, None], 4)[:, 0] - 0.5)

    def say(model, batch, generator, prior):
        logits = truth if (prior is not None) == fitted else -truth
        return logits, PseudoMask(logits, logits, logits, logits), None

    smoothed = []
    edges = SimpleNamespace(smooth=lambda logits: smoothed.append(logits) or logits)
    monkeypatch.setattr(validation, "run_episodes", say)
    monkeypatch.setattr(validation, "target_edges", lambda batch: edges)
    ((full, pseudo),) = class_ious(model, [single], fitted=fitted).values()
    assert full == pytest.approx(pseudo, abs=0.05) and full > 0.9
    assert len(smoothed) == fitted  # as a run does with the fitted method
    assert mean_ious(model, {"set": [single]}, fitted) == {"set": full, "set_pseudo": pseudo}
    assert mean_ious(model, {"set": [single]}, not fitted)["set"] < 0.1


def test_validation_sums_the_counted_pixels_of_a_class_over_its_episodes(monkeypatch):
    """Of roofs 30 of 40 pixels and 10 of 40 are found right, of pools 8 of 8; their pseudo-masks find nothing."""
    episodes = []
    for name, found, true in (("roof", 40, 30), ("pool", 8, 8), ("roof", 10, 40)):
        mask, counted, said = torch.zeros(3, 1, 10, 10)
        mask.view(-1)[:true], said.view(-1)[:found], counted.view(-1)[:50] = 1, 1, 1
        mask.view(-1)[50:60], said.view(-1)[60:90] = 1, 1  # which does not count
        episodes.append({"mask": mask > 0, "counted": counted > 0, "classes": [name], "said": 8 * said - 4})

    def say(model, batch, generator, prior):
        nothing = torch.full_like(batch["said"], -1.0)
        return batch["said"], PseudoMask(nothing, nothing, nothing, nothing), None

    monkeypatch.setattr(validation, "run_episodes", say)
    model = SimpleNamespace(eval=lambda: None, device=torch.device("cpu"))
    found = class_ious(model, episodes)
    assert list(found) == ["pool", "roof"]
    assert found["roof"] == (pytest.approx(40 / 80), 0) and found["pool"] == (1, 0)


def test_the_fitted_method_is_validated_where_a_run_cuts(monkeypatch):
    """A pixel at the threshold's probability is just of the class, one below is not."""
    border = math.log(THRESHOLD / (1 - THRESHOLD))
    said = torch.tensor([[[border + 0.01] * 4, [border - 0.01] * 4]]).repeat_interleave(2, 1)
    batch = {"mask": said > border, "counted": torch.ones(1, 4, 4, dtype=torch.bool), "classes": ["roof"]}
    monkeypatch.setattr(validation, "fit_priors", lambda model, batch: "prior")
    monkeypatch.setattr(validation, "target_edges", lambda batch: SimpleNamespace(smooth=lambda logits: logits))
    monkeypatch.setattr(
        validation, "run_episodes", lambda model, batch, generator, prior: (said, PseudoMask(*[said] * 4), None)
    )
    model = SimpleNamespace(eval=lambda: None, device=torch.device("cpu"))
    assert class_ious(model, [batch], fitted=True)["roof"][0] == 1
