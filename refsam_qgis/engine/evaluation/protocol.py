"""Runs few-shot episodes through one method after the other and reports how each did."""

from __future__ import annotations

import json
import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import RefSAMError
from ..events import Reporter, check_cancelled
from ..image_folder import CROP, MIN_PIXELS, ImageFolder, scan_folder
from ..job import ModelOptions, ProtocolJob
from ..models.checkpoints import load_segmenter
from ..models.segmenter import ReferenceSegmenter
from ..models.weight_files import describe_model
from ..rasters.outputs import OutputFiles, disk_errors
from .episodes import Episode, draw_episodes
from .metrics import FewShotMetrics
from .search import search_all

LEARNED_METHODS = ("virefsam", "training_free")
RANDOM_FOREST = "random_forest"
SUPPORTS = ("mask", "scribble")

Loader = Callable[[ModelOptions], ReferenceSegmenter]


@dataclass(frozen=True)
class MethodResult:
    """How one method did.

    Attributes:
        metrics: Accumulated over the episodes.
        device: Where it ran.
        seconds_per_reference_set: Mean time to describe the K references of an episode.
        seconds_per_image: Mean time of one search in one image, its encoding included.
    """

    metrics: FewShotMetrics
    device: str
    seconds_per_reference_set: float
    seconds_per_image: float


def run_protocol(
    job: ProtocolJob, reporter: Reporter, load: Loader = load_segmenter, support: str = "mask"
) -> dict[str, Any]:
    """Measure the methods of a job on the same episodes.

    Args:
        job: What to measure.
        reporter: Told of the progress, asked for cancellation before each episode.
        load: Builds the segmenter of the methods ``virefsam`` and ``training_free``.
        support: How the references are marked: ``mask`` in full, ``scribble`` by simulated strokes.

    Returns:
        The record, also written to ``job.report`` as JSON; undefined ratios are ``None``.

    Raises:
        RefSAMError: If the folder or a method's name is invalid, a checkpoint is missing, or the report is not
            writable.
        JobCancelled: If the user asked for it.
    """
    unknown = [method for method in job.methods if method not in (*LEARNED_METHODS, RANDOM_FOREST)]
    if unknown or not job.methods:
        known = ", ".join((*LEARNED_METHODS, RANDOM_FOREST))
        raise RefSAMError("input", f"Methods {list(job.methods)} are not all known; use one or more of {known}.")
    if support not in SUPPORTS:
        raise RefSAMError("input", f"Support '{support}' is unknown; use one of {', '.join(SUPPORTS)}.")
    with OutputFiles({"report": job.report}, {"report": (".json",)}, []) as outputs:
        folder = scan_folder(Path(job.folder))
        episodes = draw_episodes(folder, job.shots, job.episodes, job.seed)
        results = {}
        for position, method in enumerate(job.methods):
            progress = MethodProgress(reporter, method, position, len(job.methods))
            segmenter = build_segmenter(method, job, load)
            results[method] = evaluate_method(segmenter, folder, episodes, support, progress)
        record = _record(job, support, folder, episodes, results)
        if (path := outputs["report"]) is not None:
            with disk_errors(path), open(path, "w", encoding="utf-8") as stream:
                json.dump(record, stream, ensure_ascii=False, indent=2)
        outputs.commit()
    return record


def build_segmenter(method: str, job: ProtocolJob, load: Loader) -> ReferenceSegmenter:
    """Build the segmenter behind a method's name.

    Raises:
        RefSAMError: If a checkpoint cannot be loaded, or scikit-learn is not there for the random forest.
    """
    if method == RANDOM_FOREST:
        return _build_random_forest(job.seed)
    return load(replace(job.model, method=method))


def _build_random_forest(seed: int) -> ReferenceSegmenter:
    # scikit-learn and SciPy serve comparison alone and are not part of a user's environment.
    try:
        from .baselines.random_forest import RandomForestSegmenter
    except ImportError as error:
        raise RefSAMError(
            "environment", f"Method '{RANDOM_FOREST}' needs scikit-learn; install requirements/dev.txt or leave it out."
        ) from error
    return RandomForestSegmenter(seed)


def evaluate_method(
    segmenter: ReferenceSegmenter,
    folder: ImageFolder,
    episodes: Sequence[Episode],
    support: str,
    progress: MethodProgress,
) -> MethodResult:
    """Run all episodes through one method."""
    metrics = FewShotMetrics()
    describing = searching = 0.0
    for done, (episode, found) in enumerate(search_all(segmenter, folder, episodes, support)):
        label = folder.read_label(folder.samples[episode.query], episode.class_id)
        metrics.add(episode.class_id, found.logits, label)
        describing += found.describing_seconds
        searching += found.searching_seconds
        progress.report(done + 1, len(episodes))
    return MethodResult(metrics, str(segmenter.device), describing / len(episodes), searching / len(episodes))


class MethodProgress:
    """The share of the whole job that one method is."""

    def __init__(self, reporter: Reporter, method: str, position: int, methods: int) -> None:
        self._reporter = reporter
        self._method = method
        self._position = position
        self._methods = methods
        self._start = time.monotonic()

    def report(self, done: int, episodes: int) -> None:
        """Tell how many episodes are done.

        Raises:
            JobCancelled: If the user asked for it.
        """
        check_cancelled(self._reporter)
        fraction = (self._position + done / episodes) / self._methods
        elapsed = time.monotonic() - self._start
        # The methods still to come are taken to be as fast as this one.
        remaining = elapsed * ((self._methods - self._position) * episodes / done - 1)
        self._reporter.progress(fraction, f"{self._method}: episode {done} of {episodes}", remaining)


def _record(
    job: ProtocolJob,
    support: str,
    folder: ImageFolder,
    episodes: Sequence[Episode],
    results: dict[str, MethodResult],
) -> dict[str, Any]:
    drawn = Counter(episode.class_id for episode in episodes)
    return {
        "folder": job.folder,
        "shots": job.shots,
        "episodes": job.episodes,
        "seed": job.seed,
        "support": support,
        "crop": CROP,
        "min_pixels": MIN_PIXELS,
        "samples": len(folder.samples),
        "episodes_per_class": {folder.names[i]: drawn[i] for i in sorted(drawn)},
        "methods": {method: _method_record(result, folder.names) for method, result in results.items()},
        "models": {
            method: describe_model(replace(job.model, method=method)) for method in results if method != RANDOM_FOREST
        },
        "versions": _versions(job.methods),
    }


def _versions(methods: Sequence[str]) -> dict[str, str]:
    packages = ["torch", "numpy", "pillow"] + (["scipy", "scikit-learn"] if RANDOM_FOREST in methods else [])
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _method_record(result: MethodResult, names: dict[int, str]) -> dict[str, Any]:
    metrics = result.metrics
    return {
        "miou": _ratio(metrics.miou),
        "fb_iou": _ratio(metrics.fb_iou),
        "class_iou": {names[i]: _ratio(value) for i, value in metrics.class_iou.items()},
        "mean_episode_iou_diagnostic": _ratio(metrics.mean_episode_iou),
        "seconds_per_image": round(result.seconds_per_image, 4),
        "seconds_per_reference_set": round(result.seconds_per_reference_set, 4),
        "device": result.device,
    }


def _ratio(value: float) -> float | None:
    """Round a ratio for the record; JSON knows no NaN."""
    return None if math.isnan(value) else round(value, 4)
