"""Many rasters with one warm model: find the classes of marked examples in each, and do again only what has changed."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from refsam_qgis import __version__

from .errors import JobCancelled
from .events import Reporter, check_cancelled
from .failures import explain
from .folder_merge import merge_results
from .folder_rasters import find_rasters
from .folder_results import discard
from .folder_tasks import SEARCHED, FolderTask, look_up
from .job import FolderJob, SegmentJob, SegmentOutputs
from .part_reporter import PartReporter
from .rasters.outputs import OutputFiles, disk_errors
from .runner import Loader, load_from_disk

if TYPE_CHECKING:  # torch is imported when there is something to do
    from .session import Session

SUFFIXES = {"merged": (".gpkg",), "failures": (".csv",)}
COMMON_CAUSES = ("checkpoint", "environment", "memory", "disk")
"""Kinds of failure that the next raster would meet as well."""
SEGMENTED = 0.97
"""Progress when the last raster is done."""


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
        tasks = look_up(job, rasters, reporter)
        if any(task.status == "to do" for task in tasks):
            _segment(job, tasks, reporter, load or load_from_disk)
        left_out: list[dict[str, str]] = []
        if (path := outputs["merged"]) is not None:
            left_out = merge_results(path, tasks, reporter, SEGMENTED)
        if (path := outputs["failures"]) is not None:
            _write_failures(path, tasks)
        outputs.commit()
    result = _result(job, tasks, left_out, time.monotonic() - started)
    reporter.log(f"{result['done']} rasters done, {result['skipped']} unchanged, {result['failed']} failed.")
    reporter.progress(1.0, "Done", 0.0)
    return result


def _segment(job: FolderJob, tasks: list[FolderTask], reporter: Reporter, load: Loader) -> None:
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


def _segment_one(job: FolderJob, task: FolderTask, session: Session, reporter: Reporter) -> None:
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


def _remember_failure(task: FolderTask) -> None:
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


def _parts(tasks: list[FolderTask], reporter: Reporter) -> Iterator[PartReporter]:
    """Yield the reporter of each raster; they share the progress by their pixels."""
    pixels = [task.identity["width"] * task.identity["height"] for task in tasks]
    began = time.monotonic()
    done = 0
    for number, (task, own) in enumerate(zip(tasks, pixels, strict=True), 1):
        label = f"{task.raster.name} ({number} of {len(tasks)})"
        span = SEARCHED, SEGMENTED
        yield PartReporter(reporter, label, span, done / sum(pixels), (done + own) / sum(pixels), began)
        done += own


def _cancelled(tasks: list[FolderTask]) -> JobCancelled:
    finished = sum(task.status in ("done", "skipped") for task in tasks)
    return JobCancelled(
        f"The run was cancelled; {finished} of {len(tasks)} rasters are finished, and the next run goes on from there."
    )


def _write_failures(path: str, tasks: list[FolderTask]) -> None:
    with disk_errors(path), open(path, "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("source", "reason"))
        table.writerows((task.raster.name, task.reason) for task in tasks if task.status == "failed")


def _result(job: FolderJob, tasks: list[FolderTask], left_out: list[dict[str, str]], seconds: float) -> dict[str, Any]:
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
