from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from refsam_qgis.engine.job import ModelOptions, PolygonOptions, RasterOptions, ReferenceSource
from refsam_qgis.engine.session import Session
from tests.engine.stand_ins import BLUE, HALF_METRE, RED, ColourSegmenter, Recorder, painted
from tests.engine.test_segment import mark_at

NOT_IT = slice(100, 120)


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


@pytest.fixture
def session(write_raster, write_vector):
    """A session of one red example of 100 square metres; `loaded` are the options that networks were asked for with."""

    def begin(negatives=None, reporter=None, **options):
        raster = write_raster(painted(260, 260, [(slice(40, 60), slice(40, 60), RED), (NOT_IT, NOT_IT, BLUE)]))
        marks = write_vector([mark_at(HALF_METRE, 40, 40)])
        loaded = []

        def load(options):
            loaded.append(options)
            return ColourSegmenter()

        source = ReferenceSource(marks, negatives=negatives)
        own = Session(source, raster, RasterOptions(), ModelOptions(**options), load, reporter or Recorder())
        return own, loaded

    return begin


def test_what_is_too_large_for_a_device_goes_on_with_the_same_examples_on_the_cpu(session):
    own, loaded = session(device="cuda", checkpoint="sam.pth")
    showing = own.showing(3)
    usual, spare = own.described(showing), own.described_on_cpu(showing)
    assert [options.device for options in loaded] == ["cuda", "cpu"]
    assert loaded[1] == replace(loaded[0], device="cpu")
    assert spare.model is not usual.model and own.described(showing) is usual
    assert (
        [value.tolist() for value in spare.classes]
        == [value.tolist() for value in usual.classes]
        == [[*map(float, RED)]]
    )


def test_counter_examples_are_described_after_all_classes(session, write_vector):
    own, _ = session(negatives=write_vector([mark_at(HALF_METRE, 100, 100)], "not.gpkg"))
    described = own.described(own.showing(3)).classes
    assert [value.tolist() for value in described] == [[*map(float, RED)], [*map(float, BLUE)]]


def test_each_way_of_showing_has_chips_and_descriptions_of_its_own(session):
    own, loaded = session()
    plain = own.showing(3)
    turned = plain._replace(bands=(3, 2, 1))
    wide = plain._replace(ground_size=100.0)
    for showing, colour in ((plain, RED), (turned, RED[::-1]), (wide, RED), (plain, RED)):
        assert own.described(showing).classes[0].tolist() == [*map(float, colour)]
        assert own.described(showing) is own.described(showing)
    assert own.references(wide).chip_ground_size == 100 != own.references(plain).chip_ground_size
    assert len(loaded) == 1


def test_the_smallest_area_is_a_twentieth_of_the_example_unless_one_is_given(session):
    recorder = Recorder()
    own, _ = session(reporter=recorder)
    showing = own.showing(3)
    assert own.polygon_options(PolygonOptions(min_area=0.0), showing).min_area == 0
    assert own.polygon_options(PolygonOptions(min_area=7.0), showing).min_area == 7
    assert not any("left out" in text for text in recorder.messages)
    for _ in range(2):
        found = own.polygon_options(PolygonOptions(min_area=None, simplify=2.0), showing)
        assert found.min_area == pytest.approx(5.0, rel=2e-3) and found.simplify == 2
    assert sum("Polygons below 5 m²" in text for text in recorder.messages) == 1
