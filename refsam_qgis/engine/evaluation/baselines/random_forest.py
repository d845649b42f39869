"""Random forest on pixel features: what a GIS user would train today from the same marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from ...errors import RefSAMError
from ...models.segmenter import BACKGROUND, FOREGROUND, UNMARKED, Shots
from .pixel_features import pixel_features

MAX_PIXELS = 20_000
"""Training pixels per class sought, half of them of the class where there are as many."""
TREES = 50
MIN_LEAF = 5
"""Training pixels in a leaf at the least; labels are wrong along edges, single pixels are not worth a split."""

_PROBABILITY_FLOOR = 1e-3


@dataclass(frozen=True)
class PixelEncoding:
    """Features ``(B, T, T, 39)`` float32 of target tiles."""

    features: NDArray[np.float32]


class RandomForestSegmenter:
    """A `ReferenceSegmenter` that trains one forest per described class.

    Args:
        seed: Seed of the pixel sample and of the trees.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    def describe(self, shots: Shots, encodings: Sequence[PixelEncoding] = ()) -> RandomForestClassifier:
        """Train on the marked pixels of the references.

        Raises:
            RefSAMError: With code ``reference`` if no pixel is marked as the class.
        """
        features, labels = self._training_pixels(shots)
        if not labels.any():
            raise RefSAMError("reference", "The references mark no pixel of the class; draw larger marks.")
        forest = RandomForestClassifier(
            TREES, min_samples_leaf=MIN_LEAF, class_weight="balanced", n_jobs=-1, random_state=self._seed
        )
        return forest.fit(features, labels)

    def encode(self, images: Tensor, valid: Tensor) -> PixelEncoding:
        """Compute the pixel features of target tiles ``(B, 3, T, T)`` uint8; `valid` does not matter to them."""
        return PixelEncoding(np.stack([_features(image) for image in images]))

    def segment(self, encoding: PixelEncoding, reference: RandomForestClassifier) -> Tensor:
        """Return the log-odds ``(B, T, T)`` float32 of the forest's vote."""
        tiles, height, width, channels = encoding.features.shape
        votes = reference.predict_proba(encoding.features.reshape(-1, channels))
        # A forest that has seen no background knows one class only.
        probability = votes[:, list(reference.classes_).index(True)]
        probability = np.clip(probability, _PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
        logits = np.log(probability / (1 - probability)).astype(np.float32)
        return torch.from_numpy(logits.reshape(tiles, height, width))

    def _training_pixels(self, shots: Shots) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Sample features ``(N, 39)`` and whether each is of the class ``(N,)``, equally from every reference."""
        rng = np.random.default_rng(self._seed)
        quota = max(1, MAX_PIXELS // (2 * len(shots.images)))
        masks = shots.masks.numpy()
        # Unmarked pixels stand in for background only where nothing is known to be background.
        negative = BACKGROUND if (masks == BACKGROUND).any() else UNMARKED
        features, labels = [], []
        for image, mask in zip(shots.images, masks, strict=True):
            found = _features(image)
            for value, is_class in ((FOREGROUND, True), (negative, False)):
                chosen = rng.permutation(np.argwhere(mask == value))[:quota]
                features.append(found[tuple(chosen.T)])
                labels.append(np.full(len(chosen), is_class))
        return np.concatenate(features), np.concatenate(labels)


def _features(image: Tensor) -> NDArray[np.float32]:
    return pixel_features(image.permute(1, 2, 0).cpu().numpy())
