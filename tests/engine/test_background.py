from __future__ import annotations

import threading

import pytest

from refsam_qgis.engine.background import consumer
from refsam_qgis.engine.errors import JobCancelled
from tests.engine.stand_ins import Recorder


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("test-worker")]


def test_items_arrive_in_order_in_another_thread():
    taken, threads = [], set()

    def consume(items):
        for item in items:
            taken.append(item)
            threads.add(threading.current_thread().name)

    with consumer(consume, 2, "test-worker", Recorder()) as running:
        for item in range(50):
            running.put(item)
    assert taken == list(range(50)) and all(name.startswith("test-worker") for name in threads)
    assert workers() == []


def test_no_more_than_the_capacity_waits():
    go, made = threading.Event(), []

    def consume(items):
        go.wait()
        list(items)

    class Impatient(Recorder):
        def is_cancelled(self):
            return len(made) == 3

    with pytest.raises(JobCancelled):
        with consumer(consume, 3, "test-worker", Impatient()) as running:
            try:
                for item in range(10):
                    running.put(item)
                    made.append(item)
            finally:
                go.set()
    assert made == [0, 1, 2] and workers() == []


@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_failure_of_the_thread_is_raised_here(at):
    def consume(items):
        for item in items:
            if item == at:
                raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        with consumer(consume, 2, "test-worker", Recorder()) as running:
            for item in range(10):
                running.put(item)
    assert workers() == []


def test_a_failure_here_stops_the_thread_at_its_next_item():
    taken, ended = [], []

    def consume(items):
        taken.extend(items)
        ended.append("as if all were there")

    with pytest.raises(ValueError, match="ours"):
        with consumer(consume, 4, "test-worker", Recorder()) as running:
            running.put(0)
            raise ValueError("ours")
    assert ended == [] and workers() == []


def test_cancelling_is_felt_while_the_last_item_is_worked_on():
    go = threading.Event()

    def consume(items):
        for _ in items:
            go.wait()

    class Cancelled(Recorder):
        def is_cancelled(self):
            go.set()
            return True

    with pytest.raises(JobCancelled):
        with consumer(consume, 2, "test-worker", Cancelled()) as running:
            running.put(0)
    assert workers() == []
