"""Hurried annotation simulated on full masks: some objects only, or scribbles (method A5)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn import functional

from .models.sam import INPUT_SIZE, PATCH
from .models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED

STROKES = (1, 20)
"""Fewest and most strokes (VRP-SAM)."""
BRUSH = (3, 10)
"""Thinnest and thickest brush in pixels (VRP-SAM)."""
GUARD = 4 * PATCH / INPUT_SIZE
"""Width of the ring around a scribble that is not taken for background, as a share of the tile's side.

Four cells of SAM's feature grid: unmarked pixels of the object itself would spoil the background prototypes.
"""

_CURVE_POINTS = 32


def partial(label: NDArray[np.uint8], instances: NDArray[np.uint16], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Keep the marks of some objects only; nobody looked at the rest.

    Args:
        label: ``(H, W)`` of `FOREGROUND`, `BACKGROUND` and `IGNORE`.
        instances: ``(H, W)`` object numbers, 0 for none.
        rng: Chooses the objects.

    Returns:
        ``(H, W)``: `FOREGROUND` on the objects kept, `IGNORE` where `label` has it, `UNMARKED` elsewhere.
    """
    foreground = label == FOREGROUND
    numbers = np.unique(instances[foreground & (instances > 0)])
    if len(numbers) > 1:
        kept = rng.choice(numbers, size=int(rng.integers(1, len(numbers))), replace=False)
        foreground = foreground & np.isin(instances, kept)
    marked = np.where(foreground, FOREGROUND, UNMARKED).astype(np.uint8)
    marked[label == IGNORE] = IGNORE
    return marked


def scribble(label: NDArray[np.uint8], rng: np.random.Generator, tile_side: int) -> NDArray[np.uint8]:
    """Replace a full annotation by strokes inside the object.

    Each stroke is a quadratic Bézier curve through three random pixels of the object, cut off where it leaves it.

    Args:
        label: ``(H, W)`` of `FOREGROUND`, `BACKGROUND` and `IGNORE`, with some foreground.
        rng: Source of the strokes.
        tile_side: Side in pixels of the tile that fills SAM's input; `label` may be a part of one.

    Returns:
        ``(H, W)``: `FOREGROUND` under the strokes, `IGNORE` in the guard ring around them and where `label` has it,
        `BACKGROUND` elsewhere.
    """
    inside = label == FOREGROUND
    strokes = _draw_strokes(inside, rng) & inside
    guarded = _dilate(strokes, round(GUARD * tile_side))
    marked = np.where(guarded, IGNORE, BACKGROUND).astype(np.uint8)
    marked[label == IGNORE] = IGNORE
    marked[strokes] = FOREGROUND
    return marked


def _draw_strokes(inside: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    rows, columns = np.nonzero(inside)
    canvas = Image.new("1", (inside.shape[1], inside.shape[0]))
    draw = ImageDraw.Draw(canvas)
    t = np.linspace(0, 1, _CURVE_POINTS)[:, None]
    for _ in range(rng.integers(STROKES[0], STROKES[1], endpoint=True)):
        chosen = rng.integers(0, len(rows), size=3)
        start, bend, end = np.stack([columns[chosen], rows[chosen]], axis=1)
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        width = int(rng.integers(BRUSH[0], BRUSH[1], endpoint=True))
        draw.line([(float(x), float(y)) for x, y in curve], fill=1, width=width, joint="curve")
        draw.point((float(start[0]), float(start[1])), fill=1)  # a curve may leave the object at once
    return np.asarray(canvas)


def _dilate(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Grow a mask by a square of `reach` pixels to each side."""
    grown = torch.from_numpy(mask)[None, None].float()
    for kernel in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        grown = functional.max_pool2d(grown, kernel, stride=1, padding=(kernel[0] // 2, kernel[1] // 2))
    dilated: NDArray[np.bool_] = grown[0, 0].bool().numpy()
    return dilated
