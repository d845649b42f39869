"""``refsam:segmentfolder`` inside QGIS; the engine's own results are tested elsewhere."""

import shutil
from pathlib import Path

import pytest
from qgis.core import QgsProcessingException, QgsVectorLayer

from .conftest import write_found

FIRST_RUN = {
    "INPUT_FOLDER", "PATTERN", "RECURSIVE", "INPUTS", "REFERENCES", "CLASS_FIELD", "REFERENCE_RASTER", "ANNOTATION",
    "REFERENCE_SET", "OUTPUT_FOLDER", "OUTPUT", "FAILURES",
}  # fmt: skip
FOUND = {
    "object_id": 7, "class": "blue square", "class_id": 1, "score": 0.75, "area_m2": 0.5, "source": "a/größe.tif"
}  # fmt: skip
FAILED = {"source": "b.tif", "reason": 'Raster "b.tif" is damaged, copy it again.'}

LEFT_OUT = {"source": "c.tif", "reason": "It has no CRS."}


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("segmentfolder").create()


@pytest.fixture
def jobs(engine):
    """The jobs of the runs; the engine answers with one polygon and one failure."""

    def answer(job):
        if job.merged is not None:
            write_found(job.merged, [FOUND])
        return {"done": 2, "skipped": 3, "failed": 1, "failures": [FAILED], "not_merged": [LEFT_OUT], "object_count": 1,
                "device": "cpu"}  # fmt: skip

    engine.answer = answer
    return engine.jobs


@pytest.fixture
def segment(algorithm, run, raster, references):
    """Run on the raster's folder, unless the test says otherwise."""
    usual = {
        "INPUT_FOLDER": str(Path(raster.source()).parent), "REFERENCES": references, "REFERENCE_RASTER": raster,
        "OUTPUT_FOLDER": "TEMPORARY_OUTPUT", "OUTPUT": "TEMPORARY_OUTPUT", "FAILURES": "TEMPORARY_OUTPUT",
    }  # fmt: skip
    return lambda **parameters: run(algorithm, {**usual, **parameters})


def test_what_a_first_run_does_not_need_is_advanced(algorithm):
    names = {p.name() for p in algorithm.parameterDefinitions()}
    advanced = {p.name() for p in algorithm.parameterDefinitions() if p.flags() & p.Flag.FlagAdvanced}
    assert names - advanced == FIRST_RUN


def test_defaults_make_the_default_job(segment, jobs, raster):
    results = segment()
    job = jobs[0]
    assert job == type(job)(job.references, job.output_folder, str(Path(raster.source()).parent), merged=job.merged)
    assert job.references.raster == raster.source()
    assert results["OUTPUT_FOLDER"] == job.output_folder != ""
    assert [results[f"{name}_COUNT"] for name in ("DONE", "SKIPPED", "FAILED", "OBJECT")] == [2, 3, 1, 1]
    assert results["DEVICE_USED"] == "cpu"


def test_a_temporary_output_folder_is_warned_of(segment, jobs, feedback, tmp_path):
    segment(OUTPUT_FOLDER=str(tmp_path / "out"))
    assert not any("OUTPUT_FOLDER" in warning for warning in feedback.warnings)
    segment()
    assert any(warning.startswith("OUTPUT_FOLDER is temporary; choose a place") for warning in feedback.warnings)


def test_every_parameter_reaches_the_job(segment, jobs, raster, tmp_path):
    segment(
        PATTERN="*.jp2", RECURSIVE=True, BANDS="4, 3;2", TILE_SIZE=512, SEPARATE=0.1, RIGHT_ANGLES=True,
        PROBABILITY_RASTERS=True, REDO=True, METHOD="training_free", OUTPUT_FOLDER=str(tmp_path / "out"),
    )  # fmt: skip
    job = jobs[0]
    assert (job.pattern, job.recursive, job.probability, job.redo) == ("*.jp2", True, True, True)
    assert (job.raster.bands, job.raster.tile_size, job.separate) == ((4, 3, 2), 512, 0.1)
    assert (job.polygons.right_angles, job.model.method) == (True, "training_free")
    assert job.output_folder == str(tmp_path / "out")


def test_several_layers_replace_the_folder(segment, jobs, raster, tmp_path):
    other = tmp_path / "other.tif"
    shutil.copy(raster.source(), other)
    segment(INPUT_FOLDER=None, INPUTS=[raster, str(other)])
    assert (jobs[0].inputs, jobs[0].folder) == ((raster.source(), str(other)), None)


def test_a_damaged_raster_reaches_the_engine_which_explains(segment, jobs, raster, tmp_path):
    damaged, missing = tmp_path / "damaged.tif", tmp_path / "missing.tif"
    damaged.write_bytes(b"II*\0")
    segment(INPUT_FOLDER=None, INPUTS=[raster.source(), str(damaged), str(missing)])
    assert jobs[0].inputs == (raster.source(), str(damaged), str(missing))


