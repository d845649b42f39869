import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import contact_sheet
from benchmarks.accuracy.shape_panels import GROUND, MISSED, RIGHT, SHAPE, UNCOUNTED, WRONG, draw_shapes
from refsam_qgis.engine.evaluation.pictures import GAP, PANEL, Answer
from refsam_qgis.engine.image_folder import scan_folder

from .conftest import COLOURS, ColourSegmenter


def band(part, across):
    """A mask ``(10, 10)`` of some rows, or of some columns."""
    mask = np.zeros((10, 10), bool)
    mask[part] = True
    return mask if across else mask.T


def test_shapes_show_what_agrees_and_nothing_of_the_images():
    images = np.random.default_rng(0).integers(0, 256, (2, 10, 10, 3), np.uint8)
    rows, columns = band(slice(5), True), band(slice(5), False)
    counted = band(slice(9), False)
    answer = Answer("pool, IoU 0.33", 1 / 3, images[0], rows, images[1], rows, columns, counted)
    row = draw_shapes("pools", answer)
    assert (row.title, row.iou) == ("pools, pool, IoU 0.33", 1 / 3)
    left, right, edge = (int(PANEL * share) for share in (0.25, 0.7, 0.97))
    top, bottom = left, right

    def colours(panel):
        return [panel.getpixel(place) for place in ((left, top), (right, top), (left, bottom), (right, bottom))]

    marks, found, truth, agreement = row.panels
    assert colours(marks) == colours(found) == [SHAPE, SHAPE, GROUND, GROUND]
    assert colours(truth) == [SHAPE, GROUND, SHAPE, GROUND]
    assert colours(agreement) == [RIGHT, WRONG, MISSED, GROUND]
    assert truth.getpixel((edge, top)) == agreement.getpixel((edge, top)) == UNCOUNTED


@pytest.fixture
def draw_sheet_of(folder, tmp_path, monkeypatch):
    """Return a function that runs the program on one small folder and returns its sheet."""

    class OneFolder:
        def scan(self, name):
            return scan_folder(folder)

    @contextmanager
    def open_one(data):
        yield OneFolder()

    monkeypatch.setattr(contact_sheet, "REAL", ("pools",))
    monkeypatch.setattr(contact_sheet, "open_data_sets", open_one)
    monkeypatch.setattr(contact_sheet, "build_segmenter", lambda *_: ColourSegmenter())

    def draw(name, *flags):
        path = tmp_path / name
        arguments = ["--data", str(folder), "--targets", "4", "--picture", str(path), *flags]
        monkeypatch.setattr(sys, "argv", ["contact_sheet", *arguments])
        contact_sheet.main()
        return Image.open(path).convert("RGB")

    return draw


def test_a_sheet_shows_no_imagery_unless_it_is_asked_for(draw_sheet_of):
    def shares(sheet):
        pixels = np.asarray(sheet)
        return [(np.abs(pixels.astype(int) - colour).max(-1) < 9).mean() for colour in COLOURS.values()]

    shapes, imagery = draw_sheet_of("shapes.png"), draw_sheet_of("imagery.png", "--imagery")
    assert shapes.width == imagery.width > 4 * (PANEL + GAP)
    assert max(shares(shapes)) < 0.001 < max(shares(imagery))
