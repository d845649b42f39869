"""A picture of the best, the median and the worst episode of each method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from ..image_folder import Sample
from ..lettering import fitted, lettering
from ..models.segmenter import FOREGROUND, IGNORE
from .datasets import Dataset
from .episodes import Episode
from .measure import MethodResult, log_odds
from .methods import least_probability
from .metrics import Overlap
from .search import Encodings, read_shots, search_all

PANEL = 300
"""Side of a panel in pixels."""
GAP, MARGIN, HEAD, CAPTION = 10, 20, 92, 30
PAPER, INK, FAINT = (250, 250, 248), (30, 30, 30), (110, 110, 110)
MARKS, FOUND, TRUTH = (255, 214, 0), (255, 60, 50), (40, 220, 80)
"""Colours of the reference's marks, of the result and of what is really there."""
TINT, SHADE = 0.3, 0.45
COLUMNS = (("reference", MARKS), ("target", None), ("result", FOUND), ("truth", TRUTH))

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Answer:
    """What was shown, sought and found in one episode.

    Attributes:
        told: Class, IoU and places of reference and target.
        iou: Of the class in the counted pixels.
        reference: ``(h, w, 3)`` uint8 pixels of the first reference.
        marks: ``(h, w)``; what is marked in it.
        target: ``(H, W, 3)`` uint8 pixels of the target.
        found: ``(H, W)``; where the class was found.
        truth: ``(H, W)``; where it really is.
        counted: ``(H, W)``; what was labelled at all.
    """

    told: str
    iou: float
    reference: NDArray[np.uint8]
    marks: NDArray[np.bool_]
    target: NDArray[np.uint8]
    found: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    counted: NDArray[np.bool_]


@dataclass(frozen=True)
class PictureRow:
    """One episode drawn.

    Attributes:
        title: Which episode of which method it is, and how it went.
        panels: One picture for each column, with no side longer than `PANEL`.
        iou: Of the class in the counted pixels.
    """

    title: str
    panels: tuple[Image.Image, ...]
    iou: float

    @property
    def height(self) -> int:
        """Height in pixels, with the title."""
        return CAPTION + max(panel.height for panel in self.panels)


def picture_rows(method: str, encodings: Encodings, results: Sequence[MethodResult], support: str) -> list[PictureRow]:
    """Search the best, the median and the worst episode by IoU once more and draw them.

    Args:
        method: Name of the method.
        encodings: Its segmenter and the data set.
        results: What it made of its episodes.
        support: How the references are marked.
    """
    chosen = choose_episodes(results)
    least = log_odds(least_probability(method))
    found = dict(search_all(encodings, list(chosen.values()), support))
    return [
        draw_row(f"{method}: {word}", read_answer(encodings.dataset, episode, support, found[episode].logits - least))
        for word, episode in chosen.items()
    ]


def choose_episodes(results: Sequence[MethodResult]) -> dict[str, Episode]:
    """Return the best, the (upper) median and the worst episode by IoU; those without an IoU are left out."""
    pairs = (pair for result in results for pair in zip(result.episodes, result.metrics.episode_ious, strict=True))
    ranked = sorted((pair for pair in pairs if not math.isnan(pair[1])), key=lambda pair: pair[1], reverse=True)
    if not ranked:
        return {}
    places = {"best": 0, "median": len(ranked) // 2, "worst": -1}
    return {word: ranked[place][0] for word, place in places.items()}


def draw_pictures(rows: Sequence[PictureRow]) -> Image.Image:
    """Put rows below one another, under a heading that says what the colours mean."""
    width = 2 * MARGIN + len(COLUMNS) * (PANEL + GAP) - GAP
    height = HEAD + sum(row.height + GAP for row in rows) + MARGIN
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), "Best, median and worst episode by IoU", INK, lettering(22))
    for column, (name, colour) in enumerate(COLUMNS):
        left = MARGIN + column * (PANEL + GAP)
        if colour is not None:
            draw.rectangle((left, HEAD - 28, left + 14, HEAD - 14), fill=colour, outline=FAINT)
        draw.text((left + (22 if colour else 0), HEAD - 21), name, INK, lettering(16), anchor="lm")
    top = HEAD
    for row in rows:
        draw.text((MARGIN, top + CAPTION / 2), fitted(row.title, width - 2 * MARGIN, 15), INK, lettering(15), "lm")
        for column, panel in enumerate(row.panels):
            picture.paste(panel, (MARGIN + column * (PANEL + GAP), top + CAPTION))
        top += row.height + GAP
    return picture


def read_answer(dataset: Dataset, episode: Episode, support: str, logits: NDArray[np.float32]) -> Answer:
    """Gather what is drawn of one episode.

    Args:
        dataset: Where it was drawn from.
        episode: Which one.
        support: How the references are marked.
        logits: ``(H, W)``; positive where the class was found.
    """
    query = dataset.samples[episode.query]
    label = dataset.read_label(query, episode.class_id)
    shots = read_shots(dataset, episode, support)
    # Of several references the first is shown; its padding at the right and at the bottom is cut off again.
    reference = dataset.samples[episode.supports[0]]
    left, top, right, bottom = reference.box
    height, width = bottom - top, right - left
    counted = label != IGNORE
    overlap = Overlap()
    overlap.add(logits[counted] > 0, label[counted] == FOREGROUND)
    return Answer(
        f"{dataset.names[episode.class_id]}, IoU {overlap.iou:.2f}, {_place(reference)} → {_place(query)}",
        overlap.iou,
        shots.images[0].permute(1, 2, 0).numpy()[:height, :width],
        shots.masks[0].numpy()[:height, :width] == FOREGROUND,
        dataset.read_image(query),
        logits > 0,
        label == FOREGROUND,
        counted,
    )


def draw_row(title: str, answer: Answer) -> PictureRow:
    """Draw one episode over its images; `title` stands before what the answer tells."""
    panels = (
        _panel(answer.reference, answer.marks, MARKS),
        _panel(answer.target, np.zeros_like(answer.truth), MARKS),
        _panel(answer.target, answer.found, FOUND),
        _panel(answer.target, answer.truth, TRUTH, ~answer.counted),
    )
    return PictureRow(f"{title}, {answer.told}", panels, answer.iou)


def _place(sample: Sample) -> str:
    """Say which part of which image a sample is."""
    left, top, _, _ = sample.box
    return f"{sample.image.name} from ({left}, {top})"


def panel_size(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return width and height of the panel that shows a mask ``(H, W)``."""
    height, width = mask.shape
    scale = PANEL / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _panel(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour, dark: NDArray[np.bool_] | None = None
) -> Image.Image:
    """Draw an image with a mask tinted and outlined, and with what is not counted darker."""
    size = panel_size(mask)
    pixels = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)).astype(np.float32)
    shown = Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BILINEAR)
    inside = np.asarray(shown) > 127
    # The outline lies outside, so that small objects stay visible.
    edge = (np.asarray(shown.filter(ImageFilter.MaxFilter(3))) > 127) & ~inside
    if dark is not None:
        pixels[np.asarray(Image.fromarray(dark).resize(size, Image.Resampling.NEAREST))] *= SHADE
    pixels[inside] = (1 - TINT) * pixels[inside] + TINT * np.array(colour)
    pixels[edge] = colour
    return Image.fromarray(pixels.round().astype(np.uint8))
