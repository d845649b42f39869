"""Runs few-shot episodes through one method after the other and reports how each did (method A7)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RefSAMError
from ..events import Reporter, check_cancelled
from ..image_folder import CLASSES
from ..job import ProtocolJob
from ..models.checkpoints import load_segmenter
from ..models.weight_files import describe_model
from ..rasters.outputs import OutputFiles, disk_errors
from .data_digest import describe_data
from .datasets import Benchmark, Dataset, PublishedDataset, find_benchmark
from .episodes import draw_episodes, draw_seeds
from .measure import evaluate_method
from .methods import Loader, build_segmenter, least_probability, network_options
from .pictures import PictureRow, draw_pictures, picture_rows
from .protocol_record import FoldEpisodes, method_record, protocol_record, protocol_table, write_table
from .search import Encodings


def run_protocol(job: ProtocolJob, reporter: Reporter, load: Loader = load_segmenter) -> dict[str, Any]:
    """Measure the methods of a job on the same episodes.

    Args:
        job: What to measure.
        reporter: Told of the progress and the table of figures, asked for cancellation after each episode.
        load: Builds the segmenters that are RefSAM's own.

    Returns:
        The record, also written to ``job.report`` as JSON; undefined ratios are ``None``.

    Raises:
        RefSAMError: If the data set is missing or invalid, a method lacks weights or packages, or an output is not
            writable or would replace a file of the data set; all before the first episode.
        JobCancelled: If the user asked for it.
    """
    paths = {"report": job.report, "picture": job.picture, "table": job.table}
    suffixes = {"report": (".json",), "picture": (".png",), "table": (".csv",)}
    with OutputFiles(paths, suffixes, [str(Path(job.folder, CLASSES))]) as outputs:
        benchmark = find_benchmark(job.protocol)
        min_pixels = benchmark.min_pixels if job.min_pixels is None else job.min_pixels
        dataset = benchmark.scan(Path(job.folder), min_pixels, reporter)
        files = {file for sample in dataset.samples for file in (sample.image, sample.mask)}
        outputs.spare(files)
        _tell_unlabelled(dataset, reporter)
        lists = _draw_lists(job, benchmark, dataset)
        left_out = _left_out(benchmark, dataset, lists)
        if left_out:
            reporter.log(
                f"No mean holds {', '.join(left_out)}: present with {min_pixels} pixels in fewer than {job.shots + 1} "
                "images, or not drawn in so few episodes."
            )
        _read_images(dataset, lists, reporter)
        if benchmark.names is not None:
            files.add(Path(job.folder, benchmark.names))
        data = describe_data(Path(job.folder), files, reporter)
        _try_to_build(job, reporter, load)
        methods, models, rows = {}, {}, []
        progress = _Progress(reporter, len(job.methods) * len(lists) * job.episodes)
        for method in job.methods:
            if (options := network_options(method, job.model)) is not None:
                models[method] = describe_model(options)  # while the files are those that are loaded
            methods[method], pictures = _measure(job, method, dataset, lists, progress, load)
            rows += pictures
        record = protocol_record(job, benchmark, min_pixels, dataset, data, lists, left_out, methods, models)
        if (path := outputs["report"]) is not None:
            with disk_errors(path), open(path, "w", encoding="utf-8", errors="backslashreplace") as stream:
                json.dump(record, stream, ensure_ascii=False, indent=2)
        if (path := outputs["table"]) is not None:
            with disk_errors(path):
                write_table(record, path)
        if (path := outputs["picture"]) is not None:
            with disk_errors(path):
                draw_pictures(rows).save(path)
        outputs.commit()
    reporter.log(protocol_table(record))
    return record


def _draw_lists(job: ProtocolJob, benchmark: Benchmark, dataset: Dataset) -> list[FoldEpisodes]:
    """Draw the episode list of each fold and run."""
    classes = _classes_of_folds(benchmark, dataset)
    folds = range(len(classes)) if job.folds is None else job.folds
    beyond = [fold for fold in folds if fold >= len(classes)]
    if beyond:
        last = len(classes) - 1
        raise RefSAMError("input", f"Protocol '{job.protocol}' has no fold {beyond[0]}; its folds are 0 to {last}.")
    return [
        FoldEpisodes(seed, fold, draw_episodes(dataset, job.shots, job.episodes, seed, classes[fold]))
        for fold in folds
        for seed in draw_seeds(job.seed, job.runs)
    ]


def _classes_of_folds(benchmark: Benchmark, dataset: Dataset) -> tuple[tuple[int, ...], ...]:
    return benchmark.folds or (tuple(sorted(dataset.names)),)


def _left_out(benchmark: Benchmark, dataset: Dataset, lists: Sequence[FoldEpisodes]) -> list[str]:
    """Return the names of the classes of the folds measured that no episode seeks."""
    classes = _classes_of_folds(benchmark, dataset)
    sought = {episode.class_id for part in lists for episode in part.episodes}
    return [
        dataset.names[i] for fold in sorted({part.fold for part in lists}) for i in classes[fold] if i not in sought
    ]


def _tell_unlabelled(dataset: PublishedDataset, reporter: Reporter) -> None:
    """Tell of images that lie there in vain: a mask may be missing, or be called otherwise than it has to."""
    if not dataset.unlabelled:
        return
    first, count = dataset.unlabelled[0], len(dataset.unlabelled)
    such = f"1 image has no mask and is left out: '{first}'"
    if count > 1:
        such = f"{count} images have no masks and are left out, the first of them '{first}'"
    reporter.log(f"{such}; add what is missing, named as the other masks are, or remove what is not to be measured.")


def _read_images(dataset: Dataset, lists: Sequence[FoldEpisodes], reporter: Reporter) -> None:
    """Read each image of the episodes once: a damaged one is so told before the first of them, and not after hours.

    Raises:
        RefSAMError: With code ``input`` if one cannot be read.
        JobCancelled: If the user asked for it.
    """
    used = {index for part in lists for episode in part.episodes for index in (episode.query, *episode.supports)}
    for sample in {dataset.samples[index].image: dataset.samples[index] for index in used}.values():
        check_cancelled(reporter)
        dataset.read_image(sample)


def _try_to_build(job: ProtocolJob, reporter: Reporter, load: Loader) -> None:
    """Build each method whose turn comes later once and let go of it, as several networks may not fit into memory.

    What a method lacks (weights, adapters, packages) is so told before the episodes of others, and not after hours.

    Raises:
        RefSAMError: As of `build_segmenter`.
        JobCancelled: If the user asked for it.
    """
    for method in job.methods[1:]:
        check_cancelled(reporter)
        build_segmenter(method, job.model, job.seed, load)


def _measure(
    job: ProtocolJob,
    method: str,
    dataset: Dataset,
    lists: Sequence[FoldEpisodes],
    progress: _Progress,
    load: Loader,
) -> tuple[dict[str, Any], list[PictureRow]]:
    """Run all episodes through one method and let go of it, its encodings included, before the next is built.

    Returns:
        The `method_record`, and what is drawn of it if the job asks for a picture.
    """
    progress.method = method
    encodings = Encodings(build_segmenter(method, job.model, job.seed, load), dataset)
    segmenter = encodings.segmenter
    least = least_probability(method)
    results = [
        evaluate_method(segmenter, dataset, part.episodes, job.support, progress.step, encodings, least)
        for part in lists
    ]
    record = method_record(method, lists, results, dataset.names, segmenter.device)
    return record, [] if job.picture is None else picture_rows(method, encodings, results, job.support)


class _Progress:
    """Counts the episodes of all methods, runs and folds."""

    def __init__(self, reporter: Reporter, episodes: int) -> None:
        self.method = ""
        self._reporter = reporter
        self._episodes = episodes
        self._done = 0
        self._start = time.monotonic()

    def step(self, *found: object) -> None:
        """Tell that one more episode is done.

        Raises:
            JobCancelled: If the user asked for it.
        """
        check_cancelled(self._reporter)
        self._done += 1
        # The methods still to come are taken to be as fast as those so far.
        remaining = (time.monotonic() - self._start) * (self._episodes / self._done - 1)
        text = f"{self.method}: episode {self._done} of {self._episodes}"
        self._reporter.progress(self._done / self._episodes, text, remaining)
