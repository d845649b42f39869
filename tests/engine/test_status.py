"""The report on an installation, sound or damaged."""

from importlib import metadata
from pathlib import Path

import pytest
import torch

from refsam_qgis import __version__
from refsam_qgis.engine import self_test, status
from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.installation import locked_versions, mend
from refsam_qgis.engine.job import ModelOptions, StatusJob
from refsam_qgis.engine.runner import load_from_disk
from refsam_qgis.engine.self_test import run_self_test
from refsam_qgis.engine.status import run_status
from tests.engine.stand_ins import ColourSegmenter, Recorder

ROOT = Path(__file__).resolve().parents[2]


class BlindSegmenter(ColourSegmenter):
    """Finds everything but what is asked for."""

    def segment(self, encoding, reference):
        return -super().segment(encoding, reference)


def colours(options):
    return ColourSegmenter()


@pytest.fixture(autouse=True)
def sound(monkeypatch):
    """Whatever this environment is like."""
    monkeypatch.setattr(status, "damage", lambda: None)
    monkeypatch.setattr(status.shutil, "which", lambda program: None)
    monkeypatch.setattr(status, "locked_versions", dict)


def test_a_sound_installation():
    found = run_status(StatusJob(), SilentReporter(), colours)
    assert found["version"] == __version__
    assert found["packages"] == {name: metadata.version(name) for name in status.PACKAGES}
    assert found["devices"][-1]["device"] == "cpu"
    assert found["model"]["checkpoint"] == "compact_sam.safetensors" and len(found["model"]["checkpoint_sha256"]) == 64
    assert found["self_test"]["passed"] and found["self_test"]["device"] == "cpu"
    assert (found["problems"], found["notes"]) == ([], [])


def test_a_model_that_finds_nothing_fails_the_self_test():
    found = run_status(StatusJob(), SilentReporter(), lambda options: BlindSegmenter())
    assert not found["self_test"]["passed"]
    assert found["problems"] == ["Model 'compact' does not find a plain square; check its checkpoint and adapters."]


def test_weights_that_are_not_there_are_one_problem(tmp_path):
    job = StatusJob(ModelOptions("vit_b", checkpoint=str(tmp_path / "none.pth")))
    found = run_status(job, SilentReporter(), load_from_disk)
    (problem,) = found["problems"]
    assert "none.pth' does not exist" in problem and not found["self_test"]["passed"]


@pytest.mark.parametrize("error", [ImportError("DLL load failed\nwhile importing"), OSError("DLL load failed")])
def test_a_package_that_cannot_be_loaded_is_named(monkeypatch, error):
    importing = status.importlib.import_module

    def import_module(name):
        if name == "rasterio":
            raise error
        return importing(name)

    monkeypatch.setattr(status.importlib, "import_module", import_module)
    found = run_status(StatusJob(), SilentReporter(), colours)
    version = metadata.version("rasterio")
    assert found["problems"] == [f"Package rasterio {version} cannot be loaded (DLL load failed); {mend()}."]
    assert found["self_test"] == {"passed": False}


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        (["no-such"], f"Package no-such is missing from the engine's environment; {mend()}."),
        (
            ["no-such", "nor-such"],
            f"Packages no-such, nor-such are missing from the engine's environment; {mend()}.",
        ),
    ],
)
def test_missing_packages_are_named_in_one_sentence(monkeypatch, missing, sentence):
    for name in missing:
        monkeypatch.setitem(status.PACKAGES, name, name.replace("-", "_"))
    found = run_status(StatusJob(), SilentReporter(), colours)
    assert all(found["packages"][name] is None for name in missing)
    assert found["problems"] == [sentence]


def test_a_damaged_file_is_named(monkeypatch):
    monkeypatch.setattr(status, "damage", lambda: "file 'x.so' of package torch is missing")
    (problem,) = run_status(StatusJob(), SilentReporter(), colours)["problems"]
    assert f"'x.so' of package torch is missing; {mend()}." in problem


def test_other_versions_are_worth_a_note(monkeypatch):
    monkeypatch.setattr(status, "locked_versions", lambda: {"tqdm": "0.1", "torch": torch.__version__.split("+")[0]})
    found = run_status(StatusJob(), SilentReporter(), colours)
    (note,) = found["notes"]
    assert f"(tqdm {metadata.version('tqdm')} instead of 0.1)" in note and found["problems"] == []


def test_the_tested_versions_are_those_of_the_lock():
    tested = locked_versions()
    locked = (ROOT / "requirements" / "engine.txt").read_text(encoding="utf-8")
    assert tested and all(f"{name}=={version}" in locked for name, version in tested.items())
    assert set(status.PACKAGES) <= set(tested)


@pytest.mark.parametrize(
    ("built_for", "remedy"), [(None, "--extra-index-url URL, of a CUDA build"), ("12.8", "CUDA 12.8; update")]
)
def test_a_graphics_processor_that_is_not_used_is_worth_a_note(monkeypatch, built_for, remedy):
    monkeypatch.setattr(status.shutil, "which", lambda program: "/usr/bin/" + program)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    (note,) = run_status(StatusJob(), SilentReporter(), colours)["notes"]
    assert remedy in note and torch.__version__ in note


def test_cancelling_ends_it():
    with pytest.raises(JobCancelled):
        run_status(StatusJob(), Recorder(cancel_after=0), colours)


def test_cancelling_ends_the_self_test():
    class Cancelled(SilentReporter):
        def is_cancelled(self):
            return True

    with pytest.raises(JobCancelled):
        run_self_test(ModelOptions(), colours, Cancelled())


def test_the_self_test_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(self_test.tempfile, "tempdir", str(tmp_path))
    assert run_self_test(ModelOptions(), colours, SilentReporter()) == "cpu"
    with pytest.raises(RefSAMError):
        run_self_test(ModelOptions(), lambda options: BlindSegmenter(), SilentReporter())
    assert list(tmp_path.iterdir()) == []
