"""Accuracy, speed and memory on one large raster: references from one ninth of a mosaic, measured on the other eight.

    python -m benchmarks.accuracy.dubai_mosaic --data DIR [--max-references 10] [--qgis qgis_process]

DIR holds ``dubai_tile7.tif`` and ``dubai_tile7_mask.tif`` (class ids of "Semantic segmentation of aerial imagery",
MBRSC / Humans in the Loop). All methods see the same references through the same raster path, and each marks from its
own threshold, as in the protocol.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.methods import least_probability
from refsam_qgis.engine.evaluation.metrics import Overlap
from refsam_qgis.engine.job import METHODS, ReferenceSource, SegmentJob, SegmentOutputs

from .mosaic_references import Ninth, choose_ninth, cut_references
from .mosaic_run import run_alone
from .options import RECORDS, add_model, markdown_table, model_options, percent, record_path

CLASSES = {"water": 1, "building": 4, "vegetation": 5}
UNLABELLED = 0


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    arguments = _parse()
    with tempfile.TemporaryDirectory(prefix="refsam-mosaic-") as scratch:
        work = arguments.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        try:
            record = _measure(arguments, work)
        except RefSAMError as error:
            sys.exit(str(error))
    print(_table(record))
    arguments.record.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy, speed and memory on one large raster.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the mosaic and its mask")
    parser.add_argument(
        "--max-references",
        type=int,
        default=0,
        help="outlines of each class, the largest first, as partial annotation; 0: all of them, as complete annotation",
    )
    parser.add_argument("--qgis", metavar="QGIS_PROCESS", help="run the Processing algorithm with this executable")
    parser.add_argument("--work", type=Path, help="folder that keeps references and results")
    parser.add_argument("--record", type=record_path, default=RECORDS / "dubai_mosaic.json", help="JSON to write")
    add_model(parser, ("virefsam", "training_free", "random_forest"))
    return parser.parse_args()


def _measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    image_path, truth_path = arguments.data / "dubai_tile7.tif", arguments.data / "dubai_tile7_mask.tif"
    for path in (image_path, truth_path):
        if not path.is_file():
            raise RefSAMError("input", f"'{path}' is not there; give the folder of the mosaic and its mask as --data.")
    with rasterio.open(image_path) as image, rasterio.open(truth_path) as truth:
        ninth = choose_ninth(truth, CLASSES)
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in ninth.shares.items())
        print(
            f"References: ninth in row {ninth.row + 1}, column {ninth.column + 1}, whose rarest class has the", end=""
        )
        print(f" largest share ({shares})")
        raster, vector, counts = cut_references(image, truth, ninth, CLASSES, arguments.max_references, work)
    annotation = "partial" if arguments.max_references else "complete"
    source = ReferenceSource(str(vector), str(raster), class_field="class", annotation=annotation)
    job = SegmentJob(str(image_path), source, model=model_options(arguments))
    return {
        "ninth": [ninth.row, ninth.column],
        "shares": {name: round(share, 4) for name, share in ninth.shares.items()},
        "annotation": annotation,
        "references": counts,
        "model": arguments.model,
        "through": "qgis_process" if arguments.qgis else "engine",
        "methods": {
            method: _measure_method(job, method, arguments.qgis, work, truth_path, ninth)
            for method in arguments.methods
        },
    }


def _measure_method(
    job: SegmentJob, method: str, qgis_process: str | None, work: Path, truth_path: Path, ninth: Ninth
) -> dict[str, Any]:
    mask = work / f"{method}.tif"
    # A baseline's job names no method of the product and has no report, which would describe the product's weights.
    own = method in METHODS
    model = replace(job.model, method=method) if own else job.model
    report = str(work / f"{method}.json") if own else None
    outputs = SegmentOutputs(polygons=str(work / f"{method}.gpkg"), mask=str(mask), report=report)
    threshold = least_probability(method)
    result, peak = run_alone(replace(job, model=model, outputs=outputs, threshold=threshold), method, qgis_process)
    ids = {summary["name"]: summary["id"] for summary in result["classes"]}
    overlaps = _overlaps(mask, truth_path, ninth, ids)
    return {
        "class_iou": {name: round(overlap.iou, 4) for name, overlap in overlaps.items()},
        "mean_iou": round(float(np.mean([overlap.iou for overlap in overlaps.values()])), 4),
        "object_count": result["object_count"],
        "tiles": result["tiles"],
        "tile_size": result["tile_size"],
        "seconds": result["seconds"],
        "seconds_per_tile": result["seconds_per_tile"],
        "peak_memory_mib": round(peak / 2**20),
        "device": result["device"],
        "threshold": threshold,
    }


def _overlaps(mask_path: Path, truth_path: Path, ninth: Ninth, ids: dict[str, int]) -> dict[str, Overlap]:
    """Compare the result with the truth outside the reference ninth, strip by strip."""
    overlaps = {name: Overlap() for name in CLASSES}
    with rasterio.open(mask_path) as mask, rasterio.open(truth_path) as truth:
        for top in range(0, truth.height, 512):
            window = Window(0, top, truth.width, min(512, truth.height - top))
            expected = truth.read(1, window=window)
            counted = (expected != UNLABELLED) & ~_inside(ninth.window, window)
            found = mask.read(1, window=window)[counted]
            expected = expected[counted]
            for name, overlap in overlaps.items():
                overlap.add(found == ids[name], expected == CLASSES[name])
    return overlaps


def _inside(ninth: Window, strip: Window) -> NDArray[np.bool_]:
    """Return which pixels ``(H, W)`` of a full-width strip lie in the ninth."""
    (top, bottom), (left, right) = ninth.toranges()
    rows = np.arange(strip.row_off, strip.row_off + strip.height)
    columns = np.arange(strip.width)
    inside: NDArray[np.bool_] = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
    return inside


def _table(record: dict[str, Any]) -> str:
    header = ["method", *(f"{name} IoU %" for name in CLASSES), "mean IoU %", "s/tile", "tiles", "s", "peak MiB"]
    rows = [
        [
            method,
            *(percent(result["class_iou"][name]) for name in CLASSES),
            percent(result["mean_iou"]),
            f"{result['seconds_per_tile']:.2f}",
            str(result["tiles"]),
            f"{result['seconds']:.0f}",
            str(result["peak_memory_mib"]),
        ]
        for method, result in record["methods"].items()
    ]
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
