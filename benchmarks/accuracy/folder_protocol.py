"""Few-shot accuracy of the methods on folders of labelled images: mIoU and FB-IoU by the field's protocol.

    python -m benchmarks.accuracy.folder_protocol --data DIR --datasets pools roads --shots 1 5 --episodes 200

Each dataset is a sub-folder of DIR with ``NAME.jpg|png|tif``, ``NAME_mask.png`` and ``classes.json``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation import run_protocol
from refsam_qgis.engine.evaluation.protocol import SUPPORTS
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.job import ProtocolJob

from .options import RECORDS, add_model, markdown_table, model_options, percent
from .pictures import save_pictures


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    arguments = _parse()
    try:
        records = [
            _measure(arguments, dataset, shots)
            for dataset, shots in itertools.product(arguments.datasets, arguments.shots)
        ]
    except RefSAMError as error:
        sys.exit(str(error))
    print(_table(records))
    arguments.record.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Few-shot accuracy on folders of labelled images.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--datasets", nargs="+", default=["pools_cannes", "epfl_roads", "spacenet_rio"])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--episodes", type=int, default=ProtocolJob.episodes)
    parser.add_argument("--seed", type=int, default=ProtocolJob.seed)
    parser.add_argument("--support", choices=SUPPORTS, default="mask", help="how the references are marked")
    parser.add_argument("--record", type=Path, default=RECORDS / "folder_protocol.json", help="JSON to write")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of good, middling and bad episodes")
    add_model(parser)
    return parser.parse_args()


def _measure(arguments: argparse.Namespace, dataset: str, shots: int) -> dict[str, Any]:
    job = ProtocolJob(
        folder=str(arguments.data / dataset),
        methods=tuple(arguments.methods),
        model=model_options(arguments),
        shots=shots,
        episodes=arguments.episodes,
        seed=arguments.seed,
    )
    record = run_protocol(job, SilentReporter(), support=arguments.support)
    if arguments.pictures:
        save_pictures(job, arguments.support, arguments.pictures)
    # Where the data lie is of no interest to whoever reads the record.
    return {**record, "folder": dataset}


def _table(records: list[dict[str, Any]]) -> str:
    header = ["dataset", "shots", "method", "mIoU %", "FB-IoU %", "s/image", "s/references", "episodes"]
    rows = [
        [
            record["folder"],
            str(record["shots"]),
            method,
            percent(result["miou"]),
            percent(result["fb_iou"]),
            f"{result['seconds_per_image']:.2f}",
            f"{result['seconds_per_reference_set']:.2f}",
            str(record["episodes"]),
        ]
        for record in records
        for method, result in record["methods"].items()
    ]
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
