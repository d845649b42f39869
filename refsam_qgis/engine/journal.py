"""Tiles that a run has finished, kept until it has succeeded.

A run that was cancelled, crashed or killed goes on from them. They are what the network itself said (its logits, in its
own resolution and precision), so the next run ends with the same bytes as one that was not disturbed, and may have
another extent or threshold. A journal is a convenience: whatever goes wrong with it costs a line in the log, not the
run.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from .errors import JobCancelled
from .events import Reporter
from .home import home
from .rasters.grid import Tile

TILES = "tiles"
LOCK = "lock"
MAX_AGE_DAYS = 14
"""Journals of runs that nobody went on with are deleted after so long."""
MAX_BYTES = 20 * 2**30
"""All journals together keep no more than this; the oldest go first."""
SPARED_BYTES = 2**30
"""Space on the disk that a journal leaves to the outputs."""

MAGIC = b"TILE"
HEADER = struct.Struct("<4s7I")
"""Magic, grid row, grid column, classes, height, width, length of the payload and its CRC-32."""
CHECKSUM = struct.Struct("<I")
"""CRC-32 of the header, between header and payload."""
HEAD_BYTES = HEADER.size + CHECKSUM.size


class _Head(NamedTuple):
    """What stands before a tile's payload: the tile's place in the grid, and shape, bytes and CRC-32 of the payload."""

    place: tuple[int, int]
    shape: tuple[int, int, int]
    length: int
    checksum: int


class Journal:
    """The finished tiles of one kind of run.

    Args:
        path: File of the records; ``None`` keeps nothing.
        reporter: Hears when nothing more can be kept.
    """

    def __init__(self, path: Path | None, reporter: Reporter) -> None:
        self._reporter = reporter
        # Where the record of a tile begins. There may be a hundred thousand, so nothing else is held in memory.
        self._records: dict[tuple[int, int], int] = {}
        self._unasked: set[tuple[int, int]] = set()
        self._pending: Future[None] | None = None
        self._path = path
        self._writable = path is not None
        self._stack = ExitStack()
        self._end = 0
        if path is None:
            return
        with self._stack:
            self._out = self._stack.enter_context(open(path, "ab"))
            self._in = self._stack.enter_context(open(path, "rb"))
            self._scan()
            self._writer = self._stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="journal"))
            self._stack = self._stack.pop_all()

    def __len__(self) -> int:
        """Number of tiles kept."""
        self._settle()
        return len(self._records)

    def __contains__(self, tile: Tile) -> bool:
        """Whether a tile is kept."""
        return (tile.grid_row, tile.grid_column) in self._records

    def get(self, tile: Tile) -> NDArray[np.float32] | None:
        """Return the logits ``(C, h, w)`` of a tile, or ``None`` if they are not kept or damaged."""
        place = tile.grid_row, tile.grid_column
        self._unasked.discard(place)
        if place not in self._records:
            return None
        try:
            head = self._read_head(self._records[place])
            payload = b"" if head is None else self._in.read(head.length)
        except OSError:
            head = None
        if head is None or len(payload) != head.length or zlib.crc32(payload) != head.checksum:
            del self._records[place]
            return None
        planes = np.frombuffer(zlib.decompress(payload), np.uint8).reshape(4, -1)
        logits: NDArray[np.float32] = planes.T.copy().view("<f4").reshape(head.shape).astype(np.float32, copy=False)
        return logits

    def add(self, tile: Tile, logits: NDArray[np.float32]) -> None:
        """Keep the logits ``(C, h, w)`` of a tile; they are written in the background."""
        self._settle()
        if self._writable:
            self._pending = self._writer.submit(self._append, tile, logits)

    def finish(self) -> None:
        """Forget the tiles, as the run has succeeded.

        They stay if some were not asked for: those are of a larger run that was stopped.
        """
        self._settle()
        if not self._unasked:
            self._records.clear()

    def close(self) -> None:
        """Finish writing and close the file; one without a tile is deleted."""
        self._settle()
        with suppress(OSError):
            self._stack.close()
        if self._path is not None and not self._records:
            with suppress(OSError):
                os.unlink(self._path)

    def _scan(self) -> None:
        """Find the records and cut off what a stopped run left half-written."""
        size = os.fstat(self._in.fileno()).st_size
        while (head := self._read_head(self._end)) is not None:
            end = self._end + HEAD_BYTES + head.length
            if end > size:
                break
            self._records[head.place] = self._end
            self._end = end
        self._unasked = set(self._records)
        self._out.truncate(self._end)

    def _read_head(self, start: int) -> _Head | None:
        """Read the head of the record that begins at `start`; ``None`` if there is none, or a damaged one."""
        self._in.seek(start)
        content = self._in.read(HEAD_BYTES)
        header = content[: HEADER.size]
        if len(content) < HEAD_BYTES or CHECKSUM.pack(zlib.crc32(header)) != content[HEADER.size :]:
            return None
        magic, row, column, classes, height, width, length, checksum = HEADER.unpack(header)
        return _Head((row, column), (classes, height, width), length, checksum) if magic == MAGIC else None

    def _append(self, tile: Tile, logits: NDArray[np.float32]) -> None:
        # Equal bytes of neighbouring values side by side compress better: signs and exponents hardly change.
        planes = np.ascontiguousarray(logits, "<f4").reshape(-1, 1).view(np.uint8).T
        payload = zlib.compress(planes.tobytes(), 1)
        checksum = zlib.crc32(payload)
        header = HEADER.pack(MAGIC, tile.grid_row, tile.grid_column, *logits.shape, len(payload), checksum)
        if shutil.disk_usage(os.path.dirname(self._out.name)).free < SPARED_BYTES:
            raise OSError(errno.ENOSPC, "the disk is nearly full")
        self._out.write(header + CHECKSUM.pack(zlib.crc32(header)) + payload)
        self._out.flush()
        self._records[tile.grid_row, tile.grid_column] = self._end
        self._end += HEAD_BYTES + len(payload)

    def _settle(self) -> None:
        """Wait for the record that is being written; stop keeping tiles if it failed."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except OSError as error:
            self._reporter.log(_not_kept(error))
            self._writable = False


