"""``refsam:evaluate`` inside QGIS; the figures themselves are tested with the engine."""

import json
import shutil

import numpy as np
import pytest
from osgeo import gdal
from qgis.core import QgsProcessingException, QgsProject, QgsVectorLayer

FIRST_RUN = {"RESULT", "RESULT_FIELD", "TRUTH", "TRUTH_FIELD", "OUTPUT", "PICTURE", "REPORT"}
ROW = {
    "class": "blue square", "iou": 0.5, "precision": 0.625, "recall": 0.75, "f1": 0.6875, "boundary_f": 0.25,
    "boundary_precision": 0.125, "boundary_recall": 0.375, "object_precision": 0.875, "object_recall": 0.5,
    "object_f1": 0.25, "object_iou": None, "panoptic_quality": 0.125, "truth_pixels": 2**40, "result_pixels": 7,
    "truth_objects": 3, "result_objects": 4, "matched_objects": 2,
}  # fmt: skip


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("evaluate").create()


@pytest.fixture
def jobs(engine, tmp_path):
    """The jobs of the runs, whose vector layers are kept; the engine answers with one class."""

    def answer(job):
        for name in ("result", "truth"):
            if getattr(job, name).endswith(".gpkg"):
                shutil.copy(getattr(job, name), tmp_path / f"kept {name}.gpkg")
        return {"miou": 0.5, "fb_iou": 0.625, "boundary_f": 0.25, "object_f1": 0.75, "classes": [ROW]}

    engine.answer = answer
    return engine.jobs


@pytest.fixture
def mask_path(raster_path, tmp_path):
    """A raster of class numbers on the grid of the raster."""
    path = str(tmp_path / "mask.tif")
    image = gdal.Open(raster_path)
    dataset = gdal.GetDriverByName("GTiff").Create(path, image.RasterXSize, image.RasterYSize, 1, gdal.GDT_Byte)
    dataset.SetProjection(image.GetProjection())
    dataset.SetGeoTransform(image.GetGeoTransform())
    pixels = np.zeros((image.RasterYSize, image.RasterXSize), np.uint8)
    pixels[30:54, 40:64] = 1  # the first of the references, and no other
    dataset.WriteArray(pixels)
    dataset = None
    return path


@pytest.fixture
def evaluate(algorithm, run):
    return lambda **parameters: run(algorithm, {"OUTPUT": "TEMPORARY_OUTPUT", **parameters})


def test_what_a_first_run_does_not_need_is_advanced(algorithm):
    names = {p.name() for p in algorithm.parameterDefinitions()}
    advanced = {p.name() for p in algorithm.parameterDefinitions() if p.flags() & p.Flag.FlagAdvanced}
    assert names - advanced == FIRST_RUN


def test_defaults_make_the_default_job(evaluate, jobs, mask_path):
    results = evaluate(RESULT=mask_path, TRUTH=mask_path)
    assert jobs == [type(jobs[0])(mask_path, mask_path)]
    assert {name: results[name] for name in ("MIOU", "FB_IOU", "BOUNDARY_F", "OBJECT_F1")} == {
        "MIOU": 0.5, "FB_IOU": 0.625, "BOUNDARY_F": 0.25, "OBJECT_F1": 0.75
    }  # fmt: skip
    assert "PICTURE" not in results and "REPORT" not in results


def test_every_parameter_reaches_the_job(evaluate, jobs, mask_path, references, tmp_path):
    results = evaluate(
        RESULT=mask_path, RESULT_CLASSES="blue square, roof,,tree", TRUTH=references, TRUTH_FIELD="fid",
        EXTENT="391210,391250,5820500,5820590 [EPSG:32633]", GSD=0.25, TOLERANCE=3, MIN_IOU=0.75,
        PICTURE=str(tmp_path / "p.png"), REPORT=str(tmp_path / "r.json"),
    )  # fmt: skip
    (job,) = jobs
    assert (job.result, job.result_field, job.truth_field) == (mask_path, None, "fid_")
    assert (job.result_classes, job.truth_classes) == (("blue square", "roof", "", "tree"), ())
    assert job.extent == (391210.0, 5820500.0, 391250.0, 5820590.0)
    assert (job.gsd, job.tolerance, job.min_iou) == (0.25, 3.0, 0.75)
    assert (job.picture, job.report) == (results["PICTURE"], results["REPORT"])
    assert (job.picture, job.report) == (str(tmp_path / "p.png"), str(tmp_path / "r.json"))
    layer = QgsVectorLayer(str(tmp_path / "kept truth.gpkg"), "kept", "ogr")
    assert [f["fid_"] for f in layer.getFeatures()] == ["blue square"] * 2
    assert layer.crs() == references.crs()


