"""Measures one method on one list of episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.segmenter import ReferenceSegmenter
from .datasets import Dataset
from .episodes import Episode
from .metrics import FewShotMetrics
from .search import Encodings, search_all

OnEpisode = Callable[[Episode, NDArray[np.float32], NDArray[np.uint8]], None]


@dataclass(frozen=True)
class MethodResult:
    """How one method did on one list of episodes.

    Attributes:
        metrics: Accumulated over the episodes.
        episodes: In the order in which they were searched, that of `metrics.episode_ious`.
        seconds_per_reference_set: Mean time that the K references of an episode take, their encodings included.
        seconds_per_image: Mean time of one search in one image, its encoding included.
    """

    metrics: FewShotMetrics
    episodes: tuple[Episode, ...]
    seconds_per_reference_set: float
    seconds_per_image: float


def log_odds(probability: float) -> float:
    """Logit of a probability between 0 and 1."""
    return math.log(probability / (1 - probability))


def evaluate_method(
    segmenter: ReferenceSegmenter,
    dataset: Dataset,
    episodes: Sequence[Episode],
    support: str,
    on_episode: OnEpisode | None = None,
    encodings: Encodings | None = None,
    threshold: float = 0.5,
) -> MethodResult:
    """Run a list of episodes through one method.

    Args:
        segmenter: The method.
        dataset: Where the episodes were drawn from.
        episodes: The list; it is searched query by query, not in its own order.
        support: How the references are marked, one of `job.SUPPORTS`.
        on_episode: Called after each episode with it, its logits ``(H, W)`` float32 and its label ``(H, W)`` uint8.
        encodings: Of this segmenter and data set, to be shared by several lists; ``None`` makes them anew.
        threshold: Probability from which a pixel is marked, between 0 and 1.
    """
    encodings = encodings or Encodings(segmenter, dataset)
    metrics = FewShotMetrics()
    least = log_odds(threshold)
    searched = []
    describing = searching = 0.0
    for episode, found in search_all(encodings, episodes, support):
        label = dataset.read_label(dataset.samples[episode.query], episode.class_id)
        metrics.add(episode.class_id, found.logits - least, label)
        searched.append(episode)
        describing += found.describing_seconds
        searching += found.searching_seconds
        if on_episode is not None:
            on_episode(episode, found.logits, label)
    return MethodResult(metrics, tuple(searched), describing / len(episodes), searching / len(episodes))
