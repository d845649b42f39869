import errno
import subprocess
import sys

import numpy as np
import pytest
import torch

from refsam_qgis.engine import installation
from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.failures import explain
from refsam_qgis.engine.installation import damage, mend


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package of two files; returns its folder."""
    folder = tmp_path / "site"
    (folder / "thing").mkdir(parents=True)
    (folder / "thing-1.0.dist-info").mkdir()
    (folder / "thing" / "__init__.py").write_text("x = 1\n")
    (folder / "thing" / "table, of data.csv").write_text("1,2\n")
    (folder / "thing-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (folder / "thing-1.0.dist-info" / "RECORD").write_text(
        "thing/__init__.py,sha256=x,6\nthing/__pycache__/__init__.cpython-311.pyc,,\n"
        '"thing/table, of data.csv",sha256=x,4\nthing-1.0.dist-info/METADATA,,\nthing-1.0.dist-info/RECORD,,\n'
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(installation, "locked_versions", lambda lock: {"Thing": "1.0"})
    return folder / "thing"


def raised(action):
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def wrapped(cause):
    try:
        raise RefSAMError("checkpoint", "This is no checkpoint.") from cause
    except RefSAMError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        raised(lambda: torch.empty(1 << 50)),
        raised(lambda: np.empty(1 << 50)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.0 GB)"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libgdal.so.38: failed to map segment from shared object"),
        wrapped(MemoryError()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_is_recognised_in_all_its_faces(error, home):
    failure = explain(error)
    assert failure.code == "memory" and "smaller" in str(failure)
    assert not home.exists()  # foreseen: nothing for the log


def test_memory_that_really_runs_out_is_recognised():
    """Python's own allocations, numpy's, torch's and those of a library that is being loaded, under a limit."""
    resource = pytest.importorskip("resource")
    code = """
import resource, sys
import numpy, torch
from refsam_qgis.engine.failures import explain
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), used + (1 << 20)))
for action in (lambda: bytearray(1 << 27), lambda: numpy.ones(1 << 24), lambda: torch.ones(1 << 26)):
    try:
        action()
    except Exception as error:
        assert explain(error).code == "memory", repr(error)
    else:
        sys.exit("nothing was raised")
"""
    assert resource
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_sentence_stays_as_it_is():
    error = wrapped(ValueError("out of range"))
    assert explain(error) is error
    named = RefSAMError("input", "'out of memory.tif' is no raster; choose another.")
    assert explain(named) is named


def test_causes_that_go_round_come_to_an_end():
    error, other = RefSAMError("disk", "The disk is full; free some space."), ValueError("odd")
    error.__cause__, other.__cause__ = other, error
    assert explain(error) is error


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_disks_are_named(code):
    failure = explain(OSError(code, "no", "/there/x.tif"))
    assert failure.code == "disk" and "/there/x.tif" in str(failure)


def test_the_unforeseen_goes_to_the_log(home):
    failure = explain(raised(lambda: 1 / 0))
    assert failure.code == "internal" and "ZeroDivisionError" in str(failure)
    assert "division by zero" in (home / "logs" / "engine.log").read_text()


def test_a_name_that_is_no_utf8_goes_to_the_log_and_into_the_sentence(home):
    failure = explain(ValueError("caf\udce9.tif"))
    assert failure.code == "internal" and "caf\\udce9.tif" in (home / "logs" / "engine.log").read_text()
    assert str(RefSAMError("input", "'caf\udce9.tif' is no raster.")) == "'caf\\udce9.tif' is no raster."


def test_this_environment_is_whole():
    assert damage() is None


@pytest.mark.parametrize("name", ["__init__.py", "table, of data.csv"])
def test_the_unforeseen_in_a_damaged_environment_is_the_environments_fault(package, name):
    (package / name).unlink()
    failure = explain(ValueError("nonsense"))
    assert failure.code == "environment"
    assert f"file 'thing/{name}' of package thing is missing; {mend()}." in str(failure)


def test_a_cut_file_is_damage(package):
    assert damage() is None
    (package / "__init__.py").write_text("x")
    assert damage() == "file 'thing/__init__.py' of package thing is damaged"


def test_only_the_packages_of_the_engine_count(package, monkeypatch):
    """The environment may be a Python of the user's own, with anything else in it."""
    (package / "__init__.py").unlink()
    assert "of package thing is missing" in damage()
    monkeypatch.setattr(installation, "locked_versions", lambda lock: {"torch": "1.0"})
    assert damage() is None


def test_a_library_that_may_not_be_loaded_is_no_matter_of_memory():
    error = ImportError("libtorch.so: failed to map segment from shared object: Operation not permitted")
    assert explain(error).code == "environment"


def test_a_package_that_is_gone_is_named():
    failure = explain(raised(lambda: __import__("no_such_module")))
    assert failure.code == "environment"
    assert "No module named 'no_such_module'" in str(failure) and mend() in str(failure)


def test_a_record_that_cannot_be_read_changes_nothing(package):
    (package.parent / "thing-1.0.dist-info" / "RECORD").write_text("thing/__init__.py\n")
    assert explain(ValueError("nonsense")).code == "internal"
