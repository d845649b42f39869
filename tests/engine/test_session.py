from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rasterio.windows import Window

from refsam_qgis.engine.job import ModelOptions, PolygonOptions, RasterOptions, ReferenceSource, RefsetJob
from refsam_qgis.engine.rasters.source import RasterSource
from refsam_qgis.engine.references.refset import run_refset
from refsam_qgis.engine.session import Session, Showing
from tests.engine.stand_ins import BLUE, HALF_METRE, RED, ColourSegmenter, Recorder, painted
from tests.engine.test_segment import mark_at

NOT_IT = slice(100, 120)


def load(options):
    return ColourSegmenter()


@pytest.mark.parametrize(("count", "same"), [(4, True), (5, False)])
def test_bands_are_also_those_of_another_raster_with_as_many(write_raster, write_vector, count, same):
    image = painted(260, 260, [(slice(40, 60), slice(40, 60), RED)])
    marked = write_raster(np.concatenate([image, image[: count - 3]]), "marked.tif")
    searched = write_raster(np.concatenate([image, image[:1]]), "searched.tif")
    recorder = Recorder()
    source = ReferenceSource(write_vector([mark_at(HALF_METRE, 40, 40)]), raster=marked)
    session = Session(source, searched, RasterOptions(bands=(3, 2, 1)), ModelOptions(), load, recorder)
    for _ in range(2):
        found = session.references(session.showing(searched))
    reds = (found.classes[0].shots.images[0].numpy() == np.array(RED[::-1] if same else RED)[:, None, None]).all(axis=0)
    assert reds.sum() == 400
    told = [message for message in recorder.messages if "another number of bands" in message]
    assert len(told) == (not same) and all("bands 3, 2, 1 are not taken" in message for message in told)
    assert session.references(session.showing(marked)) is not found or same


def mixture(rng):
    """An 8-bit image, and the same as 16-bit values and as shares."""
    image = rng.integers(20, 120, (3, 64, 64)).astype(np.uint8)
    return {"bytes": image, "words": image.astype(np.uint16) * 12, "shares": image.astype(np.float32) / 256}


def image_of(session, showing):
    return session.references(showing).classes[0].shots.images[0].numpy()


@pytest.mark.parametrize("as_set", [False, True])
def test_examples_and_the_raster_that_is_searched_are_seen_alike(tmp_path, write_raster, write_vector, as_set):
    """All these rasters show the same, so a chip of each is what the searched one shows there."""
    paths = {kind: write_raster(v, f"{kind}.tif") for kind, v in mixture(np.random.default_rng(0)).items()}
    marks = write_vector([mark_at(HALF_METRE, 10, 10)])
    whole = Window(0, 0, 64, 64)
    for examples, marked in paths.items():
        source = ReferenceSource(marks, marked)
        if as_set:
            refset = str(tmp_path / f"{examples}.refset")
            run_refset(RefsetJob((source,), refset), Recorder())
            source = ReferenceSource(refset=refset)
        recorder = Recorder()
        session = Session(source, "none.tif", RasterOptions(), ModelOptions(), load, recorder)
        for searched, path in [*paths.items(), *paths.items()]:
            showing = session.showing(path)
            with RasterSource(path, None, showing.stretch) as raster:
                assert np.array_equal(image_of(session, showing), raster.read(whole)[0]), (examples, searched)
                assert (raster.limits is None) == (examples == searched == "bytes")
            assert (showing.stretch == "percentile") == ((examples == "bytes") != (searched == "bytes"))
        assert recorder.messages == [
            "The contrast of 8-bit examples is stretched, as that of a raster that is searched is."
            if examples == "bytes"
            else "The contrast of 8-bit rasters that are searched is stretched, as that of examples is."
        ]


@pytest.mark.parametrize("stretch", ["none", "percentile"])
def test_a_stretch_that_is_asked_for_is_that_of_both(write_raster, write_vector, stretch):
    paths = {kind: write_raster(v, f"{kind}.tif") for kind, v in mixture(np.random.default_rng(0)).items()}
    source = ReferenceSource(write_vector([mark_at(HALF_METRE, 10, 10)]), paths["words"])
    session = Session(source, "none.tif", RasterOptions(stretch=stretch), ModelOptions(), load, Recorder())
    assert session.showing(paths["bytes"]).stretch == stretch


def test_a_set_of_both_kinds_is_stretched_beside_any_raster(tmp_path, write_raster, write_vector):
    paths = {kind: write_raster(v, f"{kind}.tif") for kind, v in mixture(np.random.default_rng(0)).items()}
    marks = write_vector([mark_at(HALF_METRE, 10, 10)])
    refset = str(tmp_path / "both.refset")
    run_refset(RefsetJob(tuple(ReferenceSource(marks, paths[kind]) for kind in ("bytes", "words")), refset), Recorder())
    session = Session(ReferenceSource(refset=refset), "", RasterOptions(), ModelOptions(), load, Recorder())
    for path in paths.values():
        images = session.references(session.showing(path)).classes[0].shots.images.numpy()
        assert len(images) == 2 and np.array_equal(images[0], images[1])


def test_chips_that_cannot_be_stretched_are_told(tmp_path, write_raster, write_vector):
    """Words that were cut off at 255 are no 8-bit data."""
    paths = {kind: write_raster(v, f"{kind}.tif") for kind, v in mixture(np.random.default_rng(0)).items()}
    refset = str(tmp_path / "cut.refset")
    source = ReferenceSource(write_vector([mark_at(HALF_METRE, 10, 10)]), paths["words"])
    run_refset(RefsetJob((source,), refset, stretch="none"), Recorder())
    recorder = Recorder()
    session = Session(ReferenceSource(refset=refset), "", RasterOptions(), ModelOptions(), load, recorder)
    session.references(session.showing(paths["words"]))
    assert recorder.messages[-1] == (
        f"Chips of '{refset}' that are not known to be stretched, as the raster that is searched is: 1; build the set "
        "anew with Contrast stretch 'auto'."
    )


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
    showing = Showing(None, "auto", None)
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
    described = own.described(Showing(None, "auto", None)).classes
    assert [value.tolist() for value in described] == [[*map(float, RED)], [*map(float, BLUE)]]


def test_each_way_of_showing_has_chips_and_descriptions_of_its_own(session):
    own, loaded = session()
    plain = Showing(None, "auto", None)
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
    showing = Showing(None, "auto", None)
    assert own.polygon_options(PolygonOptions(min_area=0.0), showing).min_area == 0
    assert own.polygon_options(PolygonOptions(min_area=7.0), showing).min_area == 7
    assert not any("left out" in text for text in recorder.messages)
    for _ in range(2):
        found = own.polygon_options(PolygonOptions(min_area=None, simplify=2.0), showing)
        assert found.min_area == pytest.approx(5.0, rel=2e-3) and found.simplify == 2
    assert sum("Polygons below 5 m²" in text for text in recorder.messages) == 1
