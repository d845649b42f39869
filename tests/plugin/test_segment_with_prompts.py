"""``refsam:segmentwithprompts`` inside QGIS; the engine's own results are tested elsewhere."""

import shutil

import pytest
from qgis.core import (
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsVectorLayer,
)

from .conftest import EPSG, GSD, NORTH, SQUARES, WEST, write_found

FIRST_RUN = {"INPUT", "POINTS", "LABEL_FIELD", "BOXES", "OBJECT_FIELD", "OUTPUT", "MASK", "REPORT"}
FOUND = {"object_id": 7, "score": 0.75, "stability": 0.875, "area_m2": 0.5}


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("segmentwithprompts").create()


@pytest.fixture
def jobs(engine, tmp_path):
    """The jobs of the runs, whose prompts are kept; the engine answers with one polygon."""

    def answer(job):
        for name in ("points", "boxes"):
            if getattr(job, name):
                shutil.copy(getattr(job, name), tmp_path / f"{name}.gpkg")
        write_found(job.outputs.polygons, [FOUND])
        return {"object_count": 1, "device": "cpu"}

    engine.answer = answer
    return engine.jobs


@pytest.fixture
def points(qgis_app):
    """A point in the middle of each square and one beside it, with the label in a field called ``fid``."""
    layer = QgsVectorLayer(f"Point?crs=EPSG:{EPSG}&field=fid:integer&field=object:string", "my points", "memory")
    for number, (row, column) in enumerate(SQUARES):
        for label, offset in ((1, 12), (0, 30)):
            feature = QgsFeature(layer.fields())
            at = QgsPointXY(WEST + (column + offset) * GSD, NORTH - (row + 12) * GSD)
            feature.setGeometry(QgsGeometry.fromPointXY(at))
            feature.setAttributes([label, str(number)])
            assert layer.dataProvider().addFeature(feature)
    return layer


@pytest.fixture
def segment(algorithm, run, raster):
    return lambda **parameters: run(algorithm, {"INPUT": raster, "OUTPUT": "TEMPORARY_OUTPUT", **parameters})


def kept(tmp_path, name):
    layer = QgsVectorLayer(str(tmp_path / f"{name}.gpkg"), name, "ogr")
    assert layer.isValid()
    return layer


def test_what_a_first_run_does_not_need_is_advanced(algorithm):
    names = {p.name() for p in algorithm.parameterDefinitions()}
    advanced = {p.name() for p in algorithm.parameterDefinitions() if p.flags() & p.Flag.FlagAdvanced}
    assert names - advanced == FIRST_RUN
    assert {o.name() for o in algorithm.outputDefinitions()} == {
        "OUTPUT", "MASK", "REPORT", "OBJECT_COUNT", "DEVICE_USED"
    }  # fmt: skip


def test_defaults_make_the_default_job(segment, jobs, raster, points):
    results = segment(POINTS=points)
    (job,) = jobs
    assert job == type(job)(raster.source(), points=job.points, outputs=job.outputs)
    assert (job.outputs.mask, job.outputs.report) == (None, None)
    assert (results["OBJECT_COUNT"], results["DEVICE_USED"]) == (1, "cpu")
    assert "MASK" not in results and "REPORT" not in results


def test_every_parameter_reaches_the_job(segment, jobs, raster, points, references, tmp_path):
    weights = tmp_path / "w.pth"
    weights.touch()
    results = segment(
        POINTS=points, LABEL_FIELD="fid", BOXES=references, BEST_OF_THREE=False, MODEL="vit_b",
        CHECKPOINT=str(weights), DEVICE="cpu", BANDS=[3, 2, 1], STRETCH="none", TILE_SIZE=512, OVERLAP=25, MIN_AREA=3,
        FILL_HOLES=2, SIMPLIFY=1, RIGHT_ANGLES=True, MASK=str(tmp_path / "m.tif"), REPORT=str(tmp_path / "r.json"),
    )  # fmt: skip
    (job,) = jobs
    assert (job.model.model, job.model.checkpoint, job.model.device) == ("vit_b", str(weights), "cpu")
    assert job.best_of_three is False
    assert job.raster == type(job.raster)((3, 2, 1), "none", 512, 25.0)
    assert job.polygons == type(job.polygons)(3.0, 2.0, 1.0, True)
    assert (job.outputs.mask, job.outputs.report) == (str(tmp_path / "m.tif"), str(tmp_path / "r.json"))
    assert (results["MASK"], results["REPORT"]) == (job.outputs.mask, job.outputs.report)
    assert [f[job.label_field] for f in kept(tmp_path, "points").getFeatures()] == [1, 0] * 4
    assert kept(tmp_path, "boxes").featureCount() == 2 and kept(tmp_path, "boxes").crs() == raster.crs()


