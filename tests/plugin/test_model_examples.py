"""The examples for the model designer: as built, valid, and run through QGIS's own API."""

from pathlib import Path

import pytest
from osgeo import gdal
from qgis.core import (
    Qgis,
    QgsFeature,
    QgsFeatureRequest,
    QgsGeometry,
    QgsProcessingModelAlgorithm,
    QgsProcessingUtils,
    QgsRectangle,
    QgsVectorLayer,
)

from refsam_qgis.engine.job import EvaluateJob, FolderJob, RefsetJob, SegmentJob
from scripts import model_examples

from .conftest import EPSG, GSD, NORTH, SIDE, WEST, write_found

NAMES = sorted(model_examples.MODELS)
FOUND = [
    {"object_id": number, "class": name, "class_id": 1 + (name == "roof"), "score": score, "area_m2": area}
    for number, name, score, area in (
        (10, "pool", 0.9, 20.0), (20, "roof", 0.8, 40.0), (30, "pool", 0.3, 60.0), (40, "roof", 0.9, 2.0),
    )
]  # fmt: skip
"""Found objects; the last two are too bad and too small to be kept."""

pytestmark = pytest.mark.usefixtures("provider", "native_algorithms")


@pytest.fixture(params=NAMES)
def path(request):
    return model_examples.FOLDER_OF_MODELS / request.param


@pytest.fixture
def jobs(engine):
    """The jobs of the runs by their kind; the engine finds `FOUND` and rates it."""
    found = {}

    def answer(job):
        found[type(job)] = job
        if isinstance(job, RefsetJob):
            Path(job.output).write_text("a set")
            return {"classes": [{"name": "pool", "chips": 2}]}
        if isinstance(job, SegmentJob):
            write_found(job.outputs.polygons, FOUND)
            return {"object_count": len(FOUND), "device": "cpu"}
        if isinstance(job, FolderJob):
            write_found(job.merged, [{**row, "source": "a.tif"} for row in FOUND])
            failures = [{"source": "b.tif", "reason": "It is damaged; copy it again."}]
            counts = {"done": 1, "skipped": 0, "failed": 1, "object_count": len(FOUND)}
            return {**counts, "failures": failures, "not_merged": [], "device": "cpu"}
        row = dict.fromkeys(("iou", "precision", "recall", "f1", "boundary_f", "panoptic_quality"), 0.5)
        row.update(dict.fromkeys((f"object_{name}" for name in ("precision", "recall", "f1", "iou")), 0.25))
        row.update(dict.fromkeys(("truth_pixels", "result_pixels"), 9))
        row.update(dict.fromkeys((f"{name}_objects" for name in ("truth", "result", "matched")), 1))
        return {"miou": 0.5, "fb_iou": 0.5, "boundary_f": 0.5, "object_f1": 0.5, "classes": [{"class": "pool", **row}]}

    engine.answer = answer
    return found


@pytest.fixture
def run_model(context, feedback):
    """Run the model of a file; returns its results by the words on their boxes."""

    def run_model(name, **parameters):
        model = load(model_examples.FOLDER_OF_MODELS / name)
        outputs = {d.name(): d.description() for d in model.destinationParameterDefinitions()}
        parameters.update(dict.fromkeys(outputs, "TEMPORARY_OUTPUT"))
        ok, message = model.checkParameterValues(parameters, context)
        assert ok, message
        results, ok = model.run(parameters, context, feedback)
        assert ok, feedback.errors
        return {label: results[name] for name, label in outputs.items()}

    return run_model


@pytest.fixture
def zones(qgis_app):
    """The western and the eastern half of the raster."""
    layer = QgsVectorLayer(f"Polygon?crs=EPSG:{EPSG}&field=name:string", "zones", "memory")
    half, south = SIDE / 2 * GSD, NORTH - SIDE * GSD
    for name, west in (("west", WEST), ("east", WEST + half)):
        feature = QgsFeature(layer.fields())
        feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(west, south, west + half, NORTH)))
        feature.setAttributes([name])
        assert layer.dataProvider().addFeature(feature)
    return layer


def load(path):
    model = QgsProcessingModelAlgorithm()
    assert model.fromFile(str(path))
    return model


def features(result, context):
    layer = QgsProcessingUtils.mapLayerFromString(result, context)
    return list(layer.getFeatures())


def test_the_folder_holds_what_is_built():
    assert sorted(p.name for p in model_examples.FOLDER_OF_MODELS.iterdir()) == NAMES


