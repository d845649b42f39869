"""A picture of how a training went: the loss of its steps and the validation between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..lettering import fitted, lettering

WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 84, 84, 96, 64
INK, FAINT, GRID, PAPER = (30, 34, 40), (110, 118, 128), (228, 231, 235), (255, 255, 255)
LOSS, PALE_LOSS, VALIDATION = (33, 113, 181), (190, 214, 236), (203, 85, 40)
SMOOTHED = 30
"""The thick line is the mean of the steps around, of which there are this many in the whole curve."""

Point = tuple[float, float]


def draw_curve(
    losses: Sequence[float], looks: Sequence[tuple[int, float]], best: int | None, title: str | None = None
) -> Image.Image:
    """Draw the curves of a training run.

    Args:
        losses: Loss of step 1, 2, …
        looks: Step and mIoU of each validation, by step.
        best: Step whose weights were kept; ``None`` when there was no validation.
        title: Heading; ``None`` for the number of steps.
    """
    picture = Image.new("RGB", (WIDTH * 2, HEIGHT * 2), PAPER)  # drawn twice as large, then halved: smooth lines
    draw = ImageDraw.Draw(picture)
    steps = max(len(losses), 1)
    ticks = _ticks(0.0, max(losses, default=1.0))
    loss_top = ticks[-1]

    def place(step: float, share: float) -> Point:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / steps
        return 2 * x, 2 * (HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share)

    for tick in ticks:
        _rule(draw, place(0, tick / loss_top), place(steps, tick / loss_top))
        _write(draw, place(0, tick / loss_top), f"{tick:g}", LOSS, "rm", -10)
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) if looks else ():
        _write(draw, place(steps, share), f"{share:.1f}", VALIDATION, "lm", 10)
    for tick in (value for value in _ticks(0, steps) if value <= steps and value == int(value)):
        _write(draw, place(tick, 0), f"{tick:g}", FAINT, "mt", 0, 10)
    _write(draw, place(steps / 2, 0), "step", FAINT, "mt", 0, 32)
    raw = [place(i, loss / loss_top) for i, loss in enumerate(losses, 1)]
    _line(draw, raw, PALE_LOSS, 2)
    _line(draw, [place(i, loss / loss_top) for i, loss in _smooth(losses)], LOSS, 5)
    shown = [place(step, value) for step, value in looks]
    _line(draw, shown, VALIDATION, 4)
    for point, (step, value) in zip(shown, looks, strict=True):
        _dot(draw, point, 12 if step == best else 7)
        if step == best:
            anchor, shift = ("rb", -10) if step > 0.8 * steps else ("lb", 10) if step < 0.2 * steps else ("mb", 0)
            _write(draw, point, f"best: {value:.3f} at step {step}", VALIDATION, anchor, shift, -10)
    _heading(draw, title or f"Training of {len(losses)} steps", bool(looks))
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _heading(draw: ImageDraw.ImageDraw, title: str, validated: bool) -> None:
    draw.text((2 * 24, 2 * 18), fitted(title, 2 * WIDTH, 44), INK, lettering(44))
    draw.text((2 * 24, 2 * 56), "loss (left)", LOSS, lettering(30))
    if validated:
        draw.text((2 * 150, 2 * 56), "mIoU of the validation scenes (right)", VALIDATION, lettering(30))


def _smooth(losses: Sequence[float]) -> list[tuple[float, float]]:
    """Means of neighbouring steps, at the middle of each group."""
    size = max(1, len(losses) // SMOOTHED)
    groups = [losses[i : i + size] for i in range(0, len(losses) - size + 1, size)]
    return [(size * i + (size + 1) / 2, float(np.mean(group))) for i, group in enumerate(groups)]


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values from `low` to at least `high`."""
    span = max(high - low, 1e-6)
    base = 10.0 ** np.floor(np.log10(span / 4))
    step = next(base * factor for factor in (1, 2, 2.5, 5, 10) if span / (base * factor) <= 6)
    return [round(low + step * i, 10) for i in range(int(np.ceil(span / step)) + 1)]


def _rule(draw: ImageDraw.ImageDraw, start: Point, end: Point) -> None:
    draw.line((*start, *end), fill=GRID, width=2)


def _line(draw: ImageDraw.ImageDraw, points: Sequence[Point], colour: tuple[int, int, int], width: int) -> None:
    if len(points) > 1:
        draw.line(list(points), fill=colour, width=width, joint="curve")


def _dot(draw: ImageDraw.ImageDraw, point: Point, radius: int) -> None:
    x, y = point
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=VALIDATION)


def _write(
    draw: ImageDraw.ImageDraw,
    point: Point,
    text: str,
    colour: tuple[int, int, int],
    anchor: str,
    right: int = 0,
    down: int = 0,
) -> None:
    draw.text((point[0] + 2 * right, point[1] + 2 * down), text, colour, lettering(28), anchor=anchor)
