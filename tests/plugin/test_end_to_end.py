"""The whole way with the real engine: inside QGIS, and through ``qgis_process`` from outside."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from osgeo import gdal
from qgis.core import QgsCoordinateReferenceSystem, QgsVectorLayer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def qgis_process(engine_python, tmp_path_factory):
    """The real command, in a profile of its own into which the packaged plugin is installed."""
    folder = tmp_path_factory.mktemp("qgis")
    subprocess.run([engine_python, ROOT / "scripts" / "package", "--folder", folder / "plugins"], check=True)
    private = {"QGIS_CUSTOM_CONFIG_PATH": str(folder / "profile"), "QGIS_PLUGINPATH": str(folder / "plugins")}
    # Debian's wrapper script adds options from /etc/default/qgis that the command does not know.
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")

    def run(*arguments, **environment):
        environment = {**os.environ, **private, **environment}
        return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, timeout=300)

    enabled = run("plugins", "enable", "refsam_qgis")
    assert enabled.returncode == 0, enabled.stdout + enabled.stderr
    return run


def test_a_run_inside_qgis(provider, run, raster, references, context, untrained_checkpoint, engine_python):
    results = run(
        provider.algorithm("segmentbyreference").create(),
        {
            "INPUT": raster, "REFERENCES": references, "CLASS_FIELD": "fid", "CHECKPOINT": untrained_checkpoint,
            "DEVICE": "cpu", "OUTPUT": "TEMPORARY_OUTPUT", "MASK": "TEMPORARY_OUTPUT",
        },
    )  # fmt: skip
    layer = context.getMapLayer(results["OUTPUT"])
    assert layer.featureCount() == results["OBJECT_COUNT"]
    assert results["DEVICE_USED"] == "cpu"
    mask, image = gdal.Open(results["MASK"]), gdal.Open(raster.source())
    assert (mask.RasterXSize, mask.RasterYSize) == (image.RasterXSize, image.RasterYSize)
    assert mask.GetGeoTransform() == image.GetGeoTransform()


def test_examples_without_a_crs_are_in_that_of_the_raster(
    provider, run, raster, references, feedback, untrained_checkpoint, engine_python
):
    references.setCrs(QgsCoordinateReferenceSystem())
    run(
        provider.algorithm("segmentbyreference").create(),
        {
            "INPUT": raster, "REFERENCES": references, "CHECKPOINT": untrained_checkpoint, "DEVICE": "cpu",
            "OUTPUT": "TEMPORARY_OUTPUT", "MASK": "TEMPORARY_OUTPUT",
        },
    )  # fmt: skip
    assert f"'references' has no CRS; it is taken to be in that of '{raster.source()}'." in feedback.infos


def test_a_reference_set_goes_over_a_folder_again_and_again(
    provider, run, raster, references, context, feedback, untrained_checkpoint, engine_python, tmp_path
):
    refset, picture, folder = tmp_path / "squares.refset", tmp_path / "squares.png", tmp_path / "größe rasters"
    built = run(
        provider.algorithm("buildreferenceset").create(),
        {
            "RASTERS": [raster], "REFERENCES": references, "CLASS_FIELD": "fid", "NEGATIVES": references,
            "OUTPUT": str(refset), "PICTURE": str(picture),
        },
    )  # fmt: skip
    assert built["CLASSES"] == "blue square" and built["CHIP_COUNT"] >= 1
    assert refset.stat().st_size > 0 and gdal.Open(str(picture)).RasterCount >= 3

    folder.mkdir()
    for name in ("one.tif", "two.tif"):
        shutil.copy(raster.source(), folder / name)
    (folder / "broken.tif").write_bytes(b"II*\0")
    parameters = {
        "INPUT_FOLDER": str(folder), "REFERENCE_SET": str(refset), "CHECKPOINT": untrained_checkpoint, "DEVICE": "cpu",
        "OUTPUT_FOLDER": str(tmp_path / "out"), "OUTPUT": "TEMPORARY_OUTPUT", "FAILURES": "TEMPORARY_OUTPUT",
    }  # fmt: skip
    results = run(provider.algorithm("segmentfolder").create(), parameters)
    assert [results[f"{name}_COUNT"] for name in ("DONE", "SKIPPED", "FAILED")] == [2, 0, 1]
    found = context.getMapLayer(results["OUTPUT"])
    assert found.featureCount() == results["OBJECT_COUNT"] and found.crs() == raster.crs()
    assert {feature["source"] for feature in found.getFeatures()} <= {"one.tif", "two.tif"}
    failure = next(context.getMapLayer(results["FAILURES"]).getFeatures())
    assert failure["source"] == "broken.tif" and feedback.warnings == [f"broken.tif: {failure['reason']}"]

    again = run(provider.algorithm("segmentfolder").create(), parameters)
    assert [again[f"{name}_COUNT"] for name in ("DONE", "SKIPPED", "FAILED")] == [0, 2, 1]
    assert again["OBJECT_COUNT"] == results["OBJECT_COUNT"] and again["DEVICE_USED"] == ""


def test_qgis_process_writes_every_output(qgis_process, raster_path, references_path, untrained_checkpoint, tmp_path):
    out = tmp_path / "größe ж out"
    out.mkdir()
    names = {"OUTPUT": "o.gpkg", "MASK": "m.tif", "PROBABILITY": "p.tif", "REPORT": "r.json"}
    done = qgis_process(
        "run", "refsam:segmentbyreference", "--", f"INPUT={raster_path}", f"REFERENCES={references_path}",
        "CLASS_FIELD=fid", f"CHECKPOINT={untrained_checkpoint}", "DEVICE=cpu",
        *(f"{name}={out / file}" for name, file in names.items()),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(p.name for p in out.iterdir()) == sorted(names.values())
    report = json.loads((out / "r.json").read_text(encoding="utf-8"))
    assert QgsVectorLayer(str(out / "o.gpkg"), "o", "ogr").featureCount() == report["result"]["object_count"]
    assert [c["name"] for c in report["result"]["classes"]] == ["blue square"]
    assert report["references"]["examples"] == 2
    for path in (raster_path, references_path, out / "o.gpkg", out / "m.tif"):
        assert f"'{path}'" in report["job"]["origin"]


def test_qgis_process_fails_with_one_sentence_and_no_output(qgis_process, raster_path, references_path, tmp_path):
    foreign = tmp_path / "foreign.pth"
    foreign.write_bytes(b"no weights")
    done = qgis_process(
        "run", "refsam:segmentbyreference", "--", f"INPUT={raster_path}", f"REFERENCES={references_path}",
        f"CHECKPOINT={foreign}", f"OUTPUT={tmp_path / 'o.gpkg'}", f"MASK={tmp_path / 'm.tif'}",
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "foreign.pth" in said and "Traceback" not in said
    assert not (tmp_path / "o.gpkg").exists() and not (tmp_path / "m.tif").exists()


def test_qgis_process_lists_the_algorithm_without_an_engine(qgis_process, raster_path, references_path, tmp_path):
    missing = str(tmp_path / "nowhere")
    listed = qgis_process("list", REFSAM_ENGINE_PYTHON=missing)
    assert "segmentbyreference" in listed.stdout
    done = qgis_process(
        "run", "refsam:segmentbyreference", "--", f"INPUT={raster_path}", f"REFERENCES={references_path}",
        "OUTPUT=TEMPORARY_OUTPUT", "MASK=TEMPORARY_OUTPUT", REFSAM_ENGINE_PYTHON=missing,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "engine is not installed" in said and missing in said


def test_no_engine_is_left_behind(qgis_process, raster_path, references_path, untrained_checkpoint, tmp_path):
    """The worker ends with its ``qgis_process``."""
    marker = f"REFSAM_TEST_MARKER={tmp_path}"
    name, value = marker.split("=", 1)
    done = qgis_process(
        "run", "refsam:segmentbyreference", "--", f"INPUT={raster_path}", f"REFERENCES={references_path}",
        f"CHECKPOINT={untrained_checkpoint}", "DEVICE=cpu", "OUTPUT=TEMPORARY_OUTPUT", "MASK=TEMPORARY_OUTPUT",
        **{name: value},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    deadline = time.monotonic() + 5  # the worker notices the end of its input on its own
    while (left := processes_with(marker)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def processes_with(variable):
    """Return the processes whose environment holds ``NAME=value``."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable.encode() in environment.read_bytes():
                found.append(environment.parent.name)
        except OSError:
            pass  # another user's, or gone
    return found
