"""Runs episodes through one segmenter."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..annotation import scribble
from ..image_folder import ImageFolder
from ..models.segmenter import ReferenceSegmenter, Shots
from .chips import from_square, to_shots, to_square
from .episodes import Episode


@dataclass(frozen=True)
class Found:
    """The answer to one episode.

    Attributes:
        logits: ``(H, W)`` float32 at the size of the query.
        describing_seconds: Time spent on the references.
        searching_seconds: Time spent on the query, its encoding included.
    """

    logits: NDArray[np.float32]
    describing_seconds: float
    searching_seconds: float


@torch.inference_mode()
def search_all(
    segmenter: ReferenceSegmenter, folder: ImageFolder, episodes: Sequence[Episode], support: str
) -> Iterator[tuple[Episode, Found]]:
    """Search each episode's query; episodes come grouped by query, so that each image is encoded once."""
    by_query = sorted(episodes, key=lambda episode: episode.query)
    for query, group in itertools.groupby(by_query, key=lambda episode: episode.query):
        image = folder.read_image(folder.samples[query])
        height, width = image.shape[:2]
        pixels, valid = to_square(image, max(height, width))
        start = time.perf_counter()
        encoding = segmenter.encode(pixels.to(segmenter.device), valid.to(segmenter.device))
        _wait_for(segmenter.device)
        encoding_seconds = time.perf_counter() - start
        for episode in group:
            shots = read_shots(folder, episode, support)
            start = time.perf_counter()
            reference = segmenter.describe(shots)
            _wait_for(segmenter.device)
            described = time.perf_counter()
            logits = from_square(segmenter.segment(encoding, reference)[0], height, width)
            searching_seconds = time.perf_counter() - described + encoding_seconds
            yield episode, Found(logits, described - start, searching_seconds)


def read_shots(folder: ImageFolder, episode: Episode, support: str) -> Shots:
    """Read the references of an episode; equal episodes give equal scribbles."""
    samples = [folder.samples[index] for index in episode.supports]
    masks = [folder.read_label(sample, episode.class_id) for sample in samples]
    if support == "scribble":
        masks = [
            scribble(mask, np.random.default_rng([index, episode.class_id]), max(mask.shape))
            for mask, index in zip(masks, episode.supports, strict=True)
        ]
    return to_shots([folder.read_image(sample) for sample in samples], masks)


def _wait_for(device: torch.device) -> None:
    """Let a GPU finish its work, so that the clock counts it where it belongs."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
