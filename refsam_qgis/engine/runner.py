"""The one function through which every entry point runs a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .events import Reporter
from .job import EvaluateJob, Job, ModelOptions, SegmentJob, StatusJob, TrainJob

if TYPE_CHECKING:
    from .models.segmenter import ReferenceSegmenter

Loader = Callable[[ModelOptions], "ReferenceSegmenter"]


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
    if isinstance(job, StatusJob):
        from .status import run_status

        return run_status(job, reporter, load or load_from_disk)
    if isinstance(job, SegmentJob):
        from .segment import run_segment

        return run_segment(job, reporter, load or load_from_disk)
    if isinstance(job, EvaluateJob):
        from .evaluation.evaluate import run_evaluate

        return run_evaluate(job, reporter, load or load_from_disk)
    if isinstance(job, TrainJob):
        from .training.train import run_train

        return run_train(job, reporter)
    raise TypeError(f"{type(job).__name__} is no job")


def load_from_disk(options: ModelOptions) -> ReferenceSegmenter:
    """Load the network of `options` from its files."""
    from .models.checkpoints import load_segmenter

    return load_segmenter(options)
