from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from refsam_qgis.engine import journal as module
from refsam_qgis.engine.errors import JobCancelled
from refsam_qgis.engine.journal import open_journal
from refsam_qgis.engine.rasters.grid import Tile
from tests.engine.stand_ins import Recorder

KEY = "k" * 64
HOLD = """
import sys
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.journal import open_journal

with open_journal(sys.argv[1], SilentReporter()):
    print("open", flush=True)
    sys.stdin.read()
"""


def tile(number):
    return Tile(number // 10, number % 10, 100 * (number // 10), 100 * (number % 10))


def logits(number, classes=2):
    values = np.random.default_rng(number).normal(0, 5, (classes, 64, 64)).astype(np.float32)
    values[0, 0, :4] = np.nan, np.inf, -0.0, 1e-42
    return values


def fill(numbers, key=KEY):
    with open_journal(key, Recorder()) as journal:
        for number in numbers:
            journal.add(tile(number), logits(number))


def kept(numbers, key=KEY):
    """Which of the tiles come back, bit by bit the same."""
    with open_journal(key, Recorder()) as journal:
        found = [(number, journal.get(tile(number))) for number in numbers]
        assert len(journal) == sum(tile(number) in journal for number in range(100))
    for number, values in found:
        assert values is None or values.tobytes() == logits(number).tobytes()
    return [number for number, values in found if values is not None]


def file_of(home, key=KEY):
    return home / "journals" / key / "tiles"


def test_tiles_come_back_bit_by_bit(private_home):
    fill([0, 3, 12])
    assert kept(range(20)) == [0, 3, 12]
    fill([5])
    assert kept(range(20)) == [0, 3, 5, 12]
    assert kept(range(20), key="other") == []
    assert file_of(private_home).stat().st_size < 4 * logits(0).nbytes


def test_tiles_can_be_read_while_others_are_written():
    with open_journal(KEY, Recorder()) as journal:
        for number in range(20):
            journal.add(tile(number), logits(number))
            journal.add(tile(50 + number), logits(50 + number))
            assert journal.get(tile(number)).tobytes() == logits(number).tobytes()
        assert len(journal) == 40


@pytest.mark.parametrize("lost", [1, 40, 5000])
def test_a_torn_tail_is_cut_off(private_home, lost):
    fill([0, 1, 2])
    path = file_of(private_home)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - lost)
    with open_journal(KEY, Recorder()) as journal:
        assert len(journal) == 2 and tile(2) not in journal
    assert kept(range(5)) == [0, 1]
    fill([2, 3])
    assert kept(range(5)) == [0, 1, 2, 3]


def test_zeros_after_a_power_cut_are_cut_off(private_home):
    fill([0, 1])
    with file_of(private_home).open("ab") as stream:
        stream.write(bytes(10_000))
    assert kept(range(5)) == [0, 1]
    fill([2])
    assert kept(range(5)) == [0, 1, 2]


def test_a_damaged_tile_is_done_again(private_home):
    fill([0, 1, 2])
    path = file_of(private_home)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert kept(range(5)) == [0, 2]
    with open_journal(KEY, Recorder()) as journal:
        assert journal.get(tile(1)) is None
        assert tile(1) not in journal and len(journal) == 2
        journal.add(tile(1), logits(1))
    assert kept(range(5)) == [0, 1, 2]


def test_a_tile_whose_place_is_damaged_is_no_other_tile(private_home):
    fill([0, 1, 2])
    path = file_of(private_home)
    content = bytearray(path.read_bytes())
    second = content.index(module.MAGIC, 1)
    content[second + len(module.MAGIC)] ^= 1  # its row
    path.write_bytes(content)
    assert kept(range(100)) == [0]
    fill([1, 2])
    assert kept(range(100)) == [0, 1, 2]


def test_a_small_tile_can_be_read_at_once(private_home):
    """It is on the disk, not in a buffer that a killed process would lose."""
    small = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    with open_journal(KEY, Recorder()) as journal:
        journal.add(tile(0), small)
        assert len(journal) == 1
        assert np.array_equal(journal.get(tile(0)), small)


