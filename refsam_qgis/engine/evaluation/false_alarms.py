"""What a method marks where there is nothing to find."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import RefSAMError
from ..image_folder import Sample
from ..models.segmenter import BACKGROUND, FOREGROUND
from .datasets import Dataset
from .episodes import Episode
from .measure import log_odds

QUIET = 0.01
"""A target counts as quiet when a smaller share of its pixels than this is marked."""


@dataclass
class FalseAlarms:
    """What was marked on targets that hold none of the class sought.

    Attributes:
        threshold: Probability from which a pixel is marked, between 0 and 1.
        shares: Share of the labelled pixels of each target that were marked, 0..1, in the order added.
    """

    threshold: float = 0.5
    shares: list[float] = field(default_factory=list)

    def add(self, logits: NDArray[np.float32], label: NDArray[np.uint8]) -> None:
        """Count one target.

        Args:
            logits: ``(H, W)`` logits; a pixel is marked where its probability exceeds the threshold.
            label: ``(H, W)`` of `BACKGROUND`; pixels of any other value are not counted.

        Raises:
            ValueError: If there is `FOREGROUND` in the label, or no background.
        """
        if (label == FOREGROUND).any() or not (label == BACKGROUND).any():
            raise ValueError("the target must be labelled and hold none of the class")
        self.shares.append(float((logits[label == BACKGROUND] > log_odds(self.threshold)).mean()))

    @property
    def mean_share(self) -> float:
        """Mean share of pixels marked, 0..1."""
        return float(np.mean(self.shares))

    @property
    def quiet(self) -> float:
        """Share of the targets on which next to nothing is marked, 0..1."""
        return float(np.mean(np.array(self.shares) < QUIET))


class Pairing:
    """References of one data set and targets of another, as one `Dataset` without a pixel to find in the targets.

    Args:
        references: Gives the classes; its samples come first.
        targets: Its samples follow.
    """

    def __init__(self, references: Dataset, targets: Dataset) -> None:
        self._references = references
        self._targets = targets
        self._of_targets = frozenset(targets.samples)

    @property
    def names(self) -> dict[int, str]:
        """Classes of the references."""
        return self._references.names

    @property
    def samples(self) -> tuple[Sample, ...]:
        """References, then targets."""
        return (*self._references.samples, *self._targets.samples)

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """Return the pixels ``(H, W, 3)`` uint8 RGB of a sample."""
        return (self._targets if sample in self._of_targets else self._references).read_image(sample)

    def read_label(self, sample: Sample, class_id: int) -> NDArray[np.uint8]:
        """Return the label ``(H, W)`` uint8 of a class of the references; a target has no `FOREGROUND`."""
        if sample not in self._of_targets:
            return self._references.read_label(sample, class_id)
        label = self._targets.read_label(sample, class_id)  # the number may mean another class here
        return np.where(label == FOREGROUND, np.uint8(BACKGROUND), label)


def draw_empty_episodes(
    references: Dataset, targets: Dataset, count: int, seed: int, absent: Collection[str] = ()
) -> tuple[Dataset, list[Episode]]:
    """Draw one-shot episodes whose targets hold not a single pixel of the class sought.

    The targets are walked in shuffled order, again and again until there are enough episodes; each walk picks one of
    the classes that the target lacks, and a reference of another source.

    Args:
        references: Where references are taken from.
        targets: Where targets are taken from; may be the same. Classes are those of equal name.
        count: Number of episodes.
        seed: Equal seeds give equal lists.
        absent: Names of classes that `targets` does not label, but that are known to be nowhere in it.

    Returns:
        What the episodes' indices mean, and the episodes.

    Raises:
        RefSAMError: With code ``input`` if no target lacks a class that a reference of another source shows.
    """
    holders = {
        class_id: [i for i, sample in enumerate(references.samples) if class_id in sample.classes]
        for class_id in references.names
    }
    lacking = {}
    for index, target in enumerate(targets.samples):
        classes = [
            class_id
            for class_id, name in references.names.items()
            if any(references.samples[i].source != target.source for i in holders[class_id])
            and _lacks(targets, target, name, absent)
        ]
        if classes:
            lacking[index] = classes
    if not lacking:
        names = ", ".join(references.names.values())
        raise RefSAMError(
            "input", f"No image of '{targets.samples[0].image.parent}' is known to lack {names}; add one that does."
        )
    rng = random.Random(seed)
    walk: list[int] = []
    while len(walk) < count:
        walk += rng.sample(list(lacking), len(lacking))
    dataset = references if targets is references else Pairing(references, targets)
    first = len(dataset.samples) - len(targets.samples)
    episodes = []
    for index in walk[:count]:
        class_id = rng.choice(lacking[index])
        source = targets.samples[index].source
        support = rng.choice([i for i in holders[class_id] if references.samples[i].source != source])
        episodes.append(Episode(class_id, first + index, (support,)))
    return dataset, episodes


def _lacks(targets: Dataset, target: Sample, name: str, absent: Collection[str]) -> bool:
    """Whether a target is labelled and holds no pixel of a class."""
    ids = [class_id for class_id, own in targets.names.items() if own == name]
    if any(class_id in target.classes for class_id in ids) or not (ids or name in absent):
        return False
    label = targets.read_label(target, ids[0] if ids else next(iter(targets.names)))
    return bool((label == BACKGROUND).any()) and not (ids and (label == FOREGROUND).any())
