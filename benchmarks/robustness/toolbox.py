"""Every algorithm and every example model through the real ``qgis_process`` on real files.

    python -m benchmarks.robustness.toolbox --data DATA/geotiff --qgis qgis_process [--work FOLDER]

The plugin must be enabled in the profile that ``qgis_process`` uses. Small pieces of ``dubai_tile7`` and its mask are
cut: one with examples and truth, ten to search, and two broken files beside them. Prints a table with what
``qgis_process`` returned.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from rasterio.features import shapes
from rasterio.windows import Window
from shapely.geometry import box, shape

CLASSES = {"water": 1, "building": 4, "vegetation": 5}
"""Ids in the mask of the classes that are marked."""
PIECE = 256
"""Side in pixels of a piece that is searched."""
PLACES = [Window(column, row, PIECE, PIECE) for row in (2304, 2560) for column in range(1024, 2304, PIECE)]
EXAMPLES = Window(1536, 2560, 512, 512)
LARGEST = 12
"""Outlines marked of each class."""


@dataclass(frozen=True)
class Files:
    """What the algorithms are run on."""

    raster: Path
    marks: Path
    truth: Path
    points: Path
    zones: Path
    folder: Path


def main() -> None:
    """Cut the pieces, run everything, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--qgis", default="qgis_process")
    parser.add_argument("--work", type=Path, help="folder for pieces and results (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        files = cut(arguments.data, work)
        print("| algorithm | s | what it returned |\n|---|---|---|")
        for name, given in runs(files, work):
            run(arguments.qgis, name, given)


def runs(files: Files, work: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the algorithms in the order in which their results are needed, with their parameters."""
    marked = {"REFERENCES": files.marks, "CLASS_FIELD": "class", "ANNOTATION": "partial"}
    folder = {
        "INPUT_FOLDER": files.folder, "PATTERN": "*.tif", "REFERENCE_SET": work / "set.refset",
        "OUTPUT_FOLDER": work / "found", "OUTPUT": work / "merged.gpkg", "FAILURES": work / "failures.gpkg",
    }  # fmt: skip
    return [
        ("enginestatus", {}),
        ("buildreferenceset", {
            "RASTERS": files.raster, **marked, "OUTPUT": work / "set.refset", "PICTURE": work / "set.png",
        }),
        ("segmentbyreference", {
            "INPUT": files.raster, **marked, "MIN_AREA": 10, "SIMPLIFY": 0.5, "OUTPUT": work / "found.gpkg",
            "MASK": work / "found.tif", "PROBABILITY": work / "probability.tif", "REPORT": work / "report.json",
        }),
        ("segmentfolder", folder),
        ("segmentfolder", folder),
        ("segmentwithprompts", {
            "INPUT": files.raster, "POINTS": files.points, "LABEL_FIELD": "label", "OBJECT_FIELD": "object",
            "OUTPUT": work / "prompted.gpkg", "MASK": work / "prompted.tif",
        }),
        ("segmentwithprompts", {"INPUT": files.raster, "BOXES": files.marks, "OUTPUT": work / "boxed.shp"}),
        ("segmenteverything", {
            "INPUT": files.raster, "POINTS_PER_SIDE": 16, "OUTPUT": work / "everything.gpkg",
            "MASK": work / "everything.tif",
        }),
        ("evaluate", {
            "RESULT": work / "found.gpkg", "RESULT_FIELD": "class", "TRUTH": files.truth, "TRUTH_FIELD": "class",
            "OUTPUT": work / "accuracy.gpkg", "PICTURE": work / "confusion.png",
        }),
        ("trainadapters", {
            "RASTERS": files.raster, "LABELS": files.truth, "CLASS_FIELD": "class", "STEPS": 3, "BATCH": 1,
            "GENERATED": "false", "ADAPTERS_OUT": work / "own.safetensors", "CURVE": work / "curve.png",
        }),
        ("Find objects and summarise by zone", {
            "example_raster": files.raster, "examples": files.marks, "class_field": "class", "raster": files.raster,
            "zones": files.zones, "Objects": work / "objects.gpkg", "Zones with objects": work / "zones found.gpkg",
        }),
        ("Segment and evaluate", {
            "example_raster": files.raster, "examples": files.marks, "class_field": "class", "raster": files.raster,
            "truth": files.truth, "truth_field": "class", "Accuracy": work / "model accuracy.gpkg",
            "Confusion": work / "model confusion.png", "Mask": work / "model mask.tif",
            "Objects": work / "model objects.gpkg",
        }),
        ("Segment folder and dissolve by class", {
            "folder": files.folder, "pattern": "*.tif", "reference_set": work / "set.refset",
            "Results of each raster": work / "model results", "Classes": work / "dissolved.gpkg",
            "All polygons": work / "model merged.gpkg", "Failures": work / "model failures.gpkg",
        }),
    ]  # fmt: skip


def run(qgis_process: str, name: str, given: dict[str, Any]) -> None:
    """Run one algorithm and print a row of the table."""
    names = _parameters(qgis_process, name)
    # Before QGIS 3.26 the outputs of a model bear the name of their step as well.
    given = {next(n for n in names if n == key or n.endswith(f":{key}")): value for key, value in given.items()}
    command = [qgis_process, "--json", "run", f"refsam:{name}", "--", *(f"{key}={v}" for key, v in given.items())]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - started
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-300:]
    else:
        results = json.loads(done.stdout[done.stdout.index("{") :])["results"]
        said = ", ".join(f"{key} {_short(value)}" for key, value in results.items())
    print(f"| {name} | {seconds:.1f} | {said} |", flush=True)


def _parameters(qgis_process: str, name: str) -> list[str]:
    command = [qgis_process, "--json", "help", f"refsam:{name}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(json.loads(said[said.index("{") :])["parameters"])


def _short(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and "/" in value else value


def cut(data: Path, work: Path) -> Files:
    """Cut rasters, marks, truth, prompts and zones from the mosaic and its mask."""
    folder = work / "rasters"
    folder.mkdir(exist_ok=True)
    with rasterio.open(data / "dubai_tile7.tif") as image, rasterio.open(data / "dubai_tile7_mask.tif") as mask:
        for number, window in enumerate(PLACES):
            _save(image, window, folder / f"piece {number}.tif")
        (folder / "broken header.tif").write_bytes(b"II*\0 not a raster")
        whole = (folder / "piece 0.tif").read_bytes()
        (folder / "broken tail.tif").write_bytes(whole[: len(whole) // 3])
        raster = work / "examples.tif"
        _save(image, EXAMPLES, raster)
        outlines = _outlines(mask, image, EXAMPLES)
        bounds = image.window_bounds(EXAMPLES)
    truth, marks, points, zones = (work / f"{name}.gpkg" for name in ("truth", "marks", "points", "zones"))
    outlines.to_file(truth)
    largest = outlines.assign(size=outlines.area).sort_values("size").groupby("class").tail(LARGEST)
    largest.drop(columns="size").to_file(marks)
    inside = largest.representative_point().to_crs("EPSG:4326")
    prompts = {"label": np.ones(len(inside), int), "object": np.arange(len(inside))}
    gpd.GeoDataFrame(prompts, geometry=inside.to_numpy(), crs=inside.crs).to_file(points)
    left, bottom, right, top = bounds
    middle = (left + right) / 2
    halves = [box(left, bottom, middle, top), box(middle, bottom, right, top)]
    gpd.GeoDataFrame({"zone": ["west", "east"]}, geometry=halves, crs=outlines.crs).to_file(zones)
    return Files(raster, marks, truth, points, zones, folder)


def _save(image: rasterio.DatasetReader, window: Window, path: Path) -> None:
    profile = {
        "driver": "GTiff", "dtype": image.dtypes[0], "count": image.count, "crs": image.crs, "width": window.width,
        "height": window.height, "transform": image.window_transform(window),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(image.read(window=window))


def _outlines(mask: rasterio.DatasetReader, image: rasterio.DatasetReader, window: Window) -> gpd.GeoDataFrame:
    ids = mask.read(1, window=window)
    transform = image.window_transform(window)
    found = [
        (name, shape(outline))
        for name, class_id in CLASSES.items()
        for outline, _ in shapes(ids, ids == class_id, 4, transform)
    ]
    names, geometry = zip(*found, strict=True)
    return gpd.GeoDataFrame({"class": names}, geometry=list(geometry), crs=image.crs)


if __name__ == "__main__":
    main()
