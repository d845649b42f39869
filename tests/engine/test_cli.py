"""The command line: exit codes, one sentence on standard error, and no traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from refsam_qgis.engine import __main__ as cli
from refsam_qgis.engine import runner
from refsam_qgis.engine.arguments import build_parser, job_from_arguments
from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.events import check_cancelled
from refsam_qgis.engine.job import EvaluateJob, ModelOptions, ProtocolJob, SegmentJob, TrainJob, to_dict

ROOT = Path(__file__).resolve().parents[2]
SEGMENT = ["segment", "--input", "a.tif", "--references", "r.gpkg", "--polygons", "out.gpkg"]


def parse(*arguments):
    return job_from_arguments(build_parser().parse_args(arguments))


def test_defaults_are_those_of_the_job():
    job = parse(*SEGMENT)
    plain = SegmentJob(input="a.tif", references=job.references, outputs=job.outputs)
    assert job == plain


def test_every_field_of_a_segment_job_has_a_flag():
    job = parse(
        *SEGMENT, "--reference-raster", "b.tif", "--reference-layer", "l", "--class-field", "c", "--annotation",
        "partial", "--model", "vit_b", "--checkpoint", "c.pth", "--adapters", "a.safetensors", "--method", "virefsam",
        "--device", "cpu", "--bands", "3", "2", "1", "--stretch", "none", "--extent", "0", "1", "2", "3", "--tile-size",
        "512", "--overlap", "25", "--threshold", "0.4", "--min-area", "3", "--simplify", "1", "--mask", "m.tif",
        "--fill-holes", "2", "--right-angles", "--separate", "0.2", "--negatives", "n.gpkg",
        "--probability", "p.tif", "--report", "r.json", "--no-encodings",
    )  # fmt: skip
    default = to_dict(SegmentJob(input="", references=type(job.references)(vector="")))

    def leaves(document):
        return [leaf for value in document.values() for leaf in (leaves(value) if isinstance(value, dict) else [value])]

    same = [a for a, b in zip(leaves(to_dict(job)), leaves(default), strict=True) if a == b]
    # The kind, the reference set that stands instead of the marks, and what programs say of where a job comes from.
    assert same == ["segment", None, None]


def test_every_field_of_a_protocol_job_has_a_flag():
    job = parse(
        "evaluate", "--protocol", "coco20i", "--folder", "coco", "--folds", "1", "3", "--methods", "fitted",
        "random_forest", "--shots", "5", "--episodes", "9", "--runs", "2", "--seed", "7", "--support", "scribble",
        "--min-pixels", "50", "--report", "r.json", "--picture", "p.png", "--table", "t.csv", "--device", "cpu",
    )  # fmt: skip
    assert job == ProtocolJob(
        "coco", "coco20i", (1, 3), ("fitted", "random_forest"), ModelOptions(device="cpu"), 5, 9, 2, 7, "scribble", 50,
        "r.json", "p.png", "t.csv",
    )  # fmt: skip
    assert parse("evaluate", "--protocol", "folder", "--folder", "f") == ProtocolJob("f")
    with pytest.raises(RefSAMError, match="add --folder"):
        parse("evaluate", "--protocol", "isaid5i")


def test_every_field_of_an_evaluate_job_has_a_flag():
    job = parse(
        "evaluate", "--result", "r.gpkg", "--truth", "t.tif", "--result-field", "c", "--truth-field", "d",
        "--result-classes", "a", "b", "--truth-classes", "e", "--gsd", "0.5", "--tolerance", "3", "--min-iou", "0.4",
        "--extent", "0", "1", "2", "3", "--report", "r.json", "--picture", "p.png", "--table", "t.csv",
    )  # fmt: skip
    assert job == EvaluateJob(
        "r.gpkg", "t.tif", "c", "d", ("a", "b"), ("e",), 0.5, 3.0, 0.4, (0.0, 1.0, 2.0, 3.0), "r.json", "p.png", "t.csv"
    )
    assert parse("evaluate", "--result", "r.gpkg", "--truth", "t.tif") == EvaluateJob("r.gpkg", "t.tif")


RESULT, PROTOCOL = ["--result", "r.gpkg", "--truth", "t.gpkg"], ["--protocol", "folder", "--folder", "f"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([*RESULT, "--model", "vit_h", "--device", "cuda"], "Without --protocol .* --device, --model; add --protocol"),
        ([*RESULT, "--shots", "1"], "Without --protocol .* --shots;"),  # also where it is the default
        (["--folder", "f"], "add --protocol"),
        ([*PROTOCOL, *RESULT], "With --protocol .* --result, --truth;"),
        ([*PROTOCOL, "--extent", "0", "1", "2", "3", "--min-iou", "0.5"], "With --protocol .* --extent, --min-iou;"),
        (RESULT[:2], "nothing to compare"),
        ([], "nothing to compare"),
    ],
)
def test_options_of_the_other_evaluation_are_refused(arguments, named):
    with pytest.raises(RefSAMError, match=named):
        parse("evaluate", *arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["segment", "--input", "a.tif", "--mask", "m.tif", "--class-field", "kind"], "--class-field;"),
        (["folder", "--folder", "f", "--output-folder", "o", "--annotation", "complete"], "--annotation;"),  # as it is
        (["folder", "--folder", "f", "--output-folder", "o", "--reference-layer", "marks"], "--reference-layer;"),
    ],
)
def test_what_describes_marks_has_no_use_beside_a_reference_set(arguments, named):
    with pytest.raises(RefSAMError, match=f"With --reference-set .* {named}"):
        parse(*arguments, "--reference-set", "r.refset")


@pytest.mark.parametrize("options", [["--pattern", "*.tif;*.tiff"], ["--recursive"]])
def test_what_searches_a_folder_has_no_use_beside_a_list_of_rasters(options):
    folder = ["folder", "--output-folder", "o", "--reference-set", "r.refset", *options]
    with pytest.raises(RefSAMError, match=f"With --inputs .* {options[0]};"):
        parse(*folder, "--inputs", "a.tif")
    assert parse(*folder, "--folder", "f").recursive == (options == ["--recursive"])


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["prompts", "--input", "a.tif", "--points", "p.gpkg", "--polygons", "o.gpkg"], ("--adapters", "--method")),
        (["everything", "--input", "a.tif", "--polygons", "o.gpkg"], ("--adapters", "--method")),
        (["train", "--output", "a.safetensors"], ("--method",)),
    ],
)
def test_an_option_without_a_bearing_is_wrong_usage(capsys, command, options):
    job = parse(*command, "--model", "vit_b", "--checkpoint", "c.pth", "--device", "cpu")
    assert job.model == ModelOptions("vit_b", "c.pth", device="cpu")
    for option in options:
        with pytest.raises(SystemExit, match="2"):
            parse(*command, option, "virefsam")
        assert f"unrecognized arguments: {option}" in capsys.readouterr().err


def test_a_protocol_without_its_files_is_one_sentence(tmp_path, capsys):
    for protocol, missing in (
        ("isaid5i", "instance_color_RGB.png"),
        ("loveda2i", "masks_png"),
        ("coco20i", "instances_val2014.json"),
        ("folder", "classes.json"),
    ):
        assert cli.main(["evaluate", "--protocol", protocol, "--folder", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert missing in error and str(tmp_path) in error and "Traceback" not in error


def test_no_resume():
    assert parse("train", "--output", "a.safetensors", "--no-resume") == TrainJob("a.safetensors", resume=False)


def test_a_job_document_runs_the_same_job(tmp_path):
    job = parse(*SEGMENT, "--extent", "0", "1", "2", "3")
    path = tmp_path / "größe job.json"
    path.write_text(json.dumps(to_dict(job)), encoding="utf-8")
    assert parse("run", str(path)) == job


def test_a_report_runs_its_job_again(tmp_path):
    job = parse(*SEGMENT)
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"refsam": "1", "job": to_dict(job), "result": {"object_count": 3}}))
    assert parse("run", str(path)) == job


@pytest.mark.parametrize("text", ["[]", "{}", '{"protocol": "folder", "methods": {}}', '{"job": {"input": "a.tif"}}'])
def test_a_file_without_a_job_is_named(tmp_path, text):
    path = tmp_path / "figures.json"
    path.write_text(text)
    with pytest.raises(RefSAMError, match=r"figures\.json' holds no job; give a JSON object with the 'kind'"):
        parse("run", str(path))


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "dance"}', '{"kind": "segment"}'])
def test_a_bad_job_document_is_refused(tmp_path, text):
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(RefSAMError, match=r"\.$"):
        parse("run", str(path))


def test_an_output_is_required():
    with pytest.raises(RefSAMError, match="--polygons"):
        parse("segment", "--input", "a.tif", "--references", "r.gpkg")


def test_result_is_json_on_standard_output(monkeypatch, capsys):
    def run(job, reporter):
        reporter.progress(0.5, "half", 2.0)
        reporter.log("a word")
        return {"object_count": 3}

    monkeypatch.setattr(runner, "run_job", run)
    assert cli.main(SEGMENT) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"object_count": 3}
    assert "a word" in err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RefSAMError("reference", "Draw more."), "Draw more."),
        (MemoryError(), "Memory ran out"),
        (OSError(28, "No space left on device", "/x"), "The disk is full at /x"),
        (ModuleNotFoundError("No module named 'torch'"), "environment is incomplete"),
        (ValueError("odd"), "An unexpected ValueError"),
    ],
)
def test_a_failure_is_one_sentence(monkeypatch, capsys, tmp_path, error, sentence):
    def run(job, reporter):
        raise error

    monkeypatch.setenv("REFSAM_HOME", str(tmp_path))
    monkeypatch.setattr(runner, "run_job", run)
    assert cli.main(SEGMENT) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err and "Traceback" not in err and len(err.strip().splitlines()[-1:]) == 1


def test_debug_shows_the_traceback(monkeypatch):
    def run(job, reporter):
        raise ValueError("odd")

    monkeypatch.setattr(runner, "run_job", run)
    with pytest.raises(ValueError, match="odd"):
        cli.main(["--debug", *SEGMENT])


def test_ctrl_c_cancels_the_job(monkeypatch, capsys):
    import signal

    def run(job, reporter):
        signal.raise_signal(signal.SIGINT)
        check_cancelled(reporter)

    monkeypatch.setattr(runner, "run_job", run)
    assert cli.main(SEGMENT) == 1
    assert "cancelled" in capsys.readouterr().err


def test_wrong_usage_is_status_2():
    done = subprocess.run(
        [sys.executable, "-m", "refsam_qgis.engine", "segment"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "--input" in done.stderr
