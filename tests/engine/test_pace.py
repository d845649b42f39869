import itertools
import math
import time

import pytest

from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.pace import LAST_FRACTION, PacedReporter, paced


class Listener(SilentReporter):
    def __init__(self):
        self.heard = []

    def progress(self, fraction, stage, remaining_seconds=None):
        self.heard.append((fraction, stage, remaining_seconds))


@pytest.fixture
def clock():
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def pacer(listener, clock):
    return PacedReporter(listener, clock)


def silence(pacer, clock, seconds, step=0.1):
    for _ in range(round(seconds / step)):
        clock.now += step
        pacer.tick()


def test_nothing_is_said_before_the_job_says_something(pacer, clock, listener):
    silence(pacer, clock, 10)
    assert listener.heard == []


def test_the_fraction_approaches_but_never_reaches_the_next_step(pacer, clock, listener):
    pacer.progress(0.1, "tiles")
    clock.now += 10
    pacer.progress(0.2, "tiles")
    del listener.heard[:]
    silence(pacer, clock, 100)
    fractions = [fraction for fraction, _, _ in listener.heard]
    assert 90 <= len(fractions) <= 100
    assert all(a < b for a, b in itertools.pairwise(fractions))
    assert 0.2 < fractions[0] and fractions[-1] < 0.3
    assert fractions[9] == pytest.approx(0.2 + 0.1 * (1 - math.exp(-1)), abs=0.01)  # after the time of one step


def test_it_never_goes_back_and_is_done_only_when_told(pacer, clock, listener):
    for fraction in (0.3, 0.6, 0.9):
        pacer.progress(fraction, "tiles")
        clock.now += 1
    silence(pacer, clock, 60)
    pacer.progress(0.91, "polygons")
    pacer.progress(1.0, "Done")
    fractions = [fraction for fraction, _, _ in listener.heard]
    assert fractions == sorted(fractions)
    assert max(fractions[:-1]) <= LAST_FRACTION and fractions[-1] == 1


def test_the_time_left_counts_down_and_never_ends(pacer, clock, listener):
    pacer.progress(0.5, "tiles", 20.0)
    silence(pacer, clock, 60)
    left = [remaining for _, _, remaining in listener.heard]
    assert left[0] == 20 and left[1] == pytest.approx(19, abs=0.2)
    assert all(a > b > 0 for a, b in itertools.pairwise(left))


def test_real_events_are_passed_on_at_once_as_they_are(pacer, clock, listener):
    pacer.progress(0.5, "tiles", 20.0)
    clock.now += 0.01
    pacer.progress(0.5, "writing", 0.0)
    assert listener.heard == [(0.5, "tiles", 20.0), (0.5, "writing", 0.0)]


def test_a_thread_can_keep_it_going(listener):
    with paced(listener) as reporter:
        reporter.progress(0.5, "tiles", 20.0)
        time.sleep(2.3)
    count = len(listener.heard)
    time.sleep(1.2)
    assert count == len(listener.heard) == 3
