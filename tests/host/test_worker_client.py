"""The client against a stand-in for the engine that can misbehave; needs no QGIS."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.host.environment import engine_environment, worker_command
from refsam_qgis.host.worker_client import WorkerClient

ENGINE = """
import json, os, sys, time

def say(**message):
    print(json.dumps(message), flush=True)

say(type="ready", version="0")
for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "cancel":
        say(type="error", id=request["id"], code="cancelled", message="c")
        continue
    if request["type"] != "job":
        break
    job, i = request["job"], request["id"]
    task = job["task"]
    if task == "events":
        print("garbage", "[1, 2]", "{}", sep="\\n", flush=True)
        say(type="progress", id="another", fraction=0.9, stage="not mine", remaining_seconds=None)
        say(type="progress", id=i, fraction=0.25, stage="tiles", remaining_seconds=9.0)
        say(type="log", id=i, message="größer")
    if task == "refuse":
        say(type="error", id=i, code="reference", message="Draw more.")
        continue
    if task == "killed":
        os.kill(os.getpid(), 9)
    if task == "torn":
        sys.stdout.write('{"type": "resu')
        sys.stdout.flush()
        os._exit(1)
    if task == "crash":
        sys.exit("last gasp")
    if task == "stuck":
        time.sleep(60)
    if task == "wait":
        continue
    if task == "leave":
        say(type="result", id=i, result={"pid": os.getpid()})
        os._exit(0)
    time.sleep(job.get("seconds", 0))
    say(type="result", id=i, result={"pid": os.getpid()})
"""


class Recorder:
    """A reporter that keeps what it hears and cancels after some seconds."""

    def __init__(self, cancel_after=None):
        self.heard = []
        self.deadline = float("inf") if cancel_after is None else time.monotonic() + cancel_after

    def progress(self, fraction, stage, remaining_seconds=None):
        self.heard.append((fraction, stage, remaining_seconds))

    def log(self, message):
        self.heard.append(message)

    def is_cancelled(self):
        return time.monotonic() > self.deadline


@pytest.fixture
def client():
    client = WorkerClient([sys.executable, "-c", ENGINE], os.environ, grace_seconds=0.5)
    yield client
    client.close()


def run(client, task, reporter=None, **fields):
    return client.run({"task": task, **fields}, reporter or Recorder())


def test_the_worker_stays_warm(client):
    assert run(client, "fine") == run(client, "fine")


def test_events_are_relayed_and_foreign_lines_skipped(client):
    reporter = Recorder()
    run(client, "events", reporter)
    assert reporter.heard == [(0.25, "tiles", 9.0), "größer"]


def test_a_failed_job_is_its_error_and_keeps_the_worker(client):
    pid = run(client, "fine")["pid"]
    with pytest.raises(RefSAMError, match="Draw more") as caught:
        run(client, "refuse")
    assert caught.value.code == "reference"
    assert run(client, "fine")["pid"] == pid


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("task", "code"), [("killed", "memory"), ("torn", "memory"), ("crash", "internal")])
def test_a_dead_worker_is_one_sentence_and_replaced(client, task, code):
    reporter = Recorder()
    with pytest.raises(RefSAMError, match=r"^The engine .*\.$") as caught:
        run(client, task, reporter)
    assert caught.value.code == code
    assert ("last gasp" in "".join(map(str, reporter.heard))) == (task == "crash")
    assert run(client, "fine")["pid"]


def test_a_worker_that_left_when_idle_is_replaced(client):
    pid = run(client, "leave")["pid"]
    time.sleep(0.3)
    assert run(client, "fine")["pid"] != pid


def test_cancel_is_sent_and_keeps_the_worker(client):
    pid = run(client, "fine")["pid"]
    with pytest.raises(JobCancelled):
        run(client, "wait", Recorder(cancel_after=0.1))
    assert run(client, "fine")["pid"] == pid


def test_a_worker_that_ignores_cancel_is_ended(client):
    pid = run(client, "fine")["pid"]
    started = time.monotonic()
    with pytest.raises(JobCancelled):
        run(client, "stuck", Recorder(cancel_after=0.1))
    assert time.monotonic() - started < 5
    assert run(client, "fine")["pid"] != pid


def test_a_second_run_waits_and_can_be_cancelled_while_waiting(client):
    run(client, "fine")
    results = []
    first = threading.Thread(target=lambda: results.append(run(client, "fine", seconds=1)))
    first.start()
    time.sleep(0.2)
    with pytest.raises(JobCancelled):
        run(client, "fine", Recorder(cancel_after=0.1))
    results.append(run(client, "fine"))
    first.join()
    assert len(results) == 2 and results[0] == results[1]


def test_close_ends_the_process(client):
    pid = run(client, "fine")["pid"]
    client.close()
    if sys.platform != "win32":
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_python_that_cannot_start_is_explained(tmp_path):
    client = WorkerClient([str(tmp_path / "no python")], {})
    with pytest.raises(RefSAMError, match="set up its environment again") as caught:
        run(client, "fine")
    assert caught.value.code == "environment"


def test_the_real_worker_answers(tmp_path):
    environment = {**engine_environment(), "REFSAM_HOME": str(tmp_path)}
    client = WorkerClient(worker_command(sys.executable), environment)
    try:
        with pytest.raises(RefSAMError, match="nonsense"):
            client.run({"kind": "nonsense"}, Recorder())
    finally:
        client.close()


def test_the_client_imports_no_engine_beside_jobs_and_errors():
    code = "import json, sys, refsam_qgis.host.worker_client; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    engine = {m for m in modules if m.startswith("refsam_qgis.engine.")}
    assert engine <= {"refsam_qgis.engine.errors", "refsam_qgis.engine.events", "refsam_qgis.engine.job"}
