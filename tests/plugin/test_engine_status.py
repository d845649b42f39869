"""``refsam:enginestatus`` inside QGIS: with a sound engine, a damaged one and none."""

import json
import sys

import pytest
from qgis.core import QgsProcessingException

from refsam_qgis import __version__
from refsam_qgis.algorithms import engine_status
from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.host import engine as host_engine

SOUND = {
    "version": "1.2.3", "python": "3.12.1", "executable": "/engine/python", "problems": [], "notes": [],
    "packages": {"torch": "2.13.0", "tqdm": "4.1"},
    "devices": [{"device": "cuda:0", "name": "A <GPU>", "memory_bytes": 2**34}, {"device": "cpu", "name": "x86_64"}],
    "model": {
        "model": "compact", "method": "virefsam", "adapters": None, "adapters_sha256": None,
        "checkpoint": "c.safetensors", "checkpoint_sha256": "0123456789abcdef",
    },
    "self_test": {"passed": True, "device": "cuda:0", "seconds": 1.5},
}  # fmt: skip


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("enginestatus").create()


@pytest.fixture
def jobs(engine, monkeypatch):
    """The jobs of the runs; the engine answers that all is well."""
    monkeypatch.setattr(engine_status, "engine_python", lambda: "/engine/python")
    engine.answer = lambda job: dict(SOUND)
    return engine.jobs


def test_defaults_make_the_default_job(algorithm, run, jobs):
    run(algorithm, {})
    assert jobs == [type(jobs[0])()]


def test_every_parameter_reaches_the_job(algorithm, run, jobs, tmp_path):
    weights, adapters = tmp_path / "w.pth", tmp_path / "a.safetensors"
    weights.touch()
    adapters.touch()
    run(algorithm, {"MODEL": "vit_b", "CHECKPOINT": str(weights), "ADAPTERS": str(adapters), "DEVICE": "cuda"})
    assert jobs[0].model == type(jobs[0].model)("vit_b", str(weights), str(adapters), device="cuda")


def test_a_sound_engine_is_described(algorithm, run, jobs, feedback):
    results = run(algorithm, {})
    assert results == {
        "ENGINE_VERSION": "1.2.3", "DEVICE_USED": "cuda:0", "SELF_TEST": "passed", "PROBLEM_COUNT": 0, "PROBLEMS": ""
    }  # fmt: skip
    said = "\n".join(feedback.infos)
    for fact in (
        "RefSAM: 1.2.3", "3.12.1 /engine/python", "torch 2.13.0, tqdm 4.1", "cuda:0 (A <GPU>, 16 GiB), cpu (x86_64)",
        "compact, virefsam, c.safetensors (0123456789ab…)", "passed on cuda:0 in 1.5 s", "Everything works.",
    ):  # fmt: skip
        assert fact in said
    assert (feedback.warnings, feedback.errors) == ([], [])


def test_a_damaged_engine_is_described(algorithm, run, engine, jobs, feedback):
    problems = ["Package 'tqdm' is missing; install it again.", "It went wrong; mend it."]
    engine.answer = lambda job: {
        **SOUND, "packages": {"torch": "2.13.0", "tqdm": None}, "notes": ["Older than tested."], "problems": problems,
        "self_test": {"passed": False, "message": problems[1]},
    }  # fmt: skip
    results = run(algorithm, {})
    assert (results["SELF_TEST"], results["DEVICE_USED"], results["PROBLEM_COUNT"]) == ("failed", "", 2)
    assert results["PROBLEMS"].splitlines() == problems
    assert (feedback.errors, feedback.warnings) == (problems, ["Older than tested."])
    assert "tqdm missing" in "\n".join(feedback.infos) and "Everything works." not in feedback.infos


def test_an_engine_that_dies_is_described(algorithm, run, engine, jobs, feedback):
    def answer(job):
        raise RefSAMError("memory", "Memory ran out; close other programs.")

    engine.answer = answer
    results = run(algorithm, {})
    assert (results["SELF_TEST"], results["PROBLEMS"]) == ("not run", "Memory ran out; close other programs.")
    assert feedback.errors == ["Memory ran out; close other programs."]
    assert "Python of the engine: /engine/python" in feedback.infos