def test_a_finished_run_leaves_nothing_but_what_it_did_not_ask_for(private_home):
    with open_journal(KEY, Recorder()) as journal:
        journal.get(tile(0))
        journal.add(tile(0), logits(0))
        journal.finish()
    assert list((private_home / "journals").iterdir()) == []
    fill([0, 1])
    with open_journal(KEY, Recorder()) as journal:
        assert all(journal.get(tile(number)) is not None for number in (0, 1))
        journal.finish()
    assert list((private_home / "journals").iterdir()) == []
    fill([0, 1])
    with open_journal(KEY, Recorder()) as journal:
        journal.get(tile(0))
        journal.finish()
    assert kept(range(5)) == [0, 1]


def test_an_opened_journal_without_tiles_leaves_nothing(private_home):
    fill([])
    assert list((private_home / "journals").iterdir()) == []


@pytest.mark.parametrize(
    ("count", "said"), [(0, "no output was written"), (1, "1 finished tile is kept"), (3, "3 finished tiles are")]
)
def test_a_cancelled_run_says_how_many_tiles_are_kept(count, said):
    with pytest.raises(JobCancelled) as caught, open_journal(KEY, Recorder()) as journal:
        for number in range(count):
            journal.add(tile(number), logits(number))
        raise JobCancelled
    assert said in str(caught.value)
    assert kept(range(5)) == list(range(count))


def test_a_second_process_keeps_nothing_and_harms_nothing(private_home):
    fill([0])
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, KEY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "open\n"
        reporter = Recorder()
        with open_journal(KEY, reporter) as journal:
            assert journal.get(tile(0)) is None and len(journal) == 0
            journal.add(tile(1), logits(1))
        assert len(reporter.messages) == 1 and "Another run" in reporter.messages[0]
        os.utime(file_of(private_home), (time.time() - 15 * 86400,) * 2)
        fill([0], "other")
        assert file_of(private_home).exists()  # however old, it is in use
    finally:
        other.communicate("")
    assert kept(range(5)) == [0]


def test_an_unusable_home_costs_one_line(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("REFSAM_HOME", str(blocked))
    reporter = Recorder()
    with open_journal(KEY, reporter) as journal:
        for number in range(3):
            journal.add(tile(number), logits(number))
            assert journal.get(tile(number)) is None
        journal.finish()
    assert len(reporter.messages) == 1 and "not kept" in reporter.messages[0]


def test_a_full_disk_costs_one_line(monkeypatch):
    reporter = Recorder()
    usage = namedtuple("usage", "total used free")
    with open_journal(KEY, reporter) as journal:
        for number in range(5):
            if number == 2:
                assert len(journal) == 2  # waits for what is being written
                monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 2**20))
            journal.add(tile(number), logits(number))
        assert len(journal) == 2
    assert len(reporter.messages) == 1 and "disk is nearly full" in reporter.messages[0]
    assert kept(range(5)) == [0, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_write_that_fails_half_way_costs_one_line(private_home):
    """The real thing: the kernel refuses the rest of a record."""
    import resource
    import signal

    fill([0])
    size = file_of(private_home).stat().st_size
    reporter = Recorder()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open_journal(KEY, reporter) as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, limits[1]))
            for number in range(1, 4):
                journal.add(tile(number), logits(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(reporter.messages) == 1 and "not kept" in reporter.messages[0]
    assert kept(range(5)) == [0]


def test_old_journals_go_and_the_oldest_of_too_many(private_home, monkeypatch):
    for number, key in enumerate(("old", "older", "recent")):
        fill([0], key)
        age = (15, 2, 1)[number] * 86400
        os.utime(file_of(private_home, key), (time.time() - age,) * 2)
    fill([0], "first look")
    assert {path.name for path in (private_home / "journals").iterdir()} == {"older", "recent", "first look"}
    size = file_of(private_home, "recent").stat().st_size
    monkeypatch.setattr(module, "MAX_BYTES", int(2.5 * size))
    fill([1], "second look")
    assert {path.name for path in (private_home / "journals").iterdir()} == {"recent", "first look", "second look"}


def test_a_run_goes_on_from_its_own_tiles_however_old(private_home):
    fill([0])
    os.utime(file_of(private_home), (time.time() - 15 * 86400,) * 2)
    assert kept(range(5)) == [0]
