"""Few-shot segmentation metrics as the literature counts them.

Intersections and unions are summed over all episodes before any ratio is formed (VRP-SAM, AgMTR, R2Net, DMNet);
a mean of per-episode IoUs would let small objects and lucky episodes dominate, so it is a diagnostic only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..models.segmenter import BACKGROUND, FOREGROUND


def iou(intersection: int, union: int) -> float:
    """Return the intersection over union, or NaN where the union is empty: nothing was there to be found."""
    return intersection / union if union else math.nan


def mean_defined(values: list[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


@dataclass
class Overlap:
    """Pixels counted so far of one mask pair: in both masks, and in either."""

    intersection: int = 0
    union: int = 0

    def add(self, prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Count one more pair of equally shaped masks."""
        self.intersection += int(np.count_nonzero(prediction & truth))
        self.union += int(np.count_nonzero(prediction | truth))

    @property
    def iou(self) -> float:
        """Intersection over union of all pairs; NaN while the union is empty."""
        return iou(self.intersection, self.union)


@dataclass
class FewShotMetrics:
    """Accumulates episodes.

    Attributes:
        classes: Overlap of each class id, over all its episodes.
        foreground: Overlap of the class sought, over all episodes whatever the class.
        background: Overlap of everything else, over all episodes.
        episode_ious: Foreground IoU of each episode in the order added; diagnostic.
    """

    classes: dict[int, Overlap] = field(default_factory=lambda: defaultdict(Overlap))
    foreground: Overlap = field(default_factory=Overlap)
    background: Overlap = field(default_factory=Overlap)
    episode_ious: list[float] = field(default_factory=list)

    def add(self, class_id: int, logits: NDArray[np.float32], label: NDArray[np.uint8]) -> None:
        """Count one episode.

        Args:
            class_id: The class sought.
            logits: ``(H, W)`` logits at the label's own size; a pixel is of the class where they exceed 0.
            label: ``(H, W)`` of `FOREGROUND` and `BACKGROUND`; pixels of any other value are not counted.

        Raises:
            ValueError: If the shapes differ. Resize the logits, never the label: that would erase small objects.
        """
        if logits.shape != label.shape:
            raise ValueError(f"logits {logits.shape} must be resized to the label's shape {label.shape}")
        counted = (label == FOREGROUND) | (label == BACKGROUND)
        prediction = logits[counted] > 0
        truth = label[counted] == FOREGROUND
        episode = Overlap()
        for overlap in (episode, self.classes[class_id], self.foreground):
            overlap.add(prediction, truth)
        self.background.add(~prediction, ~truth)
        self.episode_ious.append(episode.iou)

    @property
    def class_iou(self) -> dict[int, float]:
        """Intersection over union of each class id seen, in ascending order."""
        return {class_id: self.classes[class_id].iou for class_id in sorted(self.classes)}

    @property
    def miou(self) -> float:
        """Mean IoU over the classes (background is not one of them), 0..1."""
        return mean_defined(list(self.class_iou.values()))

    @property
    def fb_iou(self) -> float:
        """Mean of foreground and background IoU, 0..1."""
        return mean_defined([self.foreground.iou, self.background.iou])

    @property
    def mean_episode_iou(self) -> float:
        """Mean of the episodes' own IoUs, 0..1; diagnostic, not comparable with published numbers."""
        return mean_defined(self.episode_ious)
