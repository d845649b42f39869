"""What Processing's dialog shows of a job's progress."""

import pytest
from qgis.core import QgsProcessingFeedback

from refsam_qgis.host import feedback as module
from refsam_qgis.host.feedback import FeedbackReporter, time_left


class Feedback(QgsProcessingFeedback):
    def __init__(self):
        super().__init__(False)
        self.texts = []

    def setProgressText(self, text):
        self.texts.append(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1, "a few seconds left"),
        (7.9, "a few seconds left"),
        (8, "about 10 s left"),
        (41, "about 40 s left"),
        (94, "about 90 s left"),
        (95, "about 2 min left"),
        (20 * 60, "about 20 min left"),
        (59 * 60, "about 1 h left"),
        (80 * 60, "about 1 h 20 min left"),
    ],
)
def test_the_time_left_is_in_words(seconds, text):
    assert time_left(seconds) == text


def test_the_bar_moves_always_and_the_text_calmly(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    feedback = Feedback()
    reporter = FeedbackReporter(feedback)
    bars = []
    for second in range(60):
        now[0] = 1000.0 + second
        reporter.progress(second / 100, "Segmenting", 60.0 - second)
        bars.append(feedback.progress())
    assert bars == [pytest.approx(second) for second in range(60)]
    assert feedback.texts[0] == "Segmenting, about 60 s left"
    assert feedback.texts[-1] == "Segmenting, a few seconds left"
    assert 6 <= len(feedback.texts) <= 12
    reporter.progress(0.99, "Writing polygons")  # another stage is told at once
    assert feedback.texts[-1] == "Writing polygons"


def test_nothing_left_is_not_told():
    feedback = Feedback()
    FeedbackReporter(feedback).progress(1.0, "Done", 0.0)
    assert feedback.texts == ["Done"]


def test_cancel_is_passed_on():
    feedback = Feedback()
    reporter = FeedbackReporter(feedback)
    assert not reporter.is_cancelled()
    feedback.cancel()
    assert reporter.is_cancelled()
