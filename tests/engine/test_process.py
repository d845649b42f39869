"""Settings that a process has to make before it loads torch."""

import resource
import subprocess
import sys

import pytest

from refsam_qgis.engine import process
from refsam_qgis.engine.process import keep_memory, prepare, usable_cores

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")

FAULTS = """
import ctypes, resource, sys
if sys.argv[1] == "kept":
    from refsam_qgis.engine.process import keep_memory
    assert keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def fill():
    block = libc.malloc(ctypes.c_size_t(2**26))
    ctypes.memset(block, 1, 2**26)
    libc.free(block)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(setting):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, setting], stdout=subprocess.PIPE, text=True, check=True, env={"PYTHONPATH": "."}
    )
    return int(done.stdout)


@linux
def test_freed_memory_is_not_fetched_again():
    pages = 2**26 // resource.getpagesize()
    assert faults("default") > pages  # else the test shows nothing
    assert faults("kept") < pages / 10


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that pretends a processor of pairs of hyper-threads and a control group."""
    monkeypatch.setattr(process, "CPUS", tmp_path)
    monkeypatch.setattr(process, "CONTROL_GROUP", tmp_path)

    def pretend(threads, allowed, **limits):
        for cpu in range(threads):
            first = cpu % (threads // 2)
            folder = tmp_path / f"cpu{cpu}" / "topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(f"{first},{first + threads // 2}")
        monkeypatch.setattr(process.os, "sched_getaffinity", lambda pid: set(allowed))
        for name, text in limits.items():
            path = tmp_path / ("cpu.max" if name == "limit" else f"cpu/cpu.cfs_{name}_us")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    return pretend


@linux
@pytest.mark.parametrize(
    ("allowed", "limits", "expected"),
    [
        (range(8), {}, 4),
        ([0, 4, 1], {}, 2),
        (range(8), {"limit": "max 100000\n"}, 4),
        (range(8), {"limit": "150000 100000\n"}, 2),
        (range(8), {"limit": "20000 100000\n"}, 1),
        (range(8), {"quota": "300000\n", "period": "100000\n"}, 3),
        (range(8), {"quota": "-1\n", "period": "100000\n"}, 4),
    ],
)
def test_a_core_counts_once_and_no_more_than_is_given(machine, allowed, limits, expected):
    machine(8, allowed, **limits)
    assert usable_cores() == expected


@linux
def test_a_processor_that_says_nothing_is_left_to_torch(machine):
    machine(0, range(4))
    assert usable_cores() is None
    environ = {}
    prepare(environ)
    assert "OMP_NUM_THREADS" not in environ


def test_the_user_has_the_last_word(monkeypatch):
    kept = []
    monkeypatch.setattr(process, "keep_memory", lambda: kept.append(True))
    monkeypatch.setattr(process, "usable_cores", lambda: 3)
    own = {
        "OMP_NUM_THREADS": "7",
        "MALLOC_ARENA_MAX": "1",
        "PYTORCH_ENABLE_MPS_FALLBACK": "0",
        "OMP_WAIT_POLICY": "ACTIVE",
    }
    environ = dict(own)
    prepare(environ)
    assert environ == own and not kept
    environ = {}
    prepare(environ)
    assert kept and environ == {
        "OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "10000", "PYTORCH_ENABLE_MPS_FALLBACK": "1"
    }  # fmt: skip
    environ = {"GOMP_SPINCOUNT": "0"}
    prepare(environ)
    assert environ["GOMP_SPINCOUNT"] == "0"


@pytest.mark.parametrize("entry", ["-m refsam_qgis.engine status", "-m refsam_qgis.engine worker"])
def test_every_process_of_the_engine_is_prepared_before_torch(entry):
    """Both ways in: a sentinel in the place of `prepare` ends the process with a status of its own."""
    program = (
        "import runpy, sys\n"
        "from refsam_qgis.engine import process\n"
        "def prepare():\n"
        "    raise SystemExit(7 if 'torch' not in sys.modules else 8)\n"
        "process.prepare = prepare\n"
        f"sys.argv = ['engine', *{entry.split()[2:]!r}]\n"
        "runpy.run_module('refsam_qgis.engine', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 7


def test_the_worker_that_qgis_starts_is_prepared(tmp_path):
    from refsam_qgis.host.environment import worker_command

    program = worker_command(tmp_path)[2].replace(
        "from refsam_qgis.engine.worker",
        "import refsam_qgis.engine.process as own; own.prepare = lambda: sys.exit(7); from refsam_qgis.engine.worker",
    )
    assert subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, check=False).returncode == 7


@pytest.mark.skipif(sys.platform.startswith("linux"), reason="where there is no glibc")
def test_another_system_keeps_its_allocator():
    assert not keep_memory()
