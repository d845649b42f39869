"""Runs episodes through one segmenter."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..annotation import simulate
from ..models.segmenter import ReferenceSegmenter, Shots
from .chips import from_square, to_shots, to_square
from .datasets.dataset import Dataset
from .episodes import Episode

CACHE_BYTES = 2 * 2**30
"""Memory for encodings at hand: about 120 of the compact model."""


@dataclass(frozen=True)
class Found:
    """The answer to one episode.

    Attributes:
        logits: ``(H, W)`` float32 at the size of the query.
        describing_seconds: Time that the references take, their K encodings included.
        searching_seconds: Time that the query takes, its encoding included.
    """

    logits: NDArray[np.float32]
    describing_seconds: float
    searching_seconds: float


@dataclass(frozen=True)
class Encoded:
    """What a segmenter made of one chip, and how long that took."""

    encoding: Any
    seconds: float


class Encodings:
    """Encodings of samples; those used last are kept as far as memory goes.

    A time is that of the encoding itself, also where it was at hand.

    Args:
        segmenter: What encodes.
        dataset: The samples.
        capacity: Bytes kept at the most, beside the encoding asked for last.
    """

    def __init__(self, segmenter: ReferenceSegmenter, dataset: Dataset, capacity: int = CACHE_BYTES) -> None:
        self.segmenter = segmenter
        self.dataset = dataset
        self._capacity = capacity
        self._kept: OrderedDict[tuple[int, int], tuple[Encoded, int]] = OrderedDict()
        self._bytes = 0

    def of_query(self, index: int) -> Encoded:
        """Return the encoding of a sample padded to a square of its own longer side."""
        left, top, right, bottom = self.dataset.samples[index].box
        side = max(bottom - top, right - left)
        if (at_hand := self._at_hand(index, side)) is not None:
            return at_hand
        return self._encode(index, *to_square(self.dataset.read_image(self.dataset.samples[index]), side))

    def of_shots(self, supports: Sequence[int], shots: Shots) -> list[Encoded]:
        """Return the encodings of samples as they are padded in `shots`, the chips of `supports`."""
        side = shots.images.shape[-1]
        return [
            self._at_hand(index, side) or self._encode(index, image[None], valid[None])
            for index, image, valid in zip(supports, shots.images, shots.valid, strict=True)
        ]

    def _at_hand(self, index: int, side: int) -> Encoded | None:
        if (index, side) not in self._kept:
            return None
        self._kept.move_to_end((index, side))
        return self._kept[index, side][0]

    def _encode(self, index: int, pixels: Tensor, valid: Tensor) -> Encoded:
        device = self.segmenter.device
        start = time.perf_counter()
        encoding = self.segmenter.encode(pixels.to(device), valid.to(device))
        _wait_for(device)
        encoded = Encoded(encoding, time.perf_counter() - start)
        size = size_of(encoding)
        self._bytes += size
        while self._kept and self._bytes > self._capacity:
            self._bytes -= self._kept.popitem(last=False)[1][1]
        self._kept[index, pixels.shape[-1]] = (encoded, size)
        return encoded


class DerivedEncodings(Encodings):
    """Encodings made of those of another segmenter with the same frozen network, which so runs once for both.

    Args:
        base: Encodings of the other segmenter.
        segmenter: What searches with the derived ones.
        derive: Makes the segmenter's encoding of the other's.
    """

    def __init__(self, base: Encodings, segmenter: ReferenceSegmenter, derive: Callable[[Any], Any]) -> None:
        super().__init__(segmenter, base.dataset)
        self._base = base
        self._derive = derive

    def of_query(self, index: int) -> Encoded:
        """Return the derived encoding of a sample; its time is that of both steps."""
        return self._derived(self._base.of_query(index))

    def of_shots(self, supports: Sequence[int], shots: Shots) -> list[Encoded]:
        """Return the derived encodings of samples, with the time of both steps."""
        return [self._derived(encoded) for encoded in self._base.of_shots(supports, shots)]

    def _derived(self, base: Encoded) -> Encoded:
        start = time.perf_counter()
        encoding = self._derive(base.encoding)
        _wait_for(self.segmenter.device)
        return Encoded(encoding, base.seconds + time.perf_counter() - start)


def size_of(encoding: Any) -> int:
    """Return the bytes of the tensors and arrays in an encoding."""
    if isinstance(encoding, (Tensor, np.ndarray)):
        return encoding.nbytes
    if is_dataclass(encoding):
        return sum(size_of(getattr(encoding, part.name)) for part in fields(encoding))
    if isinstance(encoding, dict):
        return sum(map(size_of, encoding.values()))
    return sum(map(size_of, encoding)) if isinstance(encoding, (list, tuple)) else 0


@torch.inference_mode()
def search_all(encodings: Encodings, episodes: Sequence[Episode], support: str) -> Iterator[tuple[Episode, Found]]:
    """Search each episode's query; episodes come grouped by query, so that each image is encoded once.

    Args:
        encodings: Segmenter and data set.
        episodes: What is sought where.
        support: How the references are marked, one of `job.SUPPORTS`.
    """
    segmenter, dataset = encodings.segmenter, encodings.dataset
    by_query = sorted(episodes, key=lambda episode: episode.query)
    for query, group in itertools.groupby(by_query, key=lambda episode: episode.query):
        left, top, right, bottom = dataset.samples[query].box
        target = encodings.of_query(query)
        for episode in group:
            shots = read_shots(dataset, episode, support)
            at_hand = encodings.of_shots(episode.supports, shots)
            start = time.perf_counter()
            reference = segmenter.describe(shots, [encoded.encoding for encoded in at_hand])
            _wait_for(segmenter.device)
            described = time.perf_counter()
            logits = from_square(segmenter.segment(target.encoding, reference)[0], bottom - top, right - left)
            searching_seconds = time.perf_counter() - described + target.seconds
            describing_seconds = described - start + sum(encoded.seconds for encoded in at_hand)
            yield episode, Found(logits, describing_seconds, searching_seconds)


def read_shots(dataset: Dataset, episode: Episode, support: str) -> Shots:
    """Read the references of an episode; equal samples and classes are marked equally."""
    samples = [dataset.samples[index] for index in episode.supports]
    labels = [dataset.read_label(sample, episode.class_id) for sample in samples]
    masks = [
        simulate(label, support, np.random.default_rng([index, episode.class_id]))
        for label, index in zip(labels, episode.supports, strict=True)
    ]
    return to_shots([dataset.read_image(sample) for sample in samples], masks)


def _wait_for(device: torch.device) -> None:
    """Let the device finish, or the clock would only time the launching."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
