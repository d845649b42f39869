"""How time and memory grow with the raster, the classes, the examples and the overlap.

    python -m benchmarks.speed.growth --what size [--sizes 2000 10000 40000] [--height 4000]
    python -m benchmarks.speed.growth --what classes shots overlap --raster RASTER --model compact

Growth with size is that of the raster path: sparse files and a model that costs nothing. The others run the model on a
raster. Every run has a process of its own. A table is printed, and figures and pictures are kept beside this file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refsam_qgis.engine.job import MODELS, ModelOptions, RasterOptions, ReferenceSource, SegmentJob, SegmentOutputs

from ..accuracy.options import markdown_table
from .end_to_end import SAMPLE
from .measured_run import RECORDS, STAND_IN, Measured, StandIn, run_alone, scratch, sparse_raster, square_marks

CLASSES = (1, 2, 5, 10)
SHOTS = (1, 5, 20)
OVERLAPS = (0.0, 6.25, 12.5, 25.0)


def main() -> None:
    """Measure, print tables, write records and draw pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=("size", "classes", "shots", "overlap"), default=["size"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 10000, 40000], help="sides of sparse rasters")
    parser.add_argument("--height", type=int, help="of the sparse rasters, if they are not to be square")
    parser.add_argument("--size-classes", type=int, default=1, help="classes on the sparse rasters")
    parser.add_argument("--raster", type=Path, default=SAMPLE)
    parser.add_argument("--model", choices=(*MODELS, STAND_IN), default=ModelOptions.model)
    parser.add_argument("--checkpoint", help="SAM weights; not needed for the bundled model")
    parser.add_argument("--device", default=ModelOptions.device)
    parser.add_argument("--tile-size", type=int, default=256)
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of the JSON records and pictures")
    arguments = parser.parse_args()
    arguments.records.mkdir(parents=True, exist_ok=True)
    for what in arguments.what:
        rows = []
        with scratch() as folder:
            for value, run in _runs(what, arguments, Path(folder)):
                rows.append({what: value, **run.record()})
                print(f"{what} {value}: {run.seconds:.1f} s, {run.peak_bytes / 1e6:.0f} MB", flush=True)
        print(_table(what, rows))
        model = STAND_IN if what == "size" else arguments.model
        document = {"model": model, "tile_size": arguments.tile_size, "runs": rows}
        path = arguments.records / f"growth_{what}.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        _draw(what, rows, path.with_suffix(".png"))


def _runs(what: str, arguments: argparse.Namespace, work: Path) -> Iterator[tuple[float, Measured]]:
    if what == "size":
        for size in arguments.sizes:
            raster = sparse_raster(work / f"{size}.tif", size, arguments.height or size)
            yield size, _run(arguments, work, raster, STAND_IN, classes=arguments.size_classes)
    elif what == "overlap":
        for overlap in OVERLAPS:
            yield overlap, _run(arguments, work, arguments.raster, arguments.model, overlap=overlap)
    else:
        for number in CLASSES if what == "classes" else SHOTS:
            yield number, _run(arguments, work, arguments.raster, arguments.model, **{what: number})


def _run(
    arguments: argparse.Namespace,
    work: Path,
    raster: Path,
    model: str,
    classes: int = 1,
    shots: int = 1,
    overlap: float = RasterOptions.overlap,
) -> Measured:
    marks = square_marks(work / "marks.gpkg", raster, classes, shots, arguments.tile_size)
    own = ModelOptions() if model == STAND_IN else ModelOptions(model, arguments.checkpoint, device=arguments.device)
    job = SegmentJob(
        str(raster),
        ReferenceSource(str(marks), class_field="class"),
        SegmentOutputs(str(work / "p.gpkg"), str(work / "m.tif")),
        own,
        RasterOptions(tile_size=arguments.tile_size, overlap=overlap),
        keep_encodings=False,
    )
    return run_alone(job, work / "home", StandIn() if model == STAND_IN else None)


def _table(what: str, rows: list[dict[str, Any]]) -> str:
    header = [what, "MP", "tiles", "objects", "s", "s/MP", "CPU s/MP", "peak MB", "time to first", "peak to first"]
    first = rows[0]
    return markdown_table(
        header,
        [
            [
                f"{row[what]:g}",
                f"{row['megapixels']:.1f}",
                str(row["tiles"]),
                str(row["objects"]),
                f"{row['seconds']:.1f}",
                f"{row['seconds'] / row['megapixels']:.3f}",
                f"{row['cpu_seconds'] / row['megapixels']:.3f}",
                f"{row['peak_bytes'] / 1e6:.0f}",
                f"{row['seconds'] / first['seconds']:.2f}",
                f"{row['peak_bytes'] / first['peak_bytes']:.2f}",
            ]
            for row in rows
        ],
    )


def _draw(what: str, rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    values = [row[what] for row in rows]
    seconds.plot(values, [row["seconds"] / row["megapixels"] for row in rows], "o-")
    memory.plot(values, [row["peak_bytes"] / 1e6 for row in rows], "o-")
    for axes, label in ((seconds, "s/MP"), (memory, "peak MB")):
        axes.set(xlabel=what, ylabel=label, ylim=(0, None))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
