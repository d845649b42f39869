"""Segmentation from one example stitched to the target (Vora & Saha, arXiv 2408.07393), with a frozen SAM.

The key, an image with its mask, stands left of the query in one picture that SAM sees once. Points are set at random,
many times; draws on which SAM is sure of itself and finds the key's mask again are kept, and their answers in the
query's half averaged.

How the paper's four kinds of points look is known from its slides only, and from their text, not their figures: design
``a`` (points in the key alone) is theirs, ``b`` to ``d`` are our reconstruction, and so are all numbers. Figures made
with it must not be read as the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...models.decoder import decode, no_mask
from ...models.encoder import encode
from ...models.sam import INPUT_SIZE, freeze, normalise
from ...models.segmenter import FOREGROUND, IGNORE, Shots
from .marked_pixels import background_value, require_class

DESIGNS = {
    "a": "points of the class and of background in the key",
    "b": "those of a, and points of the class at random places of the query",
    "c": "those of a, and points of the class on a regular grid in the query",
    "d": "those of a, and points of the class and of background at random places of the query",
}
DRAWS = 50
KEY_POINTS = 5
"""Points of the class in the key, and as many of its background."""
QUERY_POINTS = (1, 3)
"""Fewest and most random points of one kind in the query; each draw has its own number."""
GRID_POINTS = 3
"""Points of design ``c`` along each side of the query."""
KEPT_QUANTILE = 0.7
"""Draws are kept from this quantile of their scores on."""
OPENING, CLOSING = 3, 5
"""Sides in pixels of the squares by which the result is opened and closed."""

_ABSENT = -1
"""SAM's label of a place in the prompt that holds no point."""
_DECODED_AT_ONCE = 5
_LEAST_LOGIT = 0.01
"""Distance from 0, in logits, of a pixel that the clean-up turned."""


@dataclass(frozen=True)
class Tiles:
    """Target tiles as they came; they are encoded with each key.

    Attributes:
        images: ``(B, 3, T, T)`` uint8 RGB.
        valid: ``(B, T, T)`` bool.
    """

    images: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Stitched:
    """Key and query side by side in the upper half of a square.

    Attributes:
        image: ``(3, 2H, 2H)`` uint8: the key from (0, 0), the query from (0, H) on.
        valid: ``(2H, 2H)`` bool.
        mask: ``(2H, 2H)`` uint8, the key's mask, `IGNORE` elsewhere.
    """

    image: Tensor
    valid: Tensor
    mask: Tensor

    @property
    def half(self) -> int:
        """Side H of one half in pixels."""
        return self.mask.shape[-1] // 2


