"""Answers in batches, by a segmenter that pretends to be on a GPU."""

import numpy as np
import pytest
import torch

from refsam_qgis.engine import encodings, tile_answers
from refsam_qgis.engine.encodings import EncodingCache
from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.journal import Journal
from refsam_qgis.engine.models import batches
from refsam_qgis.engine.rasters.grid import Tile
from refsam_qgis.engine.session import Described
from refsam_qgis.engine.tile_answers import TileAnswers, TileRead

from .stand_ins import PortableSegmenter

SIDE = 8
CLASSES = [torch.tensor([200.0, 30.0, 30.0]), torch.tensor([30.0, 30.0, 200.0])]


class Segmenter(PortableSegmenter):
    """Takes so many tiles at once; more do not fit."""

    def __init__(self, device="cuda", fits=100):
        super().__init__()
        self.device = torch.device(device)
        self.fits, self.sizes = fits, []

    def encode(self, images, valid):
        self.sizes.append(len(images))
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().encode(images, valid)


@pytest.fixture(autouse=True)
def pretended(monkeypatch):
    monkeypatch.setattr(tile_answers, "_stacked", lambda arrays, model: torch.from_numpy(np.stack(arrays)))
    monkeypatch.setattr(batches.DeviceMemory, "begin", lambda self: None)
    monkeypatch.setattr(batches.DeviceMemory, "has_room", lambda self, times: True)
    monkeypatch.setattr(batches.DeviceMemory, "release", lambda self: None)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "tiles", SilentReporter())
    yield journal
    journal.close()


def reads(count, empty=(), stored=None):
    rng = np.random.default_rng(0)
    return [
        TileRead(
            Tile(0, i, 0, i * SIDE),
            rng.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8),
            np.full((SIDE, SIDE), i not in empty),
            (stored or {}).get(i),
        )
        for i in range(count)
    ]


def answers(segmenter, journal, encodings=None, on_cpu=None, log=lambda sentence: None):
    def refuse():
        raise AssertionError("nobody ran out of memory")

    return TileAnswers(Described(segmenter, CLASSES), journal, encodings or EncodingCache(None), on_cpu or refuse, log)


def expected(read):
    alone = Segmenter("cpu")
    encoding = alone.encode(torch.from_numpy(read.rgb)[None], None)
    return torch.cat([alone.segment(encoding, one) for one in CLASSES]).numpy()


def check(found, tiles, empty=()):
    assert [read.tile for read, _ in found] == [read.tile for read in tiles]
    for index, (read, answer) in enumerate(found):
        if index in empty:
            assert answer.logits is None
        else:
            np.testing.assert_allclose(answer.logits, expected(read), atol=1e-5)


def test_tiles_are_answered_in_growing_batches(journal):
    segmenter, tiles = Segmenter(), reads(12, empty=(0, 5))
    check(list(answers(segmenter, journal).of(iter(tiles))), tiles, empty=(0, 5))
    # Batches of 1 (empty), 2, 4 (one of them empty) and 5: the empty ones do not reach the network.
    assert segmenter.sizes == [2, 3, 5]
    assert len(journal) == 10 and tiles[0].tile not in journal


def test_one_valid_pixel_is_enough_to_be_answered(journal):
    (read,) = reads(1, empty=(0,))
    read.valid[3, 5] = True
    ((_, answer),) = answers(Segmenter(), journal).of([read])
    assert answer.logits is not None and len(journal) == 1


def test_what_was_finished_stays_when_memory_runs_out(journal):
    segmenter, tiles = Segmenter(fits=3), reads(9)
    check(list(answers(segmenter, journal).of(iter(tiles))), tiles)
    assert segmenter.sizes == [1, 2, 4, 2, 2, 2] and len(journal) == 9


def test_the_cpu_takes_over_where_not_one_tile_fits(journal):
    segmenter, cpu, tiles, told = Segmenter(fits=0), Segmenter("cpu"), reads(3), []
    check(list(answers(segmenter, journal, on_cpu=lambda: Described(cpu, CLASSES), log=told.append).of(tiles)), tiles)
    assert segmenter.sizes == [1] and cpu.sizes == [1, 1, 1]
    assert len(told) == 1 and "goes on on the CPU" in told[0]


def test_kept_answers_and_stored_encodings_do_not_reach_the_encoder(journal, monkeypatch):
    tiles = reads(7)
    list(answers(Segmenter(), journal).of(tiles[:2]))
    assert len(journal) == 2
    stored = {3: {"colours": torch.from_numpy(tiles[3].rgb)[None].float() / 3}, 4: {"wrong": torch.zeros(1)}}
    segmenter, tiles = Segmenter(), reads(7, stored=stored)
    added, add = [], journal.add
    monkeypatch.setattr(journal, "add", lambda tile, logits: added.append(tile) or add(tile, logits))
    found = list(answers(segmenter, journal).of(iter(tiles)))
    assert added == [read.tile for read in tiles[2:]]  # what is kept is not written again
    check(found, tiles)
    assert [answer.kept for _, answer in found] == [True, True] + 5 * [False]
    assert [answer.encoding_reused for _, answer in found] == [False] * 3 + [True] + [False] * 3
    assert sum(segmenter.sizes) == 4


class Overflowing(Segmenter):
    """Says no number of one pixel."""

    def segment(self, encoding, reference):
        logits = super().segment(encoding, reference)
        logits[0, 0, 0] = float("nan")
        return logits


@pytest.mark.parametrize(("device", "remedy"), [("cuda", "; run on the CPU or choose"), ("cpu", "; choose another")])
def test_answers_that_are_no_numbers_end_the_run_and_are_not_kept(journal, tmp_path, device, remedy):
    cache, tiles = EncodingCache(tmp_path / "encodings" / "key"), reads(1)
    with pytest.raises(RefSAMError, match=f"'{device}' are no finite numbers{remedy}") as caught:
        list(answers(Overflowing(device), journal, cache).of(tiles))
    cache.close()
    assert caught.value.code == "checkpoint"
    assert len(journal) == 0 and cache.load(tiles[0].tile) is None


def test_encodings_of_a_batch_are_stored_tile_by_tile(journal, tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "BEING_WRITTEN", 3)  # however slow the disk is
    cache = EncodingCache(tmp_path / "encodings" / "key")
    tiles = reads(3)
    list(answers(Segmenter(), journal, cache).of(iter(tiles)))
    cache.close()
    for read in tiles:
        np.testing.assert_allclose(cache.load(read.tile)["colours"][0].numpy() * 3, read.rgb, atol=1e-4)


def test_stored_encodings_answer_their_own_tiles_wherever_they_stand_in_a_batch(journal):
    tiles = reads(7)
    stored = {i: {"colours": torch.from_numpy(tiles[i].rgb)[None].float() / 3} for i in (2, 4, 6)}
    segmenter, tiles = Segmenter(), reads(7, stored=stored)
    found = list(answers(segmenter, journal).of(tiles))
    check(found, tiles)
    assert [answer.encoding_reused for _, answer in found] == [i in stored for i in range(7)]
    assert segmenter.sizes == [1, 1, 2]  # of batches of 1, 2 and 4
    journal._settle()  # the last one is written in the background
    for read in tiles:
        np.testing.assert_allclose(journal.get(read.tile), expected(read), atol=1e-5)
