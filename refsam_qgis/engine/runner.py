"""The one function through which every entry point runs a job."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .events import Reporter
from .interrupt import interruptible
from .job import (
    EvaluateJob,
    EverythingJob,
    FolderJob,
    Job,
    ModelOptions,
    PromptsJob,
    ProtocolJob,
    RefsetJob,
    SegmentJob,
    StatusJob,
    TrainJob,
)

if TYPE_CHECKING:
    from .models.segmenter import ReferenceSegmenter

Loader = Callable[[ModelOptions], "ReferenceSegmenter"]

ENTRY_POINTS: dict[type, tuple[str, str]] = {
    SegmentJob: (".segment", "run_segment"),
    FolderJob: (".folder", "run_folder"),
    RefsetJob: (".references.refset", "run_refset"),
    PromptsJob: (".prompts", "run_prompts"),
    EverythingJob: (".everything", "run_everything"),
    StatusJob: (".status", "run_status"),
    TrainJob: (".training.train", "run_train"),
    EvaluateJob: (".evaluation.evaluate", "run_evaluate"),
    ProtocolJob: (".evaluation.protocol", "run_protocol"),
}
"""Module and function of each kind of job; the function takes the job, a reporter and a loader."""


def run_job(job: Job, reporter: Reporter, load: Loader | None = None) -> dict[str, Any]:
    """Run `job` and return its result, a JSON-compatible document.

    Only the modules of the job at hand are imported, so that a status report works in a damaged environment.

    Args:
        job: What to do.
        reporter: Receives progress, and says when to stop.
        load: Gives the network for its options; ``None`` loads it from disk each time.

    Raises:
        RefSAMError: When the job cannot be done; `JobCancelled` when the reporter asked to stop.
    """
    load = load or load_from_disk
    module, function = ENTRY_POINTS[type(job)]
    run = getattr(importlib.import_module(module, __package__), function)
    with interruptible(reporter):
        result: dict[str, Any] = run(job, reporter, load)
    return result


def load_from_disk(options: ModelOptions) -> ReferenceSegmenter:
    """Load the network of `options` from its files."""
    from .models.checkpoints import load_segmenter

    return load_segmenter(options)
