"""Another class of the same raster: with the encodings that an earlier run has kept, against without.

    python -m benchmarks.speed.repeat [--raster RASTER] [--model compact] [--times 3]

One class is sought in the first run, another one afterwards. Cold and cached runs take turns, each in a process of its
own, and their masks are compared byte by byte.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median

import geopandas as gpd

from refsam_qgis.engine.job import MODELS, ModelOptions, RasterOptions, ReferenceSource, SegmentJob, SegmentOutputs

from ..accuracy.options import markdown_table
from .end_to_end import SAMPLE
from .measured_run import RECORDS, Measured, run_alone, scratch, square_marks


def main() -> None:
    """Measure, print a table and write a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raster", type=Path, default=SAMPLE)
    parser.add_argument("--model", choices=MODELS, default=ModelOptions.model)
    parser.add_argument("--checkpoint", help="SAM weights; not needed for the bundled model")
    parser.add_argument("--adapters", help="RefSAM adapters; not needed for the bundled model")
    parser.add_argument("--method", default=ModelOptions.method)
    parser.add_argument("--device", default=ModelOptions.device)
    parser.add_argument("--tile-size", type=int, default=256)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--record", type=Path, default=RECORDS / "repeat.json", help="JSON to write")
    arguments = parser.parse_args()
    runs: dict[str, list[Measured]] = {"keeping": [], "cold": [], "cached": []}
    with scratch() as folder:
        work = Path(folder)
        marks = gpd.read_file(square_marks(work / "marks.gpkg", arguments.raster, 2, 1, arguments.tile_size))
        first, second = (_of_class(marks, name, work) for name in marks["class"])
        runs["keeping"].append(_run(arguments, work, first, "first", keep=True))
        for _ in range(arguments.times):
            for name in ("cold", "cached"):
                runs[name].append(_run(arguments, work, second, name, keep=name == "cached"))
        same = (work / "cold.tif").read_bytes() == (work / "cached.tif").read_bytes()
        kept = sum(path.stat().st_size for path in (work / "home" / "cache" / "encodings").rglob("*.encoding"))
    print(_table(runs))
    ratio = median(run.seconds for run in runs["cached"]) / median(run.seconds for run in runs["cold"])
    print(f"cached / cold {ratio:.2f}, masks of the same bytes: {'yes' if same else 'NO'}, kept {kept / 1e6:.0f} MB")
    record = {
        "raster": arguments.raster.name,
        "model": arguments.model,
        "method": arguments.method,
        "device": arguments.device,
        "cached_to_cold": round(ratio, 3),
        "same_bytes": same,
        "kept_bytes": kept,
        "runs": {name: [run.record() for run in of_name] for name, of_name in runs.items()},
    }
    arguments.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _of_class(marks: gpd.GeoDataFrame, name: str, work: Path) -> Path:
    path = work / f"{name}.gpkg"
    marks[marks["class"] == name].to_file(path)
    return path


def _run(arguments: argparse.Namespace, work: Path, marks: Path, name: str, keep: bool) -> Measured:
    job = SegmentJob(
        str(arguments.raster),
        ReferenceSource(str(marks), class_field="class"),
        SegmentOutputs(str(work / f"{name}.gpkg"), str(work / f"{name}.tif")),
        ModelOptions(
            arguments.model, arguments.checkpoint, arguments.adapters, arguments.method, device=arguments.device
        ),
        RasterOptions(tile_size=arguments.tile_size),
        keep_encodings=keep,
    )
    return run_alone(job, work / "home")


def _table(runs: dict[str, list[Measured]]) -> str:
    rows = []
    for name, of_name in runs.items():
        run = sorted(of_name, key=lambda run: run.seconds)[len(of_name) // 2]
        figures = [run.seconds, run.cpu_seconds, run.stages["encode"], run.stages["decode"]]
        reused = f"{run.result['encodings_reused']} of {run.tiles}"
        rows.append([name, *(f"{seconds:.1f}" for seconds in figures), reused, f"{run.peak_bytes / 1e6:.0f}"])
    return markdown_table(["run", "s", "CPU s", "encode s", "decode s", "encodings reused", "peak MB"], rows)


if __name__ == "__main__":
    main()
