"""Random forests on pixel features: what a GIS user would train today from the same marks.

Two forests share the work, since each alone errs in its own way: trained on as many pixels of the class as of
background, a forest marks too much; trained on the frequencies of the references, it is too cautious where the class
is rare or its marks are few. The answer is their mean, smoothed so that single pixels do not decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from ...models.segmenter import FOREGROUND, Shots, encode_each
from .marked_pixels import background_value, require_class
from .pixel_features import pixel_features

MAX_PIXELS = 20_000
"""Training pixels of each forest, drawn in equal number from every reference."""
TREES = 50
"""Trees of each forest."""
TREE_PIXELS = 5_000
"""Pixels that each tree draws of them; trees that see all of them are slower and, labels being wrong here and there, no
better."""
MIN_LEAF = 5
"""Training pixels in a leaf at the least; labels are wrong along edges, single pixels are not worth a split."""
SMOOTHING = 3.0
"""Standard deviation in pixels of the Gaussian over the probabilities."""

_PROBABILITY_FLOOR = 1e-3


@dataclass(frozen=True)
class PixelEncoding:
    """What a forest sees of B tiles.

    Attributes:
        features: ``(B, T, T, 39)`` float16 (which rounds to an eighth of a grey level at most, in half the memory).
        valid: ``(B, T, T)`` bool.
    """

    features: NDArray[np.float16]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class MarkedReference:
    """One reference to train on.

    Attributes:
        features: ``(T, T, 39)`` float16.
        of_class: Rows and columns ``(N, 2)`` of the pixels of the class, in random order.
        others: Rows and columns ``(M, 2)`` of those of background, in random order.
    """

    features: NDArray[np.float16]
    of_class: NDArray[np.int64]
    others: NDArray[np.int64]


@dataclass(frozen=True)
class Forests:
    """The forests of one class.

    Attributes:
        balanced: Trained on as much of the class as of background.
        natural: Trained on the frequencies of the references.
    """

    balanced: RandomForestClassifier
    natural: RandomForestClassifier


class RandomForestSegmenter:
    """A `ReferenceSegmenter` that trains two forests per described class.

    Args:
        seed: Seed of the pixel samples and of the trees.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    def describe(self, shots: Shots, encodings: Sequence[PixelEncoding] = ()) -> Forests:
        """Train on the marked pixels of the references.

        Raises:
            RefSAMError: With code ``reference`` if no pixel is marked as the class.
        """
        require_class(shots.masks)
        negative = background_value(shots.masks)
        rng = np.random.default_rng(self._seed)
        references = []
        for encoding, mask in zip(encode_each(self.encode, shots, encodings), shots.masks.numpy(), strict=True):
            of_class, others = (rng.permutation(np.argwhere(mask == value)) for value in (FOREGROUND, negative))
            references.append(MarkedReference(encoding.features[0], of_class, others))
        return Forests(
            self._train(references, balanced_counts, "balanced"), self._train(references, natural_counts, None)
        )

    def encode(self, images: Tensor, valid: Tensor) -> PixelEncoding:
        """Compute the pixel features of target tiles ``(B, 3, T, T)`` uint8."""
        inside = valid.cpu().numpy()
        return PixelEncoding(np.stack([_features(i, v) for i, v in zip(images, inside, strict=True)]), inside)

    def segment(self, encoding: PixelEncoding, reference: Forests) -> Tensor:
        """Return the log-odds ``(B, T, T)`` float32 of the smoothed mean of the forests' votes."""
        probability = np.zeros(encoding.valid.shape, np.float32)
        if encoding.valid.any():
            features = encoding.features[encoding.valid].astype(np.float32)
            votes = [_vote(forest, features) for forest in (reference.balanced, reference.natural)]
            probability[encoding.valid] = np.mean(votes, axis=0)
        smooth = np.stack([smoothed(p, v) for p, v in zip(probability, encoding.valid, strict=True)])
        smooth = smooth.clip(_PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
        return torch.from_numpy(np.log(smooth / (1 - smooth)))

    def _train(
        self,
        references: Sequence[MarkedReference],
        counts: Callable[[int, int, int], tuple[int, int]],
        class_weight: str | None,
    ) -> RandomForestClassifier:
        features, labels = [], []
        for reference in references:
            of_class, others = counts(len(reference.of_class), len(reference.others), MAX_PIXELS // len(references))
            chosen = np.concatenate([reference.of_class[:of_class], reference.others[:others]])
            features.append(reference.features[tuple(chosen.T)].astype(np.float32))
            labels.append(np.arange(len(chosen)) < of_class)
        forest = RandomForestClassifier(
            TREES,
            max_samples=min(TREE_PIXELS, sum(map(len, labels))),
            min_samples_leaf=MIN_LEAF,
            class_weight=class_weight,
            n_jobs=-1,
            random_state=self._seed,
        )
        return forest.fit(np.concatenate(features), np.concatenate(labels))


def balanced_counts(of_class: int, others: int, quota: int) -> tuple[int, int]:
    """How many pixels of the class and of background to take of a reference, half and half where there are as many."""
    return min(of_class, quota // 2), min(others, quota // 2)


def natural_counts(of_class: int, others: int, quota: int) -> tuple[int, int]:
    """How many pixels of the class and of background to take of a reference in its own proportions.

    A class too rare for that keeps one pixel, so that no forest is without.
    """
    total = of_class + others
    size = min(total, quota)
    share = round(size * of_class / total) if total else 0
    wanted = max(share, min(of_class, 1))
    return wanted, size - wanted


def smoothed(probability: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Smooth probabilities by a Gaussian that takes nothing from invalid pixels or from beyond the tile.

    Args:
        probability: ``(T, T)`` float32 in 0..1; 0 where invalid.
        valid: ``(T, T)`` bool.

    Returns:
        ``(T, T)`` float32 in 0..1; 0 where invalid.
    """
    near = ndimage.gaussian_filter(probability, SMOOTHING, mode="constant")
    weight = ndimage.gaussian_filter(valid.astype(np.float32), SMOOTHING, mode="constant")
    smooth: NDArray[np.float32] = np.divide(near, weight, out=np.zeros_like(near), where=valid)
    return smooth


def _vote(forest: RandomForestClassifier, features: NDArray[np.float32]) -> NDArray[np.float64]:
    # A forest that has seen no background knows one class only.
    votes: NDArray[np.float64] = forest.predict_proba(features)[:, list(forest.classes_).index(True)]
    return votes


def _features(image: Tensor, valid: NDArray[np.bool_]) -> NDArray[np.float16]:
    """Features of the part of a tile that holds an image; filters reflect at its border rather than see padding."""
    pixels = image.permute(1, 2, 0).cpu().numpy()
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    if not len(rows):
        rows = columns = np.arange(1)
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    found = pixel_features(pixels[part])
    features = np.zeros((*valid.shape, found.shape[-1]), np.float16)
    features[part] = found
    return features
