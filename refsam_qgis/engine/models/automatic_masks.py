"""Masks of everything in one image: SAM asked at every point of a grid, as segment_anything's generator does.

The rules and their order are those of ``SamAutomaticMaskGenerator`` with a single crop. Masks that SAM itself rates too
low are left out before they are enlarged, which saves most of the time and memory and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .promptable import EncodedImage, PromptableSegmenter, Prompts
from .sam import segment_anything_modules

POINTS_AT_ONCE = {"cpu": 8}
"""Prompts decoded together, by kind of device: more only cost memory where there is no parallel hardware."""
POINTS_AT_ONCE_ELSEWHERE = 64
PIXELS_AT_ONCE = 2**24
"""Pixels of the masks that are enlarged together: 16 masks of SAM's own size."""


@dataclass(frozen=True)
class MaskRules:
    """Which masks are kept.

    Attributes:
        min_predicted_iou: Of masks that SAM rates higher, 0..1.
        min_stability: Of masks at least this stable, 0..1.
        max_overlap: IoU of two masks' boxes from which the worse is a duplicate, 0..1.
    """

    min_predicted_iou: float
    min_stability: float
    max_overlap: float


@dataclass(frozen=True)
class AutomaticMasks:
    """The masks of one image, best first.

    Attributes:
        boxes: ``(N, 4)`` first and last column and row (x0, y0, x1, y1) of each mask.
        predicted_iou: ``(N,)`` IoU that SAM predicts.
        stability: ``(N,)`` stability scores in 0..1.
        runs: Run lengths of each mask, in segment_anything's form.
    """

    boxes: NDArray[np.int64]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    runs: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.runs)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Return one mask, ``(h, w)``."""
        mask: NDArray[np.bool_] = segment_anything_modules().amg.rle_to_mask(self.runs[index])
        return mask

    def to_array(self) -> NDArray[np.int32]:
        """Return all of it as one array, bit for bit, from which `from_array` makes it again."""
        lengths = np.array([len(run["counts"]) for run in self.runs], np.int32)
        counts = [np.array(run["counts"], np.int32) for run in self.runs]
        size = self.runs[0]["size"] if self.runs else (0, 0)
        head = np.array([len(self), *size], np.int32)
        scores = [values.astype(np.float32).view(np.int32) for values in (self.predicted_iou, self.stability)]
        return np.concatenate([head, self.boxes.astype(np.int32).ravel(), *scores, lengths, *counts])

    @classmethod
    def from_array(cls, array: NDArray[np.int32]) -> AutomaticMasks:
        """Make masks of what `to_array` gave."""
        number, height, width = array[:3].tolist()
        boxes, predicted, stability, lengths, counts = np.split(array[3:], np.array([4, 5, 6, 7]) * number)
        runs = [
            {"size": [height, width], "counts": of_mask.tolist()}
            for of_mask in np.split(counts, np.cumsum(lengths)[:-1])[:number]
        ]
        return cls(boxes.reshape(-1, 4).astype(np.int64), predicted.view(np.float32), stability.view(np.float32), runs)


def point_grid(points_per_side: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the prompts ``(N, 2)``, (x, y) in pixels, spread evenly over an image of a height and width."""
    points: NDArray[np.float64] = segment_anything_modules().amg.build_point_grid(points_per_side)
    points = points * np.array([[size[1], size[0]]])
    return points


def generate_masks(
    segmenter: PromptableSegmenter,
    image: EncodedImage,
    points: NDArray[np.float64],
    rules: MaskRules,
    on_points: Callable[[int], None] = lambda done: None,
) -> AutomaticMasks:
    """Find everything that prompts in one image show.

    Args:
        segmenter: The model.
        image: Where to look.
        points: ``(N, 2)`` prompts, (x, y) in pixels.
        rules: Which masks are kept.
        on_points: Told how many points are done, after each batch.
    """
    found = _Found()
    at_once = POINTS_AT_ONCE.get(segmenter.device.type, POINTS_AT_ONCE_ELSEWHERE)
    for start in range(0, len(points), at_once):
        batch = torch.from_numpy(points[start : start + at_once])[:, None]
        logits, predicted = segmenter.predict(image, Prompts(batch, torch.ones(len(batch), 1)), multimask=True)
        _filter(segmenter, image, logits.flatten(0, 1), predicted.flatten(), rules, found)
        on_points(min(start + at_once, len(points)))
    return found.without_duplicates(rules.max_overlap)


class _Found:
    """Masks that passed the filters so far."""

    def __init__(self) -> None:
        self.boxes: list[Tensor] = [torch.zeros(0, 4, dtype=torch.int64)]
        self.predicted: list[Tensor] = [torch.zeros(0)]
        self.stability: list[Tensor] = [torch.zeros(0)]
        self.runs: list[dict[str, Any]] = []

    def without_duplicates(self, max_overlap: float) -> AutomaticMasks:
        boxes = torch.cat(self.boxes).numpy()
        predicted = torch.cat(self.predicted).numpy()
        stability = torch.cat(self.stability).numpy()
        kept = suppress(boxes, predicted, max_overlap)
        return AutomaticMasks(boxes[kept], predicted[kept], stability[kept], [self.runs[i] for i in kept])


def _filter(
    segmenter: PromptableSegmenter,
    image: EncodedImage,
    logits: Tensor,
    predicted: Tensor,
    rules: MaskRules,
    found: _Found,
) -> None:
    """Add the masks ``(M, 256, 256)`` that SAM is sure of and that are stable."""
    amg = segment_anything_modules().amg
    if rules.min_predicted_iou > 0:
        sure = predicted > rules.min_predicted_iou
        logits, predicted = logits[sure], predicted[sure]
    at_once = max(1, PIXELS_AT_ONCE // (image.size[0] * image.size[1]))
    for start in range(0, len(logits), at_once):
        large = segmenter.enlarge(image, logits[start : start + at_once])
        rated = predicted[start : start + at_once]
        stability = segmenter.stability(large)
        if rules.min_stability > 0:
            stable = stability >= rules.min_stability
            large, rated, stability = large[stable], rated[stable], stability[stable]
        masks = large > segmenter.sam.mask_threshold
        found.boxes.append(amg.batched_mask_to_box(masks).cpu().long())
        found.predicted.append(rated.cpu())
        found.stability.append(stability.cpu())
        found.runs += amg.mask_to_rle_pytorch(masks)


def suppress(boxes: NDArray[Any], scores: NDArray[Any], max_overlap: float) -> NDArray[np.intp]:
    """Leave out boxes that overlap a better one (non-maximum suppression).

    Args:
        boxes: ``(N, 4)`` (x0, y0, x1, y1).
        scores: ``(N,)``.
        max_overlap: IoU above which the worse of two boxes goes.

    Returns:
        Indices of the boxes that stay, best first.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_boxes = boxes[order].astype(np.float32)
    areas = np.prod(sorted_boxes[:, 2:] - sorted_boxes[:, :2], axis=1)
    stays = np.ones(len(order), np.bool_)
    for i in range(len(order)):
        if not stays[i]:
            continue
        worse = sorted_boxes[i + 1 :]
        low = np.maximum(sorted_boxes[i, :2], worse[:, :2])
        high = np.minimum(sorted_boxes[i, 2:], worse[:, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        # Boxes without an area have no IoU; they overlap nothing.
        either = np.maximum(areas[i] + areas[i + 1 :] - shared, np.finfo(np.float32).tiny)
        stays[i + 1 :] &= shared / either <= max_overlap
    return order[stays]
