"""What the methods mark on targets that hold none of the class: mean share of pixels, and how many stay nearly empty.

    python -m benchmarks.accuracy.false_alarms --data DATA [--methods virefsam random_forest]

One reference, marked in full, from another image. Finished cells are kept in the record, as in `protocol_table`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

from refsam_qgis.engine.evaluation.false_alarms import QUIET, FalseAlarms, draw_empty_episodes
from refsam_qgis.engine.evaluation.measure import evaluate_method
from refsam_qgis.engine.evaluation.methods import build_segmenter, least_probability, network_options
from refsam_qgis.engine.job import PROTOCOL_METHODS
from refsam_qgis.engine.models.checkpoints import load_segmenter
from refsam_qgis.engine.models.weight_files import describe_model

from .cells import Cells, Fields
from .data_sets import FOLDS, GENERATED, DataSets, open_data_sets
from .options import RECORDS, add_model, count, markdown_table, model_options, percent, record_path, seed


@dataclass(frozen=True)
class Search:
    """Where references and targets come from.

    Attributes:
        references: Data set of the references.
        targets: Data set of the targets.
        absent: Classes that the targets do not label, but that a look at every image did not find.
    """

    references: str
    targets: str
    absent: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.references} → {self.targets}"


SEARCHES = (
    Search(GENERATED, GENERATED),
    Search("dubai", "dubai"),
    Search("pools_cannes", "epfl_roads", ("swimming_pool",)),
    Search("epfl_roads", "dubai"),
    Search("spacenet_rio", "dubai"),
)
"""All images of the last three data sets show their class, so its absence is looked for elsewhere."""


def main() -> None:
    """Measure what the record lacks, and print the table of all that it holds."""
    arguments = _parse()
    cells = Cells(arguments.record)
    with open_data_sets(arguments.data) as data:
        for search, method in itertools.product(SEARCHES, arguments.methods):
            _measure(arguments, data, search, method, cells)
    print(_table(cells))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the methods mark where there is nothing to find.")
    parser.add_argument("--data", type=Path, required=True, help="folder of train/ and eval/")
    parser.add_argument("--targets", type=count, default=50, help="of each pair of data sets")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument(
        "--record", type=record_path, default=RECORDS / "false_alarms.json", help="JSON to read and to write"
    )
    parser.add_argument("--redo", action="store_true", help="measure finished cells again")
    add_model(parser)
    return parser.parse_args()


def _measure(arguments: argparse.Namespace, data: DataSets, search: Search, method: str, cells: Cells) -> None:
    options = network_options(method, model_options(arguments))
    key = {"references": search.references, "targets": search.targets, "method": method}
    settings: Fields = {
        "targets": arguments.targets,
        "seed": arguments.seed,
        "threshold": least_probability(method),
        "references_sha256": data.digest(search.references),
        "targets_sha256": data.digest(search.targets),
        "model": None if options is None else describe_model(options),
        "trained_on_it": search.targets in FOLDS and options is not None,
    }
    if cells.has(key, settings) and not arguments.redo:
        return
    references, targets = data.scan(search.references), data.scan(search.targets)
    dataset, episodes = draw_empty_episodes(references, targets, arguments.targets, arguments.seed, search.absent)
    alarms = FalseAlarms(settings["threshold"])
    segmenter = build_segmenter(method, model_options(arguments), arguments.seed, load_segmenter)
    evaluate_method(segmenter, dataset, episodes, "mask", lambda _, *found: alarms.add(*found))
    result: Fields = {
        "mean_share": round(alarms.mean_share, 5),
        "quiet": round(alarms.quiet, 4),
        "shares": [round(share, 5) for share in alarms.shares],
        "classes": {name: sum(e.class_id == i for e in episodes) for i, name in references.names.items()},
    }
    cells.put(key, settings, result)
    print(search, method, percent(alarms.mean_share), file=sys.stderr)


def _table(cells: Cells) -> str:
    header = ["references → targets", "method", "pixels marked %", f"targets with < {100 * QUIET:.0f} % marked, %", "n"]
    order = [(s.references, s.targets, method) for s in SEARCHES for method in PROTOCOL_METHODS]
    found = {tuple(cell["key"][name] for name in ("references", "targets", "method")): cell for cell in cells}
    rows = []
    for key in (key for key in order if key in found):
        settings, result = found[key]["settings"], found[key]["result"]
        seen = " (trained on it)" if settings["trained_on_it"] else ""
        figures = [percent(result["mean_share"]), percent(result["quiet"]), str(settings["targets"])]
        rows.append([f"{key[0]} → {key[1]}{seen}", key[2], *figures])
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
