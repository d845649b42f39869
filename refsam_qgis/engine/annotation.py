"""Hurried annotation simulated on full masks: some objects only, scribbles, points or boxes (method A5)."""

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
POINTS = (1, 20)
"""Fewest and most points (VRP-SAM)."""
POINT_RADIUS = 2
"""Radius of a point in pixels, that of points which people draw."""
GUARD = 4 * PATCH / INPUT_SIZE
"""Width of the ring around scribbles and points that is not taken for background, as a share of the tile's side.

Four cells of SAM's feature grid: unmarked pixels of the object itself would spoil the background prototypes.
"""

_CURVE_POINTS = 32


def simulate(label: NDArray[np.uint8], support: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mark the class of a whole tile as a person would.

    Args:
        label: ``(H, W)`` of `FOREGROUND`, `BACKGROUND` and `IGNORE`, with some foreground.
        support: One of `job.SUPPORTS`.
        rng: Source of strokes and points.

    Returns:
        ``(H, W)`` as `label`, or as `scribble`, `points` or `boxes` say.
    """
    if support == "scribble":
        return scribble(label, rng, max(label.shape))
    if support == "point":
        return points(label, rng, max(label.shape))
    return boxes(label) if support == "box" else label


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
    return _guarded(label, _draw_strokes(inside, rng) & inside, tile_side)


def points(label: NDArray[np.uint8], rng: np.random.Generator, tile_side: int) -> NDArray[np.uint8]:
    """Replace a full annotation by points on random pixels of the object, each a disc cut off where it leaves it.

    Args and returns are those of `scribble`.
    """
    inside = label == FOREGROUND
    pixels = np.argwhere(inside)
    count = int(rng.integers(POINTS[0], POINTS[1], endpoint=True))
    canvas = Image.new("1", (label.shape[1], label.shape[0]))
    draw = ImageDraw.Draw(canvas)
    for row, column in pixels[rng.choice(len(pixels), min(count, len(pixels)), replace=False)].tolist():
        draw.circle((column, row), POINT_RADIUS, fill=1)
    return _guarded(label, np.asarray(canvas) & inside, tile_side)


def boxes(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Replace a full annotation by the filled bounding box of each of its connected parts.

    VRP-SAM fills one box around all of the class, which in a scene of many objects would be the scene.

    Args:
        label: ``(H, W)`` of `FOREGROUND`, `BACKGROUND` and `IGNORE`.

    Returns:
        ``(H, W)``: `FOREGROUND` in the boxes, but `IGNORE` where `label` has it, `BACKGROUND` elsewhere.
    """
    from scipy import ndimage  # not there where networks are trained

    marked = np.full_like(label, BACKGROUND)
    parts, _ = ndimage.label(label == FOREGROUND, np.ones((3, 3), bool))
    for box in ndimage.find_objects(parts):
        marked[box] = FOREGROUND
    marked[label == IGNORE] = IGNORE
    return marked


def _guarded(label: NDArray[np.uint8], marks: NDArray[np.bool_], tile_side: int) -> NDArray[np.uint8]:
    """Return an annotation by `marks` inside the object, with a guard ring around them."""
    marked = np.where(_dilate(marks, round(GUARD * tile_side)), IGNORE, BACKGROUND).astype(np.uint8)
    marked[label == IGNORE] = IGNORE
    marked[marks] = FOREGROUND
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
