"""The installer of the engine's environment, with a pip that only notes what it is asked."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from refsam_qgis import install_engine
from refsam_qgis.engine.installation import lock_file


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """Make environments of one empty file, and note the arguments of pip; ``status`` is what it ends with."""
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path / "new folder"))

    class Pip:
        calls, status = [], 0

        def create(self, folder, clear, with_pip):
            assert clear and with_pip
            (folder / "bin").mkdir(parents=True)
            (folder / "bin" / "python").touch()

        def run(self, command, check, **options):
            if "pip" not in command:  # asks whether all is whole
                return subprocess.CompletedProcess(command, 0)
            self.calls.append(command)
            if self.status:
                raise subprocess.CalledProcessError(self.status, command)
            return None

    pip = Pip()
    pip.calls = []
    monkeypatch.setattr(venv, "create", pip.create)
    monkeypatch.setattr(subprocess, "run", pip.run)
    return pip


def test_it_installs_what_is_locked_once(pip, tmp_path):
    assert install_engine.main([]) is None and install_engine.main([]) is None
    ((python, *_, name, lock),) = pip.calls
    assert Path(python) == tmp_path / "new folder" / "env" / "bin" / "python"
    assert (name, Path(lock)) == ("--requirement", lock_file())


def test_options_go_to_pip_and_make_it_another_environment(pip, tmp_path):
    install_engine.main([])
    (tmp_path / "new folder" / "env" / "bin" / "python").unlink()
    (tmp_path / "new folder" / "env" / "bin").rmdir()
    assert install_engine.main(["--extra-index-url", "https://example.org/cuda"]) is None
    assert [call[-2:] for call in pip.calls[1:]] == [["--extra-index-url", "https://example.org/cuda"]]


def test_what_fails_is_one_sentence_and_tried_again(pip, tmp_path):
    pip.status = 2
    assert "could not be installed (status 2" in install_engine.main([])
    assert not (tmp_path / "new folder" / "env" / ".lock").exists()


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path / "file"))
    sentence = install_engine.main([])
    assert str(tmp_path / "file") in sentence and "set REFSAM_HOME" in sentence


def test_an_old_python_is_refused(monkeypatch):
    monkeypatch.setattr(install_engine, "OLDEST", (4, 0))
    assert f"and this is {sys.version.split()[0]}" in install_engine.main([])


def test_it_runs_by_itself_from_anywhere(tmp_path):
    shown = subprocess.run(
        [sys.executable, install_engine.__file__, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "--extra-index-url" in shown.stdout and not shown.stderr
