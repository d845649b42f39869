from __future__ import annotations

import subprocess
import sys

import pytest

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.rasters.outputs import OutputFiles

SUFFIXES = {"a": (".tif", ".tiff"), "b": (".json",)}


def test_files_appear_together_and_nothing_else_stays(tmp_path):
    (tmp_path / "a.tif").write_text("old")
    with OutputFiles({"a": str(tmp_path / "a.tif"), "b": str(tmp_path / "b.json")}, SUFFIXES, []) as outputs:
        for name in ("a", "b"):
            with open(outputs[name], "w") as stream:
                stream.write(f"new {name}")
        assert (tmp_path / "a.tif").read_text() == "old" and not (tmp_path / "b.json").exists()
        outputs.commit()
    assert (tmp_path / "a.tif").read_text() == "new a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.json"]


def test_a_failure_leaves_the_folder_as_it_was(tmp_path):
    (tmp_path / "a.tif").write_text("old")
    with pytest.raises(RuntimeError), OutputFiles({"a": str(tmp_path / "a.tif")}, SUFFIXES, []) as outputs:
        open(outputs["a"], "w").close()
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    assert (tmp_path / "a.tif").read_text() == "old"


def test_unusable_paths_are_refused_at_once(tmp_path):
    folder = tmp_path / "folder.tif"
    folder.mkdir()
    (tmp_path / "link.tif").symlink_to(tmp_path / "in.tif")
    (tmp_path / "in.tif").touch()
    inputs = [str(tmp_path / "in.tif")]
    cases = {
        str(tmp_path / "no" / "a.tif"): "does not exist; create it",
        str(folder): "is a folder",
        str(tmp_path / "in.tif"): "is also an input",
        str(tmp_path / "link.tif"): "is also an input",
        str(tmp_path / "a.shp"): "must end in .tif or .tiff",
    }
    for path, sentence in cases.items():
        with pytest.raises(RefSAMError, match=sentence) as caught:
            OutputFiles({"a": path}, SUFFIXES, inputs)
        assert caught.value.code == "input"


@pytest.mark.parametrize("limit", [20_000, 200_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, limit):
    """A limit on the file size stands for the full disk."""
    script = f"""
import resource, sys
import numpy as np
from rasterio.transform import from_origin
from rasterio.windows import Window
from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.rasters.outputs import OutputFiles
from refsam_qgis.engine.rasters.writers import probability_writer
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
window = Window(0, 0, 512, 512)
try:
    with OutputFiles({{"a": r"{tmp_path / "a.tif"}"}}, {{"a": (".tif",)}}, []) as outputs:
        with probability_writer(outputs["a"], window, None, from_origin(0, 0, 1, 1), ["x"]) as writer:
            writer.write(0, np.random.default_rng(0).random((1, 512, 512), dtype=np.float32))
        outputs.commit()
except RefSAMError as error:
    sys.exit(0 if error.code == "disk" else 3)
sys.exit(4)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
