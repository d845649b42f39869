"""Host and engine import nothing of each other's world.

Runs under both Pythons: the half whose libraries are not there is skipped.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "refsam_qgis"
ENGINE_LIBRARIES = {
    "torch", "rasterio", "geopandas", "shapely", "pyproj", "pandas", "pyogrio", "scipy", "safetensors", "tqdm", "PIL",
    "segment_anything",
}  # fmt: skip
QGIS_LIBRARIES = {"qgis", "osgeo", "processing", "PyQt5", "PyQt6"}

IMPORT = """
import sys
{before}
alone = {{name.split(".")[0] for name in sys.modules}}

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {forbidden!r}:
            raise AssertionError("imported " + name)

sys.meta_path.insert(0, Forbid())
sys.path.insert(0, {root!r})
import importlib
for name in {modules!r}:
    importlib.import_module(name)
loaded = {{name.split(".")[0] for name in sys.modules}} - alone
assert not loaded & {forbidden!r}, loaded & {forbidden!r}
"""


def modules(*folders, files=()):
    paths = [path for folder in folders for path in (PACKAGE / folder).rglob("*.py")] + [PACKAGE / f for f in files]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    return sorted(name.removesuffix(".__init__") for name in names if not name.endswith("__main__"))


def import_without(forbidden, names, before=""):
    """Import modules where some others must not be, unless what comes `before`, as QGIS does, brings them."""
    code = IMPORT.format(forbidden=forbidden, root=str(ROOT), modules=names, before=before)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.skipif(find_spec("qgis") is None, reason="needs QGIS's Python")
def test_the_host_imports_none_of_the_engines_libraries():
    names = modules("host", "algorithms", "gui", files=("plugin.py", "provider.py"))
    assert "refsam_qgis.algorithms.segment_by_reference" in names
    done = import_without(ENGINE_LIBRARIES, names, before="import qgis.core, qgis.gui, qgis.analysis")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(find_spec("torch") is None, reason="needs the engine's Python")
def test_the_engine_imports_nothing_of_qgis():
    names = modules("engine")
    assert "refsam_qgis.engine.segment" in names
    done = import_without(QGIS_LIBRARIES, names)
    assert done.returncode == 0, done.stderr


def test_the_package_imports_nothing():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules); import refsam_qgis; " + (
        "print(sorted(n for n in set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "refsam_qgis." not in done.stdout and "refsam_qgis" in done.stdout


def test_jobs_and_errors_need_the_standard_library_alone():
    done = import_without(
        ENGINE_LIBRARIES | QGIS_LIBRARIES | {"numpy"},
        [f"refsam_qgis.engine.{name}" for name in ("job", "errors", "events", "pace", "palette")],
    )
    assert done.returncode == 0, done.stderr


def test_metadata_and_package_agree_on_the_version():
    import configparser

    from refsam_qgis import __version__

    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "metadata.txt", encoding="utf-8")
    assert metadata["general"]["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
