"""The development table: what a training is judged by while it is made.

Two sets that training never sees: generated scenes with classes held out, and one real scene held out. Nothing under
the evaluation data is looked at here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..models.virefsam import ViRefSAM
from .episodes import EpisodeConfig, Episodes
from .sources import TEST_CLASSES, Place
from .validation import class_ious

STREAM = 3
"""Draws of the development episodes are apart from those of training."""


def development_scores(
    model: ViRefSAM, real: Sequence[Place], episodes: int, window: int, seed: int = 0
) -> dict[str, float]:
    """Class-wise accumulated mIoU of full results and of the pseudo-mask alone (method A7).

    Args:
        model: The model.
        real: Places of the held-out real scene; empty where there is none.
        episodes: Episodes of each set.
        window: Side of the views; 1024 is the full frame.
        seed: Seed of the episode list.

    Returns:
        ``generated``, ``generated_pseudo`` and, with real places, ``real`` and ``real_pseudo``.
    """
    sets = {"generated": Episodes(_draws(episodes, window, seed, 0.0), (), sorted(TEST_CLASSES), STREAM)}
    if real:
        sets["real"] = Episodes(_draws(episodes, window, seed, 1.0), real, None, STREAM)
    scores = {}
    for name, drawn in sets.items():
        full, pseudo = np.mean(list(class_ious(model, drawn).values()), axis=0).tolist()
        scores[name] = full
        scores[f"{name}_pseudo"] = pseudo
    return scores


def _draws(episodes: int, window: int, seed: int, real_share: float) -> EpisodeConfig:
    return EpisodeConfig(
        steps=episodes, batch=1, window=window, shots=(1,), real_share=real_share, other_place_share=0.0,
        without_focus_share=0.0, partial_share=0.0, scribble_share=0.0, seed=seed,
    )  # fmt: skip
