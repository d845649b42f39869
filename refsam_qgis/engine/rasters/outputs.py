"""Output files that appear under their names only when all of them are whole."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from filelock import BaseFileLock, FileLock, Timeout

from ..errors import RefSAMError

PREFIX = ".refsam-"
"""Start of the names of the hidden folders."""
LOCK = ".lock"
"""File in a hidden folder that its process holds locked as long as it lives."""
EARLIER = "earlier"
"""Folder in a hidden one for the files whose names are being taken."""
FULL = 2**16
"""Bytes below which a disk is full: SQLite stops some pages, and GDAL some buffers, before the last one."""
SIDE_FILES = (".ovr", ".aux.xml", ".msk", ".msk.ovr", "-wal", "-shm", "-journal")
"""Endings that GDAL and SQLite put after a file's name for what belongs to its content."""


class OutputFiles:
    """Paths to write to while a job runs, which take their final names together; a context manager.

    Files are written in a hidden folder beside their final place, so that renaming them is atomic. Leaving the context
    without `commit` deletes them. A process that is killed cannot; the next one that writes there does it in its stead.

    Args:
        paths: Final path of each output by its name; ``None`` for an output left out.
        suffixes: Allowed file name endings by output name.
        inputs: Files that the job reads and no output may replace.

    Attributes:
        wanted: Final path, as it was given, of each output that is not left out.

    Raises:
        RefSAMError: With code ``input`` for a path that cannot be written to, ``disk`` when its folder is closed.
    """

    def __init__(
        self, paths: Mapping[str, str | None], suffixes: Mapping[str, tuple[str, ...]], inputs: list[str]
    ) -> None:
        self.wanted = {name: path for name, path in paths.items() if path is not None}
        self._final = {name: Path(path) for name, path in self.wanted.items()}
        taken: list[str] = []
        for name, path in self._final.items():
            _check(path, suffixes[name], taken)
            taken.append(os.path.realpath(path))
        self.spare(inputs)
        self._folders: dict[Path, Path] = {}
        self._locks: list[BaseFileLock] = []

    def __enter__(self) -> OutputFiles:
        try:
            for folder in {path.parent for path in self._final.values()}:
                with disk_errors(str(folder)):
                    _sweep(folder)
                    self._folders[folder] = self._make_aside(folder)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._discard()
        if isinstance(error, RefSAMError):  # nobody asked for the hidden places that it may name
            for folder, aside in self._folders.items():
                error.args = (str(error).replace(str(aside), str(folder)),)

    def __getitem__(self, name: str) -> str | None:
        """Return where to write an output for now, or ``None`` if it is left out."""
        path = self._final.get(name)
        return None if path is None else str(self._folders[path.parent] / path.name)

    def spare(self, inputs: Iterable[str | Path]) -> None:
        """Refuse outputs that would replace files that the job reads; for those that are known only later.

        Raises:
            RefSAMError: With code ``input``.
        """
        read = {os.path.realpath(path) for path in inputs}
        for path in self._final.values():
            _check_free(path, read)

    def commit(self) -> dict[str, str]:
        """Give every output its final name and return these names.

        What programs put beside an earlier file of that name goes: its pyramids would be shown in place of the new one.

        Raises:
            RefSAMError: With code ``disk`` when a file of that name is held by another program; all are as they were
                then.
        """
        with ExitStack() as undo:
            for path in self._final.values():
                aside = self._folders[path.parent]
                with disk_errors(str(path)):
                    for place in (path, *side_files(path)):
                        undo.callback(_put_back, place, _set_aside(place, aside))
                        written = aside / place.name
                        if place == path or written.exists():  # GDAL puts beside what the format cannot hold
                            os.replace(written, place)
                        else:
                            place.unlink(missing_ok=True)
            undo.pop_all()
        return {name: str(path) for name, path in self._final.items()}

    def _make_aside(self, folder: Path) -> Path:
        while True:
            aside = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
            lock = FileLock(aside / LOCK)
            try:
                lock.acquire(blocking=False)
            except (Timeout, FileNotFoundError):
                continue  # another process swept it in the instant before it was locked
            except OSError:  # a disk without locks: nobody can tell whether we live, so nobody may sweep
                (aside / LOCK).unlink(missing_ok=True)
                return aside
            if (aside / LOCK).exists():
                self._locks.append(lock)
                return aside

    def _discard(self) -> None:
        for lock in self._locks:
            lock.release()
        for aside in self._folders.values():
            shutil.rmtree(aside, ignore_errors=True)


