"""Simulated prompts for learning promptable segmentation: points, boxes and coarse masks of one target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .views import LabelledImage

POINTS = 4
"""Point prompts of a sample; absent ones carry the label -1."""
LEAST_AREA = 64
"""Pixels of the smallest object that is asked for: a quarter of a cell of the image embedding."""
MASK_CELLS = (16, 8, 4)
"""Pixels between the values of a mask prompt: prototypes answer for cells of the embedding, a fitted prior for each
value of the prompt itself."""
FITTED_SHARE, PLACED_SHARE = 0.5, 0.5
"""Shares of the pseudo-masks of whole classes that were fitted, and that come with points and a box."""


@dataclass(frozen=True)
class PromptSample:
    """One target of one view with its prompts, in pixels of the view.

    Attributes:
        target: ``(S, S)`` bool.
        points: ``(POINTS, 2)`` float32 (x, y).
        labels: ``(POINTS,)`` float32: 1, 0, or -1 for absent.
        box: ``(4,)`` float32 (x0, y0, x1, y1).
        has_box: Whether the box is a prompt.
        mask: ``(S/4, S/4)`` float32 logits of the mask prompt.
        has_mask: Whether the mask is a prompt.
    """

    target: NDArray[np.bool_]
    points: NDArray[np.float32]
    labels: NDArray[np.float32]
    box: NDArray[np.float32]
    has_box: bool
    mask: NDArray[np.float32]
    has_mask: bool


def sample_prompts(
    view: LabelledImage,
    allowed: frozenset[int],
    count: int,
    rng: np.random.Generator,
    fitted: Callable[[int], NDArray[np.float32] | None] = lambda class_id: None,
) -> list[PromptSample]:
    """Draw targets and prompts of a view.

    A target is one object, or all of a class; a whole class is asked for as ViRefSAM asks: by a pseudo-mask, half of
    the time with its highest and lowest point and the box around it.

    Args:
        view: The labelled view.
        allowed: Class ids that may be targets.
        count: Number of samples; fewer come back when the view holds nothing to ask for.
        rng: Random draws.
        fitted: Gives what a prior that was fitted elsewhere says of a class, ``(S/4, S/4)`` logits; ``None`` where
            there is nothing to fit to. Half of the pseudo-masks are such, where there are some.
    """
    ids, areas = np.unique(view.instances, return_counts=True)
    seen = [int(i) for i, area in zip(ids, areas, strict=True) if i != 0 and area >= LEAST_AREA]
    objects = [i for i in seen if int(view.classes[view.instances == i][0]) in allowed]
    present = [int(c) for c in np.unique(view.classes) if int(c) in allowed]
    samples = []
    for _ in range(count):
        whole_class = bool(present) and (not objects or rng.random() < 0.35)
        if whole_class:
            wanted = int(rng.choice(present))
            mask = fitted(wanted) if rng.random() < FITTED_SHARE else None
            samples.append(_class_prompt(view.classes == wanted, mask, rng))
        elif objects:
            kinds = (("point",), ("box",), ("point", "box"), ("mask",), ("point", "mask"))
            samples.append(_prompt(view.instances == rng.choice(objects), rng, kinds[int(rng.integers(len(kinds)))]))
    return samples


def _class_prompt(
    target: NDArray[np.bool_], mask: NDArray[np.float32] | None, rng: np.random.Generator
) -> PromptSample:
    pseudo = coarse_mask(target, rng) if mask is None else mask
    points, labels = np.zeros((POINTS, 2), np.float32), np.full(POINTS, -1, np.float32)
    found = pseudo > 0
    placed = bool(found.any()) and rng.random() < PLACED_SHARE
    if placed:
        for slot, (flat, label) in enumerate(((pseudo.argmax(), 1), (pseudo.argmin(), 0))):
            row, column = divmod(int(flat), pseudo.shape[1])
            points[slot], labels[slot] = MASK_CELLS[-1] * (np.array([column, row]) + 0.5), label
    return PromptSample(
        target=target,
        points=points,
        labels=labels,
        box=MASK_CELLS[-1] * _bounds(found) if placed else np.zeros(4, np.float32),
        has_box=placed,
        mask=pseudo,
        has_mask=True,
    )


def _prompt(target: NDArray[np.bool_], rng: np.random.Generator, kinds: tuple[str, ...]) -> PromptSample:
    points = np.zeros((POINTS, 2), np.float32)
    labels = np.full(POINTS, -1, np.float32)
    if "point" in kinds:
        inside = int(rng.integers(1, POINTS))
        for slot in range(inside):
            points[slot], labels[slot] = _random_pixel(target, rng), 1
        if rng.random() < 0.3 and not target.all():
            points[inside], labels[inside] = _random_pixel(~target, rng), 0
    return PromptSample(
        target=target,
        points=points,
        labels=labels,
        box=_jittered_box(target, rng),
        has_box="box" in kinds,
        mask=coarse_mask(target, rng),
        has_mask="mask" in kinds,
    )


def _random_pixel(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    flat = np.flatnonzero(mask)
    row, column = divmod(int(flat[rng.integers(len(flat))]), mask.shape[1])
    return np.array([column, row], np.float32)


def _jittered_box(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    box = _bounds(mask)
    slack = np.tile(np.maximum(box[2:] - box[:2], 4), 2) * rng.normal(0, 0.08, 4).clip(-0.2, 0.2)
    jittered: NDArray[np.float32] = (box + slack).clip(0, mask.shape[0] - 1).astype(np.float32)
    return jittered


def _bounds(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """First and last column and row of a mask, ``(x0, y0, x1, y1)``."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float32)


def coarse_mask(target: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """A pseudo-mask as prototypes or a fitted prior would give it: coarse or fine, blotchy, noisy, partly wrong.

    Args:
        target: ``(S, S)``.
        rng: Random draws.

    Returns:
        ``(S/4, S/4)`` logits.
    """
    side = target.shape[0]
    cell = int(rng.choice(MASK_CELLS))
    grid = side // cell
    share = target.reshape(grid, cell, grid, cell).mean((1, 3)).astype(np.float32)
    blotches = _smooth_noise(grid, float(rng.uniform(16, 64)) / cell, rng)
    grain = rng.normal(0, 1, (grid, grid)).astype(np.float32)
    strength = rng.uniform(0.2, 1.0)
    evidence = (share - rng.uniform(0.15, 0.5)) * 2 + strength * (0.5 * blotches + 0.3 * grain)
    logits = evidence * rng.uniform(2, 8)
    enlarged = Image.fromarray(logits.astype(np.float32)).resize((side // 4, side // 4), Image.Resampling.BILINEAR)
    return np.asarray(enlarged, dtype=np.float32)


def _smooth_noise(grid: int, blur: float, rng: np.random.Generator) -> NDArray[np.float32]:
    noise = Image.fromarray(rng.integers(0, 256, (grid, grid), dtype=np.uint8))
    field = np.asarray(noise.filter(ImageFilter.GaussianBlur(blur)), np.float32)
    standardised: NDArray[np.float32] = (field - field.mean()) / max(float(field.std()), 1e-3)
    return standardised
