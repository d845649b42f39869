"""A picture of a reference set: its chips with their masks drawn in, to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from ..events import Reporter, check_cancelled
from ..lettering import fitted, lettering
from ..models.sam import resize_pixels
from ..models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED
from .chips import Chip, ChipSet, resize_mask

LARGEST_THUMB, SMALLEST_THUMB = 256, 64
MAX_PIXELS = 24_000_000
"""Pixels of a picture beyond which its chips are drawn smaller."""
COLUMNS = 5
GAP, MARGIN = 12, 20
HEADING, CAPTION = 34, 30
PAPER, INK, FAINT = (250, 250, 248), (30, 30, 30), (110, 110, 110)
CLASS_COLOUR, NEGATIVE_COLOUR, RIVAL_COLOUR = (255, 214, 0), (255, 80, 60), (0, 200, 255)
NO_IMAGE = (208, 208, 204)
TINT, SHADE = 0.25, 0.45
TITLE, SMALL = 18, 11
"""Sizes of the letters in pixels."""
LEGEND = (
    (CLASS_COLOUR, "of the class"),
    (NEGATIVE_COLOUR, "negative"),
    (RIVAL_COLOUR, "marked as something else"),
    (tuple(round(SHADE * v) for v in NO_IMAGE), "not counted"),
    (NO_IMAGE, "no image"),
)

Colour = tuple[int, int, int]


def draw_contact_sheet(chips: ChipSet, reporter: Reporter) -> Image.Image:
    """Draw the chips of every class, then the negatives, each with its mask.

    What is marked is outlined and tinted; what is marked as something else is outlined where the rest was not looked
    at; what counts neither way is darker.
    """
    groups: list[tuple[str, Colour, Sequence[Chip]]] = [
        (f"{name}: {_count(shown)}", CLASS_COLOUR, shown) for name, shown in chips.classes.items()
    ]
    if chips.negatives:
        groups.append((f"Negatives, not to be found: {_count(chips.negatives)}", NEGATIVE_COLOUR, chips.negatives))
    thumb = _thumb_side([len(shown) for _, _, shown in groups])
    rows = sum(math.ceil(len(shown) / COLUMNS) for _, _, shown in groups)
    width = 2 * MARGIN + max(COLUMNS * (thumb + GAP) - GAP, sum(_entry_width(text) for _, text in LEGEND))
    height = 2 * MARGIN + 2 * HEADING + len(groups) * HEADING + rows * (thumb + CAPTION + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    every = [chip for _, chip in chips.chips()]
    title = f"{_count(every)} of {_length(chips.ground_size, every, 4)}"
    draw.text((MARGIN, MARGIN), title, INK, lettering(TITLE))
    _draw_legend(draw, MARGIN, MARGIN + HEADING)
    top = MARGIN + 2 * HEADING
    for title, colour, shown in groups:
        draw.text((MARGIN, top), fitted(title, width - 2 * MARGIN, TITLE), INK, lettering(TITLE))
        top += HEADING
        for number, chip in enumerate(shown):
            check_cancelled(reporter)
            row, column = divmod(number, COLUMNS)
            left, upper = MARGIN + column * (thumb + GAP), top + row * (thumb + CAPTION + GAP)
            sheet.paste(Image.fromarray(_thumbnail(chip, thumb, colour)), (left, upper))
            _draw_caption(draw, chip, (left, upper + thumb + 2), thumb)
        top += math.ceil(len(shown) / COLUMNS) * (thumb + CAPTION + GAP)
    return sheet


def _thumb_side(counts: Sequence[int]) -> int:
    """Return how large chips are drawn, so that the picture stays within `MAX_PIXELS`."""
    rows = sum(math.ceil(count / COLUMNS) for count in counts)
    side = round(math.sqrt(MAX_PIXELS / (rows * COLUMNS)))
    return min(max(side, SMALLEST_THUMB), LARGEST_THUMB)


def _thumbnail(chip: Chip, side: int, colour: Colour) -> NDArray[np.uint8]:
    """Return a chip with its mask drawn in, ``(side, side, 3)``."""
    mask, valid = resize_mask(chip.mask, chip.valid, side)
    pixels = resize_pixels(torch.from_numpy(chip.image)[None], (side, side))[0].permute(1, 2, 0).numpy()
    marked = mask == FOREGROUND
    pixels[marked] = (1 - TINT) * pixels[marked] + TINT * np.array(colour)
    pixels[valid & (mask == IGNORE)] *= SHADE
    if (mask == UNMARKED).any():
        pixels[_edge(mask == BACKGROUND)] = RIVAL_COLOUR
    pixels[_edge(marked)] = colour
    pixels[~valid] = NO_IMAGE
    drawn: NDArray[np.uint8] = pixels.round().clip(0, 255).astype(np.uint8)
    return drawn


def _edge(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels just outside a region, so that small ones stay visible."""
    edge: NDArray[np.bool_] = ndimage.binary_dilation(region, np.ones((3, 3), bool)) & ~region
    return edge


def _draw_legend(draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
    for colour, text in LEGEND:
        draw.rectangle((left, top, left + 12, top + 12), fill=colour, outline=FAINT)
        draw.text((left + 18, top), text, FAINT, lettering(SMALL))
        left += _entry_width(text)


def _entry_width(text: str) -> int:
    return 34 + round(lettering(SMALL).getlength(text))


def _draw_caption(draw: ImageDraw.ImageDraw, chip: Chip, place: tuple[int, int], width: int) -> None:
    name = fitted(str(chip.origin.get("raster", "")), width, SMALL)
    draw.text(place, name, INK, lettering(SMALL))
    draw.text((place[0], place[1] + 14), f"{chip.side} px of {_length(chip.gsd, [chip], 3)}", FAINT, lettering(SMALL))


def _length(value: float, chips: Sequence[Chip], digits: int) -> str:
    """Say a length with so many digits, in map units where no chip's raster has a CRS to tell metres by."""
    unit = "m" if any(chip.origin.get("crs", "unknown") for chip in chips) else "map units"
    exact = float(f"{value:.{digits}g}")
    return f"{exact:.0f} {unit}" if exact >= 10**digits else f"{exact:g} {unit}"


def _count(chips: Sequence[Chip]) -> str:
    return "1 chip" if len(chips) == 1 else f"{len(chips)} chips"
