"""``refsam:buildreferenceset`` inside QGIS; the sets themselves are tested with the engine."""

import pytest
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsGeometry,
    QgsProcessingException,
    QgsRasterLayer,
    QgsVectorLayer,
)

from .conftest import EPSG


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("buildreferenceset").create()


@pytest.fixture
def jobs(engine):
    engine.answer = lambda job: {"classes": [{"name": "pool", "chips": 3}, {"name": "ship", "chips": 2}]}
    return engine.jobs


@pytest.fixture
def build(algorithm, run, raster, references, tmp_path):
    """Run on the raster and the references, unless the test says otherwise."""
    usual = {"RASTERS": [raster], "REFERENCES": references, "OUTPUT": str(tmp_path / "set.refset")}
    return lambda **parameters: run(algorithm, {**usual, **parameters})


@pytest.fixture
def set_path(tmp_path):
    path = tmp_path / "set.refset"
    path.touch()
    return str(path)


def shifted(raster, path, metres, epsg=EPSG):
    """Write a copy of a raster that lies further east, in another CRS if asked."""
    options = gdal.TranslateOptions(
        outputBounds=(
            raster.extent().xMinimum() + metres, raster.extent().yMaximum(), raster.extent().xMaximum() + metres,
            raster.extent().yMinimum(),
        )
    )  # fmt: skip
    if epsg == EPSG:
        gdal.Translate(str(path), raster.source(), options=options)
    else:
        moved = gdal.Translate("/vsimem/moved.tif", raster.source(), options=options)
        gdal.Warp(str(path), moved, dstSRS=f"EPSG:{epsg}")
    return str(path)


def test_what_a_first_run_does_not_need_is_advanced(algorithm):
    names = {p.name() for p in algorithm.parameterDefinitions()}
    advanced = {p.name() for p in algorithm.parameterDefinitions() if p.flags() & p.Flag.FlagAdvanced}
    assert advanced == {"NEGATIVES", "BANDS", "STRETCH", "CHIP_SIZE"}
    assert names - advanced == {
        "RASTERS", "REFERENCES", "CLASS_FIELD", "ANNOTATION", "BASE_SET", "OUTPUT", "PICTURE"
    }  # fmt: skip


def test_defaults_make_the_default_job(build, jobs, raster, tmp_path):
    results = build()
    job = jobs[0]
    assert job == type(job)(job.sources, str(tmp_path / "set.refset"))
    assert [source.raster for source in job.sources] == [raster.source()]
    assert results == {"OUTPUT": str(tmp_path / "set.refset"), "CHIP_COUNT": 5, "CLASSES": "pool, ship"}


def test_every_parameter_reaches_the_job(build, jobs, references, set_path, tmp_path):
    results = build(
        CLASS_FIELD="fid", ANNOTATION="partial", NEGATIVES=references, BASE_SET=set_path, BANDS="3,2,1",
        STRETCH="percentile", CHIP_SIZE=64, PICTURE=str(tmp_path / "p.png"),
    )  # fmt: skip
    job = jobs[0]
    source = job.sources[0]
    assert (source.annotation, source.class_field) == ("partial", "fid_")
    assert QgsVectorLayer(source.negatives, "n", "ogr").featureCount() == 2
    assert (job.base, job.output, job.picture) == (set_path, set_path, str(tmp_path / "p.png"))
    assert (job.bands, job.stretch, job.chip_size) == ((3, 2, 1), "percentile", 64.0)
    assert results["PICTURE"] == str(tmp_path / "p.png")


def test_temporary_outputs_have_the_right_endings(build, jobs):
    build(OUTPUT="TEMPORARY_OUTPUT", PICTURE="TEMPORARY_OUTPUT")
    assert jobs[0].output.endswith(".refset") and jobs[0].picture.endswith(".png")


def test_each_raster_takes_the_examples_that_fall_on_it(build, jobs, raster, feedback, tmp_path):
    degrees = shifted(raster, tmp_path / "degrees.tif", 0, 4326)
    beside = shifted(raster, tmp_path / "beside.tif", 1000)
    build(RASTERS=[raster, degrees, beside])
    assert [source.raster for source in jobs[0].sources] == [raster.source(), degrees]
    assert len({source.vector for source in jobs[0].sources}) == 1
    assert feedback.warnings == [f"No example falls on '{beside}'; it is left out."]


