"""Many rasters with one warm model: find the classes of marked examples in each, and do again only what has changed."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rasterio.crs import CRS
from rasterio.windows import Window

from refsam_qgis import __version__

from .earlier_report import read_report
from .errors import JobCancelled, RefSAMError
from .events import Reporter, check_cancelled
from .failures import explain
from .fingerprint import fingerprint, is_stamped, raster_identity, references_identity
from .folder_rasters import FolderRaster, find_rasters
from .folder_results import check_results, discard, earlier_results
from .job import FolderJob, SegmentJob, SegmentOutputs
from .models.weight_files import identify_model
from .rasters.outputs import OutputFiles, disk_errors
from .rasters.source import RasterSource
from .rasters.writers import merge_polygons
from .references.bands import bands_of_examples
from .runner import Loader, load_from_disk

if TYPE_CHECKING:  # torch is imported when there is something to do
    from .session import Session

SUFFIXES = {"merged": (".gpkg",), "failures": (".csv",)}
COMMON_CAUSES = ("checkpoint", "environment", "memory", "disk")
"""Kinds of failure that the next raster would meet as well."""
BLOCK = 1024
"""Side in pixels of the windows in which a raster that failed is read again."""
NOT_MERGED = (
    "It has no CRS, unlike others, so the merged layer leaves its polygons out; assign the CRS of its map to it."
)
"""Why polygons of a finished raster are not in the merged layer."""
SEARCHED, SEGMENTED = 0.02, 0.97
"""Progress when the rasters are known, and when the last one is done."""


@dataclass
class _Task:
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


def run_folder(job: FolderJob, reporter: Reporter, load: Loader | None = None) -> dict[str, Any]:
    """Segment the rasters of a folder that have no up-to-date results; see `FolderJob` for what is written.

    A raster that fails does not stop the others; what every raster would fail of does.

    Args:
        job: What to do.
        reporter: Hears the progress and says when to stop.
        load: Gives the network; ``None`` loads it from its checkpoint. Asked once, and only when there is work.

    Returns:
        ``done``, ``skipped`` and ``failed`` (numbers of rasters), ``failures`` (source, reason), ``not_merged`` (the
        same of rasters whose polygons the merged layer leaves out), ``rasters`` (source, status, outputs and
        object_count of each), ``object_count``, ``device`` (``None`` when there was no work), ``seconds`` and
        ``outputs`` (paths by name).

    Raises:
        RefSAMError: When no raster can be done for one common cause; finished rasters are kept, and `JobCancelled`
            says so.
    """
    started = time.monotonic()
    reporter.progress(0.0, "Looking for rasters")
    rasters = find_rasters(job, reporter)
    with disk_errors(job.output_folder):
        os.makedirs(job.output_folder, exist_ok=True)
    inputs = [raster.path for raster in rasters] + job.references.files() + job.model.files()
    with OutputFiles({"merged": job.merged, "failures": job.failures}, SUFFIXES, inputs) as outputs:
        tasks = _look_up(job, rasters, reporter)
        if any(task.status == "to do" for task in tasks):
            _segment(job, tasks, reporter, load or load_from_disk)
        left_out: list[dict[str, str]] = []
        if (path := outputs["merged"]) is not None:
            left_out = _merge(path, tasks, reporter)
        if (path := outputs["failures"]) is not None:
            _write_failures(path, tasks)
        outputs.commit()
    result = _result(job, tasks, left_out, time.monotonic() - started)
    reporter.log(f"{result['done']} rasters done, {result['skipped']} unchanged, {result['failed']} failed.")
    reporter.progress(1.0, "Done", 0.0)
    return result


def _look_up(job: FolderJob, rasters: list[FolderRaster], reporter: Reporter) -> list[_Task]:
    """Find out what is to be done, without loading the network."""
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
    tasks = [_Task(raster) for raster in rasters]
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


def _identify(job: FolderJob, task: _Task, examples: dict[str, Any] | None, common: dict[str, Any]) -> None:
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


def _compare(job: FolderJob, task: _Task, report: dict[str, Any], reporter: Reporter) -> None:
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


def _segment(job: FolderJob, tasks: list[_Task], reporter: Reporter, load: Loader) -> None:
    """Do what is to be done, one raster after the other."""
    from .interrupt import interruptible
    from .session import Session

    to_do = [task for task in tasks if task.status == "to do"]
    readable = [task for task in to_do if max(job.raster.bands or (1,)) <= task.band_count]
    reporter.progress(SEARCHED, "Reading references")
    default_raster = to_do[0].raster.path  # never asked for: marks of a folder job name their raster
    session = Session(job.references, default_raster, job.raster, job.model, load, reporter)
    with interruptible(reporter):
        if readable:  # examples that cannot be used stop the run; bands that a raster lacks are its own failure
            session.require_examples(readable[0].band_count)
        reporter.progress(SEARCHED, "Loading the model")
        check_cancelled(reporter)
        _ = session.model
        parts = _parts(to_do, reporter)
        for task, part in zip(to_do, parts, strict=True):
            try:
                _segment_one(job, task, session, part)
            except JobCancelled as error:
                raise _cancelled(tasks) from error


def _segment_one(job: FolderJob, task: _Task, session: Session, reporter: Reporter) -> None:
    """Segment one raster, or note why it failed.

    Raises:
        RefSAMError: When the other rasters would fail as well.
    """
    from .segment import segment_raster

    raster = task.raster
    check_cancelled(reporter)
    try:
        with disk_errors(raster.stem):
            os.makedirs(os.path.dirname(raster.stem), exist_ok=True)
        task.result = segment_raster(
            SegmentJob(
                input=raster.path,
                references=job.references,
                outputs=SegmentOutputs(
                    raster.polygons, raster.mask, raster.probability if job.probability else None, raster.report
                ),
                model=job.model,
                raster=job.raster,
                polygons=job.polygons,
                threshold=job.threshold,
                separate=job.separate,
                keep_encodings=False,  # a folder would fill the disk with what is seldom asked for again
                origin=job.origin,
            ),
            session,
            reporter,
            {"source": raster.name, "fingerprint": task.fingerprint},
        )
        task.status = "done"
        discard(set(task.earlier) - set(task.result["outputs"].values()), reporter)
    except JobCancelled:
        raise
    except Exception as error:
        failure = explain(error)
        held = isinstance(failure.__cause__, PermissionError) and os.access(os.path.dirname(raster.stem), os.W_OK)
        if failure.code in COMMON_CAUSES and not held:
            if failure is error:
                raise
            raise failure from error
        task.fail(failure, reporter)
        if failure.code == "input":
            discard(task.earlier, reporter)
            _remember_failure(task)


def _remember_failure(task: _Task) -> None:
    """Leave a report by which the next run knows that the raster, unless it was changed, fails again."""
    report = {
        "refsam": __version__,
        "source": task.raster.name,
        "fingerprint": task.fingerprint,
        "failure": task.reason,
    }
    with OutputFiles({"report": task.raster.report}, {"report": (".json",)}, [task.raster.path]) as outputs:
        path = str(outputs["report"])
        with disk_errors(path), open(path, "w", encoding="utf-8") as stream:
            json.dump(report, stream, ensure_ascii=False, indent=2)
        outputs.commit()


class _Part:
    """A `Reporter` of one raster whose progress is a part of the whole.

    Args:
        whole: Hears the progress of the whole job.
        label: Begins the name of each stage.
        start: Share of the pixels that were done before this raster, 0..1.
        end: The same after it.
        began: When the first raster began, by the monotonic clock.
    """

    def __init__(self, whole: Reporter, label: str, start: float, end: float, began: float) -> None:
        self._whole = whole
        self._label = label
        self._start = start
        self._end = end
        self._began = began

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        done = self._start * (1 - fraction) + self._end * fraction
        spent = time.monotonic() - self._began
        left = None
        if remaining_seconds is not None:
            # The raster knows best what is left of itself; the others take as long as those so far.
            left = remaining_seconds + (spent + remaining_seconds) / self._end * (1 - self._end)
        elif self._start > 0:
            left = spent / done * (1 - done)
        self._whole.progress(SEARCHED + (SEGMENTED - SEARCHED) * done, f"{self._label}: {stage}", left)

    def log(self, message: str) -> None:
        self._whole.log(f"{self._label}: {message}")

    def is_cancelled(self) -> bool:
        return self._whole.is_cancelled()


def _parts(tasks: list[_Task], reporter: Reporter) -> Iterator[_Part]:
    """Yield the reporter of each raster; they share the progress by their pixels."""
    pixels = [task.identity["width"] * task.identity["height"] for task in tasks]
    began = time.monotonic()
    done = 0
    for number, (task, own) in enumerate(zip(tasks, pixels, strict=True), 1):
        label = f"{task.raster.name} ({number} of {len(tasks)})"
        yield _Part(reporter, label, done / sum(pixels), (done + own) / sum(pixels), began)
        done += own


def _cancelled(tasks: list[_Task]) -> JobCancelled:
    finished = sum(task.status in ("done", "skipped") for task in tasks)
    return JobCancelled(
        f"The run was cancelled; {finished} of {len(tasks)} rasters are finished, and the next run goes on from there."
    )


def _merge(path: str, tasks: list[_Task], reporter: Reporter) -> list[dict[str, str]]:
    """Write the polygons of the finished rasters into one layer, in the CRS of the first that has one.

    Where some have a CRS those without are left out, as nobody knows where they lie in it; so is what has no place in
    the CRS of the layer.

    Returns:
        ``source`` and ``reason`` of each raster some or all of whose polygons are left out.
    """
    finished = [task for task in tasks if task.status in ("done", "skipped")]
    placed = [task for task in finished if task.identity["crs"] is not None]
    merged = placed or finished
    crs = CRS.from_wkt(placed[0].identity["crs"]) if placed else None
    others = sum(task.identity["crs"] != merged[0].identity["crs"] for task in merged)
    if others:
        reporter.log(
            f"The merged polygons are in the CRS of '{merged[0].raster.name}'; those of rasters in another one "
            f"({others}) were transformed into it."
        )
    left_out: list[dict[str, str]] = []

    def leave_out(source: str, reason: str) -> None:
        left_out.append({"source": source, "reason": reason})
        reporter.log(f"'{source}': {reason}")

    for task in finished:
        if placed and task.identity["crs"] is None:
            leave_out(task.raster.name, NOT_MERGED)

    def layers() -> Iterator[tuple[str, str]]:
        for number, task in enumerate(merged):
            check_cancelled(reporter)
            reporter.progress(SEGMENTED + (1 - SEGMENTED) * number / len(merged), "Merging the polygons")
            yield task.raster.name, task.raster.polygons

    merge_polygons(path, layers(), crs, leave_out)
    return left_out


def _write_failures(path: str, tasks: list[_Task]) -> None:
    with disk_errors(path), open(path, "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("source", "reason"))
        table.writerows((task.raster.name, task.reason) for task in tasks if task.status == "failed")


def _result(job: FolderJob, tasks: list[_Task], left_out: list[dict[str, str]], seconds: float) -> dict[str, Any]:
    counts = {status: sum(task.status == status for task in tasks) for status in ("done", "skipped", "failed")}
    outputs = {"output_folder": job.output_folder, "merged": job.merged, "failures": job.failures}
    return {
        **counts,
        "failures": [{"source": t.raster.name, "reason": t.reason} for t in tasks if t.status == "failed"],
        "not_merged": left_out,
        "rasters": [
            {
                "source": task.raster.name,
                "status": task.status,
                "object_count": task.result.get("object_count", 0),
                "outputs": task.result.get("outputs", {}),
            }
            for task in tasks
        ],
        "object_count": sum(task.result.get("object_count", 0) for task in tasks),
        "device": next((task.result["device"] for task in tasks if task.status == "done"), None),
        "seconds": round(seconds, 3),
        "outputs": {name: path for name, path in outputs.items() if path is not None},
    }
