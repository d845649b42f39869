"""What a protocol says of its methods: the JSON record, and the table for people."""

from __future__ import annotations

import csv
import math
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import stdev
from typing import Any

import torch

from refsam_qgis import __version__

from ..job import ProtocolJob, to_dict
from ..models.precision import name_precision
from .datasets import Benchmark, PublishedDataset
from .episodes import Episode
from .measure import MethodResult
from .methods import PIXEL_METHODS, least_probability
from .metrics import mean_defined

COLUMNS = ("method", "shots", "support", "mIoU %", "± runs", "FB-IoU %", "± runs", "s/image", "s/references")


@dataclass(frozen=True)
class FoldEpisodes:
    """The episodes of one run of one fold.

    Attributes:
        seed: Of the run.
        fold: Number of the fold, from 0.
        episodes: The list.
    """

    seed: int
    fold: int
    episodes: Sequence[Episode]


def method_record(
    method: str,
    lists: Sequence[FoldEpisodes],
    results: Sequence[MethodResult],
    names: dict[int, str],
    device: torch.device,
) -> dict[str, Any]:
    """Return what one method reached.

    A run's figure is the mean over its folds, the method's the mean over its runs; deviations are those of the sample
    of runs, ``None`` where there is but one.

    Args:
        method: Its name.
        lists: Episodes of each run and fold.
        results: What the method made of each.
        names: Names of the classes.
        device: Where it ran.
    """
    parts: dict[int, list[dict[str, Any]]] = {}
    for part, result in zip(lists, results, strict=True):
        metrics = result.metrics
        parts.setdefault(part.seed, []).append(
            {
                "fold": part.fold,
                "miou": metrics.miou,
                "fb_iou": metrics.fb_iou,
                "class_iou": {names[i]: value for i, value in metrics.class_iou.items()},
                "mean_episode_iou_diagnostic": metrics.mean_episode_iou,
            }
        )
    ratios = ("miou", "fb_iou", "mean_episode_iou_diagnostic")
    runs: list[dict[str, Any]] = [
        {"seed": seed, **{name: mean_defined([fold[name] for fold in folds]) for name in ratios}, "folds": folds}
        for seed, folds in parts.items()
    ]
    classes = sorted({i for result in results for i in result.metrics.class_iou})
    record = {
        "miou": mean_defined([run["miou"] for run in runs]),
        "miou_std": _deviation([run["miou"] for run in runs]),
        "fb_iou": mean_defined([run["fb_iou"] for run in runs]),
        "fb_iou_std": _deviation([run["fb_iou"] for run in runs]),
        "class_iou": {
            names[i]: mean_defined([r.metrics.class_iou[i] for r in results if i in r.metrics.class_iou])
            for i in classes
        },
        "mean_episode_iou_diagnostic": mean_defined([run["mean_episode_iou_diagnostic"] for run in runs]),
        "seconds_per_image": sum(result.seconds_per_image for result in results) / len(results),
        "seconds_per_reference_set": sum(result.seconds_per_reference_set for result in results) / len(results),
        "threshold": least_probability(method),
        "device": str(device),
        "precision": None if method in PIXEL_METHODS else name_precision(device),
        "runs": runs,
    }
    rounded: dict[str, Any] = _rounded(record)
    return rounded


def protocol_record(
    job: ProtocolJob,
    benchmark: Benchmark,
    min_pixels: int,
    dataset: PublishedDataset,
    data: dict[str, Any],
    lists: Sequence[FoldEpisodes],
    left_out: list[str],
    methods: dict[str, dict[str, Any]],
    models: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return the record of a run: everything that its figures depend on, and the figures.

    Args:
        job: What was asked for.
        benchmark: How the data set was used.
        min_pixels: Fewest pixels of a class that counts as present.
        dataset: What was searched.
        data: What `describe_data` says of its files.
        lists: Episodes of each run and fold.
        left_out: Names of the classes that no episode seeks.
        methods: The `method_record` of each method.
        models: What `describe_model` says of the network of each method that has one.
    """
    drawn = Counter(episode.class_id for part in lists for episode in part.episodes)
    return {
        "job": to_dict(job),
        "protocol": job.protocol,
        "folder": job.folder,
        "folds": sorted({part.fold for part in lists}),
        "shots": job.shots,
        "episodes": job.episodes,
        "runs": job.runs,
        "seed": job.seed,
        "support": job.support,
        "crop": benchmark.crop,
        "min_pixels": min_pixels,
        "samples": len(dataset.samples),
        "data": {**data, "images_without_mask": len(dataset.unlabelled)},
        "episodes_per_class": {dataset.names[i]: drawn[i] for i in sorted(drawn)},
        "classes_left_out": left_out,
        "methods": methods,
        "models": models,
        "versions": _versions(job.methods),
    }


def protocol_table(record: dict[str, Any]) -> str:
    """Return the figures of a `protocol_record` as text in columns, one line a method."""
    rows = [list(COLUMNS), *_rows(record)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(f"{cell:{'>' if column else '<'}{widths[column]}}" for column, cell in enumerate(row)) for row in rows
    )


def write_table(record: dict[str, Any], path: str) -> None:
    """Write the figures of a `protocol_record` as CSV, one row a method."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *_rows(record, unknown="")])


def _rows(record: dict[str, Any], unknown: str = "–") -> list[list[str]]:
    return [
        [
            method,
            str(record["shots"]),
            record["support"],
            *(
                unknown if found[name] is None else f"{100 * found[name]:.2f}"
                for name in ("miou", "miou_std", "fb_iou", "fb_iou_std")
            ),
            f"{found['seconds_per_image']:.2f}",
            f"{found['seconds_per_reference_set']:.2f}",
        ]
        for method, found in record["methods"].items()
    ]


def _versions(methods: Sequence[str]) -> dict[str, str]:
    packages = ["torch", "numpy", "pillow"] + (["scipy", "scikit-learn"] if set(methods) & set(PIXEL_METHODS) else [])
    return {
        "refsam": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _deviation(values: list[float]) -> float:
    """Standard deviation of a sample; NaN of fewer than two values."""
    defined = [value for value in values if not math.isnan(value)]
    return stdev(defined) if len(defined) > 1 else math.nan


def _rounded(value: Any) -> Any:
    """Round every number of a record; JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    return value
