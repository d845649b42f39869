"""A run on a CPU that others use too, by how long OpenMP's threads spin while they wait for each other.

    python -m benchmarks.speed.busy [--busy 0 1] [--spins default 10000 3000]

Threads that spin take the cores from those that they wait for, once there are more of all programs' threads than cores.
The settings take turns, each run in a fresh process beside so many processes that do nothing but count; the
median is told. `default` is what torch's own OpenMP does on Linux, where alone the setting has a meaning.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch

from refsam_qgis.engine.job import RasterOptions, ReferenceSource, SegmentJob, SegmentOutputs
from refsam_qgis.engine.report import describe_device

from ..accuracy.options import markdown_table
from .end_to_end import SAMPLE
from .measured_run import RECORDS, run_alone, scratch, square_marks

VARIABLE = "GOMP_SPINCOUNT"
DEFAULT = "default"
TILE = 256


def main() -> None:
    """Measure, print a table and write a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raster", type=Path, default=SAMPLE)
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 1], help="processes beside the run")
    parser.add_argument("--spins", nargs="+", default=[DEFAULT, "10000", "3000"])
    parser.add_argument("--times", type=int, default=3, help="runs of each setting")
    parser.add_argument("--record", type=Path, default=RECORDS / "busy.json")
    arguments = parser.parse_args()
    with scratch() as folder:
        rows = [row for busy in arguments.busy for row in _measure(arguments, busy, Path(folder))]
    arguments.record.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    shown = ("busy", "spins", "seconds", "cpu_seconds", "ratio")
    print(markdown_table(list(shown), [[str(row[name]) for name in shown] for row in rows]))


def _measure(arguments: argparse.Namespace, busy: int, work: Path) -> list[dict[str, Any]]:
    marks = square_marks(work / "marks.gpkg", arguments.raster, 1, 1, TILE)
    outputs = SegmentOutputs(str(work / "p.gpkg"), str(work / "m.tif"))
    source = ReferenceSource(str(marks), class_field="class")
    raster = RasterOptions(tile_size=TILE)
    job = SegmentJob(str(arguments.raster), source, outputs, raster=raster, keep_encodings=False)
    runs: dict[str, list[Any]] = {spins: [] for spins in arguments.spins}
    with _counting(busy):
        for _ in range(arguments.times):
            for spins in arguments.spins:
                with _variable(spins):
                    runs[spins].append(run_alone(job, work / "home"))
    seconds = {spins: median(run.seconds for run in done) for spins, done in runs.items()}
    first = seconds[arguments.spins[0]]
    return [
        {
            "busy": busy,
            "spins": spins,
            "seconds": round(seconds[spins], 2),
            "cpu_seconds": round(median(run.cpu_seconds for run in done), 2),
            "ratio": round(seconds[spins] / first, 2),
            "all_seconds": [round(run.seconds, 2) for run in done],
            "machine": describe_device(torch.device("cpu")),
            "date": date.today().isoformat(),
        }
        for spins, done in runs.items()
    ]


@contextmanager
def _counting(count: int) -> Iterator[None]:
    """Keep so many cores busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


@contextmanager
def _variable(spins: str) -> Iterator[None]:
    """Set the variable for processes that start meanwhile."""
    former = os.environ.pop(VARIABLE, None)
    if spins != DEFAULT:
        os.environ[VARIABLE] = spins
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if former is not None:
            os.environ[VARIABLE] = former


if __name__ == "__main__":
    main()
