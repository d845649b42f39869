"""The client against a stand-in for the engine that can misbehave; needs no QGIS."""

import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.installation import mend
from refsam_qgis.host import worker_client
from refsam_qgis.host.environment import engine_environment, worker_command
from refsam_qgis.host.worker_client import WorkerClient

ENGINE = """
import json, os, sys, time

def say(**message):
    print(json.dumps(message), flush=True)

say(type="ready", version="0")
slow = False
for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "cancel":
        if slow:
            time.sleep(1.5)
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
    if task == "crash":
        sys.exit("last gasp")
    if task == "segfault":
        import faulthandler, numpy.random
        faulthandler.enable()
        def deepest_call():
            os.kill(os.getpid(), 11)
        deepest_call()
    if task == "flood":
        for number in range(2000):
            print("x" * 4096, file=sys.stderr)
    if task == "stuck":
        time.sleep(60)
    if task in ("wait", "wait slowly"):
        slow = task == "wait slowly"
        continue
    if task == "silent":
        say(type="progress", id=i, fraction=0.2, stage="tiles", remaining_seconds=30.0)
    if task == "idle":
        os._exit(0)
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
    assert reporter.heard == [(0.0, "Starting the engine", None), (0.25, "tiles", 9.0), "größer"]


def test_progress_moves_while_the_engine_is_silent(client):
    run(client, "fine")
    reporter = Recorder()
    started = time.monotonic()
    reporter.progress = lambda *event: reporter.heard.append((time.monotonic() - started, *event))
    run(client, "silent", reporter, seconds=2.5)
    times, fractions, stages, remaining = zip(*reporter.heard)
    assert max(b - a for a, b in zip((0, *times), (*times, time.monotonic() - started))) < 2
    assert fractions[0] == 0.2 and sorted(set(fractions)) == list(fractions) and fractions[-1] < 1
    assert set(stages) == {"tiles"}
    assert remaining[0] == 30 and 26 < remaining[-1] < 29


def test_a_failed_job_is_its_error_and_keeps_the_worker(client):
    pid = run(client, "fine")["pid"]
    with pytest.raises(RefSAMError, match="Draw more") as caught:
        run(client, "refuse")
    assert caught.value.code == "reference"
    assert run(client, "fine")["pid"] == pid


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("task", "sentence"), [("killed", "memory ran out"), ("crash", "ended unexpectedly")])
def test_a_dead_worker_is_one_sentence_and_replaced(client, task, sentence):
    reporter = Recorder()
    with pytest.raises(RefSAMError, match=rf"^The engine .*{sentence}.*\.$"):
        run(client, task, reporter)
    assert ("last gasp" in "".join(map(str, reporter.heard))) == (task == "crash")
    assert run(client, "fine")["pid"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("counts", "sentence"),
    [([7, 7, 8], "because memory ran out"), ([7, 7, 7], "if nobody ended it"), ([None] * 3, "most likely")],
)
def test_a_kill_is_explained_by_what_the_system_counted(client, monkeypatch, counts, sentence):
    monkeypatch.setattr(worker_client, "count_oom_kills", lambda: counts.pop(0))
    with pytest.raises(RefSAMError, match=sentence):
        run(client, "killed")
    assert not counts


def test_a_worker_that_cannot_import_names_the_remedy():
    client = WorkerClient([sys.executable, "-c", "import no_such_module"], os.environ)
    with pytest.raises(RefSAMError, match=rf"No module named 'no_such_module'.*{re.escape(mend())}") as caught:
        run(client, "fine")
    assert caught.value.code == "environment"


def test_what_a_worker_says_before_its_first_job_is_kept():
    process = worker_client._Process([sys.executable, "-c", "import no_such_module"], os.environ)
    process._error_reader.join()  # it was gone before anything was asked of it
    process.submit({"type": "job", "id": "first"})
    assert mend() in str(process.explain_death(Recorder()))


def test_a_flood_of_errors_blocks_nothing_and_only_its_end_is_kept(client):
    started = time.monotonic()
    assert run(client, "flood")
    assert time.monotonic() - started < 5
    with pytest.raises(RefSAMError):
        run(client, "crash", reporter := Recorder())
    logged = [heard for heard in reporter.heard if isinstance(heard, str)]
    assert logged[0].endswith("last gasp") and len(logged[0]) < 2100


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_what_is_shown_of_a_crash_is_where_it_happened(client, monkeypatch):
    """Not the libraries that were loaded, which Python lists in the end, some thousand letters of them."""
    monkeypatch.setattr(worker_client, "SHOWN_CHARACTERS", 300)
    with pytest.raises(RefSAMError, match="crashed inside a library"):
        run(client, "segfault", reporter := Recorder())
    assert "in deepest_call" in "".join(map(str, reporter.heard))


def test_a_worker_that_left_when_idle_is_replaced(client):
    pid = run(client, "leave")["pid"]
    time.sleep(0.3)
    assert run(client, "fine")["pid"] != pid


def test_a_job_for_a_worker_that_is_just_leaving_goes_to_the_next_one():
    engine = ENGINE.replace('if task == "events":', 'if i == "2":\n        os._exit(0)\n    if task == "events":')
    client = WorkerClient([sys.executable, "-c", engine], os.environ)
    try:
        pid = run(client, "fine")["pid"]
        assert run(client, "fine")["pid"] != pid
    finally:
        client.close()


def test_a_worker_that_leaves_at_once_is_not_started_for_ever(client):
    with pytest.raises(RefSAMError, match="ended unexpectedly"):
        run(client, "idle")


def test_cancel_is_sent_and_keeps_the_worker(client):
    pid = run(client, "fine")["pid"]
    with pytest.raises(JobCancelled):
        run(client, "wait", Recorder(cancel_after=0.1))
    assert run(client, "fine")["pid"] == pid


def cancel(client, task):
    """Return after how many seconds the cancelling is felt."""
    reporter = Recorder(cancel_after=0.2)
    with pytest.raises(JobCancelled):
        run(client, task, reporter)
    return time.monotonic() - reporter.deadline


def test_cancel_is_felt_at_once_and_the_next_run_waits_for_the_engine(client):
    client._grace_seconds = 5
    pid = run(client, "fine")["pid"]
    assert cancel(client, "wait slowly") < 1
    assert cancel(client, "fine") < 0.5  # the waiting itself can be cancelled
    reporter = Recorder()
    assert run(client, "fine", reporter)["pid"] == pid
    assert reporter.heard == [(0.0, "Waiting for the engine to finish what was cancelled", None)]


def test_a_worker_that_ignores_cancel_is_ended_without_a_next_run(client):
    pid = run(client, "fine")["pid"]
    assert cancel(client, "stuck") < 1
    assert client._drained.wait(5)
    assert_gone(pid)
    assert run(client, "fine")["pid"] != pid


def test_runs_take_turns_in_their_order_and_can_be_cancelled_while_waiting(client):
    run(client, "fine")
    finished, reporters = [], [Recorder(), Recorder(cancel_after=0.6), Recorder(), Recorder()]

    def one(number):
        try:
            run(client, "fine", reporters[number], seconds=1 if number == 0 else 0)
            finished.append(number)
        except JobCancelled:
            finished.append("cancelled")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert finished == ["cancelled", 0, 2, 3]
    assert not reporters[0].heard
    for reporter in reporters[1:]:
        assert reporter.heard[0] == (0.0, "Waiting for another run to finish", None)


def test_two_clients_are_independent(client):
    other = WorkerClient([sys.executable, "-c", ENGINE], os.environ)
    try:
        thread = threading.Thread(target=lambda: run(client, "fine", seconds=1.5))
        thread.start()
        run(other, "fine")
        assert thread.is_alive()
        thread.join()
    finally:
        other.close()


def assert_gone(pid):
    if sys.platform != "win32":
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_close_ends_the_process(client):
    pid = run(client, "fine")["pid"]
    client.close()
    assert_gone(pid)


def test_a_run_that_waits_starts_no_engine_after_close(client):
    heard = []

    def wait():
        try:
            run(client, "fine")
        except JobCancelled as cancelled:
            heard.append(str(cancelled))

    timer = threading.Timer(0.5, client.close)
    waiting = threading.Thread(target=wait)
    timer.start()
    threading.Timer(0.2, waiting.start).start()
    with pytest.raises(JobCancelled):
        run(client, "stuck")
    timer.join()
    waiting.join()
    assert heard == ["RefSAM was closed before the run began; run it again."]
    assert client.pid is None and not client.is_busy


def test_a_run_under_way_is_cancelled_by_close(client):
    run(client, "fine")
    timer = threading.Timer(0.3, client.close)
    timer.start()
    with pytest.raises(JobCancelled):
        run(client, "stuck")


def test_a_python_that_cannot_start_is_explained(tmp_path):
    client = WorkerClient([str(tmp_path / "no python")], {})
    with pytest.raises(RefSAMError, match=re.escape(mend(tmp_path / "no python"))) as caught:
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


def test_the_client_imports_of_the_engine_only_what_needs_the_standard_library():
    code = "import json, sys, refsam_qgis.host.worker_client; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    engine = {m for m in modules if m.startswith("refsam_qgis.engine.")}
    assert engine <= {
        f"refsam_qgis.engine.{name}" for name in ("errors", "events", "home", "installation", "job", "pace")
    }
