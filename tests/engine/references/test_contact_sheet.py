"""What stands on the picture of a reference set, and that all of it does."""

import numpy as np
import pytest
from PIL import ImageDraw

from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.models.segmenter import FOREGROUND
from refsam_qgis.engine.references import contact_sheet
from refsam_qgis.engine.references.chips import Chip, ChipSet
from refsam_qgis.engine.references.contact_sheet import draw_contact_sheet


@pytest.fixture
def written(monkeypatch):
    """Every text that is drawn, with its right edge."""
    seen = {}
    draw = ImageDraw.ImageDraw.text

    def note(self, xy, text, fill, font, *more, **others):
        seen[text] = xy[0] + font.getlength(text)
        draw(self, xy, text, fill, font, *more, **others)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    return seen


def chips(gsd, crs="EPSG:32632"):
    mask = np.full((256, 256), FOREGROUND, np.uint8)
    origin = {"raster": "a.tif", "crs": crs}
    chip = Chip(np.zeros((3, 256, 256), np.uint8), mask, np.ones((256, 256), bool), gsd, origin)
    return ChipSet(256 * gsd, {"roof": [chip]})


@pytest.mark.parametrize(
    ("gsd", "title", "caption"),
    [
        (0.12345, "1 chip of 31.6 m", "256 px of 0.123 m"),
        (50.0, "1 chip of 12800 m", "256 px of 50 m"),
        (1000.0, "1 chip of 256000 m", "256 px of 1000 m"),
    ],
)
def test_lengths_are_written_without_powers_of_ten(written, gsd, title, caption):
    draw_contact_sheet(chips(gsd), SilentReporter())
    assert {title, caption} <= written.keys()


def test_a_raster_without_crs_knows_no_metres(written):
    draw_contact_sheet(chips(1.0, crs=None), SilentReporter())
    assert {"1 chip of 256 map units", "256 px of 1 map units"} <= written.keys()


def test_small_chips_leave_the_legend_whole(written, monkeypatch):
    monkeypatch.setattr(contact_sheet, "MAX_PIXELS", 1)
    sheet = draw_contact_sheet(chips(1.0), SilentReporter())
    assert max(written.values()) <= sheet.width and "no image" in written
