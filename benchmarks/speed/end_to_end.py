"""Seconds per megapixel of a whole run, and where they go.

    python -m benchmarks.speed.end_to_end --raster RASTER [--models compact stand-in] [--times 3]

The models take turns, each run in a fresh process, and the median is told. Of the model ``stand-in``, which costs
the CPU nothing, what is left is the raster path; with ``--answer-ms`` it is told beside a model on another device.
References are squares at the raster's upper left; what they show does not matter here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from refsam_qgis.engine.job import MODELS, ModelOptions, RasterOptions, ReferenceSource, SegmentJob, SegmentOutputs

from ..accuracy.options import markdown_table
from .measured_run import RECORDS, STAND_IN, Measured, StandIn, run_alone, scratch, square_marks

SAMPLE = Path(__file__).resolve().parents[2] / "sample" / "scene.tif"
STAGES = ("read", "encode", "decode", "blend", "write", "polygons")


def main() -> None:
    """Measure, print a table and write a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raster", type=Path, default=SAMPLE)
    parser.add_argument("--models", nargs="+", choices=(*MODELS, STAND_IN), default=["compact", STAND_IN])
    parser.add_argument("--checkpoint", help="SAM weights of the models that bring none")
    parser.add_argument("--device", default=ModelOptions.device)
    parser.add_argument("--tile-size", type=int, default=256)
    parser.add_argument("--classes", type=int, default=1)
    parser.add_argument("--times", type=int, default=1, help="runs of each model")
    parser.add_argument(
        "--answer-ms", type=float, default=0.0, help="milliseconds that the stand-in takes a tile, as if on a GPU"
    )
    parser.add_argument("--record", type=Path, default=RECORDS / "end_to_end.json", help="JSON to write")
    arguments = parser.parse_args()
    with scratch() as folder:
        measured = _measure(arguments, Path(folder))
    medians = {model: _median(runs) for model, runs in measured.items()}
    print(_table(medians))
    record = {
        "raster": arguments.raster.name,
        "tile_size": arguments.tile_size,
        "classes": arguments.classes,
        "device": arguments.device,
        "answer_ms": arguments.answer_ms,
        "models": {model: [run.record() for run in runs] for model, runs in measured.items()},
    }
    arguments.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _measure(arguments: argparse.Namespace, work: Path) -> dict[str, list[Measured]]:
    marks = square_marks(work / "marks.gpkg", arguments.raster, arguments.classes, 1, arguments.tile_size)
    outputs = SegmentOutputs(str(work / "p.gpkg"), str(work / "m.tif"))
    measured: dict[str, list[Measured]] = {model: [] for model in arguments.models}
    for _ in range(arguments.times):
        for model in arguments.models:
            options = ModelOptions(device=arguments.device)
            if model not in ("compact", STAND_IN):
                options = ModelOptions(model, arguments.checkpoint, device=arguments.device)
            job = SegmentJob(
                str(arguments.raster),
                ReferenceSource(str(marks), class_field="class"),
                outputs,
                options,
                RasterOptions(tile_size=arguments.tile_size),
                keep_encodings=False,
            )
            stand_in = StandIn(arguments.answer_ms / 1000) if model == STAND_IN else None
            measured[model].append(run_alone(job, work / "home", stand_in))
    return measured


def _median(runs: list[Measured]) -> Measured:
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


def _table(medians: dict[str, Measured]) -> str:
    header = ["model", "tiles", "s/MP", "CPU s/MP", *(f"{stage} s/MP" for stage in STAGES), "peak MB", "at start MB"]
    rows: list[list[Any]] = []
    for model, run in medians.items():
        stages = [f"{run.stages[stage] / run.megapixels:.3f}" for stage in STAGES]
        memory = [f"{run.peak_bytes / 1e6:.0f}", f"{run.start_bytes / 1e6:.0f}"]
        cpu = f"{run.cpu_seconds / run.megapixels:.3f}"
        rows.append([model, str(run.tiles), f"{run.seconds_per_megapixel:.3f}", cpu, *stages, *memory])
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