def test_a_list_may_be_text(segment, jobs, raster, tmp_path):
    other = tmp_path / "other.tif"
    other.touch()
    segment(INPUT_FOLDER=None, INPUTS=f"{raster.source()};{other}")
    assert jobs[0].inputs == (raster.source(), str(other))


@pytest.mark.parametrize("kind", ["gpkg", "shp", "TEMPORARY_OUTPUT"])
def test_polygons_and_failures_arrive(segment, jobs, feedback, raster, context, tmp_path, kind):
    temporary = kind == "TEMPORARY_OUTPUT"
    targets = {name: kind if temporary else str(tmp_path / f"{name}.{kind}") for name in ("OUTPUT", "FAILURES")}
    if kind == "shp":
        targets["FAILURES"] = str(tmp_path / "failures.csv")
    results = segment(**targets)

    def row(name):
        layer = context.takeResultLayer(results[name]) or QgsVectorLayer(targets[name], name, "ogr")
        return layer, next(layer.getFeatures())

    layer, feature = row("OUTPUT")
    assert {name: feature[name] for name in FOUND} == FOUND and layer.crs() == raster.crs()
    table, feature = row("FAILURES")
    assert {name: feature[name] for name in FAILED} == FAILED and not table.isSpatial()
    told = [f"{row['source']}: {row['reason']}" for row in (FAILED, LEFT_OUT)]
    assert feedback.warnings[1:] == told  # the first is about the temporary folder


def test_the_engine_knows_where_the_layers_go(segment, jobs, references_path, tmp_path):
    """A raster's own result may have that name, which the engine alone can tell."""
    table = f"ogr:dbname='{references_path}' table=\"found\" (geom)"
    segment(OUTPUT=table, FAILURES=str(tmp_path / "failed.csv"))
    assert jobs[0].further_tables == (references_path, str(tmp_path / "failed.csv"))
    segment(OUTPUT=None)
    assert jobs[1].further_tables == ()


def test_the_layers_are_not_needed(segment, jobs):
    results = segment(OUTPUT=None, FAILURES=None)
    assert "OUTPUT" not in results and "FAILURES" not in results and results["OBJECT_COUNT"] == 1
    assert jobs[0].merged is None


@pytest.mark.parametrize("inside", ["", "tables/of all"])
def test_the_layers_may_lie_in_the_output_folder_that_the_run_makes(segment, jobs, tmp_path, inside):
    folder = tmp_path / "new" / "results"
    targets = {"OUTPUT": folder / inside / "all.gpkg", "FAILURES": folder / inside / "failures.csv"}
    segment(OUTPUT_FOLDER=str(folder), **{name: str(path) for name, path in targets.items()})
    assert jobs[0].output_folder == str(folder)
    assert [QgsVectorLayer(str(path), path.name, "ogr").featureCount() for path in targets.values()] == [1, 1]


def test_layers_in_another_missing_folder_are_refused_before_the_run(segment, jobs, tmp_path):
    with pytest.raises(QgsProcessingException, match=r"Folder '.*nowhere' of FAILURES does not exist; create it first"):
        segment(OUTPUT_FOLDER=str(tmp_path / "results"), FAILURES=str(tmp_path / "nowhere" / "failures.csv"))
    assert jobs == []


def test_layers_in_an_output_folder_that_cannot_be_made_are_refused_before_the_run(
    segment, jobs, tmp_path, monkeypatch
):
    monkeypatch.setattr("refsam_qgis.algorithms.files.os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(QgsProcessingException, match=r"all\.gpkg' may not be written; choose another place for OUTPUT"):
        segment(OUTPUT_FOLDER=str(tmp_path / "results"), OUTPUT=str(tmp_path / "results" / "all.gpkg"))
    assert jobs == []


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"INPUT_FOLDER": None}, "nothing to search"),
        ({"INPUT_FOLDER": "/no such folder"}, "no folder '/no such folder'"),
        ({"PATTERN": " ;"}, "file names are empty"),
        ({"REFERENCE_RASTER": None}, "raster of the examples is missing"),
        ({"REFERENCES": None}, "There are no examples|REFERENCES"),
        ({"BANDS": "red"}, "Bands 'red' are no band numbers"),
        ({"BANDS": "1,2"}, "2 bands are chosen"),
    ],
)
def test_values_that_cannot_work_are_refused(segment, jobs, parameters, sentence):
    with pytest.raises(QgsProcessingException, match=sentence):
        segment(**parameters)
    assert jobs == []


def test_a_folder_beside_rasters_is_refused(segment, jobs, raster):
    with pytest.raises(QgsProcessingException, match="both chosen"):
        segment(INPUTS=[raster])


def test_results_among_the_inputs_are_refused(segment, jobs, raster):
    with pytest.raises(QgsProcessingException, match="is both INPUT_FOLDER and OUTPUT_FOLDER"):
        segment(OUTPUT_FOLDER=str(Path(raster.source()).parent))
