"""Which class each pixel is of, from the logits of all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from .rasters.mosaic import Piece
from .rasters.writers import PROBABILITY_NODATA


class Decided(NamedTuple):
    """A rectangle of a raster whose pixels have their classes.

    Attributes:
        row: First row, counted from the top of the part searched.
        column: First column, counted from its left.
        valid: ``(h, w)`` bool.
        class_ids: ``(h, w)``: 1 and up, 0 for none.
        scores: ``(h, w)`` probability of the most probable class in 0..1.
        probabilities: ``(C, h, w)`` of all classes in 0..1, `PROBABILITY_NODATA` where it is not valid; ``None`` where
            nobody wants them.
    """

    row: int
    column: int
    valid: NDArray[np.bool_]
    class_ids: NDArray[np.uint8]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None


def decide(piece: Piece, valid: NDArray[np.bool_], classes: int, threshold: float, with_probabilities: bool) -> Decided:
    """Give each pixel its class.

    The most probable class wins if it reaches the threshold, and if the counter-examples do not win the pixel.

    Args:
        piece: Logits of the classes, followed by those of the counter-examples where there are some.
        valid: ``(h, w)``: which pixels count.
        classes: Number of classes, 254 at most.
        threshold: Probability in 0..1.
        with_probabilities: Whether those of all classes are wanted, not only that of the best.
    """
    logits, rivals = piece.logits[:classes], piece.logits[classes:]
    best, winners = best_class(logits)
    scores = expit(best)
    found = valid & (scores >= threshold)
    for rival in rivals:
        found &= best >= rival
    probabilities = np.where(valid, expit(logits), np.float32(PROBABILITY_NODATA)) if with_probabilities else None
    return Decided(piece.row, piece.column, valid, winners * found, scores, probabilities)


def best_class(logits: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the greatest of each pixel's logits ``(C, h, w)``, and the number, from 1, of the first class with it."""
    best, winners = logits[0].copy(), np.ones(logits.shape[1:], np.uint8)
    for class_id, of_class in enumerate(logits[1:], 2):
        # Later numbers are larger, so the largest of those that were better than all before is the best one's.
        better = of_class > best
        np.maximum(winners, better.view(np.uint8) * np.uint8(class_id), out=winners)
        np.maximum(best, of_class, out=best)
    return best, winners
