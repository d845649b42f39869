"""``refsam:segmenteverything`` inside QGIS; the engine's own results are tested elsewhere."""

import numpy as np
import pytest
from osgeo import gdal
from qgis.core import (
    QgsProcessingException,
    QgsProcessingOutputLayerDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)

from .conftest import write_found

FIRST_RUN = {"INPUT", "EXTENT", "OUTPUT", "MASK", "REPORT"}
FOUND = {"object_id": 7, "score": 0.75, "stability": 0.875, "area_m2": 0.5}


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("segmenteverything").create()


@pytest.fixture
def jobs(engine):
    """The jobs of the runs; the engine answers with one polygon."""

    def answer(job):
        write_found(job.outputs.polygons, [FOUND])
        return {"object_count": 1, "device": "cpu"}

    engine.answer = answer
    return engine.jobs


@pytest.fixture
def segment(algorithm, run, raster):
    return lambda **parameters: run(algorithm, {"INPUT": raster, "OUTPUT": "TEMPORARY_OUTPUT", **parameters})


def test_what_a_first_run_does_not_need_is_advanced(algorithm):
    names = {p.name() for p in algorithm.parameterDefinitions()}
    advanced = {p.name() for p in algorithm.parameterDefinitions() if p.flags() & p.Flag.FlagAdvanced}
    assert names - advanced == FIRST_RUN


def test_defaults_make_the_default_job(segment, jobs, raster):
    results = segment()
    (job,) = jobs
    assert job == type(job)(raster.source(), outputs=job.outputs)
    assert (results["OBJECT_COUNT"], results["DEVICE_USED"]) == (1, "cpu")


def test_every_parameter_reaches_the_job(segment, jobs, tmp_path):
    segment(
        EXTENT="391210,391250,5820500,5820590 [EPSG:32633]", POINTS_PER_SIDE=8, MIN_PREDICTED_IOU=0.5,
        MIN_STABILITY=0.25, MAX_OVERLAP=0.75, DEVICE="cpu", BANDS=[1], TILE_SIZE=512, MIN_AREA=3, SIMPLIFY=1,
        MASK=str(tmp_path / "m.tif"), REPORT=str(tmp_path / "r.json"),
    )  # fmt: skip
    (job,) = jobs
    assert job.extent == (391210.0, 5820500.0, 391250.0, 5820590.0)
    assert (job.points_per_side, job.min_predicted_iou, job.min_stability, job.max_overlap) == (8, 0.5, 0.25, 0.75)
    assert (job.model.device, job.raster.bands, job.raster.tile_size) == ("cpu", (1,), 512)
    assert (job.polygons.min_area, job.polygons.simplify) == (3.0, 1.0)
    assert (job.outputs.mask, job.outputs.report) == (str(tmp_path / "m.tif"), str(tmp_path / "r.json"))


def test_polygons_arrive_with_their_attributes(segment, jobs, raster, tmp_path):
    segment(OUTPUT=str(tmp_path / "o.gpkg"))
    layer = QgsVectorLayer(str(tmp_path / "o.gpkg"), "result", "ogr")
    feature = next(layer.getFeatures())
    assert {name: feature[name] for name in FOUND} == FOUND and layer.crs() == raster.crs()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"BANDS": [1, 2]}, "2 bands are chosen"),
        ({"MODEL": "vit_h"}, "needs its SAM checkpoint"),
        ({"POINTS_PER_SIDE": 0}, "POINTS_PER_SIDE|Points per side"),
        ({"MIN_STABILITY": 1.5}, "MIN_STABILITY|Lowest stability"),
    ],
)
def test_values_that_cannot_work_are_refused(segment, jobs, parameters, sentence):
    with pytest.raises(QgsProcessingException, match=sentence):
        segment(**parameters)
    assert jobs == []


def test_a_raster_that_is_no_file_is_refused(segment, jobs):
    web = QgsRasterLayer("type=xyz&url=file:///nowhere/{z}/{x}/{y}.png&zmax=1&zmin=0", "tiles", "wms")
    with pytest.raises(QgsProcessingException, match="'tiles' is not a file; save it as a GeoTIFF"):
        segment(INPUT=web)


def test_an_output_that_is_an_input_is_refused(segment, jobs, raster):
    with pytest.raises(QgsProcessingException, match="both INPUT and MASK"):
        segment(MASK=raster.source())


def test_what_is_loaded_is_styled(algorithm, engine, qgis_processing, run, raster, context, feedback):
    from processing.gui.Postprocessing import handleAlgorithmResults

    def answer(job):
        write_found(job.outputs.polygons, [FOUND])
        dataset = gdal.GetDriverByName("GTiff").Create(job.outputs.mask, 4, 4, 1, gdal.GDT_Int32)
        dataset.GetRasterBand(1).WriteArray(np.array([[0, 1, 5000, 2**31 - 1]] * 4))
        return {"object_count": 3, "device": "cpu"}

    engine.answer = answer
    project = QgsProject.instance()
    context.setProject(project)
    wanted = {name: QgsProcessingOutputLayerDefinition("TEMPORARY_OUTPUT", project) for name in ("OUTPUT", "MASK")}
    run(algorithm, {"INPUT": raster, **wanted})
    assert handleAlgorithmResults(algorithm, context, feedback)
    layers = {layer.name(): layer for layer in project.mapLayers().values()}
    assert layers["Polygons"].renderer().type() == "singleSymbol"
    symbol = layers["Polygons"].renderer().symbol()
    assert symbol.symbolLayer(0).fillColor().alpha() < symbol.symbolLayer(0).strokeColor().alpha() == 255
    shader = layers["Mask"].renderer().shader()
    shown = [shader.shade(number) for number in (0.0, 1.0, 2**31 - 1.0)]
    assert [drawn and alpha for drawn, *_, alpha in shown] == [0, 255, 255]
    project.clear()


def test_a_real_run(algorithm, run, raster, context, untrained_checkpoint, engine_python):
    results = run(
        algorithm,
        {
            "INPUT": raster, "POINTS_PER_SIDE": 2, "MIN_PREDICTED_IOU": 0, "MIN_STABILITY": 0, "MAX_OVERLAP": 1,
            "CHECKPOINT": untrained_checkpoint, "DEVICE": "cpu", "OUTPUT": "TEMPORARY_OUTPUT",
        },
    )  # fmt: skip
    layer = context.getMapLayer(results["OUTPUT"])
    assert layer.featureCount() == results["OBJECT_COUNT"] and results["DEVICE_USED"] == "cpu"
    assert all(f.geometry().isGeosValid() for f in layer.getFeatures())
