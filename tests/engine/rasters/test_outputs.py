from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from pyogrio.errors import DataSourceError
from rasterio.crs import CRS
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.rasters.objects import ObjectTable
from refsam_qgis.engine.rasters.outputs import OutputFiles, disk_errors
from refsam_qgis.engine.rasters.writers import mask_writer, write_polygons
from tests.engine.stand_ins import HALF_METRE

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


def test_what_gdal_writes_beside_a_raster_goes_with_it(tmp_path):
    """A CRS that GeoTIFF cannot hold; what stays of an earlier raster would be taken for that of the new one."""
    rotated = CRS.from_string("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +datum=WGS84")
    path = str(tmp_path / "a.tif")
    for crs in (rotated, CRS.from_epsg(32640)):
        with OutputFiles({"a": path}, SUFFIXES, []) as outputs:
            with mask_writer(outputs["a"], Window(0, 0, 4, 4), crs, HALF_METRE, ["road"]):
                pass
            outputs.commit()
        with rasterio.open(path) as mask:
            assert mask.crs == crs
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]


def test_a_failure_leaves_the_folder_as_it_was(tmp_path):
    (tmp_path / "a.tif").write_text("old")
    with pytest.raises(RuntimeError), OutputFiles({"a": str(tmp_path / "a.tif")}, SUFFIXES, []) as outputs:
        open(outputs["a"], "w").close()
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    assert (tmp_path / "a.tif").read_text() == "old"


