"""Calibrating what prior and decoder weigh, against scikit-learn and by what the probabilities then mean."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.virefsam import ViRefSAM
from refsam_qgis.engine.training import calibrate as calibration
from refsam_qgis.engine.training.calibrate import PARTS, PENALTY, WORTH, calibrate, fit_logistic, held_out_loss
from refsam_qgis.engine.training.episodes import EpisodeConfig, Episodes
from refsam_qgis.engine.training.trainer import fit_priors, run_episodes, target_edges


def test_the_regression_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, 2)) * (3, 1)
    truth = rng.random(4000) < 1 / (1 + np.exp(-(0.7 * values[:, 0] - 1.2 * values[:, 1] - 0.5)))
    ours = fit_logistic(torch.from_numpy(values), torch.from_numpy(truth).double())
    theirs = LogisticRegression(C=1 / PENALTY, tol=1e-8).fit(values, truth)
    np.testing.assert_allclose(ours, [*theirs.coef_[0], theirs.intercept_[0]], atol=1e-3)


def test_separable_values_give_finite_weights():
    values = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=torch.float64)
    weights = fit_logistic(values, torch.tensor([0.0, 0, 1, 1], dtype=torch.float64))
    assert torch.isfinite(weights).all() and weights[0] > 0


def drawn_episodes(count, weights, seed=0):
    """Values and truth of episodes, each of its own length; every column counts as its weight says."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=(int(rng.integers(200, 400)), len(weights))) for _ in range(count)]
    truth = [(rng.random(len(seen)) < 1 / (1 + np.exp(-seen @ np.array(weights)))).astype(float) for seen in values]
    return [torch.from_numpy(seen) for seen in values], [torch.from_numpy(answers) for answers in truth]


def test_the_held_out_loss_is_that_of_scikit_learn():
    values, truth = drawn_episodes(10, (0.7, -1.2, 0.1))
    said = [np.empty(0)] * len(values)
    for part in range(PARTS):
        kept = [index for index in range(len(values)) if index % PARTS != part]
        model = LogisticRegression(C=1 / PENALTY, tol=1e-8).fit(
            np.concatenate([values[i] for i in kept]), np.concatenate([truth[i] for i in kept])
        )
        for index in set(range(len(values))) - set(kept):
            said[index] = model.predict_proba(values[index])[:, 1]
    theirs = log_loss(np.concatenate(truth), np.concatenate(said))
    assert held_out_loss(values, truth) == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize(("weight", "idle"), [(0.0, True), (0.05, True), (1.0, False), (-1.0, False)])
def test_a_decoder_that_hardly_helps_is_idle(weight, idle):
    values, truth = drawn_episodes(12, (weight, 1.5, -0.5))
    assert calibration._decoder_is_idle(values, truth) is idle
    saved = 1 - held_out_loss(values, truth) / held_out_loss([seen[:, 1:] for seen in values], truth)
    assert (saved < WORTH) is idle


def test_too_few_episodes_leave_the_decoder_its_say():
    assert not calibration._decoder_is_idle(*drawn_episodes(PARTS - 1, (0.0, 1.5)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ViRefSAM(build_sam("compact"))


def test_probabilities_mean_what_they_say(model):
    episodes = Episodes(EpisodeConfig(steps=8, batch=1, window=128, shots=(1,), seed=5), ())
    calibrate(model, episodes)
    probabilities, truth = [], []
    for index in range(len(episodes)):
        batch = episodes[index]
        with torch.no_grad():
            logits = run_episodes(model, batch, None, fit_priors(model, batch))[0]
            logits = target_edges(batch).smooth(logits)
        probabilities.append(logits.sigmoid().flatten())
        truth.append(torch.nn.functional.adaptive_avg_pool2d(batch["mask"].float()[:, None], 32).flatten() > 0.5)
    # A logistic regression with an offset matches the mean of what it was fitted to.
    assert torch.cat(probabilities).mean() == pytest.approx(float(torch.cat(truth).float().mean()), abs=0.01)
    assert model.blend.prior_weight > 0


@pytest.mark.parametrize("idle", [False, True])
def test_only_an_idle_decoder_gets_no_say(model, monkeypatch, idle):
    monkeypatch.setattr(calibration, "_decoder_is_idle", lambda values, truth: idle)
    calibrate(model, Episodes(EpisodeConfig(steps=4, batch=1, window=128, shots=(1,), seed=5), ()))
    assert model.blend.asks_decoder is not idle
    assert all(float(weight.detach()) != 0 for name, weight in model.blend.named_parameters() if "prior" in name)


def test_calibration_can_be_stopped(model):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(model, Episodes(EpisodeConfig(steps=1, batch=1, window=128), ()), stop)