def test_examples_without_a_crs_are_in_that_of_each_raster(build, jobs, raster, references, feedback, tmp_path):
    references.setCrs(QgsCoordinateReferenceSystem())
    beside = shifted(raster, tmp_path / "beside.tif", 1000)
    build(RASTERS=[raster, beside])
    assert [source.raster for source in jobs[0].sources] == [raster.source()]
    assert feedback.warnings == [f"No example falls on '{beside}'; it is left out."]


def test_examples_on_no_raster_are_told_of(build, jobs, raster, feedback, tmp_path):
    # The first square begins 20 m from the western border, the second 100 m.
    east, further_east = (shifted(raster, tmp_path / f"{metres}.tif", metres) for metres in (60, 70))
    build(RASTERS=[east, further_east])
    assert len(jobs[0].sources) == 2
    assert feedback.warnings == ["1 examples fall on none of the rasters."]


@pytest.mark.parametrize("missing", [None, " "])
def test_a_raster_with_examples_of_no_class_is_left_out(build, jobs, raster, references, feedback, tmp_path, missing):
    """The engine leaves such examples out and then finds none there."""
    east = shifted(raster, tmp_path / "east.tif", 300.0)
    first = next(references.getFeatures())
    lone = QgsFeature(references.fields())
    lone.setAttributes([missing])
    geometry = QgsGeometry(first.geometry())
    geometry.translate(300.0, 0.0)
    lone.setGeometry(geometry)
    assert references.dataProvider().addFeature(lone)
    build(RASTERS=[raster, QgsRasterLayer(east, "east")], CLASS_FIELD="fid")
    assert [source.raster for source in jobs[0].sources] == [raster.source()]
    assert any("No example falls on" in warning and "east.tif" in warning for warning in feedback.warnings)


def test_examples_of_no_class_at_all_are_left_to_the_engine(build, jobs, raster, references, tmp_path):
    references.dataProvider().changeAttributeValues({feature.id(): {0: None} for feature in references.getFeatures()})
    east = shifted(raster, tmp_path / "east.tif", 300.0)
    build(RASTERS=[raster, QgsRasterLayer(east, "east")], CLASS_FIELD="fid")
    assert [source.raster for source in jobs[0].sources] == [raster.source(), east]


def test_examples_on_none_of_several_rasters_end_the_run(build, jobs, raster, tmp_path):
    rasters = [shifted(raster, tmp_path / f"{metres}.tif", metres) for metres in (1000, 2000)]
    with pytest.raises(QgsProcessingException, match="None of the examples falls on one of the rasters"):
        build(RASTERS=rasters)
    assert jobs == []


def test_a_raster_that_is_no_file_is_refused(build, jobs, raster):
    web = QgsRasterLayer("type=xyz&url=file:///nowhere/{z}/{x}/{y}.png&zmax=1&zmin=0", "tiles", "wms")
    with pytest.raises(QgsProcessingException, match="'tiles' is not a file"):
        build(RASTERS=[raster, web])


def test_a_raster_that_cannot_be_read_is_named(build, jobs, raster, tmp_path):
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(b"II*\0")
    with pytest.raises(QgsProcessingException, match=r"damaged\.tif' cannot be read as a raster"):
        build(RASTERS=[raster, str(damaged)])


def test_a_layer_that_is_no_raster_is_named(build, jobs, references):
    with pytest.raises(QgsProcessingException, match="'references' cannot be read as a raster"):
        build(RASTERS=[references])


def test_no_raster_is_told_of(build, jobs):
    with pytest.raises(QgsProcessingException, match="no rasters of the examples; choose at least one"):
        build(RASTERS=[])
    assert jobs == []


def test_the_marks_cannot_be_replaced(build, jobs, references_path):
    with pytest.raises(QgsProcessingException, match="is both REFERENCES and OUTPUT"):
        build(REFERENCES=references_path, OUTPUT=references_path)
