"""The development table: what a training is judged by while it is made.

Two sets that training never sees: generated scenes with classes held out, and one real scene held out. Nothing under
the evaluation data is looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..models.virefsam import ViRefSAM
from .episodes import EpisodeConfig, Episodes
from .sources import TEST_CLASSES, Place
from .validation import EpisodeList, class_ious

STREAM = 3
"""Draws of the development episodes are apart from those of training."""


def development_scores(
    model: ViRefSAM, real: Sequence[Place], episodes: int, window: int, seed: int = 0, fitted: bool = False
) -> dict[str, float]:
    """Class-wise accumulated mIoU of full results and of the pseudo-mask alone (method A7).

    Args:
        model: The model.
        real: Places of the held-out real scene; empty where there is none.
        episodes: Episodes of each set.
        window: Side of the views; 1024 is the full frame.
        seed: Seed of the episode list.
        fitted: As for `run_episodes`.

    Returns:
        ``generated``, ``generated_pseudo`` and, with real places, ``real`` and ``real_pseudo``.
    """
    sets = {"generated": generated_episodes(episodes, window, seed)}
    if real:
        sets["real"] = real_episodes(real, episodes, window, seed)
    return mean_ious(model, sets, fitted)


def generated_episodes(episodes: int, window: int, seed: int = 0, shots: int = 1) -> Episodes:
    """Episodes of generated classes that no training asks for; arguments as in `development_scores`."""
    return Episodes(_draws(episodes, window, seed, 0.0, shots), (), sorted(TEST_CLASSES), STREAM)


def real_episodes(real: Sequence[Place], episodes: int, window: int, seed: int = 0, shots: int = 1) -> Episodes:
    """Episodes in real places; arguments as in `development_scores`."""
    return Episodes(_draws(episodes, window, seed, 1.0, shots), real, None, STREAM)


def mean_ious(model: ViRefSAM, sets: Mapping[str, EpisodeList], fitted: bool = False) -> dict[str, float]:
    """Class-wise accumulated mIoU by set: of full results under its name, of the pseudo-mask as ``NAME_pseudo``."""
    scores = {}
    for name, episodes in sets.items():
        full, pseudo = np.mean(list(class_ious(model, episodes, fitted=fitted).values()), axis=0).tolist()
        scores[name] = full
        scores[f"{name}_pseudo"] = pseudo
    return scores


def _draws(episodes: int, window: int, seed: int, real_share: float, shots: int) -> EpisodeConfig:
    return EpisodeConfig(
        steps=episodes, batch=1, window=window, shots=(shots,), real_share=real_share, other_place_share=0.0,
        without_focus_share=0.0, partial_share=0.0, scribble_share=0.0, seed=seed,
    )  # fmt: skip
