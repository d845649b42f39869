"""The worker's protocol, through a real process whose job handler is a stand-in."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATUS = {"kind": "status"}

# Runs a job by its `model.checkpoint`, which has no meaning for a status job.
SERVER = textwrap.dedent(
    """
    import os, sys, time
    sys.path.append({root!r})
    from refsam_qgis.engine import worker
    from refsam_qgis.engine.errors import RefSAMError
    from refsam_qgis.engine.events import check_cancelled

    def handle(job, reporter):
        task = job.model.checkpoint
        if task == "print":
            print("stray words")
            os.system("echo stray words of a child")
            os.write(1, b"stray bytes")
        if task == "refuse":
            raise RefSAMError("reference", "No.")
        if task == "crash":
            raise ZeroDivisionError("boom")
        if task == "exit":
            sys.exit(3)
        if task == "unsayable":
            return {{"task": object()}}
        if task == "chatter":
            for number in range(1000):
                reporter.progress(number / 1000, "one")
            reporter.progress(0.99, "another")
        while task == "wait":
            check_cancelled(reporter)
            reporter.progress(0.5, "waiting", 3.0)
            time.sleep(0.02)
        if task == "hang":
            reporter.log("hanging")
        while task == "hang":
            time.sleep(0.1)
        return {{"task": task}}

    worker.GRACE_SECONDS = 0.5
    worker.serve_standard_streams(float(sys.argv[1]), handle)
    """
)


class Process:
    """A worker process and the few words a test says to it."""

    def __init__(self, idle: float = 30.0, env=None):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER.format(root=str(ROOT)), str(idle)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        self.watchdog = threading.Timer(30, self.process.kill)
        self.watchdog.start()

    def send(self, **message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def job(self, job_id, task):
        self.send(type="job", id=job_id, job={**STATUS, "model": {"checkpoint": task}})

    def receive(self):
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.watchdog.cancel()
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def receive_end(self):
        """Return the next result or error, leaving progress and logs out."""
        while (message := self.receive())["type"] not in ("result", "error"):
            pass
        return message


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path))
    process = Process()
    assert process.receive()["type"] == "ready"
    yield process
    process.end()


def test_jobs_are_answered_under_their_id(worker):
    worker.job("a", "one")
    worker.job("b", "two")
    assert worker.receive_end() == {"type": "result", "id": "a", "result": {"task": "one"}}
    assert worker.receive_end() == {"type": "result", "id": "b", "result": {"task": "two"}}


def test_prints_do_not_corrupt_the_protocol(worker):
    worker.job("a", "print")
    assert worker.receive() == {"type": "result", "id": "a", "result": {"task": "print"}}


def test_a_failed_job_leaves_the_worker_able_to_take_the_next(worker, tmp_path):
    worker.job("a", "refuse")
    assert worker.receive_end() == {"type": "error", "id": "a", "code": "reference", "message": "No."}
    worker.job("b", "crash")
    crash = worker.receive_end()
    assert crash["code"] == "internal" and "ZeroDivisionError" in crash["message"]
    assert "boom" in (tmp_path / "logs" / "engine.log").read_text()
    worker.job("c", "fine")
    assert worker.receive_end()["type"] == "result"


@pytest.mark.parametrize(("task", "kind"), [("exit", "SystemExit"), ("unsayable", "TypeError")])
def test_whatever_a_job_does_the_worker_takes_the_next(worker, task, kind):
    worker.job("a", task)
    message = worker.receive_end()
    assert (message["id"], message["code"]) == ("a", "internal") and kind in message["message"]
    worker.job("b", "fine")
    assert worker.receive_end()["type"] == "result"


def test_progress_is_thinned_but_each_stage_is_told(worker):
    worker.job("a", "chatter")
    messages = []
    while (message := worker.receive())["type"] == "progress":
        messages.append(message)
    assert messages[0]["fraction"] == 0 and messages[-1]["stage"] == "another"
    assert len(messages) < 50


def test_an_invalid_job_is_an_input_error(worker):
    worker.send(type="job", id="a", job={"kind": "nonsense"})
    message = worker.receive_end()
    assert (message["id"], message["code"]) == ("a", "input") and "nonsense" in message["message"]


def test_a_line_that_is_no_request_is_answered_and_forgotten(worker):
    worker.process.stdin.write("not json\n[]\n")
    worker.send(type="dance", id="x")
    assert [worker.receive_end()["code"] for _ in range(3)] == ["input"] * 3
    worker.job("a", "fine")
    assert worker.receive_end()["id"] == "a"


def test_cancel_ends_the_running_job_and_the_queued_one(worker):
    worker.job("a", "wait")
    worker.job("b", "wait")
    assert worker.receive() == {
        "type": "progress", "id": "a", "fraction": 0.5, "stage": "waiting", "remaining_seconds": 3.0
    }  # fmt: skip
    worker.send(type="cancel", id="b")
    worker.send(type="cancel", id="a")
    assert [(m["id"], m["code"]) for m in (worker.receive_end(), worker.receive_end())] == [
        ("a", "cancelled"),
        ("b", "cancelled"),
    ]
    worker.job("c", "fine")
    assert worker.receive_end()["type"] == "result"


@pytest.mark.parametrize("task", ["wait", "fine"])
def test_the_end_of_the_input_ends_the_worker(worker, task):
    worker.job("a", task)
    worker.receive()
    worker.process.stdin.close()
    assert worker.process.wait(10) == 0


def test_a_job_that_does_not_notice_the_end_is_abandoned(worker):
    worker.job("a", "hang")
    assert worker.receive()["type"] == "log"
    worker.process.stdin.close()
    assert worker.process.wait(10) == 1


PARENT = """
import subprocess, sys, time
worker = subprocess.Popen(
    [sys.executable, "-c", sys.argv[1], "30"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
worker.stdout.readline()
worker.stdin.write(sys.argv[2] + "\\n")
worker.stdin.flush()
worker.stdout.readline()
print(worker.pid, flush=True)
time.sleep(30)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("task", ["wait", "hang"])
def test_a_killed_parent_leaves_no_worker_behind(task):
    request = json.dumps({"type": "job", "id": "a", "job": {**STATUS, "model": {"checkpoint": task}}})
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, SERVER.format(root=str(ROOT)), request], stdout=subprocess.PIPE, text=True
    )
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 3
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    """Whether a process that is not our child runs; on Linux one that nobody has buried yet does not."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/status")
        return not (status.exists() and "State:\tZ" in status.read_text())
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_shutdown_ends_the_worker(worker):
    worker.send(type="shutdown")
    assert worker.process.wait(10) == 0


def test_networks_stay_loaded_between_jobs_and_over_failing_ones(monkeypatch):
    from refsam_qgis.engine import worker
    from refsam_qgis.engine.job import StatusJob

    outcomes = ["fine", "failed", "fine"]

    def run(job, reporter, load):
        load(job.model)
        if (outcome := outcomes.pop(0)) == "failed":
            raise ValueError
        return {"outcome": outcome}

    monkeypatch.setattr(worker, "run_job", run)
    monkeypatch.setattr(worker, "load_from_disk", lambda options: object())
    handle = worker._warm_handler()
    assert handle(StatusJob(), None) == {"outcome": "fine", "model_loads": 1}
    with pytest.raises(ValueError):
        handle(StatusJob(), None)
    assert handle(StatusJob(), None) == {"outcome": "fine", "model_loads": 0}


def test_an_idle_worker_leaves():
    process = Process(idle=0.2)
    assert process.process.wait(10) == 0
    process.end()
