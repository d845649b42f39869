from __future__ import annotations

import numpy as np
import pytest

from refsam_qgis.engine.job import ModelOptions, RasterOptions, ReferenceSource
from refsam_qgis.engine.session import Session
from tests.engine.stand_ins import HALF_METRE, RED, ColourSegmenter, Recorder, painted
from tests.engine.test_segment import mark_at


def load(options):
    return ColourSegmenter()


@pytest.mark.parametrize(("count", "same"), [(4, True), (5, False)])
def test_bands_are_also_those_of_another_raster_with_as_many(write_raster, write_vector, count, same):
    image = painted(260, 260, [(slice(40, 60), slice(40, 60), RED)])
    marked = write_raster(np.concatenate([image, image[: count - 3]]), "marked.tif")
    recorder = Recorder()
    source = ReferenceSource(write_vector([mark_at(HALF_METRE, 40, 40)]), raster=marked)
    session = Session(source, "none.tif", RasterOptions(bands=(3, 2, 1)), ModelOptions(), load, recorder)
    for _ in range(2):
        found = session.references(session.showing(4))
    reds = (found.classes[0].shots.images[0].numpy() == np.array(RED[::-1] if same else RED)[:, None, None]).all(axis=0)
    assert reds.sum() == 400
    told = [message for message in recorder.messages if "another number of bands" in message]
    assert len(told) == (not same) and all("bands 3, 2, 1 are not taken" in message for message in told)
    assert session.references(session.showing(count)) is not found or same