def test_equal_values_in_both_layers_mean_one_object(segment, jobs, points, tmp_path):
    boxes = QgsVectorLayer(f"Polygon?crs=EPSG:{EPSG}&field=object:string", "boxes", "memory")
    feature = QgsFeature(boxes.fields())
    feature.setGeometry(QgsGeometry.fromWkt(f"POLYGON(({WEST} {NORTH}, {WEST + 9} {NORTH}, {WEST} {NORTH - 9}))"))
    feature.setAttributes(["3"])
    assert boxes.dataProvider().addFeature(feature)
    segment(POINTS=points, OBJECT_FIELD="object", BOXES=boxes)
    (job,) = jobs
    assert (job.object_field, job.label_field) == ("object", None)
    assert [f["object"] for f in kept(tmp_path, "points").getFeatures()] == list("00112233")
    assert [f["object"] for f in kept(tmp_path, "boxes").getFeatures()] == ["3"]


def test_the_copy_bears_the_layers_name(segment, jobs, points):
    segment(POINTS=points)
    assert jobs[0].points.endswith("my points.gpkg")


def test_a_layer_of_any_name_is_copied(segment, jobs, points, tmp_path):
    points.setName("Prüf/punkte: " + "ж" * 300)
    segment(POINTS=points)
    assert kept(tmp_path, "points").featureCount() == 8 and "Prüf_punkte_ жж" in jobs[0].points


def test_only_selected_prompts_count(segment, jobs, points, tmp_path, context):
    points.selectByIds([1, 3])
    QgsProject.instance().addMapLayer(points, False)
    context.setProject(QgsProject.instance())
    segment(POINTS=QgsProcessingFeatureSourceDefinition(points.id(), selectedFeaturesOnly=True))
    assert kept(tmp_path, "points").featureCount() == 2


@pytest.mark.parametrize("suffix", ["gpkg", "shp"])
def test_polygons_arrive_with_their_attributes(segment, jobs, points, raster, tmp_path, suffix):
    target = tmp_path / f"größe.{suffix}"
    segment(POINTS=points, OUTPUT=str(target))
    layer = QgsVectorLayer(str(target), "result", "ogr")
    feature = next(layer.getFeatures())
    assert {name: feature[name] for name in FOUND} == FOUND
    assert layer.crs() == raster.crs()


def test_prompts_are_needed(segment, jobs):
    with pytest.raises(QgsProcessingException, match="no prompts; choose a layer of points, or of boxes"):
        segment()
    assert jobs == []


def test_an_empty_layer_of_prompts_is_refused(segment, jobs, points):
    empty = QgsVectorLayer("Polygon?crs=EPSG:4326", "empty boxes", "memory")
    with pytest.raises(QgsProcessingException, match="'empty boxes' has no features; draw at least one"):
        segment(POINTS=points, BOXES=empty)
    assert jobs == []


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"LABEL_FIELD": "klass"}, "'my points' has no attribute 'klass'; add it"),
        ({"OBJECT_FIELD": "klass"}, "'my points' has no attribute 'klass'; add it"),
        ({"BANDS": [1, 2]}, "2 bands are chosen"),
        ({"BANDS": [4]}, "Band 4 is chosen but the raster has 3"),
        ({"MODEL": "vit_b"}, "needs its SAM checkpoint"),
    ],
)
def test_values_that_cannot_work_are_refused(segment, jobs, points, parameters, sentence):
    with pytest.raises(QgsProcessingException, match=sentence):
        segment(POINTS=points, **parameters)
    assert jobs == []


def test_boxes_need_the_object_field_too(segment, jobs, points, references):
    with pytest.raises(QgsProcessingException, match="'references' has no attribute 'object'; add it"):
        segment(POINTS=points, BOXES=references, OBJECT_FIELD="object")


def test_labels_need_points(segment, jobs, references):
    with pytest.raises(QgsProcessingException, match="no layer of points that has it"):
        segment(BOXES=references, LABEL_FIELD="fid")


def test_an_output_that_is_an_input_is_refused(segment, jobs, points, raster):
    with pytest.raises(QgsProcessingException, match="both INPUT and MASK"):
        segment(POINTS=points, MASK=raster.source())
    assert jobs == []


def test_a_real_run(algorithm, run, raster, points, references, context, untrained_checkpoint, engine_python, tmp_path):
    results = run(
        algorithm,
        {
            "INPUT": raster, "POINTS": points, "LABEL_FIELD": "fid", "OBJECT_FIELD": "object", "MIN_AREA": 0,
            "CHECKPOINT": untrained_checkpoint, "DEVICE": "cpu", "OUTPUT": "TEMPORARY_OUTPUT",
            "MASK": str(tmp_path / "m.tif"),
        },
    )  # fmt: skip
    layer = context.getMapLayer(results["OUTPUT"])
    assert layer.featureCount() == results["OBJECT_COUNT"]
    assert all(f.geometry().isGeosValid() for f in layer.getFeatures())
    assert results["DEVICE_USED"] == "cpu" and (tmp_path / "m.tif").is_file()
