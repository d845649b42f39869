"""A sheet of real targets with their references, results and truth: what the figures look like.

    python -m benchmarks.accuracy.contact_sheet --data DATA [--fold-weights DIR] --picture PATH [--imagery]

The first episodes of the protocol's lists on each real data set, one reference marked in full; none is chosen. Within a
data set they are sorted by IoU. Shapes alone are drawn, as the images must not be passed on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from refsam_qgis.engine.evaluation.measure import log_odds
from refsam_qgis.engine.evaluation.methods import build_segmenter, least_probability
from refsam_qgis.engine.evaluation.pictures import (
    COLUMNS,
    FAINT,
    GAP,
    INK,
    MARGIN,
    PANEL,
    PAPER,
    Answer,
    Colour,
    PictureRow,
    draw_row,
    read_answer,
)
from refsam_qgis.engine.evaluation.search import Encodings, search_all
from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.lettering import fitted, lettering
from refsam_qgis.engine.models.checkpoints import load_segmenter

from .data_sets import FOLDS, REAL, DataSets, draw_fold, open_data_sets
from .options import add_fold_weights, fold_options
from .shape_panels import COLUMNS as SHAPE_COLUMNS
from .shape_panels import KEY, draw_shapes

TITLE, HEAD = 24, 44
"""Heights of the lettering of a row and of a line of the legend, in pixels of the sheet before it is halved."""
AT_A_TIME = 2
"""Rows beside one another."""
FLAT = 48
"""Colours that shapes and lettering need, with their softened edges; all the others only make the file large."""

Legend = tuple[tuple[str, Colour | None], ...]


@dataclass(frozen=True)
class Look:
    """How rows are drawn.

    Attributes:
        draw: Draws one, under a title.
        columns: Name and colour of each of its panels.
        key: What further colours mean.
    """

    draw: Callable[[str, Answer], PictureRow]
    columns: Legend
    key: Legend = ()


SHAPES, IMAGERY = Look(draw_shapes, SHAPE_COLUMNS, KEY), Look(draw_row, COLUMNS)


def main() -> None:
    """Search the targets and write the sheet."""
    parser = argparse.ArgumentParser(description="A sheet of real targets with references, results and truth.")
    parser.add_argument("--data", type=Path, required=True, help="folder of train/ and eval/")
    parser.add_argument("--targets", type=int, default=40)
    parser.add_argument("--method", default="fitted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--imagery",
        dest="look",
        action="store_const",
        const=IMAGERY,
        default=SHAPES,
        help="draw the images beneath; not all of them may be passed on, so keep such a sheet out of the repository",
    )
    add_fold_weights(parser)
    arguments = parser.parse_args()
    with open_data_sets(arguments.data) as data:
        rows = list(_rows(arguments, data))
    sheet = draw_sheet(rows, arguments.look)
    if arguments.look is SHAPES and arguments.picture.suffix == ".png":
        sheet = sheet.quantize(FLAT, dither=Image.Dither.NONE)
    sheet.save(arguments.picture, quality=72, optimize=True)


def _rows(arguments: argparse.Namespace, data: DataSets) -> Iterator[PictureRow]:
    parts = [(name, fold) for name in REAL for fold in FOLDS.get(name, (None,))]
    counts = [len(range(i, arguments.targets, len(parts))) for i in range(len(parts))]
    for (name, fold), count in zip(parts, counts, strict=True):
        model = ModelOptions()
        if fold is not None and arguments.fold_weights is not None:
            model = fold_options(model, arguments.fold_weights, str(fold))
        segmenter = build_segmenter(arguments.method, model, arguments.seed, load_segmenter)
        folder = data.scan(name)
        least = log_odds(least_probability(arguments.method))
        episodes = draw_fold(folder, fold, 1, count, arguments.seed)
        drawn = [
            arguments.look.draw(name, read_answer(folder, episode, "mask", found.logits - least))
            for episode, found in search_all(Encodings(segmenter, folder), episodes, "mask")
        ]
        yield from sorted(drawn, key=lambda row: row.iou, reverse=True)


def draw_sheet(rows: list[PictureRow], look: Look) -> Image.Image:
    """Put rows below and beside one another, at half their size, under what columns and colours mean."""
    step = PANEL + GAP
    wide = len(look.columns) * step
    tall = max(panel.height for row in rows for panel in row.panels) + TITLE + 2 * GAP
    lines = -(-len(rows) // AT_A_TIME)
    head = MARGIN + (HEAD if look.key else 0) + HEAD
    sheet = Image.new("RGB", (AT_A_TIME * (wide + MARGIN) + MARGIN, head + lines * tall + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_legend(draw, MARGIN, MARGIN, look.key)
    for number, row in enumerate(rows):
        left = MARGIN + number // lines * (wide + MARGIN)
        top = head + number % lines * tall
        draw.text((left, top), fitted(row.title, wide, TITLE), INK, lettering(TITLE))
        for column, panel in enumerate(row.panels):
            sheet.paste(panel, (left + column * step, top + TITLE + GAP))
    for beside in range(AT_A_TIME):
        _draw_legend(draw, MARGIN + beside * (wide + MARGIN), head - HEAD, look.columns)
    return sheet.reduce(2)


def _draw_legend(draw: ImageDraw.ImageDraw, left: int, top: int, legend: Legend) -> None:
    """Write names a panel apart, with their colours before them."""
    for name, colour in legend:
        if colour is not None:
            draw.rectangle((left, top, left + 24, top + 24), fill=colour, outline=FAINT)
        draw.text((left + (34 if colour else 0), top + 12), name, INK, lettering(28), anchor="lm")
        left += PANEL + GAP


if __name__ == "__main__":
    main()
