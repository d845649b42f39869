from __future__ import annotations

import pytest

from refsam_qgis.engine.lettering import fitted, lettering


@pytest.mark.parametrize("text", ["flat roof", "flat\nroof", "flat \r\n\troof\n"])
def test_a_text_is_drawn_on_one_line(text):
    assert fitted(text, 300, 15) == "flat roof"


@pytest.mark.parametrize("text", ["roofs of all kinds", "roofs\nof\nall\nkinds", "крыши\nвсех видов"])
def test_a_text_that_is_too_wide_is_shortened(text):
    short = fitted(text, 60, 15)
    assert short.endswith("…") and text.startswith(short[:4]) and lettering(15).getlength(short) <= 60
