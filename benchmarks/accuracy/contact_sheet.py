"""A sheet of real targets with their references, results and truth: what the figures look like.

    python -m benchmarks.accuracy.contact_sheet --data DATA [--fold-weights DIR] [--picture PATH]

The first episodes of the protocol's lists on each real data set, one reference marked in full; none is chosen. Within a
data set they are sorted by IoU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from refsam_qgis.engine.evaluation.measure import log_odds
from refsam_qgis.engine.evaluation.methods import build_segmenter, least_probability
from refsam_qgis.engine.evaluation.pictures import COLUMNS, FAINT, GAP, INK, MARGIN, PANEL, PAPER, PictureRow, draw_row
from refsam_qgis.engine.evaluation.search import Encodings, search_all
from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.lettering import fitted, lettering
from refsam_qgis.engine.models.checkpoints import load_segmenter

from .data_sets import FOLDS, REAL, DataSets, draw_fold, open_data_sets
from .options import RECORDS, add_fold_weights, fold_options

TITLE, HEAD = 24, 44
"""Heights of the lettering of a row and of the legend, in pixels of the sheet before it is halved."""
AT_A_TIME = 2
"""Rows beside one another."""


def main() -> None:
    """Search the targets and write the sheet."""
    parser = argparse.ArgumentParser(description="A sheet of real targets with references, results and truth.")
    parser.add_argument("--data", type=Path, required=True, help="folder of train/ and eval/")
    parser.add_argument("--targets", type=int, default=40)
    parser.add_argument("--method", default="fitted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=RECORDS / "contact_sheet.jpg")
    add_fold_weights(parser)
    arguments = parser.parse_args()
    with open_data_sets(arguments.data) as data:
        rows = list(_rows(arguments, data))
    draw_sheet(rows).save(arguments.picture, quality=72)


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
            draw_row(name, folder, episode, "mask", found.logits - least)
            for episode, found in search_all(Encodings(segmenter, folder), episodes, "mask")
        ]
        yield from sorted(drawn, key=lambda row: row.iou, reverse=True)


def draw_sheet(rows: list[PictureRow]) -> Image.Image:
    """Put rows below and beside one another, at half their size, under what the colours mean."""
    wide = len(COLUMNS) * (PANEL + GAP)
    tall = max(panel.height for row in rows for panel in row.panels) + TITLE + 2 * GAP
    lines = -(-len(rows) // AT_A_TIME)
    sheet = Image.new("RGB", (AT_A_TIME * (wide + MARGIN) + MARGIN, lines * tall + HEAD + 2 * MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        left = MARGIN + number // lines * (wide + MARGIN)
        top = MARGIN + HEAD + number % lines * tall
        draw.text((left, top), fitted(row.title, wide, TITLE), INK, lettering(TITLE))
        for column, panel in enumerate(row.panels):
            sheet.paste(panel, (left + column * (PANEL + GAP), top + TITLE + GAP))
    for column, (name, colour) in enumerate(AT_A_TIME * COLUMNS):
        left = MARGIN + column * (PANEL + GAP) + column // len(COLUMNS) * MARGIN
        if colour is not None:
            draw.rectangle((left, MARGIN, left + 24, MARGIN + 24), fill=colour, outline=FAINT)
        draw.text((left + (34 if colour else 0), MARGIN + 12), name, INK, lettering(28), anchor="lm")
    return sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