def side_files(path: Path) -> list[Path]:
    """Return where GDAL and SQLite put what belongs to the content of a file."""
    return [path.with_name(path.name + ending) for ending in SIDE_FILES]


def _set_aside(place: Path, aside: Path) -> Path | None:
    """Keep what has a name under another one, and return that; ``None`` if nothing has it."""
    if not os.path.lexists(place):
        return None
    kept = aside / EARLIER / place.name
    kept.parent.mkdir(exist_ok=True)
    try:
        os.link(place, kept)  # so that there is a file of that name at any time
    except OSError:  # a disk without links
        os.replace(place, kept)
    return kept


def _put_back(place: Path, kept: Path | None) -> None:
    """Give a name to what had it; `kept` as `_set_aside` returned it."""
    with suppress(OSError):
        if kept is None:
            place.unlink(missing_ok=True)
        else:
            os.replace(kept, place)


def _sweep(folder: Path) -> None:
    """Delete the hidden folders of processes that are gone."""
    for path in folder.glob(f"{PREFIX}*/{LOCK}"):
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except OSError:
            continue  # its process lives, or another one sweeps, or nobody can tell
        shutil.rmtree(path.parent, ignore_errors=True)
        lock.release()
        shutil.rmtree(path.parent, ignore_errors=True)  # Windows deletes no open file


@contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Turn failures to write into a sentence.

    Args:
        path: What is being written, for the message.

    Raises:
        RefSAMError: With code ``disk``.
    """
    try:
        yield
    except _writing_errors() as error:
        reason = getattr(error, "strerror", None) or ("the disk is full" if _is_full(path) else _words_of(error))
        raise RefSAMError(
            "disk",
            f"'{path}' cannot be written ({reason}); free space on its disk, check its permissions and close programs "
            "that hold it.",
        ) from error


def _is_full(path: str) -> bool:
    """Whether the disk of a file is full, of which the libraries tell as of a damaged file or a missing table."""
    try:
        return shutil.disk_usage(Path(path).parent).free < FULL
    except OSError:
        return False


def _words_of(error: Exception) -> str:
    """GDAL's own words where rasterio refers to them, SQLite's without the query."""
    return str(error.__cause__ or error).rpartition(" failed: ")[2]


def _writing_errors() -> tuple[type[Exception], ...]:
    """What writing may raise; errors of GDAL's wrappers only where they are loaded, for training does without them."""
    wrappers = (("rasterio", "RasterioError"), ("pyogrio", "DataSourceError"), ("pyogrio", "DataLayerError"))
    loaded = ((sys.modules.get(f"{wrapper}.errors"), name) for wrapper, name in wrappers)
    return (OSError, *(getattr(module, name) for module, name in loaded if module is not None))


def _check_free(path: Path, taken: Collection[str]) -> None:
    if os.path.realpath(path) in taken:
        raise RefSAMError("input", f"Output '{path}' is also an input or another output; choose another name.")


def _check(path: Path, suffixes: tuple[str, ...], taken: list[str]) -> None:
    if path.suffix.lower() not in suffixes:
        raise RefSAMError("input", f"Output '{path}' must end in {' or '.join(suffixes)}; rename it.")
    _check_free(path, taken)
    if path.is_dir():
        raise RefSAMError("input", f"Output '{path}' is a folder; give a file name in it.")
    if not path.parent.is_dir():
        raise RefSAMError("input", f"Folder '{path.parent}' of an output does not exist; create it first.")
