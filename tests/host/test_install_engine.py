"""The installer of the engine's environment, with a pip that only notes what it is asked."""

import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from refsam_qgis import install_engine
from refsam_qgis.engine.installation import STAMP, lock_file


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """Make environments of one empty file, and note the arguments of pip; ``status`` is what it ends with."""
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path / "new folder"))

    class Pip:
        calls, status = [], 0

        def create(self, builder, folder):
            assert builder.with_pip and not (folder / STAMP).read_text()
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
    monkeypatch.setattr(venv.EnvBuilder, "create", lambda builder, folder: pip.create(builder, folder))
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
    monkeypatch.setattr(install_engine, "lock_file", lambda: newer)
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
    (home / "env" / STAMP).touch()
    assert install_engine.main([]) is None and len(pip.calls) == 1
    assert [path.name for path in home.iterdir()] == ["env"] and (home / "env" / "bin" / "python").exists()


def test_what_a_finished_run_could_not_delete_is_deleted_later(pip, tmp_path):
    home = tmp_path / "new folder"
    install_engine.main([])
    (home / "env.before").mkdir()
    (home / "env.before" / "ruin").touch()
    assert install_engine.main([]) is None and len(pip.calls) == 1
    assert [path.name for path in home.iterdir()] == ["env"] and (home / "env" / "bin" / "python").exists()


def test_a_part_without_anything_before_it_is_made_anew(pip, tmp_path):
    (tmp_path / "new folder" / "env").mkdir(parents=True)
    (tmp_path / "new folder" / "env" / STAMP).touch()
    assert install_engine.main([]) is None and len(pip.calls) == 1


def test_a_folder_of_somebody_else_is_left_alone(pip, tmp_path):
    foreign = tmp_path / "new folder" / "env" / "my notes"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    sentence = install_engine.main([])
    assert str(foreign.parent) in sentence and "REFSAM_HOME" in sentence
    assert foreign.exists() and not pip.calls


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_it_can_be_stopped(pip, tmp_path, monkeypatch):
    def stop(builder, folder):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    install_engine.main([])
    before = sorted(path.name for path in (tmp_path / "new folder" / "env").iterdir())
    monkeypatch.setattr(venv.EnvBuilder, "create", stop)
    former = signal.getsignal(signal.SIGTERM)
    try:
        assert "Stopped" in install_engine.main(["--pre"])
    finally:
        signal.signal(signal.SIGTERM, former)
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["env"]
    assert sorted(path.name for path in (tmp_path / "new folder" / "env").iterdir()) == before


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path / "file"))
    sentence = install_engine.main([])
    assert str(tmp_path / "file") in sentence and "set REFSAM_HOME" in sentence


@pytest.mark.parametrize("bounds", [((3, 0), (3, 9)), ((4, 0), (4, 1))])
def test_a_python_that_has_not_all_packages_is_refused(monkeypatch, bounds):
    for name, bound in zip(("OLDEST", "NEWEST"), bounds, strict=True):
        monkeypatch.setattr(install_engine, name, bound)
    this = ".".join(map(str, sys.version_info[:3]))
    assert f"from {bounds[0][0]}.{bounds[0][1]} to" in install_engine.main([])
    assert f"and this is {this}; start another" in install_engine.main([])


def test_it_runs_by_itself_from_anywhere(tmp_path):
    shown = subprocess.run(
        [sys.executable, install_engine.__file__, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "--extra-index-url" in shown.stdout and not shown.stderr
