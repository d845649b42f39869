"""How often each class was taken for which."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .layers import IGNORE
from .metrics import iou, mean_defined


class Confusion:
    """Counts pixels by true and found class.

    Args:
        classes: Number of classes C beside the background.

    Attributes:
        counts: ``(C + 1, C + 1)`` pixels; rows are the truth, columns the result, 0 is the background.
    """

    def __init__(self, classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((classes + 1, classes + 1), np.int64)

    def add(self, truth: NDArray[np.uint8], result: NDArray[np.uint8]) -> None:
        """Count pixels of two equally shaped class maps; `IGNORE` in either is left out."""
        size = len(self.counts)
        counted = (truth != IGNORE) & (result != IGNORE)
        pairs = truth[counted].astype(np.int64) * size + result[counted]
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def scores(self, class_id: int) -> dict[str, float]:
        """IoU, precision, recall and F1 of one class; NaN where nothing was there to divide by."""
        both = int(self.counts[class_id, class_id])
        true, found = int(self.counts[class_id].sum()), int(self.counts[:, class_id].sum())
        return {
            "iou": iou(both, true + found - both),
            "precision": iou(both, found),
            "recall": iou(both, true),
            "f1": iou(2 * both, true + found),
        }

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur; the background is not one of them."""
        return mean_defined([self.scores(i)["iou"] for i in range(1, len(self.counts))])

    @property
    def fb_iou(self) -> float:
        """Mean of the IoU of foreground (any class) and background."""
        background, total = int(self.counts[0, 0]), int(self.counts.sum())
        foreground = int(self.counts[1:, 1:].sum())
        return mean_defined([iou(foreground, total - background), iou(background, total - foreground)])

    @property
    def accuracy(self) -> float:
        """Share of the pixels, background included, whose class was found."""
        total = int(self.counts.sum())
        return int(np.trace(self.counts)) / total if total else math.nan
