"""What a folder job has to do: which rasters have results that are whole and up to date, and which could have none."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from rasterio.windows import Window

from refsam_qgis import __version__

from .earlier_report import read_report
from .errors import JobCancelled, RefSAMError
from .events import Reporter, check_cancelled
from .fingerprint import fingerprint, is_stamped, raster_identity, references_identity
from .folder_rasters import FolderRaster
from .folder_results import check_results, earlier_results
from .job import FolderJob
from .models.weight_files import identify_model
from .rasters.source import RasterSource
from .references.bands import bands_of_examples

SEARCHED = 0.02
"""Progress when it is known what is to be done."""
BLOCK = 1024
"""Side in pixels of the windows in which a raster that failed is read again."""


@dataclass
class FolderTask:
    """A raster and what is known of it.

    Attributes:
        raster: The raster.
        identity: What tells its content from any other; empty when it cannot be opened.
        fingerprint: Digest of all that its results depend on.
        is_known: Whether the fingerprint would be another one if the raster, or that of the examples, was changed.
        status: ``to do``, ``done``, ``skipped`` (nothing had changed) or ``failed``.
        reason: Why it failed.
        result: Of the job that was done for it, now or earlier.
        earlier: Results of an earlier run, which go when there is a newer report without them.
    """

    raster: FolderRaster
    identity: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    is_known: bool = False
    status: str = "to do"
    reason: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    earlier: list[str] = field(default_factory=list)

    @property
    def band_count(self) -> int:
        """How many bands it has."""
        return len(self.identity["dtypes"])

    def fail(self, error: RefSAMError, reporter: Reporter) -> None:
        """Note why it failed."""
        self.status, self.reason = "failed", str(error)
        reporter.log(f"'{self.raster.name}' failed: {self.reason}")


def look_up(job: FolderJob, rasters: list[FolderRaster], reporter: Reporter) -> list[FolderTask]:
    """Find out what is to be done, without loading the network.

    Raises:
        RefSAMError: With code ``input`` if a table of the job would replace what is read.
    """
    references = references_identity(job.references)
    common = {
        "refsam": __version__,
        "references": references,
        "model": identify_model(job.model),
        "raster": asdict(job.raster),
        "polygons": asdict(job.polygons),
        "threshold": job.threshold,
        "separate": job.separate,
    }
    examples = references.get("raster")
    tasks = [FolderTask(raster) for raster in rasters]
    for number, task in enumerate(tasks):
        check_cancelled(reporter)
        reporter.progress(SEARCHED * number / len(tasks), "Looking for changes")
        try:
            _identify(job, task, examples, common)
        except RefSAMError as error:
            task.fail(error, reporter)
    parts = _parts_read(job, [task.identity for task in tasks] + [examples or {}])
    for task in tasks:
        if task.status != "to do":
            continue
        report = read_report(task.raster.report)
        if not job.redo:
            _compare(job, task, report, reporter)
        if task.status == "to do":
            try:
                check_results(task.raster, job.probability, parts, report)
                task.earlier = earlier_results(task.raster, parts, report)
            except RefSAMError as error:
                task.fail(error, reporter)
    return tasks


def _identify(job: FolderJob, task: FolderTask, examples: dict[str, Any] | None, common: dict[str, Any]) -> None:
    """Note what a raster is, and what its results depend on besides what all results do."""
    task.identity = raster_identity(task.raster.path)
    task.is_known = is_stamped(task.identity)
    bands = None
    if examples is not None:
        task.is_known = task.is_known and is_stamped(examples)
        bands = bands_of_examples(job.raster.bands, task.band_count, len(examples["dtypes"]))
    task.fingerprint = fingerprint({**common, "bands_of_examples": bands, "input": task.identity})


def _parts_read(job: FolderJob, identities: list[dict[str, Any]]) -> set[str]:
    """Return the real paths of all files that the rasters consist of, none of which a table may replace."""
    parts = {os.path.realpath(stamp[0]) for identity in identities for stamp in identity.get("files", [])}
    for path in job.tables():
        if os.path.realpath(path) in parts:
            raise RefSAMError("input", f"Output '{path}' is also an input; choose another name.")
    return parts


def _compare(job: FolderJob, task: FolderTask, report: dict[str, Any], reporter: Reporter) -> None:
    """Settle a task whose raster, examples and parameters are those of the report beside its results."""
    if report.get("fingerprint") != task.fingerprint:
        return
    if "failure" in report:
        # What was wrong with the file may have been its disk or network: ask it, which takes no network of ours.
        try:
            _read_all(job, task.raster.path, reporter)
        except JobCancelled:
            raise
        except RefSAMError:
            task.fail(RefSAMError("input", str(report["failure"])), reporter)
    elif task.is_known and _are_whole(job, task.raster, report):
        task.status, task.result = "skipped", report["result"]


def _are_whole(job: FolderJob, raster: FolderRaster, report: dict[str, Any]) -> bool:
    """Whether all results are there and no smaller than they were written.

    Programs that look at them may add to them (overviews, a database's journal), and so may people.
    """
    wanted = {"mask": raster.mask, "polygons": raster.polygons}
    if job.probability:
        wanted["probability"] = raster.probability
    try:
        return all(os.path.getsize(path) >= report["files"][name]["size"] for name, path in wanted.items())
    except (OSError, KeyError, TypeError):
        return False


def _read_all(job: FolderJob, path: str, reporter: Reporter) -> None:
    """Read a raster to its end."""
    with RasterSource(path, job.raster.bands, job.raster.stretch) as raster:
        for row in range(0, raster.height, BLOCK):
            check_cancelled(reporter)
            for column in range(0, raster.width, BLOCK):
                raster.read(Window(column, row, BLOCK, BLOCK))