def test_the_table_has_a_row_per_class(evaluate, jobs, mask_path, context):
    results = evaluate(RESULT=mask_path, TRUTH=mask_path)
    layer = context.getMapLayer(results["OUTPUT"])
    assert not layer.isSpatial()
    (row,) = layer.getFeatures()
    assert (row["class"], row["iou"], row["obj_prec"], row["pq"]) == ("blue square", 0.5, 0.875, 0.125)
    assert (row["true_px"], row["match_obj"]) == (2**40, 2)
    assert not row["obj_iou"]  # NULL
    assert max(len(field.name()) for field in layer.fields()) <= 10


@pytest.mark.parametrize(("chosen", "written"), [("gpkg", "gpkg"), ("csv", "csv"), ("shp", "dbf")])
def test_the_table_survives_in_files(evaluate, jobs, mask_path, tmp_path, chosen, written):
    evaluate(RESULT=mask_path, TRUTH=mask_path, OUTPUT=str(tmp_path / f"table.{chosen}"))
    (row,) = QgsVectorLayer(str(tmp_path / f"table.{written}"), "table", "ogr").getFeatures()
    assert (row["class"], float(row["boundary_f"]), int(row["found_px"])) == ("blue square", 0.25, 7)


def test_filtered_features_are_left_out(evaluate, jobs, mask_path, references_path, tmp_path, context):
    layer = QgsVectorLayer(references_path, "filtered", "ogr")
    assert layer.setSubsetString("key = 1")
    QgsProject.instance().addMapLayer(layer, False)
    context.setProject(QgsProject.instance())
    evaluate(RESULT=mask_path, TRUTH=layer.id())
    assert QgsVectorLayer(str(tmp_path / "kept truth.gpkg"), "kept", "ogr").featureCount() == 1
    QgsProject.instance().removeMapLayer(layer.id())


def test_nothing_found_can_be_evaluated(evaluate, jobs, references, tmp_path):
    empty = QgsVectorLayer("Polygon?crs=EPSG:32633&field=class:string", "empty", "memory")
    evaluate(RESULT=empty, RESULT_FIELD="class", TRUTH=references, TRUTH_FIELD="fid")
    assert QgsVectorLayer(str(tmp_path / "kept result.gpkg"), "kept", "ogr").featureCount() == 0


def test_nothing_true_cannot(evaluate, jobs, references):
    empty = QgsVectorLayer("Polygon?crs=EPSG:32633", "empty", "memory")
    with pytest.raises(QgsProcessingException, match="'empty' has no features with a geometry"):
        evaluate(RESULT=references, TRUTH=empty)
    assert jobs == []


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"RESULT_FIELD": "class"}, "is a raster and has no attribute 'class'; leave RESULT_FIELD empty"),
        ({"TRUTH_FIELD": "klass"}, "'references' has no attribute 'klass'; choose another, or none"),
        ({"TRUTH_CLASSES": "a,b"}, "'references' is no raster and has no class numbers to name"),
        ({"TRUTH": "/nowhere.gpkg"}, "TRUTH"),
        ({"MIN_IOU": 1.5}, "MIN_IOU|Overlap of objects"),
    ],
)
def test_values_that_cannot_work_are_refused(evaluate, jobs, mask_path, references, parameters, sentence):
    with pytest.raises(QgsProcessingException, match=sentence):
        evaluate(**{"RESULT": mask_path, "TRUTH": references, **parameters})
    assert jobs == []


def test_an_output_that_is_an_input_is_refused(evaluate, jobs, mask_path, references_path):
    with pytest.raises(QgsProcessingException, match="both TRUTH and OUTPUT"):
        evaluate(RESULT=mask_path, TRUTH=references_path, OUTPUT=references_path)


def test_a_real_run(evaluate, mask_path, references, engine_python, tmp_path, context):
    results = evaluate(
        RESULT=mask_path, RESULT_CLASSES="blue square", TRUTH=references, TRUTH_FIELD="fid",
        PICTURE=str(tmp_path / "p.png"), REPORT=str(tmp_path / "r.json"),
    )  # fmt: skip
    assert results["MIOU"] == 0.5  # one of two equal squares
    (row,) = context.getMapLayer(results["OUTPUT"]).getFeatures()
    assert (row["precision"], row["recall"], row["obj_prec"], row["obj_recall"]) == (1, 0.5, 1, 0.5)
    assert (row["true_px"], row["found_px"]) == (2 * 24**2, 24**2)
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["result"]["miou"] == 0.5
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
