"""How many objects were found, each by its overlap.

A true and a found object of one class match when their IoU reaches a bound, one to one, the best pairs first. Panoptic
quality is that of Kirillov et al. (CVPR 2019): the mean IoU of the matched (segmentation quality) times F1 (recognition
quality); from an IoU above 0.5 on, no object has a choice between two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .layers import IGNORE, Anchors, Labels
from .metrics import iou


@dataclass(frozen=True)
class ObjectCounts:
    """Objects of one class, or of all.

    Attributes:
        true: Objects of the truth.
        found: Objects of the result.
        matched: Pairs of the two.
        iou_sum: Sum of the IoU of these pairs.
    """

    true: int
    found: int
    matched: int
    iou_sum: float

    @property
    def scores(self) -> dict[str, float]:
        """Precision, recall, F1, mean IoU of the matched and panoptic quality; NaN where nothing is there."""
        return {
            "object_precision": iou(self.matched, self.found),
            "object_recall": iou(self.matched, self.true),
            "object_f1": iou(2 * self.matched, self.true + self.found),
            "object_iou": self.iou_sum / self.matched if self.matched else math.nan,
            "panoptic_quality": 2 * self.iou_sum / (self.true + self.found) if self.true + self.found else math.nan,
        }


class _Side:
    """The objects of truth or result, fed with blocks of rows from top to bottom.

    Objects that are not given are the 4-connected regions of a class; a region that goes on in the next block first
    gets another number there, and the numbers are joined in the end. Given objects are there also where no pixel shows
    them, since they hold no pixel's centre or lie under others.
    """

    def __init__(self) -> None:
        self._areas: NDArray[np.int64] = np.zeros(1, np.int64)
        self._classes: NDArray[np.uint8] = np.zeros(1, np.uint8)
        self._links: list[NDArray[np.int64]] = []
        self._last: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None

    def add(self, labels: Labels) -> NDArray[np.int64]:
        """Take the next rows and return the number of each pixel's object ``(h, w)``, 0 where there is none."""
        there = (labels.classes > 0) & (labels.classes != IGNORE)
        if labels.objects is not None:
            numbers = np.where(there, labels.objects, 0).astype(np.int64)
        else:
            numbers = self._regions(labels.classes, there)
            if self._last is not None:
                above_class, above = self._last
                joined = (above_class == labels.classes[0]) & (above > 0) & (numbers[0] > 0)
                self._links.append(np.unique(np.stack([above[joined], numbers[0][joined]]), axis=1))
            self._last = labels.classes[-1].copy(), numbers[-1].copy()
        self._measure(labels.classes[there], numbers[there])
        if labels.anchors is not None:
            self._expect(labels.anchors.where(labels.classes != IGNORE))
        return numbers

    @property
    def hidden(self) -> int:
        """Number of objects so far that no pixel shows."""
        return int(((self._areas == 0) & (self._classes > 0)).sum())

    def finish(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """Return the final number of each number given out, and by final number the areas and classes (0 for none)."""
        size = len(self._areas)
        above, below = np.concatenate([np.zeros((2, 0), np.int64), *self._links], axis=1)
        links = coo_array((np.ones(len(above), np.int8), (above, below)), shape=(size, size))
        count, final = connected_components(links, directed=False)
        areas = np.bincount(final, weights=self._areas, minlength=count).astype(np.int64)
        classes = np.zeros(count, np.uint8)
        np.maximum.at(classes, final, self._classes)
        return final.astype(np.int64), areas, classes

    def _regions(self, classes: NDArray[np.uint8], there: NDArray[np.bool_]) -> NDArray[np.int64]:
        numbers = np.zeros(classes.shape, np.int64)
        given = len(self._areas)
        for class_id in np.unique(classes[there]):
            regions, count = label(classes == class_id)
            numbers += np.where(regions > 0, regions + (given - 1), 0)
            given += count
        return numbers

    def _measure(self, classes: NDArray[np.uint8], numbers: NDArray[np.int64]) -> None:
        self._make_room(numbers)
        self._areas += np.bincount(numbers, minlength=len(self._areas))
        self._classes[numbers] = classes

    def _expect(self, anchors: Anchors) -> None:
        self._make_room(anchors.numbers)
        self._classes[anchors.numbers] = anchors.classes

    def _make_room(self, numbers: NDArray[np.int64]) -> None:
        more = max(0, int(numbers.max(initial=0)) + 1 - len(self._areas))
        self._areas, self._classes = np.pad(self._areas, (0, more)), np.pad(self._classes, (0, more))


class ObjectMatcher:
    """Finds the objects of truth and result, fed with blocks of rows from top to bottom.

    Memory holds the objects and their overlapping pairs, not the pixels.

    Args:
        min_iou: IoU from which two objects match, 0..1.
    """

    def __init__(self, min_iou: float) -> None:
        self._min_iou = min_iou
        self._true, self._found = _Side(), _Side()
        self._pairs: list[NDArray[np.int64]] = []

    def add(self, truth: Labels, result: Labels) -> None:
        """Take the next rows of both, equally shaped."""
        true, found = self._true.add(truth), self._found.add(result)
        both = (true > 0) & (found > 0) & (truth.classes == result.classes)
        self._pairs.append(_count_pairs(np.stack([true[both], found[both], np.ones(int(both.sum()), np.int64)])))

    def finish(self, classes: int) -> list[ObjectCounts]:
        """Match, and return the counts of class 1 to `classes`."""
        final_true, true_areas, true_classes = self._true.finish()
        final_found, found_areas, found_classes = self._found.finish()
        true, found, shared = np.concatenate([np.zeros((3, 0), np.int64), *self._pairs], axis=1)
        true, found, shared = _count_pairs(np.stack([final_true[true], final_found[found], shared]))
        overlap = shared / (true_areas[true] + found_areas[found] - shared)
        return count_matches(true_classes, found_classes, np.stack([true, found]), overlap, self._min_iou, classes)

    @property
    def hidden(self) -> tuple[int, int]:
        """Number of given objects of truth and result that no pixel shows; they count, and match nothing."""
        return self._true.hidden, self._found.hidden


def count_matches(
    true_classes: NDArray[np.uint8],
    found_classes: NDArray[np.uint8],
    pairs: NDArray[np.int64],
    overlap: NDArray[np.float64],
    min_iou: float,
    classes: int,
) -> list[ObjectCounts]:
    """Match overlapping objects of one class, and return the counts of class 1 to `classes`.

    Args:
        true_classes: Class of each true object; 0 where there is none.
        found_classes: The same of the found.
        pairs: ``(2, N)`` indices of a true and a found object that overlap.
        overlap: ``(N,)`` their IoU.
        min_iou: IoU from which they match, 0..1.
        classes: Number of classes.
    """
    matched = _one_to_one(pairs[0], pairs[1], overlap, min_iou)
    matched_class = true_classes[pairs[0][matched]]
    return [
        ObjectCounts(
            int((true_classes == i).sum()),
            int((found_classes == i).sum()),
            int((matched_class == i).sum()),
            float(overlap[matched][matched_class == i].sum()),
        )
        for i in range(1, classes + 1)
    ]


def _count_pairs(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add up the counts (third row) of equal pairs (first two rows) of ``(3, N)``."""
    key = pairs[0] << 32 | pairs[1]
    distinct, inverse = np.unique(key, return_inverse=True)
    counts = np.bincount(inverse, weights=pairs[2], minlength=len(distinct)).astype(np.int64)
    return np.stack([distinct >> 32, distinct & 0xFFFFFFFF, counts])


def _one_to_one(
    true: NDArray[np.int64], found: NDArray[np.int64], overlap: NDArray[np.float64], least: float
) -> NDArray[np.intp]:
    """Return the indices of the pairs taken: the best first, and no object twice."""
    taken_true: set[int] = set()
    taken_found: set[int] = set()
    taken = []
    for index in np.argsort(-overlap, kind="stable"):
        if overlap[index] < least:
            break
        one, other = int(true[index]), int(found[index])
        if one not in taken_true and other not in taken_found:
            taken_true.add(one)
            taken_found.add(other)
            taken.append(index)
    return np.array(taken, np.intp)