def test_a_missing_engine_is_described(algorithm, run, monkeypatch, tmp_path, feedback):
    monkeypatch.delenv("REFSAM_ENGINE_PYTHON", raising=False)
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path))
    assert algorithm.canExecute() == (True, "")
    report = tmp_path / "status.html"
    results = run(algorithm, {"REPORT": str(report)})
    assert (results["ENGINE_VERSION"], results["SELF_TEST"], results["PROBLEM_COUNT"]) == ("", "not run", 1)
    assert "engine is not installed" in results["PROBLEMS"] and "install_engine.py" in results["PROBLEMS"]
    assert "install_engine.py" in report.read_text(encoding="utf-8")


def test_a_python_without_the_engine_is_described(algorithm, run, monkeypatch, feedback):
    """Any Python but the engine's own: it starts, has none of the packages, and tells so."""
    monkeypatch.setenv("REFSAM_ENGINE_PYTHON", sys.executable)
    host_engine.close_shared_client()
    results = run(algorithm, {})
    assert (results["ENGINE_VERSION"], results["SELF_TEST"]) == (__version__, "failed")
    assert results["PROBLEMS"].startswith("Packages torch, segment-anything,")
    assert results["PROBLEM_COUNT"] == 1
    assert f'missing from the engine\'s environment; run "{sys.executable}" -m pip install' in results["PROBLEMS"]
    assert "Traceback" not in "\n".join([*feedback.errors, *feedback.infos])
    host_engine.close_shared_client()


def test_a_file_that_is_no_python_is_described(algorithm, run, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("not a program")
    monkeypatch.setenv("REFSAM_ENGINE_PYTHON", str(python))
    results = run(algorithm, {})
    assert (results["SELF_TEST"], results["PROBLEM_COUNT"]) == ("not run", 1)
    assert "cannot be started" in results["PROBLEMS"]
    host_engine.close_shared_client()


def test_cancelling_is_no_problem_of_the_engine(algorithm, run, engine, jobs):
    def answer(job):
        raise JobCancelled

    engine.answer = answer
    with pytest.raises(QgsProcessingException, match="cancelled"):
        run(algorithm, {})


def test_the_page_is_html(algorithm, run, jobs, tmp_path):
    report = tmp_path / "größe.html"
    assert run(algorithm, {"REPORT": str(report)})["REPORT"] == str(report)
    page = report.read_text(encoding="utf-8")
    assert "A &lt;GPU&gt;" in page and "Everything works." in page and page.endswith("</html>")


def test_the_data_are_json(algorithm, run, jobs, tmp_path):
    report = tmp_path / "status.JSON"
    run(algorithm, {"REPORT": str(report)})
    status = json.loads(report.read_text(encoding="utf-8"))
    assert {name: status[name] for name in SOUND} == SOUND and status["qgis"]


def test_a_report_that_cannot_be_written_is_one_sentence(algorithm, run, jobs, tmp_path):
    with pytest.raises(QgsProcessingException, match=r"status\.html' cannot be written .*; choose another place\."):
        run(algorithm, {"REPORT": str(tmp_path / "none" / "status.html")})


def test_models_other_than_compact_need_their_checkpoint(algorithm, run, jobs):
    with pytest.raises(QgsProcessingException, match="needs its SAM checkpoint"):
        run(algorithm, {"MODEL": "vit_b"})


def test_a_real_run(algorithm, run, untrained_checkpoint, engine_python, feedback):
    results = run(algorithm, {"CHECKPOINT": untrained_checkpoint, "DEVICE": "cpu"})
    assert results["ENGINE_VERSION"] == __version__
    # Untrained weights may or may not tell a square from the ground.
    assert results["SELF_TEST"] == "passed" or "does not find a plain square" in results["PROBLEMS"]