def test_building_again_gives_the_same_file(path, tmp_path):
    texts = []
    for name in ("once", "again"):
        model_examples.write(model_examples.MODELS[path.name](), tmp_path / name)
        texts.append((tmp_path / name).read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    if Qgis.QGIS_VERSION.startswith("3.22."):  # other versions write other files
        assert texts[0] == path.read_text(encoding="utf-8")


def test_it_is_valid_and_explained(path):
    model = load(path)
    assert model.validate() == (True, [])
    assert model.canExecute() == (True, "")
    assert model.group() == "Examples" and model.helpContent()["ALG_DESC"]
    inputs = [d for d in model.parameterDefinitions() if not d.isDestination()]
    assert [d.name() for d in inputs if not d.help()] == []
    assert len(model.destinationParameterDefinitions()) >= 2


def test_no_boxes_overlap(path):
    model = load(path)
    boxes = list(model.parameterComponents().values())
    for child in model.childAlgorithms().values():
        boxes += [child, *child.modelOutputs().values()]
    places = [(b.position().x(), b.position().y(), b.size().width(), b.size().height()) for b in boxes]
    for i, (x, y, width, height) in enumerate(places):
        for other_x, other_y, *_ in places[:i]:
            assert abs(x - other_x) >= width or abs(y - other_y) >= height + 20  # room for the links' ends


def test_it_is_offered_in_the_toolbox(path, provider):
    model = load(path)
    offered = provider.algorithm(model.name())
    assert offered is not None and offered.id() == f"refsam:{model.name()}"
    instance = offered.create()  # what is run; it has to outlive its definitions
    assert sorted(d.name() for d in instance.parameterDefinitions()) == sorted(
        d.name() for d in model.parameterDefinitions()
    )


def test_objects_are_found_and_summarised(run_model, jobs, raster, references, zones, context):
    results = run_model(
        "find_objects_and_summarise.model3", example_raster=raster, examples=references, class_field="fid",
        raster=raster, zones=zones, min_score=0.5, min_area=10,
    )  # fmt: skip
    assert jobs[SegmentJob].references.refset == jobs[RefsetJob].output
    assert jobs[RefsetJob].sources[0].class_field == "fid_"
    assert [f["object_id"] for f in features(results["Objects"], context)] == [10, 20]
    counted = {f["name"]: (f["objects"], f["objects_m2"]) for f in features(results["Zones with objects"], context)}
    assert counted == {"west": (2, 60), "east": (0, 0)}


def test_a_folder_is_segmented_and_dissolved(run_model, jobs, tmp_path, context):
    reference_set = tmp_path / "pools.refset"
    reference_set.touch()
    results = run_model(
        "segment_folder_and_dissolve.model3", folder=str(tmp_path), pattern="*.jp2", reference_set=str(reference_set)
    )
    job = jobs[FolderJob]
    assert (job.folder, job.pattern, job.references.refset) == (str(tmp_path), "*.jp2", str(reference_set))
    assert job.output_folder == results["Results of each raster"]
    dissolved = features(results["Classes"], context)
    assert sorted(f["class"] for f in dissolved) == ["pool", "roof"]
    assert all(f.geometry().isMultipart() and len(f.geometry().asMultiPolygon()) == 2 for f in dissolved)
    assert len(features(results["All polygons"], context)) == 4
    assert [f["source"] for f in features(results["Failures"], context)] == ["b.tif"]


def test_a_result_is_evaluated(run_model, jobs, raster, references, context):
    results = run_model(
        "segment_and_evaluate.model3", example_raster=raster, examples=references, class_field="fid", raster=raster,
        truth=references, truth_field="fid",
    )  # fmt: skip
    assert jobs[SegmentJob].references.raster == raster.source()
    job = jobs[EvaluateJob]
    assert (job.result_field, job.truth_field) == ("class", "fid_")
    assert job.picture == results["Confusion"]
    assert [f["class"] for f in features(results["Accuracy"], context)] == ["pool"]
    assert len(features(results["Objects"], context)) == 4


def test_a_real_run(run_model, raster, references, context, engine_python, tmp_path):
    """With the bundled weights, which models take by default: they find a square."""
    part = str(tmp_path / "part.tif")
    gdal.Translate(part, raster.source(), srcWin=[0, 0, 130, 100])  # holds the first square
    truth = references.materialize(QgsFeatureRequest(1))
    results = run_model(
        "segment_and_evaluate.model3", example_raster=raster, examples=references, class_field="fid", raster=part,
        truth=truth, truth_field="fid",
    )  # fmt: skip
    (row,) = features(results["Accuracy"], context)
    assert row["class"] == "blue square" and row["recall"] > 0.5
    assert Path(results["Confusion"]).read_bytes().startswith(b"\x89PNG")
