"""Reference masks as users would make them, simulated from exact masks (method A5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from ..models.sam import GRID
from ..models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED

GUARD_CELLS = 4
"""Width of the ring around a scribble that counts as neither class nor background, in feature cells."""


def complete(target: NDArray[np.bool_], counted: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Every object of the class is outlined."""
    return np.where(counted, np.where(target, FOREGROUND, BACKGROUND), IGNORE).astype(np.uint8)


def partial(
    target: NDArray[np.bool_],
    instances: NDArray[np.uint16],
    counted: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Some objects of the class are outlined; the others, and all the rest, nobody looked at."""
    ids = np.unique(instances[target])
    ids = ids[ids != 0]
    marked = target
    if len(ids) > 1:
        chosen = rng.choice(ids, size=int(rng.integers(1, len(ids))), replace=False)
        marked = target & np.isin(instances, chosen)
    return np.where(counted, np.where(marked, FOREGROUND, UNMARKED), IGNORE).astype(np.uint8)


def scribble(target: NDArray[np.bool_], counted: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A few strokes inside the objects; near them nothing is known, farther away is background.

    Args:
        target: ``(S, S)`` exact mask of the class; S is a part of SAM's 1024 frame.
        counted: ``(S, S)``; False where nobody labelled.
        rng: Random draws.
    """
    side = target.shape[0]
    strokes = Image.new("L", (side, side))
    pen = ImageDraw.Draw(strokes)
    flat = np.flatnonzero(target)
    for _ in range(int(rng.integers(1, 6))):
        row, column = divmod(int(flat[rng.integers(len(flat))]), side)
        length = float(rng.uniform(0.02, 0.15)) * side
        heading = float(rng.uniform(0, 2 * np.pi))
        path = [(column, row)]
        for _ in range(6):
            heading += float(rng.normal(0, 0.6))
            x, y = path[-1]
            path.append((int(x + length / 6 * np.cos(heading)), int(y + length / 6 * np.sin(heading))))
        pen.line(path, fill=255, width=int(rng.integers(3, 11)))
    drawn = (np.asarray(strokes) > 0) & target
    if not drawn.any():
        drawn = target
    guard = GUARD_CELLS * (1024 // GRID)
    near = np.asarray(Image.fromarray((drawn * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(guard))) > 0
    mask = np.where(near | target, IGNORE, BACKGROUND)
    return np.where(counted, np.where(drawn, FOREGROUND, mask), IGNORE).astype(np.uint8)
