"""Finding the engine's Python and cleaning its environment; needs no QGIS."""

import sys

import pytest

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.installation import STAMP, default_python, mend
from refsam_qgis.host.environment import engine_environment, find_engine_python, worker_command


@pytest.fixture
def pythons(tmp_path):
    paths = {name: tmp_path / name / "env" / "bin" / "python" for name in ("setting", "variable", "home")}
    for path in paths.values():
        path.parent.mkdir(parents=True)
        path.touch()
    return paths


@pytest.mark.skipif(sys.platform == "win32", reason="the layout of a POSIX environment")
def test_setting_before_variable_before_home(pythons):
    environ = {"REFSAM_ENGINE_PYTHON": str(pythons["variable"]), "REFSAM_HOME": str(pythons["home"].parents[2])}
    assert find_engine_python(str(pythons["setting"]), environ) == pythons["setting"]
    assert find_engine_python("", environ) == pythons["variable"]
    del environ["REFSAM_ENGINE_PYTHON"]
    assert find_engine_python(None, environ) == default_python(environ) == pythons["home"]


@pytest.mark.parametrize(
    ("setting", "environ", "remedy"),
    [
        ("/nowhere/python", {}, "Settings › Options › RefSAM"),
        (None, {"REFSAM_ENGINE_PYTHON": "/nowhere/python"}, "variable REFSAM_ENGINE_PYTHON"),
        (None, {"REFSAM_HOME": "/nowhere"}, "Settings › Options › RefSAM, or run .*install_engine.py"),
    ],
)
def test_a_missing_engine_names_place_and_remedy(setting, environ, remedy):
    with pytest.raises(RefSAMError, match=remedy) as caught:
        find_engine_python(setting, environ)
    assert caught.value.code == "environment" and "nowhere" in str(caught.value)


def test_an_environment_that_is_being_made_is_not_used_yet(pythons):
    environ = {"REFSAM_HOME": str(pythons["home"].parents[2])}
    stamp = pythons["home"].parents[1] / STAMP
    stamp.touch()
    with pytest.raises(RefSAMError, match="still being set up"):
        find_engine_python(None, environ)
    stamp.write_text("finished", encoding="utf-8")
    assert find_engine_python(None, environ) == pythons["home"]


def test_a_damaged_python_is_mended_where_it_is(pythons, monkeypatch):
    monkeypatch.setenv("REFSAM_HOME", str(pythons["home"].parents[2]))
    assert "install_engine.py" in mend(pythons["home"])
    assert f'"{pythons["setting"]}" -m pip install' in mend(pythons["setting"])


def test_nothing_of_qgis_reaches_the_engine():
    foreign = {
        name: "/qgis"
        for name in (
            "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "QGIS_PREFIX_PATH",
            "QT_PLUGIN_PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
        )
    }  # fmt: skip
    kept = engine_environment({**foreign, "HOME": "/home/ä", "CUDA_VISIBLE_DEVICES": "0", "REFSAM_HOME": "/r"})
    assert "/qgis" not in kept.values()
    assert (kept["HOME"], kept["CUDA_VISIBLE_DEVICES"], kept["REFSAM_HOME"]) == ("/home/ä", "0", "/r")
    assert kept["PYTHONIOENCODING"] == "utf-8"


def test_the_command_starts_the_given_python(tmp_path):
    assert worker_command(tmp_path / "python")[0] == str(tmp_path / "python")
