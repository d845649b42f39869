"""Every method on every data set by the few-shot protocol: mIoU, FB-IoU, calibration error and seconds.

    python -m benchmarks.accuracy.protocol_table --data DATA [--fold-weights DIR] [--methods virefsam random_forest]

All methods see the same episodes. Finished cells (data set, shots, support, method) are kept in the record and are not
measured again while data, settings, the method's threshold and weights are the same, so the table can be filled call by
call. A change of the code is not noticed: --redo measures anew.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from refsam_qgis.engine.evaluation.calibration import Reliability
from refsam_qgis.engine.evaluation.episodes import draw_seeds
from refsam_qgis.engine.evaluation.measure import evaluate_method
from refsam_qgis.engine.evaluation.methods import build_segmenter, least_probability, network_options
from refsam_qgis.engine.evaluation.protocol_record import FoldEpisodes, method_record
from refsam_qgis.engine.evaluation.search import Encodings
from refsam_qgis.engine.image_folder import CROP, MIN_PIXELS
from refsam_qgis.engine.job import SUPPORTS, ModelOptions, ProtocolJob
from refsam_qgis.engine.models.checkpoints import load_segmenter
from refsam_qgis.engine.models.weight_files import describe_model

from .cells import Cells, Fields
from .data_sets import FOLDERS, FOLDS, DataSets, Fold, draw_fold, open_data_sets
from .options import RECORDS, add_fold_weights, add_model, count, fold_options, model_options, record_path, seed
from .protocol_figures import summary_table, table
from .shared_encodings import SharedEncodings

RECORD = RECORDS / "protocol_table.json"


def main() -> None:
    """Measure what the record lacks, and print the table of all that it holds."""
    arguments = _parse()
    cells = Cells(arguments.record)
    with open_data_sets(arguments.data) as data:
        shared = SharedEncodings()
        for part in _parts(arguments):
            _measure(arguments, data, part, cells, shared)
    print(table(cells))
    print()
    print(summary_table(cells))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Few-shot accuracy of all methods on all data sets.")
    parser.add_argument("--data", type=Path, required=True, help="folder of train/ and eval/")
    parser.add_argument("--datasets", nargs="+", choices=FOLDERS, default=list(FOLDERS))
    parser.add_argument("--shots", type=count, nargs="+", default=[1, 5])
    parser.add_argument("--supports", nargs="+", choices=SUPPORTS, default=["mask", "scribble"])
    parser.add_argument("--episodes", type=count, default=ProtocolJob.episodes, help="of each run (and fold)")
    parser.add_argument("--runs", type=count, default=1, help="episode lists, each of another seed")
    parser.add_argument("--seed", type=seed, default=ProtocolJob.seed)
    parser.add_argument("--record", type=record_path, default=RECORD, help="JSON to read and to write")
    parser.add_argument("--redo", action="store_true", help="measure finished cells again")
    add_fold_weights(parser)
    add_model(parser)
    return parser.parse_args()


@dataclass(frozen=True)
class Part:
    """One method with one set of weights on one data set, or on one fold of it."""

    dataset: str
    fold: Fold | None
    method: str
    model: ModelOptions
    seen: bool
    """Whether the weights were trained on these images."""


def _parts(arguments: argparse.Namespace) -> Iterator[Part]:
    for dataset, method in itertools.product(arguments.datasets, arguments.methods):
        for fold in FOLDS.get(dataset, (None,)):
            model = model_options(arguments)
            without_network = network_options(method, model) is None
            if fold is not None and arguments.fold_weights is not None and not without_network:
                model = fold_options(model, arguments.fold_weights, str(fold))
            seen = fold is not None and arguments.fold_weights is None and not without_network
            yield Part(dataset, fold, method, model, seen)


def _measure(arguments: argparse.Namespace, data: DataSets, part: Part, cells: Cells, shared: SharedEncodings) -> None:
    """Measure the cells of one part; they share the encodings, which take most of the time."""
    options = network_options(part.method, part.model)
    settings: Fields = {
        "episodes": arguments.episodes,
        "runs": arguments.runs,
        "seed": arguments.seed,
        "crop": CROP,
        "min_pixels": MIN_PIXELS,
        "threshold": least_probability(part.method),
        "data_sha256": data.digest(part.dataset),
        "model": None if options is None else describe_model(options),
        "trained_on_it": part.seen,
    }
    encodings = None
    for shots, support in itertools.product(arguments.shots, arguments.supports):
        key = {
            "dataset": part.dataset,
            "fold": None if part.fold is None else str(part.fold),
            "shots": shots,
            "support": support,
            "method": part.method,
        }
        if cells.has(key, settings) and not arguments.redo:
            continue
        if encodings is None:
            segmenter = build_segmenter(part.method, part.model, arguments.seed, load_segmenter)
            sam = None if options is None else settings["model"]["checkpoint_sha256"]
            encodings = shared.of(segmenter, data.scan(part.dataset), sam)
        start = time.monotonic()
        cells.put(key, settings, _run(arguments, data, part, encodings, shots, support))
        print(*(value for value in key.values() if value), f"{time.monotonic() - start:.0f} s", file=sys.stderr)


def _run(
    arguments: argparse.Namespace, data: DataSets, part: Part, encodings: Encodings, shots: int, support: str
) -> Fields:
    """Measure one cell."""
    folder = data.scan(part.dataset)
    reliability = Reliability()
    lists = [
        FoldEpisodes(seed, 0, draw_fold(folder, part.fold, shots, arguments.episodes, seed))
        for seed in draw_seeds(arguments.seed, arguments.runs)
    ]
    segmenter = encodings.segmenter
    least = least_probability(part.method)
    results = [
        evaluate_method(
            segmenter, folder, run.episodes, support, lambda _, *found: reliability.add(*found), encodings, least
        )
        for run in lists
    ]
    return {
        **method_record(part.method, lists, results, folder.names, segmenter.device),
        "ece": round(reliability.ece, 4),
        "brier": round(reliability.brier, 4),
        "bin_counts": reliability.counts.tolist(),
        "bin_positives": reliability.positives.tolist(),
        "bin_sums": [round(value, 2) for value in reliability.sums.tolist()],
        "squares": round(reliability.squares, 2),
    }


if __name__ == "__main__":
    main()
