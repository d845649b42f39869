"""How well the boundaries of classes agree.

The boundary measure F of Martin, Fowlkes and Malik (PAMI 2004), as Perazzi et al. (CVPR 2016, "A benchmark dataset and
evaluation methodology for video object segmentation", section 5.1) use it for masks: the harmonic mean of the share of
found boundary pixels near a true one and of true boundary pixels near a found one. Near is a Euclidean distance of at
most the tolerance, which finds the same pixels as dilating the other boundary by a disk.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from .layers import IGNORE
from .metrics import iou


class BoundaryAgreement:
    """Counts boundary pixels of each class, fed with rows of a raster.

    A boundary pixel has one of its four neighbours in another class; the frame and pixels that do not count make none.

    Args:
        classes: Number of classes beside the background.
        tolerance: Largest distance in pixels at which boundaries agree.
    """

    def __init__(self, classes: int, tolerance: float) -> None:
        # Of each class: found boundary pixels near a true one, found, true ones near a found one, true.
        self.counts: NDArray[np.int64] = np.zeros((classes + 1, 4), np.int64)
        self._tolerance = tolerance

    @property
    def halo(self) -> int:
        """Rows that have to be seen above and below those that are counted."""
        return math.floor(self._tolerance) + 1

    def add(self, truth: NDArray[np.uint8], result: NDArray[np.uint8], top: int, rows: int) -> None:
        """Count the boundary pixels of some rows.

        Args:
            truth: ``(h, w)`` class map: the rows to count, and those of the `halo` that lie in the raster.
            result: The same of the result.
            top: Index of the first row to count.
            rows: Number of rows to count.
        """
        edges = [_edge_pixels(labels) for labels in (truth, result)]
        for class_id in range(1, len(self.counts)):
            true, found = (pixels[classes == class_id] for pixels, classes in edges)
            for first, (own, other) in ((0, (found, true)), (2, (true, found))):
                counted = own[(own[:, 0] >= top) & (own[:, 0] < top + rows)]
                self.counts[class_id, first] += self._near(counted, other)
                self.counts[class_id, first + 1] += len(counted)

    def scores(self, class_id: int) -> dict[str, float]:
        """Boundary precision, recall and F of one class; NaN where there is no boundary."""
        found_near, found, true_near, true = (int(count) for count in self.counts[class_id])
        precision, recall = iou(found_near, found), iou(true_near, true)
        total = precision + recall
        if not found or not true:
            score = 0.0 if found or true else math.nan
        else:
            score = 2 * precision * recall / total if total else 0.0
        return {"boundary_precision": precision, "boundary_recall": recall, "boundary_f": score}

    def _near(self, pixels: NDArray[np.intp], others: NDArray[np.intp]) -> int:
        if len(pixels) == 0 or len(others) == 0:
            return 0
        # Lattices are full of ties, for which a tree that is split at medians is slow.
        tree = KDTree(others, balanced_tree=False, compact_nodes=False)
        distances, _ = tree.query(pixels, distance_upper_bound=self._tolerance + 1e-6)
        return int(np.isfinite(distances).sum())


def _edge_pixels(labels: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Return where classes end, ``(N, 2)`` rows and columns, and the class there ``(N,)``."""
    edge = np.zeros(labels.shape, np.bool_)
    counted = labels != IGNORE
    for one, other in (np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]):
        differs = (labels[one] != labels[other]) & counted[one] & counted[other]
        edge[one] |= differs
        edge[other] |= differs
    pixels = np.argwhere(edge & (labels > 0))
    return pixels, labels[pixels[:, 0], pixels[:, 1]]
