import dataclasses

import numpy as np
import pytest
import torch

from refsam_qgis.engine.evaluation.episodes import Episode, draw_episodes
from refsam_qgis.engine.evaluation.search import DerivedEncodings, Encodings, read_shots, search_all, size_of
from refsam_qgis.engine.image_folder import scan_folder
from refsam_qgis.engine.job import SUPPORTS
from refsam_qgis.engine.models.segmenter import FOREGROUND

from .conftest import ColourSegmenter


class Clock:
    """Stands still but for what the segmenter takes."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("refsam_qgis.engine.evaluation.search.time.perf_counter", lambda: self.now)


class TimedSegmenter(ColourSegmenter):
    """Takes 10 s to encode, 1 s to describe and 0.1 s to segment; keeps what it was given."""

    def __init__(self, clock):
        super().__init__()
        self._clock = clock
        self.given = []

    def encode(self, images, valid):
        self._clock.now += 10
        return super().encode(images, valid)

    def describe(self, shots, encodings=()):
        self._clock.now += 1
        self.given.append((shots, encodings))
        return super().describe(shots, encodings)

    def segment(self, encoding, reference):
        self._clock.now += 0.1
        return super().segment(encoding, reference)


def test_each_sample_is_encoded_once_as_target_and_as_reference(folder):
    scanned, segmenter = scan_folder(folder), ColourSegmenter()
    episodes = draw_episodes(scanned, 2, 20, seed=0)
    found = list(search_all(Encodings(segmenter, scanned), episodes, "mask"))
    assert segmenter.encoded == 4
    assert sorted(map(hash, episodes)) == sorted(hash(episode) for episode, _ in found)


def test_the_time_of_an_encoding_at_hand_counts_again(folder, monkeypatch):
    clock = Clock(monkeypatch)
    scanned, segmenter = scan_folder(folder), TimedSegmenter(clock)
    episodes = draw_episodes(scanned, 2, 9, seed=0)
    found = list(search_all(Encodings(segmenter, scanned), episodes, "mask"))
    assert [f.describing_seconds for _, f in found] == pytest.approx([21] * 9)
    assert [f.searching_seconds for _, f in found] == pytest.approx([10.1] * 9)


def test_derived_encodings_take_the_time_of_both_steps_and_run_the_network_once(folder, monkeypatch):
    clock = Clock(monkeypatch)
    scanned, first, second = scan_folder(folder), TimedSegmenter(clock), TimedSegmenter(clock)

    def derive(encoding):
        clock.now += 2
        return 255 - encoding

    base = Encodings(first, scanned)
    episodes = draw_episodes(scanned, 1, 9, seed=0)
    list(search_all(base, episodes, "mask"))
    found = list(search_all(DerivedEncodings(base, second, derive), episodes, "mask"))
    assert first.encoded == 4 and second.encoded == 0
    assert [f.describing_seconds for _, f in found] == pytest.approx([13] * 9)
    assert [f.searching_seconds for _, f in found] == pytest.approx([12.1] * 9)
    for shots, encodings in second.given:
        assert (255 - torch.cat(list(encodings)) == shots.images).all()


def test_references_come_with_the_encodings_of_their_chips(folder, monkeypatch):
    scanned, segmenter = scan_folder(folder), TimedSegmenter(Clock(monkeypatch))
    list(search_all(Encodings(segmenter, scanned), draw_episodes(scanned, 2, 9, seed=0), "mask"))
    for shots, encodings in segmenter.given:
        assert len(encodings) == 2
        assert (torch.cat(list(encodings)) == shots.images).all()


def test_a_reference_that_is_padded_farther_is_encoded_as_it_is_padded(write_folder, monkeypatch):
    small, large = np.zeros((20, 20), np.uint8), np.zeros((20, 50), np.uint8)
    small[2:12, 2:12] = large[2:12, 2:12] = 1
    scanned = scan_folder(write_folder({"a": small, "b": large, "c": small}))
    segmenter = TimedSegmenter(Clock(monkeypatch))
    episodes = [Episode(1, 2, (0, 1)), Episode(1, 1, (0, 2))]
    list(search_all(Encodings(segmenter, scanned), episodes, "mask"))
    for shots, encodings in segmenter.given:
        assert (torch.cat(list(encodings)) == shots.images).all()
    assert segmenter.encoded == 4  # c and b by themselves, a at either side


def test_memory_for_encodings_is_bounded(folder):
    scanned, segmenter = scan_folder(folder), ColourSegmenter()
    size = 3 * 60 * 60 * 4
    encodings = Encodings(segmenter, scanned, 2 * size)
    for index, encoded in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4), (2, 5)):
        encodings.of_query(index)
        assert segmenter.encoded == encoded
    narrow = Encodings(segmenter, scanned, size - 1)
    narrow.of_query(0)
    narrow.of_query(0)
    assert segmenter.encoded == 6  # the last one stays, however large


def test_the_size_of_an_encoding_is_that_of_its_tensors():
    @dataclasses.dataclass
    class Encoding:
        features: torch.Tensor
        more: list
        name: str = "text"

    tensor = torch.zeros(2, 3, dtype=torch.float16)
    assert size_of(Encoding(tensor, [np.zeros(5, np.uint8), {"a": (tensor, None)}])) == 12 + 5 + 12


@pytest.mark.parametrize("support", SUPPORTS)
def test_references_are_marked_as_asked_and_equally_each_time(folder, support):
    scanned = scan_folder(folder)
    episode = draw_episodes(scanned, 2, 1, seed=0)[0]
    full = read_shots(scanned, episode, "mask").masks == FOREGROUND
    marks = read_shots(scanned, episode, support).masks == FOREGROUND
    assert (marks == (read_shots(scanned, episode, support).masks == FOREGROUND)).all()
    if support in ("scribble", "point"):
        assert 0 < marks.sum() < full.sum() and not (marks & ~full).any()
    else:
        assert (marks == full).all()  # the objects are rectangles
