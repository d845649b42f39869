"""Calibrating what prior and decoder weigh, against scikit-learn and by what the probabilities then mean."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.virefsam import ViRefSAM
from refsam_qgis.engine.training.calibrate import PENALTY, calibrate, fit_logistic
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


def test_calibration_can_be_stopped(model):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(model, Episodes(EpisodeConfig(steps=1, batch=1, window=128), ()), stop)
