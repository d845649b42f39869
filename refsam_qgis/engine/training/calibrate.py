"""Stage 3: what decoder, fits and prototypes each weigh in the answer, so that its probabilities are honest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, Dataset

from ..models.blend import enlarge
from ..models.fit_rules import FitRules
from ..models.sam import INPUT_SIZE
from ..models.virefsam import ViRefSAM
from .batch import to_device
from .episodes import EpisodeConfig, Episodes
from .other_sensors import OtherSensorEpisodes
from .sources import CALIBRATION_CLASSES, Place
from .trainer import fit_priors, run_episodes, target_edges
from .validation import EpisodeList

STREAM = 5
"""Draws of the calibration episodes are apart from those of training, development and validation."""
PLAIN = EpisodeConfig(
    batch=1, window=INPUT_SIZE, shots=(1,), other_place_share=0.0, without_focus_share=0.15, partial_share=0.15,
    scribble_share=0.25, recolour=0.0,
)  # fmt: skip
"""References in their own colours, marked in full, in part or by scribbles; and tiles as large as a run's."""
SEVERAL = 5
"""References of those further episodes that have several: what is fitted to them means more than with one."""
PIXELS = 2000
"""Pixels of an episode that take part."""
ROUNDS = 20
"""Newton's steps at most."""
PENALTY = 1e-3
"""Keeps the weights finite where one of the two tells everything."""
PARTS = 4
"""Parts of the episodes that take turns in being held out, when asked whether the decoder is worth asking."""
WORTH = 0.01
"""Share of the held-out loss that the decoder has to save: asking it takes more than half of the time of a class."""


