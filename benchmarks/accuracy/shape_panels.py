"""An episode drawn as shapes alone, on plain ground: nothing of its images can be seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from refsam_qgis.engine.evaluation.pictures import Answer, Colour, PictureRow, panel_size

GROUND, SHAPE, UNCOUNTED = (226, 226, 222), (70, 70, 74), (176, 176, 172)
RIGHT, WRONG, MISSED = (0, 158, 115), (213, 94, 0), (0, 114, 178)
"""Colours of the agreement; those who cannot tell red from green can tell these."""
COLUMNS = (("reference", None), ("result", None), ("truth", None), ("agreement", None))
KEY = (
    ("agreement:", None),
    ("found and right", RIGHT),
    ("found wrongly", WRONG),
    ("missed", MISSED),
    ("not counted", UNCOUNTED),
)


def draw_shapes(title: str, answer: Answer) -> PictureRow:
    """Draw one episode without its images; `title` stands before what the answer tells."""
    found, truth, counted = answer.found, answer.truth, answer.counted
    panels = (
        _panel((answer.marks, SHAPE)),
        _panel((found, SHAPE)),
        _panel((~counted, UNCOUNTED), (truth, SHAPE)),
        _panel((found & truth, RIGHT), (found & ~truth, WRONG), (truth & ~found, MISSED), (~counted, UNCOUNTED)),
    )
    return PictureRow(f"{title}, {answer.told}", panels, answer.iou)


def _panel(*layers: tuple[NDArray[np.bool_], Colour]) -> Image.Image:
    """Fill masks on plain ground, the last on top."""
    mask, _ = layers[0]
    pixels = np.full((*mask.shape, 3), GROUND, np.uint8)
    for mask, colour in layers:
        pixels[mask] = colour
    return Image.fromarray(pixels).resize(panel_size(mask), Image.Resampling.BILINEAR)