class StitchedSegmenter:
    """A `ReferenceSegmenter` of one example; with K of them, the mean of the K logits of one example each.

    Args:
        sam: segment_anything's ``Sam`` module.
        design: Where points are set, one of `DESIGNS`.
        seed: Seed of the points; every search draws the same.
        draws: How often points are drawn.
    """

    def __init__(self, sam: Any, design: str, seed: int = 0, draws: int = DRAWS) -> None:
        self.sam: Any = freeze(sam)
        self._design = design
        self._seed = seed
        self._draws = draws

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        device: torch.device = self.sam.device
        return device

    def describe(self, shots: Shots, encodings: Sequence[Tiles] = ()) -> Shots:
        """Return the shots themselves; each is encoded together with the query.

        Raises:
            RefSAMError: With code ``reference`` if no pixel is marked as the class.
        """
        require_class(shots.masks)
        return shots

    def encode(self, images: Tensor, valid: Tensor) -> Tiles:
        """Keep the pixels of target tiles."""
        return Tiles(images.cpu(), valid.cpu())

    @torch.inference_mode()
    def segment(self, encoding: Tiles, reference: Shots) -> Tensor:
        """Return the logits ``(B, T, T)``: of the mean probability, with the sign that the clean-up leaves."""
        negative = background_value(reference.masks)
        keys = [k for k, mask in enumerate(reference.masks) if bool((mask == FOREGROUND).any())]
        side = encoding.images.shape[-1]
        found = []
        for image, valid in zip(encoding.images, encoding.valid, strict=True):
            pictures = [stitch(reference.images[k], reference.masks[k], reference.valid[k], image, valid) for k in keys]
            of_keys = torch.stack([self._search(picture, negative) for picture in pictures])
            found.append(of_keys.mean(0)[:side, :side])
        return torch.stack(found)

    def _search(self, picture: Stitched, negative: int) -> Tensor:
        """Logits ``(H, H)`` of the query's half."""
        pixels = normalise(picture.image[None].to(self.device), picture.valid[None].to(self.device), self.sam)
        features = encode(self.sam.image_encoder, pixels)
        points, labels = draw_prompts(picture, self._design, negative, self._draws, np.random.default_rng(self._seed))
        # From centres of pixels; the prompt encoder adds the half pixel itself.
        in_input = torch.from_numpy((points + 0.5) * (INPUT_SIZE / picture.mask.shape[-1]) - 0.5).float()
        logits, ious = self._decode(features, in_input.to(self.device), torch.from_numpy(labels).to(self.device))
        scores = ious.clamp_min(0) * key_agreement(logits > 0, picture.mask, negative)
        cells = logits.shape[-1] // 2
        probability = confident_mean(torch.sigmoid(logits[:, :cells, cells:]), scores)
        enlarged = F.interpolate(
            probability[None, None], size=(picture.half, picture.half), mode="bilinear", align_corners=False
        )[0, 0]
        return clean_logits(enlarged)

    def _decode(self, features: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(R, 4h, 4w)`` and predicted IoU ``(R,)`` of R draws on one picture, on the CPU."""
        encoder = self.sam.prompt_encoder
        answers = []
        for start in range(0, len(points), _DECODED_AT_ONCE):
            chosen = slice(start, start + _DECODED_AT_ONCE)
            sparse, _ = encoder(points=(points[chosen], labels[chosen]), boxes=None, masks=None)
            repeated = features.expand(len(sparse), -1, -1, -1)
            dense = no_mask(self.sam, repeated)
            logits, iou = decode(self.sam, repeated, encoder.get_dense_pe(), sparse, dense)
            answers.append((logits[:, 0].float().cpu(), iou[:, 0].float().cpu()))
        return torch.cat([logits for logits, _ in answers]), torch.cat([iou for _, iou in answers])


def stitch(key: Tensor, mask: Tensor, key_valid: Tensor, query: Tensor, query_valid: Tensor) -> Stitched:
    """Set a key ``(3, S, S)`` with its mask left of a query ``(3, T, T)``, pixel for pixel, in halves of max(S, T)."""
    half = max(key.shape[-1], query.shape[-1])
    image = torch.zeros(3, 2 * half, 2 * half, dtype=torch.uint8)
    valid = torch.zeros(2 * half, 2 * half, dtype=torch.bool)
    marked = torch.full((2 * half, 2 * half), IGNORE, dtype=torch.uint8)
    for left, pixels, inside in ((0, key, key_valid), (half, query, query_valid)):
        rows, columns = inside.shape
        image[:, :rows, left : left + columns] = pixels
        valid[:rows, left : left + columns] = inside
    marked[: mask.shape[0], : mask.shape[1]] = mask
    return Stitched(image, valid, marked)


def draw_prompts(
    picture: Stitched, design: str, negative: int, draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw the points of a design many times.

    Args:
        picture: Where to set them.
        design: One of `DESIGNS`.
        negative: Mask value of the key's background.
        draws: How often, R.
        rng: Chooses pixels with equal chance.

    Returns:
        Points ``(R, P, 2)`` as ``(x, y)``, 0 for the centre of the first pixel, and labels ``(R, P)``: 1 on the class,
        0 beside it, -1 for no point.
    """
    mask, valid = picture.mask.numpy(), picture.valid.numpy().copy()
    valid[:, : picture.half] = False
    query = np.argwhere(valid)[:, ::-1]
    points, labels = [], []
    for value, label in ((FOREGROUND, 1), (negative, 0)):
        points.append(_at_random(np.argwhere(mask == value)[:, ::-1], KEY_POINTS, draws, rng))
        labels.append(np.full(points[-1].shape[:2], label))
    for label in {"a": (), "b": (1,), "c": (), "d": (1, 0)}[design]:
        points.append(_at_random(query, QUERY_POINTS[1], draws, rng))
        wanted = rng.integers(*QUERY_POINTS, size=(draws, 1), endpoint=True)
        labels.append(np.where(np.arange(points[-1].shape[1]) < wanted, label, _ABSENT))
    if design == "c" and len(query):
        grid = _regular_grid(query)
        points.append(np.broadcast_to(grid, (draws, *grid.shape)))
        labels.append(np.ones(points[-1].shape[:2], np.int64))
    return np.concatenate(points, axis=1), np.concatenate(labels, axis=1)


def _at_random(pixels: NDArray[np.int64], count: int, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """`count` of the pixels ``(N, 2)`` for each draw, ``(R, count, 2)``; none where there are none."""
    if not len(pixels):
        return np.zeros((draws, 0, 2))
    return pixels[rng.integers(0, len(pixels), size=(draws, count))].astype(np.float64)


def _regular_grid(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Centres of equal cells ``(N, 2)`` of the rectangle that bounds pixels ``(M, 2)``."""
    first, size = pixels.min(0), np.ptp(pixels, axis=0) + 1
    steps = (np.arange(GRID_POINTS) + 0.5) / GRID_POINTS
    x, y = np.meshgrid(steps, steps)
    centres: NDArray[np.float64] = first + np.stack([x, y], axis=-1).reshape(-1, 2) * size - 0.5
    return centres


def key_agreement(found: Tensor, mask: Tensor, negative: int) -> Tensor:
    """IoU of what was found with the key's mask, counted in the mask's own pixels.

    Args:
        found: ``(R, n, n)`` bool on a grid over the whole picture.
        mask: ``(2H, 2H)`` uint8, the key's mask in the picture; what is neither class nor background does not count.
        negative: Mask value of the key's background.

    Returns:
        ``(R,)`` float32 in 0..1.
    """
    grid = (found.shape[-2], found.shape[-1])
    of_class, others = (
        F.adaptive_avg_pool2d((mask == value)[None].float(), grid)[0] for value in (FOREGROUND, negative)
    )
    shared = (found * of_class).sum((1, 2))
    return shared / (of_class.sum() + (found * others).sum((1, 2)))


def confident_mean(probabilities: Tensor, scores: Tensor) -> Tensor:
    """Mean of the draws that score best, weighted by their scores.

    Args:
        probabilities: ``(R, h, w)``.
        scores: ``(R,)``, none negative.

    Returns:
        ``(h, w)``; the plain mean where every draw scores 0.
    """
    kept = scores >= torch.quantile(scores, KEPT_QUANTILE)
    weights = scores * kept
    if not bool(weights.any()):
        weights = kept.float()
    return torch.einsum("r,rhw->hw", weights / weights.sum(), probabilities)


def clean_logits(probability: Tensor) -> Tensor:
    """Open and close the mask of a probability ``(h, w)``; return logits whose sign is that mask."""
    mask = (probability > 0.5)[None, None].float()
    mask = _dilate(_erode(mask, OPENING), OPENING)
    mask = _erode(_dilate(mask, CLOSING), CLOSING)
    logits = torch.logit(probability, eps=1e-4)
    return torch.where(mask[0, 0] > 0, logits.clamp_min(_LEAST_LOGIT), logits.clamp_max(-_LEAST_LOGIT))


def _dilate(mask: Tensor, side: int) -> Tensor:
    return F.max_pool2d(mask, side, stride=1, padding=side // 2)


def _erode(mask: Tensor, side: int) -> Tensor:
    return -_dilate(-mask, side)
