"""A picture of the confusion matrix."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw

from ..lettering import fitted, lettering

CELL = 96
MARGIN = 24
NAME_WIDTH = 200
HEADER = 150
INK, FAINT, PAPER = (30, 34, 40), (110, 118, 128), (255, 255, 255)
RIGHT, WRONG = (33, 113, 181), (203, 85, 40)
"""Colour of a full cell on the diagonal, and beside it."""
MOST_CLASSES = 40
"""Classes shown; more would make cells nobody can read."""


def draw_confusion(record: dict[str, Any]) -> Image.Image:
    """Draw the confusion matrix of an evaluation: shares of each true class, and the IoU of each class.

    Args:
        record: As `run_evaluate` returns it.
    """
    names = record["confusion"]["names"][: MOST_CLASSES + 1]
    matrix = [row[: len(names)] for row in record["confusion"]["matrix"][: len(names)]]
    ious = [None, *(row["iou"] for row in record["classes"])][: len(names)]
    totals = [sum(row) for row in record["confusion"]["matrix"]]
    left, top = MARGIN + NAME_WIDTH, HEADER + 64
    width = max(left + CELL * (len(names) + 1) + MARGIN, 720)
    picture = Image.new("RGB", (width, top + CELL * len(names) + 56), PAPER)
    draw = ImageDraw.Draw(picture)
    _head(draw, record)
    draw.text((left + CELL * len(names) / 2, HEADER + 10), "result", FAINT, lettering(16), anchor="mm")
    draw.text((left - 10, HEADER + 48), "truth", FAINT, lettering(16), anchor="rm")
    draw.text((left + CELL * (len(names) + 0.5), HEADER + 48), "IoU", FAINT, lettering(16), anchor="mm")
    for i, name in enumerate(names):
        middle = CELL * (i + 0.5)
        _text(draw, (left + middle, HEADER + 48), name, CELL - 6, "mm", 15)
        _text(draw, (left - 10, top + middle), name, NAME_WIDTH - 10, "rm", 17)
        for j in range(len(names)):
            share = matrix[i][j] / totals[i] if totals[i] else None
            _cell(draw, left + CELL * j, top + CELL * i, share, RIGHT if i == j else WRONG)
        if ious[i] is not None:
            draw.text((left + CELL * (len(names) + 0.5), top + middle), f"{ious[i]:.2f}", INK, lettering(18), "mm")
    note = "Each row: share of the pixels of a true class that the result gives to each class."
    _text(draw, (MARGIN, top + CELL * len(names) + 28), note, width - 2 * MARGIN, "lm", 15, FAINT)
    return picture


def _head(draw: ImageDraw.ImageDraw, record: dict[str, Any]) -> None:
    draw.text((MARGIN, 20), "Result against truth", INK, lettering(26))
    figures = [
        ("mIoU", record["miou"]), ("FB-IoU", record["fb_iou"]), ("boundary F", record["boundary_f"]),
        ("object F1", record["object_f1"]), ("PQ", record["panoptic_quality"]),
    ]  # fmt: skip
    for i, (name, value) in enumerate(figures):
        draw.text((MARGIN + 134 * i, 64), name, FAINT, lettering(15))
        draw.text((MARGIN + 134 * i, 84), "–" if value is None else f"{value:.3f}", INK, lettering(24))


def _cell(draw: ImageDraw.ImageDraw, x: int, y: int, share: float | None, colour: tuple[int, int, int]) -> None:
    depth = 0.0 if share is None else share
    fill = tuple(round(255 + (channel - 255) * depth) for channel in colour)
    draw.rectangle((x, y, x + CELL - 2, y + CELL - 2), fill=fill, outline=(222, 226, 230))
    text = "–" if share is None else f"{share:.1%}"
    ink = PAPER if depth > 0.6 else INK if depth >= 0.0005 else FAINT
    draw.text((x + CELL / 2, y + CELL / 2), text, ink, lettering(17), anchor="mm")


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    width: float,
    anchor: str,
    size: int,
    ink: tuple[int, int, int] = INK,
) -> None:
    draw.text(place, fitted(text, width, size), ink, lettering(size), anchor=anchor)
