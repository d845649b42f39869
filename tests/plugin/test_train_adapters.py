"""``refsam:trainadapters`` inside QGIS; training itself is tested with the engine."""

import json
import shutil

import pytest
from qgis.core import QgsProcessingException, QgsRasterLayer, QgsVectorLayer

FIRST_RUN = {"RASTERS", "LABELS", "CLASS_FIELD", "STEPS", "ADAPTERS_OUT", "CURVE"}


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("trainadapters").create()


@pytest.fixture
def jobs(engine, tmp_path):
    """The jobs of the runs, whose labels are kept; the engine answers without training."""

    def answer(job):
        shutil.copy(job.labels, tmp_path / "labels.gpkg")
        return {"adapters": job.output, "steps": 40, "best_step": 20, "best_miou": 0.625, "device": "cpu"}

    engine.answer = answer
    return engine.jobs


@pytest.fixture
def train(algorithm, run, raster, references, tmp_path):
    usual = {"RASTERS": [raster], "LABELS": references, "ADAPTERS_OUT": str(tmp_path / "größe.safetensors")}
    return lambda **parameters: run(algorithm, {**usual, **parameters})


def test_what_a_first_run_does_not_need_is_advanced(algorithm):
    names = {p.name() for p in algorithm.parameterDefinitions()}
    advanced = {p.name() for p in algorithm.parameterDefinitions() if p.flags() & p.Flag.FlagAdvanced}
    assert names - advanced == FIRST_RUN


def test_defaults_make_the_default_job(train, jobs, raster, tmp_path):
    results = train()
    (job,) = jobs
    assert job == type(job)(str(tmp_path / "größe.safetensors"), (raster.source(),), job.labels)
    assert results == {
        "ADAPTERS_OUT": job.output, "VALIDATION_IOU": 0.625, "STEPS_DONE": 40, "DEVICE_USED": "cpu"
    }  # fmt: skip


def test_a_temporary_output_is_warned_of(train, jobs, feedback):
    train()
    assert feedback.warnings == []
    train(ADAPTERS_OUT="TEMPORARY_OUTPUT")
    (warning,) = feedback.warnings
    assert warning.startswith("ADAPTERS_OUT is temporary; choose a place of your own")


def test_every_parameter_reaches_the_job(train, jobs, raster, tmp_path):
    other, weights, adapters = tmp_path / "other.tif", tmp_path / "w.pth", tmp_path / "a.safetensors"
    shutil.copy(raster.source(), other)
    weights.touch()
    adapters.touch()
    results = train(
        RASTERS=[raster, str(other)], CLASS_FIELD="fid", MODEL="vit_b", CHECKPOINT=str(weights),
        ADAPTERS=str(adapters), DEVICE="cpu", BANDS="3,2,1", STRETCH="percentile", GENERATED=False, STEPS=7, BATCH=2,
        SEED=5, VALIDATION=0.5, PATIENCE=0, RESUME=False, CURVE=str(tmp_path / "c.png"),
    )  # fmt: skip
    (job,) = jobs
    assert job.rasters == (raster.source(), str(other))
    assert job.model == type(job.model)("vit_b", str(weights), str(adapters), device="cpu")
    assert (job.bands, job.stretch, job.generated, job.steps, job.batch) == ((3, 2, 1), "percentile", False, 7, 2)
    assert (job.seed, job.validation, job.patience, job.resume) == (5, 0.5, 0, False)
    assert job.curve == results["CURVE"] == str(tmp_path / "c.png")
    layer = QgsVectorLayer(str(tmp_path / "labels.gpkg"), "kept", "ogr")
    assert [f[job.class_field] for f in layer.getFeatures()] == ["blue square"] * 2


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"BANDS": "1,2"}, "2 bands are chosen"),
        ({"BANDS": "9"}, "Band 9 is chosen but the raster has 3"),
        ({"MODEL": "vit_l"}, "needs its SAM checkpoint"),
        ({"VALIDATION": 0.95}, "VALIDATION|Share for validation"),
        ({"STEPS": 0}, "STEPS|Steps"),
    ],
)
def test_values_that_cannot_work_are_refused(train, jobs, parameters, sentence):
    with pytest.raises(QgsProcessingException, match=sentence):
        train(**parameters)
    assert jobs == []


def test_rasters_are_needed(train, jobs):
    with pytest.raises(QgsProcessingException, match=r"RASTERS|no rasters to learn from"):
        train(RASTERS=[])
    assert jobs == []


def test_class_polygons_are_needed(train, jobs):
    empty = QgsVectorLayer("Polygon?crs=EPSG:4326", "nothing outlined", "memory")
    with pytest.raises(QgsProcessingException, match="'nothing outlined' has no features; outline the objects"):
        train(LABELS=empty)


def test_a_raster_that_is_no_file_is_refused(train, jobs):
    web = QgsRasterLayer("type=xyz&url=file:///nowhere/{z}/{x}/{y}.png&zmax=1&zmin=0", "tiles", "wms")
    with pytest.raises(QgsProcessingException, match="'tiles' is not a file"):
        train(RASTERS=[web])


def test_adapters_to_start_from_are_not_replaced(train, jobs, tmp_path):
    start = tmp_path / "a.safetensors"
    start.touch()
    with pytest.raises(QgsProcessingException, match="both ADAPTERS and ADAPTERS_OUT"):
        train(ADAPTERS=str(start), ADAPTERS_OUT=str(start))
    assert jobs == []


def test_the_card_does_not_replace_the_labels(train, jobs, tmp_path):
    labels = tmp_path / "pools.json"
    polygon = {"type": "Polygon", "coordinates": [[[0, 0], [0, 1], [1, 1], [0, 0]]]}
    feature = {"type": "Feature", "properties": {}, "geometry": polygon}
    labels.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    content = labels.read_bytes()
    with pytest.raises(QgsProcessingException, match=r"pools\.json' is no card of adapters"):
        train(LABELS=str(labels), ADAPTERS_OUT=str(tmp_path / "pools.safetensors"))
    assert jobs == [] and labels.read_bytes() == content


def test_a_real_run(train, untrained_checkpoint, engine_python, tmp_path):
    results = train(
        CHECKPOINT=untrained_checkpoint, DEVICE="cpu", STEPS=1, BATCH=1, CLASS_FIELD="fid", VALIDATION=0,
        CURVE=str(tmp_path / "c.png"),
    )  # fmt: skip
    assert results["STEPS_DONE"] == 1 and results["DEVICE_USED"] == "cpu"
    assert {p.name for p in tmp_path.iterdir()} >= {"größe.safetensors", "größe.json", "c.png"}
