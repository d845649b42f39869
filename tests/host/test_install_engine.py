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

        def create(self, folder, with_pip):
            assert with_pip
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


def test_options_go_to_pip_and_are_kept_for_the_next_time(pip, tmp_path, monkeypatch):
    cuda = ["--extra-index-url", "https://example.org/a folder"]
    install_engine.main([])
    assert install_engine.main(cuda) is None and install_engine.main([]) is None
    assert [call[-2:] for call in pip.calls[1:]] == [cuda]
    newer = tmp_path / "engine.txt"
    newer.write_text("torch==99\n", encoding="utf-8")
    monkeypatch.setattr("refsam_qgis.engine.installation.lock_file", lambda: newer)
    assert install_engine.main([]) is None
    assert pip.calls[2][-3:] == [str(newer), *cuda]


def test_what_fails_is_one_sentence_and_can_be_tried_again(pip, tmp_path):
    pip.status = 2
    for _ in range(2):
        assert "could not be installed (status 2" in install_engine.main([])
    assert len(pip.calls) == 2 and not list((tmp_path / "new folder").iterdir())


def test_what_fails_leaves_the_environment_that_was_there(pip, tmp_path):
    install_engine.main([])
    (tmp_path / "new folder" / "env" / "of the first").touch()
    pip.status = 2
    install_engine.main(["--upgrade"])
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["env"]
    assert (tmp_path / "new folder" / "env" / "of the first").exists()
    pip.status = 0
    assert install_engine.main([]) is None and len(pip.calls) == 2, "it is as it was"


def test_a_part_that_a_killed_run_left_gives_way_to_what_was_there(pip, tmp_path):
    home = tmp_path / "new folder"
    install_engine.main(["--pre"])
    (home / "env").rename(home / "env.before")
    (home / "env").mkdir()
    assert install_engine.main([]) is None and len(pip.calls) == 1
    assert [path.name for path in home.iterdir()] == ["env"] and (home / "env" / "bin" / "python").exists()


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
