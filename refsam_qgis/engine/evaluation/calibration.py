"""Whether probabilities mean what they say, and the scale and offset of the logits that make them do so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RefSAMError
from ..models.segmenter import BACKGROUND, FOREGROUND

BINS = 15
"""Bins of equal width over 0..1 (Guo et al. 2017)."""

_ITERATIONS = 100
_CONVERGED = 1e-12


def probabilities(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the sigmoid of logits of any shape, 0..1."""
    # By tanh, no logit overflows.
    result: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))
    return result


@dataclass
class Reliability:
    """Compares the probability of the class with how often it is there, pixel by pixel over any number of episodes.

    Attributes:
        counts: Pixels in each bin of probability ``(BINS,)``; bin i reaches from i / BINS to below (i + 1) / BINS.
        positives: Pixels of the class among them.
        sums: Sums of their probabilities.
        squares: Sum of the squared differences of probability and truth over all pixels.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    positives: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    squares: float = 0.0

    def add(self, logits: NDArray[np.float32], label: NDArray[np.uint8]) -> None:
        """Count one image.

        Args:
            logits: ``(H, W)`` log-odds of the class.
            label: ``(H, W)`` of `FOREGROUND` and `BACKGROUND`; pixels of any other value are not counted.

        Raises:
            ValueError: If the shapes differ.
        """
        scores, truth = _counted(logits, label)
        probability = probabilities(scores)
        bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        self.positives += np.bincount(bins[truth], minlength=BINS)
        self.sums += np.bincount(bins, weights=probability, minlength=BINS)
        self.squares += float(np.square(probability - truth).sum())

    def merge(self, other: Reliability) -> None:
        """Count the pixels of another one too."""
        self.counts += other.counts
        self.positives += other.positives
        self.sums += other.sums
        self.squares += other.squares

    @property
    def mean_probability(self) -> NDArray[np.float64]:
        """Mean probability of each bin ``(BINS,)``; NaN where a bin is empty."""
        return _ratio(self.sums, self.counts)

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Share of pixels of the class in each bin ``(BINS,)``; NaN where a bin is empty."""
        return _ratio(self.positives, self.counts)

    @property
    def ece(self) -> float:
        """Expected calibration error, 0..1: mean distance of the bins' probability from their frequency.

        That of the class itself (every pixel's probability of it), not of the winner of class and background; bins
        weigh by their pixels (Guo et al. 2017, eq. 3). NaN before any pixel.
        """
        total = self.counts.sum()
        return float(np.abs(self.sums - self.positives).sum() / total) if total else float("nan")

    @property
    def brier(self) -> float:
        """Brier score, 0..1: mean squared difference of probability and truth. NaN before any pixel."""
        total = self.counts.sum()
        return float(self.squares / total) if total else float("nan")


@dataclass(frozen=True)
class Platt:
    """What makes logits calibrated: probability = sigmoid(scale · logit + offset)."""

    scale: float
    offset: float

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return calibrated logits of the same shape."""
        calibrated: NDArray[np.float32] = (self.scale * logits + self.offset).astype(np.float32)
        return calibrated


class PixelSample:
    """A bounded sample of the pixels of many episodes, the same number from each: large images weigh no more.

    Args:
        per_image: Pixels taken of an image at most.
        seed: Equal seeds and images give equal samples.
    """

    def __init__(self, per_image: int = 2000, seed: int = 0) -> None:
        self._per_image = per_image
        self._rng = np.random.default_rng(seed)
        self._logits: list[NDArray[np.float32]] = []
        self._truth: list[NDArray[np.bool_]] = []

    def add(self, logits: NDArray[np.float32], label: NDArray[np.uint8]) -> None:
        """Sample one image; arguments and errors as of `Reliability.add`."""
        scores, truth = _counted(logits, label)
        chosen = self._rng.permutation(len(scores))[: self._per_image]
        self._logits.append(scores[chosen])
        self._truth.append(truth[chosen])

    def fit(self) -> Platt:
        """Fit a scale and an offset to the pixels sampled so far; errors as of `fit_platt`."""
        return fit_platt(np.concatenate([[], *self._logits]), np.concatenate([np.empty(0, bool), *self._truth]))


def fit_platt(logits: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> Platt:
    """Fit the scale and offset of logits by maximum likelihood (Platt 1999).

    By Newton's method with step halving on Platt's softened targets, which keep the optimum finite even where the
    logits part the classes without error (Lin, Lin and Weng 2007).

    Args:
        logits: ``(N,)`` log-odds.
        truth: ``(N,)`` bool, whether each is of the class.

    Raises:
        RefSAMError: With code ``input`` if class or background is missing: there is nothing to tell apart.
    """
    positive = int(np.count_nonzero(truth))
    negative = len(truth) - positive
    if not positive or not negative:
        raise RefSAMError(
            "input", f"{positive} pixels of the class and {negative} beside it are too few to calibrate; add images."
        )
    targets = np.where(truth, (positive + 1) / (positive + 2), 1 / (negative + 2))
    design = np.stack([logits.astype(np.float64), np.ones(len(logits))], axis=1)
    weights = np.array([0.0, np.log((positive + 1) / (negative + 1))])
    loss = _loss(design @ weights, targets)
    for _ in range(_ITERATIONS):
        probability = probabilities(design @ weights)
        gradient = design.T @ (probability - targets)
        curvature = (design.T * (probability * (1 - probability))) @ design
        step = np.linalg.lstsq(curvature, gradient)[0]  # of equal logits, which tell nothing apart, it is singular
        tried = _loss(design @ (weights - step), targets)
        while tried > loss and np.abs(step).max() > _CONVERGED:
            step = step / 2
            tried = _loss(design @ (weights - step), targets)
        if tried >= loss * (1 - _CONVERGED):
            break
        weights, loss = weights - step, tried
    return Platt(float(weights[0]), float(weights[1]))


def _counted(logits: NDArray[np.float32], label: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Logits and truth of the pixels that count, both ``(N,)``."""
    if logits.shape != label.shape:
        raise ValueError(f"logits {logits.shape} must be resized to the label's shape {label.shape}")
    counted = (label == FOREGROUND) | (label == BACKGROUND)
    return logits[counted], label[counted] == FOREGROUND


def _ratio(numerator: NDArray[Any], count: NDArray[np.int64]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(numerator, count, out=np.full(len(count), np.nan), where=count > 0)
    return ratio


def _loss(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """Cross-entropy summed over the pixels, by a form that no logit overflows."""
    return float((np.logaddexp(0, logits) - targets * logits).sum())
