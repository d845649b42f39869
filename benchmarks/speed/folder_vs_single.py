"""A folder of small rasters in one run against as many runs of the engine.

    python -m benchmarks.speed.folder_vs_single [--raster RASTER --references MARKS --number N]

The rasters are cut from the given one, side by side from its first pixel on. The bundled sample and the bundled compact
model are the defaults.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window

from refsam_qgis.host.environment import engine_environment

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample"
ALONE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.job import from_dict
from refsam_qgis.engine.model_cache import ModelCache
from refsam_qgis.engine.runner import load_from_disk, run_job

cache = ModelCache(load_from_disk)
result = run_job(from_dict(json.load(sys.stdin)), SilentReporter(), cache)
print(json.dumps({**result, "model_loads": cache.loads}))
"""
"""One run in a process of its own, as the worker does it."""


def cut(raster: str, folder: Path, number: int, side: int) -> list[Path]:
    """Cut rasters of equal size from one."""
    folder.mkdir()
    paths = []
    with rasterio.open(raster) as source:
        columns = source.width // side
        if number > columns * (source.height // side):
            raise SystemExit(f"'{raster}' holds fewer than {number} rasters of {side} pixels.")
        for index in range(number):
            window = Window(index % columns * side, index // columns * side, side, side)
            profile = {
                "driver": "GTiff", "width": side, "height": side, "count": source.count, "dtype": source.dtypes[0],
                "crs": source.crs, "transform": source.window_transform(window), "nodata": source.nodata,
            }  # fmt: skip
            paths.append(folder / f"part_{index:02}.tif")
            with rasterio.open(paths[-1], "w", **profile) as part:
                part.write(source.read(window=window))
                part.colorinterp = source.colorinterp
    return paths


def run(document: dict[str, Any], home: Path) -> tuple[dict[str, Any], float]:
    """Run a job in a process of its own; return its result and the seconds it took."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(ROOT)],
        input=json.dumps(document),
        stdout=subprocess.PIPE,
        text=True,
        env={**engine_environment(), "REFSAM_HOME": str(home)},
        check=True,
    )
    return json.loads(done.stdout), time.monotonic() - started


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raster", default=str(SAMPLE / "scene.tif"))
    parser.add_argument("--references", default=str(SAMPLE / "references.gpkg"))
    parser.add_argument("--model", default="compact")
    parser.add_argument("--checkpoint")
    parser.add_argument("--number", type=int, default=10)
    parser.add_argument("--side", type=int, default=256, help="of the rasters, in pixels")
    arguments = parser.parse_args()

    common = {
        "references": {"vector": arguments.references, "raster": arguments.raster},
        "model": {"model": arguments.model, "checkpoint": arguments.checkpoint},
    }
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        paths = cut(arguments.raster, work / "in", arguments.number, arguments.side)
        job = {"kind": "folder", **common, "folder": str(work / "in"), "output_folder": str(work / "out")}
        folder, folder_seconds = run(job, work / "home of the folder")
        again, again_seconds = run(job, work / "home of the folder")
        singles = []
        for path in paths:
            outputs = {"polygons": str(work / f"{path.stem}.gpkg"), "mask": str(work / f"{path.stem}.tif")}
            single = {"kind": "segment", **common, "input": str(path), "outputs": outputs}
            singles.append(run(single, work / "home of the others"))
        equal = sum((work / path.name).read_bytes() == (work / "out" / path.name).read_bytes() for path in paths)
    seconds = sum(seconds for _, seconds in singles)
    loads = sum(result["model_loads"] for result, _ in singles)
    rows = [
        (f"one run, {folder['done']} rasters", folder_seconds, folder["model_loads"]),
        (f"{len(singles)} runs", seconds, loads),
        (f"again, {again['skipped']} unchanged", again_seconds, again["model_loads"]),
    ]
    print(f"{'':24}{'seconds':>10}{'model loads':>14}")
    for label, taken, count in rows:
        print(f"{label:24}{taken:10.1f}{count:14}")
    print(f"masks of the same bytes: {equal} of {len(paths)}")


if __name__ == "__main__":
    main()
