"""Calibrating what prior and decoder weigh, against scikit-learn and by what the probabilities then mean."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from refsam_qgis.engine.models.blend import PriorBlend
from refsam_qgis.engine.models.fitted_prior import FittedMap
from refsam_qgis.engine.models.pseudo_mask import PseudoMask
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
    theirs = LogisticRegression(C=1 / PENALTY, tol=1e-10).fit(values, [0, 0, 1, 1])
    np.testing.assert_allclose(weights, [theirs.coef_[0, 0], 0], rtol=1e-3, atol=1e-6)


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


@pytest.mark.parametrize(("weights", "good"), [((1.5, -0.5), True), ((-0.5, 1.5), False), ((0.0, 0.0), False)])
def test_weights_that_are_there_stay_where_new_ones_are_no_better(weights, good):
    """Those that the truth was drawn by answer a few episodes better than weights that are learned from the others."""
    values, truth = drawn_episodes(12, (1.5, -0.5))
    said = torch.cat(values) @ torch.tensor(weights, dtype=torch.float64)
    own = log_loss(torch.cat(truth), said.sigmoid())
    before = torch.tensor([*weights, 0.0], dtype=torch.float64)
    assert calibration._is_as_good(before, values, truth) is good is bool(own <= held_out_loss(values, truth))


def test_too_few_episodes_say_nothing_of_the_weights_that_are_there():
    assert not calibration._is_as_good(torch.tensor([1.5, -0.5, 0.0]).double(), *drawn_episodes(PARTS - 1, (1.5, -0.5)))


@pytest.mark.parametrize("good", [False, True])
def test_calibration_keeps_what_is_as_good(model, monkeypatch, good):
    seen = []
    monkeypatch.setattr(calibration, "_is_as_good", lambda weights, *_: seen.append(weights.tolist()) or good)
    model.blend.set(0.5, 0.25, 0.125, 2.0, 0.0, 1.0, -2.0)
    calibrate(model, Episodes(EpisodeConfig(steps=4, batch=1, window=128, shots=(1,), seed=5), ()))
    assert seen == [[0.5, 0.25, 0.125, 2.0, 0.0, 1.0, -2.0]]
    assert ([float(weight.detach()) for weight in model.blend.weights] == seen[0]) is good


def test_a_blend_that_was_never_calibrated_does_not_stay(model, monkeypatch):
    monkeypatch.setattr(calibration, "_is_as_good", lambda *_: True)
    before = [float(weight.detach()) for weight in model.blend.weights]
    calibrate(model, Episodes(EpisodeConfig(steps=4, batch=1, window=128, shots=(1,), seed=5), ()))
    assert [float(weight.detach()) for weight in model.blend.weights] != before and model.blend.is_calibrated


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


def numbers(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pixels", [2000, 5])
def test_what_is_weighed_is_what_a_run_adds_up(monkeypatch, pixels):
    """Smoothed maps, as far as a target is close, of the pixels that count; the decoder by itself."""
    decoded, fitted, votes, learned = (numbers(seed, 1, 8, 8) for seed in range(4))
    coarse = numbers(4, 2, 1, 8, 8)
    blend = PriorBlend()
    torch.nn.init.constant_(blend.gain, 1.5)

    def decode(model, batch, generator, prior):
        weights = (blend.decoded_weight, blend.prior_weight, blend.cosine_weight, blend.likeness_weight,
                   blend.trees_weight, blend.learned_weight, blend.shift)  # fmt: skip
        assert [float(weight) for weight in weights] == [1, 0, 0, 0, 0, 0, 0]
        return decoded, PseudoMask(coarse[0], coarse[0], coarse[1], coarse[0]), None

    given = []
    monkeypatch.setattr(calibration, "PIXELS", pixels)
    monkeypatch.setattr(calibration, "run_episodes", decode)
    monkeypatch.setattr(calibration, "fit_priors", lambda *_: FittedMap(fitted, torch.tensor([0.5]), votes, learned))
    monkeypatch.setattr(calibration, "target_edges", lambda batch: SimpleNamespace(smooth=lambda values: values - 7))
    monkeypatch.setattr(calibration, "_decoder_is_idle", lambda values, truth: False)
    monkeypatch.setattr(calibration, "fit_logistic", lambda *found: given.append(found) or torch.arange(7.0))
    mask, counted = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    mask[:, :, :7] = counted[:, 4:] = True  # a column of cells that is half of the class
    model = SimpleNamespace(blend=blend, eval=lambda: None, device=torch.device("cpu"))
    calibrate(model, [{"mask": mask, "counted": counted}] * 2)
    assert [float(value) for value in (blend.decoded_weight, blend.learned_weight, blend.shift)] == [0, 5, 6]
    ((values, truth),) = given
    terms = torch.stack([decoded, 0.75 * fitted, 0.5 * coarse[0], coarse[1], votes, learned], dim=-1)[0] - 7
    expected = {tuple(row.tolist()): column < 3 for column in range(8) for row in terms[2:, column].double()}
    assert len(values) == 2 * min(pixels, 48)
    for row, said in zip(values, truth, strict=True):
        (same,) = (key for key in expected if np.allclose(key, row, atol=1e-5))
        assert bool(said) is expected[same]


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
