"""What the user reads of a dead worker; needs no QGIS."""

import re
import signal
import subprocess
import sys

import pytest

from refsam_qgis.engine.installation import mend
from refsam_qgis.host.worker_death import count_oom_kills, explain_death

PYTHON = "/my own/python"


@pytest.mark.parametrize(
    ("status", "words", "kills", "code", "sentence"),
    [
        (-9, "", 1, "memory", "The system stopped the engine because memory ran out"),
        (-9, "", 0, "memory", r"ended from outside \(signal 9\); if nobody ended it, memory ran out"),
        (-9, "", None, "memory", "most likely because memory ran out"),
        (137, "", 1, "memory", "because memory ran out"),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'", 0, "memory", "memory ran out"),
        (1, "Traceback\nnumpy._core._exceptions._ArrayMemoryError: Unable", 0, "memory", "memory ran out"),
        (1, "OSError: [Errno 12] Cannot allocate memory", 0, "memory", "memory ran out"),
        (0xC0000017, "", None, "memory", "memory ran out"),
        (
            1,
            "Traceback\nModuleNotFoundError: No module named 'x'\n",
            0,
            "environment",
            f"No module named 'x'.*{re.escape(mend(PYTHON))}",
        ),
        (0xC0000135, "", None, "environment", f"damaged; {re.escape(mend(PYTHON))}"),
        (-11, "", 0, "environment", f"SIGSEGV.*device 'cpu'.*{re.escape(mend(PYTHON))}"),
        (-6, "", 0, "environment", "SIGABRT"),
        (0xC0000005, "", None, "environment", "access violation"),
        (-15, "", 0, "internal", r"from outside \(signal 15\); run it again"),
        (3, "", 0, "internal", r"status 3"),
    ],
)
def test_every_death_has_its_sentence(status, words, kills, code, sentence):
    error = explain_death(status, words, kills, PYTHON)
    assert error.code == code
    assert re.search(rf"^The .*{sentence.removeprefix('The ')}.*\.$", str(error))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux counts")
def test_a_process_that_someone_kills_is_not_counted_as_out_of_memory():
    before = count_oom_kills()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -9
    assert before == count_oom_kills()
    process.stdin.close()