@contextmanager
def open_journal(key: str | None, reporter: Reporter) -> Iterator[Journal]:
    """Open the journal of a kind of run; one that keeps nothing where another process has it or the disk refuses.

    Args:
        key: Digest of all that a tile's logits depend on; ``None`` for a raster of which nobody can tell whether it
            was changed, so that nothing may be kept.
        reporter: Hears when nothing can be kept.

    Raises:
        JobCancelled: When the run is cancelled; it says how many tiles are kept.
    """
    with ExitStack() as stack:
        if key is None:
            reporter.log("Finished tiles are not kept for a later run, as nobody can tell whether the raster changes.")
            journal = Journal(None, reporter)
        else:
            journal = _open(home() / "journals" / key, stack, reporter)
        stack.callback(journal.close)
        try:
            yield journal
        except JobCancelled as error:
            raise _cancelled(len(journal)) from error


def _cancelled(kept: int) -> JobCancelled:
    if not kept:
        return JobCancelled()
    tiles = "1 finished tile is" if kept == 1 else f"{kept} finished tiles are"
    return JobCancelled(f"The run was cancelled; {tiles} kept, and the next run goes on from there.")


def _open(folder: Path, stack: ExitStack, reporter: Reporter) -> Journal:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _prune(folder)
        stack.callback(_remove_if_empty, folder)
        stack.enter_context(FileLock(folder / LOCK, blocking=False))
        return Journal(folder / TILES, reporter)
    except Timeout:
        reporter.log("Another run is at work on the same raster; this one keeps no tiles for later.")
    except OSError as error:
        reporter.log(_not_kept(error))
    return Journal(None, reporter)


def _prune(current: Path) -> None:
    """Delete journals that are too old, or too much."""
    found = []
    for folder in current.parent.iterdir():
        with suppress(OSError):
            stat = (folder / TILES).stat()
            found.append((stat.st_mtime, stat.st_size, folder))
    oldest = time.time() - MAX_AGE_DAYS * 86400
    total = 0
    for modified, size, folder in sorted(found, reverse=True):
        total += size
        if folder != current and (modified < oldest or total > MAX_BYTES):
            with suppress(OSError, Timeout):
                with FileLock(folder / LOCK, blocking=False):
                    (folder / TILES).unlink()
                _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of a journal without tiles.

    Should another process have opened it meanwhile, that one goes on writing to a file without a name, which does no
    harm.
    """
    if not (folder / TILES).exists():
        shutil.rmtree(folder, ignore_errors=True)


def _not_kept(error: OSError) -> str:
    return f"Finished tiles are not kept for a later run ({error.strerror or error})."
