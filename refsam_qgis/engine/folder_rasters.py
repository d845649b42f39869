"""Which rasters a folder job takes, and what their results are called."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from .errors import RefSAMError, printable
from .events import Reporter, check_cancelled
from .job import FolderJob

NOT_IN_FILE_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
"""What Windows does not take in the name of a file; after a colon it writes to where nobody finds it."""


@dataclass(frozen=True)
class FolderRaster:
    """One raster of a folder job.

    Attributes:
        path: The raster.
        name: What tables call it: its path inside the searched folder; of a list of rasters the file name, or the whole
            path where file names repeat.
        stem: Path of its results without their endings.
    """

    path: str
    name: str
    stem: str

    @property
    def mask(self) -> str:
        """GeoTIFF of class ids."""
        return self.stem + ".tif"

    @property
    def polygons(self) -> str:
        """GeoPackage of the objects."""
        return self.stem + ".gpkg"

    @property
    def report(self) -> str:
        """Record of the run."""
        return self.stem + ".json"

    @property
    def probability(self) -> str:
        """GeoTIFF of probabilities."""
        return self.stem + "_probability.tif"

    def results(self) -> list[str]:
        """Return the files that may be written."""
        return [self.mask, self.polygons, self.report, self.probability]


def find_rasters(job: FolderJob, reporter: Reporter) -> list[FolderRaster]:
    """Return the rasters of a job in the order of their paths, no two with a result of the same name.

    Raises:
        RefSAMError: With code ``input`` when there are none, or a result would replace an input or be taken for a
            raster by the next run.
    """
    search = None if job.folder is None else _Search(job)
    if search is None:
        paths = sorted({os.path.realpath(path): path for path in job.inputs}.values())
        counts = Counter(os.path.basename(path) for path in paths)
        names = [path if counts[os.path.basename(path)] > 1 else os.path.basename(path) for path in paths]
        places = [_file_name(path) for path in paths]
    else:
        places = sorted(search.find(reporter))
        paths = [os.path.join(search.folder, place) for place in places]
        names = [Path(place).as_posix() for place in places]
    stems = _stems(places)
    rasters = [
        FolderRaster(path, printable(name), os.path.join(job.output_folder, stem))
        for path, name, stem in zip(paths, names, stems, strict=True)
    ]
    _check_results(job, rasters, search)
    return rasters


class _Search:
    """The files of a folder that match a job's patterns.

    Results of earlier runs are not searched: the output folder is left out where it lies inside the folder.
    """

    def __init__(self, job: FolderJob) -> None:
        self.folder = os.path.realpath(str(job.folder))
        self._job = job
        self._patterns = [pattern.strip().lower() for pattern in job.pattern.split(";") if pattern.strip()]
        results = os.path.realpath(job.output_folder)
        self._left_out = results if Path(self.folder) in Path(results).parents else ""

    def find(self, reporter: Reporter) -> Iterator[str]:
        """Yield paths inside the folder."""
        if not os.path.isdir(self.folder):
            raise RefSAMError("input", f"Folder '{self._job.folder}' does not exist; choose another.")
        found = 0

        def unreadable(error: OSError) -> None:
            reporter.log(f"Folder '{error.filename}' cannot be read ({error.strerror}) and is left out.")

        for parent, folders, files in os.walk(self.folder, onerror=unreadable):
            check_cancelled(reporter)
            if self._job.recursive and self._left_out in [os.path.join(parent, name) for name in folders]:
                reporter.log(f"The output folder '{self._job.output_folder}' is not searched.")
            folders[:] = [name for name in folders if self._enters(os.path.join(parent, name))]
            for name in files:
                if self.finds(os.path.join(parent, name)):
                    found += 1
                    yield os.path.relpath(os.path.join(parent, name), self.folder)
        if not found:
            where = f"folder '{self._job.folder}'" + (" or the folders inside it" if self._job.recursive else "")
            raise RefSAMError(
                "input", f"No file in {where} matches '{self._job.pattern}'; change the pattern or the folder."
            )

    def finds(self, path: str) -> bool:
        """Whether the search would find a file of this path."""
        real = Path(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if Path(self.folder) not in real.parents:
            return False
        inside = real.relative_to(self.folder)
        parents = [Path(self.folder, parent) for parent in inside.parents if parent.parts]
        return all(self._enters(str(parent)) for parent in parents) and self._matches(real.name)

    def _enters(self, folder: str) -> bool:
        return self._job.recursive and folder != self._left_out and not os.path.basename(folder).startswith(".")

    def _matches(self, name: str) -> bool:
        return not name.startswith(".") and any(fnmatch(name.lower(), pattern) for pattern in self._patterns)


def _file_name(path: str) -> str:
    """Return the name of a raster as one that a file may have everywhere; that of a table in a file may have any."""
    name = os.path.basename(path)
    return name if os.path.exists(path) else NOT_IN_FILE_NAMES.sub("_", name)


def _stems(places: list[str]) -> list[str]:
    """Return a path without ending for each file, such that no two have a result in common.

    The first keeps its stem; others of the same stem add their ending, then a number. Names that differ by case alone
    are the same on some disks.
    """
    taken: set[str] = set()
    stems = []
    for place in places:
        stem, ending = os.path.splitext(place)
        for candidate in _candidates(stem, ending.removeprefix(".")):
            results = {os.path.normpath(path).lower() for path in FolderRaster("", "", candidate).results()}
            if not results & taken:
                break
        taken |= results
        stems.append(candidate)
    return stems


def _candidates(stem: str, ending: str) -> Iterator[str]:
    yield stem
    with_ending = f"{stem}_{ending}" if ending else stem
    yield with_ending
    number = 2
    while True:
        yield f"{with_ending}_{number}"
        number += 1


def _check_results(job: FolderJob, rasters: list[FolderRaster], search: _Search | None) -> None:
    """Raise if a result would replace something that is read, or be taken for a raster by the next run."""
    read = [raster.path for raster in rasters] + job.references.files() + job.model.files()
    kept = {os.path.realpath(path) for path in [*read, *job.tables()]}
    for raster in rasters:
        for path in raster.results():
            if os.path.realpath(path) in kept:
                raise RefSAMError(
                    "input",
                    f"Result '{path}' is also an input or another output; choose another output folder "
                    "or another name for that output.",
                )
    if search is None:
        return
    for path in [*(path for raster in rasters for path in raster.results()), *job.tables()]:
        if search.finds(path):
            raise RefSAMError(
                "input",
                f"The next run would take result '{path}' for a raster of '{job.folder}'; choose an output folder "
                "apart from the rasters.",
            )
