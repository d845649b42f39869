"""How much overlap of the tiles the result needs: error along their seams against what the overlap costs.

    python -m benchmarks.speed.overlap --raster RASTER --references MARKS [--window COLUMN ROW SIDE]

A run whose tiles overlap by half, so that every pixel is seen near the middle of one, is the reference. Each other run
is compared with it within `NEAR` pixels of the middle of its seams, and elsewhere: what is worse there is the seams'.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from refsam_qgis.engine.job import (
    MODELS,
    THRESHOLD,
    ModelOptions,
    RasterOptions,
    ReferenceSource,
    SegmentJob,
    SegmentOutputs,
)
from refsam_qgis.engine.rasters.grid import TileGrid, overlap_pixels

from ..accuracy.options import markdown_table
from .end_to_end import SAMPLE
from .measured_run import RECORDS, Measured, run_alone, scratch

OVERLAPS = (0.0, 6.25, 12.5, 25.0)
REFERENCE = 50.0
NEAR = 8
"""Pixels on either side of a seam that count as along it."""


def main() -> None:
    """Measure, print a table and write a record and a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raster", type=Path, default=SAMPLE)
    parser.add_argument("--references", type=Path, default=SAMPLE.with_name("references.gpkg"))
    parser.add_argument("--class-field")
    parser.add_argument("--window", type=int, nargs=3, metavar=("COLUMN", "ROW", "SIDE"), help="part to be searched")
    parser.add_argument("--model", choices=MODELS, default=ModelOptions.model)
    parser.add_argument("--checkpoint", help="SAM weights; not needed for the bundled model")
    parser.add_argument("--device", default=ModelOptions.device)
    parser.add_argument("--tile-size", type=int, default=256)
    parser.add_argument("--record", type=Path, default=RECORDS / "overlap.json", help="JSON to write, beside a picture")
    arguments = parser.parse_args()
    with scratch() as folder:
        rows = _measure(arguments, Path(folder))
    print(_table(rows))
    record = {"raster": arguments.raster.name, "window": arguments.window, "model": arguments.model,
              "tile_size": arguments.tile_size, "near": NEAR, "runs": rows}  # fmt: skip
    arguments.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _draw(rows, arguments.record.with_suffix(".png"))


def seam_distance(grid: TileGrid) -> NDArray[np.float64]:
    """Return ``(height, width)``: how far each pixel is from the middle of the next seam."""

    def along(length: int, count: int) -> NDArray[np.float64]:
        middles = np.arange(1, count) * grid.stride + grid.overlap / 2
        pixels = np.arange(length) + 0.5
        if count == 1:
            return np.full(length, np.inf)
        distance: NDArray[np.float64] = np.abs(pixels[:, None] - middles[None]).min(axis=1)
        return distance

    return np.minimum(along(grid.height, grid.rows)[:, None], along(grid.width, grid.columns)[None])


def seam_error(
    found: NDArray[np.float32], reference: NDArray[np.float32], near: NDArray[np.bool_], threshold: float
) -> dict[str, float]:
    """Compare probabilities ``(C, h, w)`` along the seams and elsewhere.

    Returns:
        Mean absolute difference and share of pixels that are on other sides of the threshold, of both.
    """
    difference = np.abs(found - reference).mean(axis=0)
    changed = ((found >= threshold) != (reference >= threshold)).any(axis=0)
    return {
        "difference_near": float(difference[near].mean()) if near.any() else 0.0,
        "difference_elsewhere": float(difference[~near].mean()),
        "changed_near": float(changed[near].mean()) if near.any() else 0.0,
        "changed_elsewhere": float(changed[~near].mean()),
    }


def _measure(arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    raster = _cut(arguments.raster, arguments.window, work) if arguments.window else arguments.raster
    reference, _ = _run(arguments, raster, REFERENCE, work)
    rows = []
    for overlap in OVERLAPS:
        found, run = _run(arguments, raster, overlap, work)
        side = arguments.tile_size
        grid = TileGrid(found.shape[2], found.shape[1], side, overlap_pixels(side, overlap))
        errors = seam_error(found, reference, seam_distance(grid) <= NEAR, THRESHOLD)
        rows.append({"overlap": overlap, "tiles": run.tiles, "seconds": round(run.seconds, 1), **errors})
        print(f"overlap {overlap:g} %: {run.tiles} tiles, {run.seconds:.0f} s", flush=True)
    return rows


def _run(
    arguments: argparse.Namespace, raster: Path, overlap: float, work: Path
) -> tuple[NDArray[np.float32], Measured]:
    path = work / f"probability_{overlap:g}.tif"
    job = SegmentJob(
        str(raster),
        ReferenceSource(str(arguments.references), str(arguments.raster), class_field=arguments.class_field),
        SegmentOutputs(probability=str(path)),
        ModelOptions(arguments.model, arguments.checkpoint, device=arguments.device),
        RasterOptions(tile_size=arguments.tile_size, overlap=overlap),
        keep_encodings=False,
    )
    run = run_alone(job, work / "home")
    with rasterio.open(path) as probability:
        values: NDArray[np.float32] = probability.read()
    return values, run


def _cut(raster: Path, window: tuple[int, int, int], work: Path) -> Path:
    column, row, side = window
    part = Window(column, row, side, side)
    with rasterio.open(raster) as source:
        profile = {
            "driver": "GTiff", "width": side, "height": side, "count": source.count, "dtype": source.dtypes[0],
            "crs": source.crs, "transform": source.window_transform(part), "nodata": source.nodata,
        }  # fmt: skip
        with rasterio.open(work / "part.tif", "w", **profile) as cut:
            cut.write(source.read(window=part))
            cut.colorinterp = source.colorinterp
    return work / "part.tif"


def _table(rows: list[dict[str, Any]]) -> str:
    header = ["overlap", "tiles", "s", "difference at seams", "elsewhere", "% changed at seams", "elsewhere"]
    return markdown_table(
        header,
        [
            [
                f"{row['overlap']:g} %",
                str(row["tiles"]),
                f"{row['seconds']:.0f}",
                f"{row['difference_near']:.4f}",
                f"{row['difference_elsewhere']:.4f}",
                f"{100 * row['changed_near']:.2f}",
                f"{100 * row['changed_elsewhere']:.2f}",
            ]
            for row in rows
        ],
    )


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    for name, label in (("changed_near", "along seams"), ("changed_elsewhere", "elsewhere")):
        axes.plot([row["overlap"] for row in rows], [100 * row[name] for row in rows], "o-", label=label)
    axes.set(xlabel="overlap, % of a tile", ylabel="% of pixels changed", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