def test_pyramids_of_an_earlier_raster_do_not_show_in_the_new_one(tmp_path):
    path = str(tmp_path / "a.tif")

    def write(target, value):
        with rasterio.open(target, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8") as dataset:
            dataset.write(np.full((1, 64, 64), value, np.uint8))

    write(path, 1)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as dataset:  # as QGIS builds them
        dataset.build_overviews([4])
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><Metadata><MDI key='A'>1</MDI></Metadata></PAMDataset>")
    assert (tmp_path / "a.tif.ovr").exists()
    (tmp_path / "a.qml").touch()  # a style is the user's
    with OutputFiles({"a": path}, SUFFIXES, []) as outputs:
        write(outputs["a"], 2)
        outputs.commit()
    with rasterio.open(path) as dataset:
        assert (dataset.read(1, out_shape=(16, 16)) == 2).all() and "A" not in dataset.tags()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.qml", "a.tif"]


def test_what_a_program_had_not_yet_brought_into_an_earlier_layer_does_not_show_in_the_new_one(tmp_path):
    """A database that was left without being closed; its journal is written into whatever has its name."""
    path = tmp_path / "a.gpkg"
    left, new = tmp_path / "left", tmp_path / "new"
    left.mkdir(), new.mkdir()
    with closing(sqlite3.connect(left / "a.gpkg")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE old (x)")
        database.commit()
        for file in left.iterdir():
            shutil.copy(file, tmp_path)
    with closing(sqlite3.connect(new / "a.gpkg")) as database:
        database.execute("CREATE TABLE new (x)")
        database.commit()
    assert (tmp_path / "a.gpkg-wal").exists()
    with OutputFiles({"a": str(path)}, {"a": (".gpkg",)}, []) as outputs:
        shutil.copy(new / "a.gpkg", outputs["a"])
        outputs.commit()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.gpkg", "left", "new"]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("new",)]


def test_a_file_that_is_held_keeps_what_lies_beside_it(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(errno.EACCES, "held", str(target))

    for name in ("a.tif", "a.tif.ovr"):
        (tmp_path / name).write_text("old")
    monkeypatch.setattr("refsam_qgis.engine.rasters.outputs.os.replace", refuse)
    with OutputFiles({"a": str(tmp_path / "a.tif")}, SUFFIXES, []) as outputs:
        open(outputs["a"], "w").close()
        with pytest.raises(RefSAMError, match="close programs that hold it"):
            outputs.commit()
    assert (tmp_path / "a.tif.ovr").read_text() == "old"


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("held", ["b.json", "a.tif.ovr"])
def test_one_file_that_is_held_leaves_all_as_they_were(tmp_path, monkeypatch, links, held):
    earlier = {name: f"old {name}" for name in ("a.tif", "a.tif.ovr", "b.json")}
    for name, content in earlier.items():
        (tmp_path / name).write_text(content)
    replace, unlink = os.replace, Path.unlink

    def refuse(path):
        if path == tmp_path / held:
            raise PermissionError(errno.EACCES, "held", str(path))

    def replace_free(source, target):
        refuse(source)
        if "earlier" not in Path(source).parts:
            refuse(target)
        replace(source, target)

    def unlink_free(path, missing_ok=False):
        refuse(path)
        unlink(path, missing_ok)

    def no_link(source, target):
        raise OSError(errno.ENOTSUP, "no links")

    # Before and after the one that is held, one of a name that nothing has.
    names = {"first": "first.tif", "a": "a.tif", "b": "b.json", "last": "last.tif"}
    paths = {name: str(tmp_path / file) for name, file in names.items()}
    with OutputFiles(paths, {**SUFFIXES, "first": (".tif",), "last": (".tif",)}, []) as outputs:
        for name in paths:
            with open(outputs[name], "w") as stream:
                stream.write("new")
        with monkeypatch.context() as patch:
            patch.setattr("refsam_qgis.engine.rasters.outputs.os.replace", replace_free)
            patch.setattr("refsam_qgis.engine.rasters.outputs.Path.unlink", unlink_free)
            if not links:
                patch.setattr("refsam_qgis.engine.rasters.outputs.os.link", no_link)
            with pytest.raises(RefSAMError, match="close programs that hold it"):
                outputs.commit()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == earlier


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


def test_two_outputs_of_one_name_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    suffixes = {"a": (".tif",), "b": (".tif",)}
    for other in ("a.tif", "folder/../a.tif"):
        with pytest.raises(RefSAMError, match="another output") as caught:
            OutputFiles({"a": str(tmp_path / "a.tif"), "b": str(tmp_path / other)}, suffixes, [])
        assert caught.value.code == "input"


def test_endings_may_be_written_large(tmp_path):
    with OutputFiles({"a": str(tmp_path / "A.TIF")}, SUFFIXES, []) as outputs:
        open(outputs["a"], "w").close()
        outputs.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["A.TIF"]


WRITER = """
import sys, time
from refsam_qgis.engine.rasters.outputs import OutputFiles
with OutputFiles({"a": sys.argv[1]}, {"a": (".tif",)}, []) as outputs:
    open(outputs["a"], "w").close()
    print("writing", flush=True)
    sys.stdin.readline()
    outputs.commit()
"""


@pytest.fixture
def start_writer(tmp_path):
    """Return a function that starts a process which writes an output and waits before it gives it its name."""
    processes = []

    def start(name):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path, start_writer):
    dead, living = start_writer("dead.tif"), start_writer("living.tif")
    dead.kill()
    dead.wait()
    assert len(list(tmp_path.iterdir())) == 2
    with OutputFiles({"a": str(tmp_path / "a.tif")}, SUFFIXES, []) as outputs:
        open(outputs["a"], "w").close()
        with OutputFiles({"b": str(tmp_path / "b.json")}, SUFFIXES, []):  # nor what this process itself writes
            assert len(list(tmp_path.iterdir())) == 3
        outputs.commit()
    living.communicate("\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "living.tif"]


def test_many_writers_in_one_folder_do_not_sweep_one_another(tmp_path):
    def write(number):
        for turn in range(50):
            with OutputFiles({"a": str(tmp_path / f"{number}.tif")}, SUFFIXES, []) as outputs:
                with open(outputs["a"], "w") as stream:
                    stream.write(str(turn))
                outputs.commit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {f"{n}.tif": "49" for n in range(4)}


def test_a_disk_without_locks_is_written_to_and_never_swept(tmp_path, monkeypatch):
    def refuse(lock, **options):
        raise OSError(errno.ENOLCK, "no locks")

    stranger = tmp_path / ".refsam-stranger"
    stranger.mkdir()
    (stranger / ".lock").touch()
    monkeypatch.setattr("refsam_qgis.engine.rasters.outputs.FileLock.acquire", refuse)
    with OutputFiles({"a": str(tmp_path / "a.tif")}, SUFFIXES, []) as outputs:
        open(outputs["a"], "w").close()
        assert len(list(tmp_path.glob(".refsam-*/.lock"))) == 1
        outputs.commit()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".refsam-stranger", "a.tif"]


def test_a_closed_folder_is_named_without_the_hidden_place_in_it(tmp_path, monkeypatch):
    def refuse(prefix, dir):
        raise PermissionError(errno.EACCES, "Permission denied", str(Path(dir) / f"{prefix}x"))

    monkeypatch.setattr("refsam_qgis.engine.rasters.outputs.tempfile.mkdtemp", refuse)
    sentence = f"^'{tmp_path}' cannot be written \\(Permission denied\\); free space"
    with pytest.raises(RefSAMError, match=sentence), OutputFiles({"a": str(tmp_path / "a.tif")}, SUFFIXES, []):
        pass


def test_a_layer_that_cannot_be_written_has_the_name_asked_for(tmp_path):
    path = tmp_path / "a.gpkg"
    with (
        pytest.raises(RefSAMError, match="cannot be written") as caught,
        OutputFiles({"a": str(path)}, {"a": (".gpkg",)}, []) as outputs,
    ):
        Path(outputs["a"]).mkdir()  # which nothing can be written over
        nothing = ObjectTable(*(np.array([], dtype) for dtype in (object, np.int64, np.int32, float, float)))
        write_polygons(outputs["a"], nothing, ["road"], None)
    assert str(caught.value).startswith(f"'{path}' cannot be written") and ".refsam-" not in str(caught.value)


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
            writer.write(0, 0, np.random.default_rng(0).random((1, 512, 512), dtype=np.float32))
        outputs.commit()
except RefSAMError as error:
    print(error)
    sys.exit(0 if error.code == "disk" else 3)
sys.exit(4)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"'{tmp_path / 'a.tif'}' cannot be written (")
    assert ".refsam-" not in done.stdout and "previous exception" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("free", "error", "reason"),
    [
        (0, RasterioIOError("not recognized as being in a supported file format"), "the disk is full"),
        (0, DataSourceError("no such table: gpkg_contents"), "the disk is full"),
        (0, PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (2**30, DataSourceError("no such table: gpkg_contents"), "no such table: gpkg_contents"),
    ],
)
def test_what_a_full_disk_does_to_a_file_is_told_as_such(tmp_path, monkeypatch, free, error, reason):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=2**40, used=2**40 - free, free=free))
    with pytest.raises(RefSAMError, match=f"cannot be written \\({reason}\\); free space"):
        with disk_errors(str(tmp_path / "a.gpkg")):
            raise error


@pytest.mark.parametrize("count", [0, 1, 500])
@pytest.mark.parametrize("limit", [10_000, 70_000])
def test_a_full_disk_does_not_pass_for_a_layer(tmp_path, limit, count):
    """GDAL is silent on a layer without features and quotes the query that failed on another one."""
    script = f"""
import resource, sys
import numpy as np, shapely
from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.rasters.objects import ObjectTable
from refsam_qgis.engine.rasters.outputs import OutputFiles
from refsam_qgis.engine.rasters.writers import write_polygons
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
ones = np.ones({count})
polygons = np.array([shapely.Point(i, i).buffer(1) for i in range({count})], dtype=object)
table = ObjectTable(polygons, np.arange({count}), ones.astype(np.int32), ones, ones)
try:
    with OutputFiles({{"a": r"{tmp_path / "a.gpkg"}"}}, {{"a": (".gpkg",)}}, []) as outputs:
        write_polygons(outputs["a"], table, ["road"], None)
        outputs.commit()
except RefSAMError as error:
    print(error)
    sys.exit(0 if error.code == "disk" else 3)
sys.exit(4)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"'{tmp_path / 'a.gpkg'}' cannot be written (") and "INSERT" not in done.stdout
    assert list(tmp_path.iterdir()) == []