def calibration_episodes(
    places: Sequence[Place],
    count: int,
    window: int,
    real_share: float,
    seed: int,
    other_sensors: int = 0,
    support: Sequence[Place] = (),
) -> ConcatDataset[dict[str, Any]]:
    """Draw plain episodes, half within a place, half across two; and a quarter as many with several references.

    Args:
        places: Real places; generated ones are drawn besides.
        count: Number of episodes with one reference.
        window: Side of the views in input pixels.
        real_share: Share of the episodes in real places.
        seed: Of every draw; the five after it are used too.
        other_sensors: Further episodes with one reference, of another sensor than the target, where there are places.
        support: Real places that references of another scene may come from; `places` by default.
    """
    plain = replace(PLAIN, window=window, real_share=real_share, seed=seed)
    several = replace(plain, shots=(SEVERAL,), seed=seed + 3)
    return ConcatDataset(
        [
            *_within_and_across(plain, places, support or places, count, other_sensors),
            *_within_and_across(several, places, support or places, count // 4, other_sensors // 4),
        ]
    )


def _within_and_across(
    config: EpisodeConfig, places: Sequence[Place], support: Sequence[Place], count: int, other_sensors: int
) -> Iterator[Dataset[dict[str, Any]]]:
    within = replace(config, steps=count - count // 2)
    across = replace(config, steps=count // 2, other_place_share=1.0, seed=config.seed + 1)
    # Of generated classes, those that the learned embedding was not taught.
    generated = sorted(CALIBRATION_CLASSES)
    yield Episodes(within, places, generated, STREAM)
    yield Episodes(across, places, generated, STREAM, support)
    if places and other_sensors:
        apart = replace(config, steps=other_sensors, without_focus_share=0.5, seed=config.seed + 2)
        yield OtherSensorEpisodes(apart, places, stream=STREAM)


@torch.no_grad()
def calibrate(model: ViRefSAM, episodes: EpisodeList, check: Callable[[], None] = lambda: None, seed: int = 0) -> None:
    """Set the weights of `model.blend` by logistic regression on episodes (Platt 1999, with several values for one).

    Their pixels are taken at their natural frequency, targets without the class among them, so that of the pixels given
    a probability p about p are of the class. A decoder that hardly helps with held-out episodes gets no say. A blend
    that is calibrated stays if new weights, learned from other episodes, answer held-out ones no better: a few episodes
    are no match for the many that it may be of.

    Args:
        model: Its blend is changed.
        episodes: None that the model is measured on.
        check: Called before each episode; may raise to stop.
        seed: Of the choice of pixels.
    """
    model.eval()
    before = torch.stack([weight.detach() for weight in model.blend.weights]).cpu().double()
    was_calibrated = model.blend.is_calibrated
    model.blend.set(decoded=1.0)  # to see what the decoder draws by itself, as far as it is trusted
    generator = torch.Generator().manual_seed(seed)
    values, truth = [], []
    for index in range(len(episodes)):
        check()
        batch = to_device(episodes[index], model.device)
        prior = fit_priors(model, batch, FitRules())
        decoded, pseudo, _ = run_episodes(model, batch, None, prior)
        closeness = prior.closeness[:, None, None]
        trusted = closeness * model.blend.calibrate(prior.values), closeness * enlarge(pseudo.cosine, decoded)
        maps = (decoded, *trusted, enlarge(pseudo.likeness, decoded), prior.votes, prior.learned)
        # The smoothed sum of them, which is the answer, is the sum of them smoothed.
        edges = target_edges(batch)
        terms = torch.stack([edges.smooth(values) for values in maps], dim=-1)
        seen = terms.cpu().double().flatten(0, 2)
        target = shrink(batch["mask"], decoded)
        chosen = draw_pixels(shrink(batch["counted"], decoded) > 0.5, generator)
        values.append(seen[chosen])
        truth.append((target[chosen] > 0.5).double())
    every, answers = torch.cat(values), torch.cat(truth)
    if was_calibrated and _is_as_good(before, values, truth):
        model.blend.set(*before.tolist())
    elif _decoder_is_idle(values, truth):
        model.blend.set(0.0, *fit_logistic(every[:, 1:], answers).tolist())
    else:
        model.blend.set(*fit_logistic(every, answers).tolist())


def _is_as_good(weights: Tensor, values: list[Tensor], truth: list[Tensor]) -> bool:
    """Whether weights ``(M + 1,)`` answer episodes no worse than weights that are learned from other ones of them.

    Args:
        weights: Learned from none of the episodes.
        values: ``(N, M)`` of each episode.
        truth: ``(N,)`` of each episode.
    """
    if len(values) < PARTS:
        return False
    said = torch.cat(values) @ weights[:-1] + weights[-1]
    loss = F.binary_cross_entropy_with_logits(said, torch.cat(truth))
    return float(loss) <= held_out_loss(values, truth)


def _decoder_is_idle(values: list[Tensor], truth: list[Tensor]) -> bool:
    """Whether held-out episodes are answered about as well without the decoder.

    Args:
        values: ``(N, M)`` of each episode, the decoder's first.
        truth: ``(N,)`` of each episode.
    """
    if len(values) < PARTS:
        return False
    without = held_out_loss([seen[:, 1:] for seen in values], truth)
    return without <= held_out_loss(values, truth) / (1 - WORTH)


def held_out_loss(values: list[Tensor], truth: list[Tensor]) -> float:
    """Mean cross-entropy of episodes whose weights were fitted to other ones; arguments as for `fit_logistic`, listed.

    Every `PARTS`-th episode is held out together.
    """
    losses = []
    for part in range(PARTS):
        kept = [index for index in range(len(values)) if index % PARTS != part]
        weights = fit_logistic(torch.cat([values[i] for i in kept]), torch.cat([truth[i] for i in kept]))
        said = torch.cat(values[part::PARTS]) @ weights[:-1] + weights[-1]
        losses.append(F.binary_cross_entropy_with_logits(said, torch.cat(truth[part::PARTS]), reduction="sum"))
    return float(torch.stack(losses).sum()) / sum(map(len, truth))


def fit_logistic(values: Tensor, truth: Tensor) -> Tensor:
    """Logistic regression by Newton's method.

    Args:
        values: ``(N, M)`` float64.
        truth: ``(N,)`` float64 of 0 and 1.

    Returns:
        ``(M + 1,)``: the weights, and the offset last.
    """
    design = torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
    penalty = torch.full((design.shape[1],), PENALTY, dtype=design.dtype)
    weights = torch.zeros(design.shape[1], dtype=design.dtype)
    for _ in range(ROUNDS):
        probability = (design @ weights).sigmoid()
        slope = design.T @ (probability - truth) + penalty * weights
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + torch.diag(penalty)
        step = torch.linalg.solve(curvature, slope)
        weights = weights - step
        if float(step.abs().max()) < 1e-6:
            break
    return weights


def draw_pixels(counted: Tensor, generator: torch.Generator) -> Tensor:
    """Indices of some of the pixels ``(N,)`` that count."""
    places = torch.nonzero(counted)[:, 0]
    return places[torch.randperm(len(places), generator=generator)[:PIXELS]]


def shrink(mask: Tensor, like: Tensor) -> Tensor:
    """Shares of a mask ``(B, S, S)`` in pixels of logits ``(B, h, w)``, flat."""
    return F.adaptive_avg_pool2d(mask.cpu().double()[:, None], like.shape[-1]).flatten()
