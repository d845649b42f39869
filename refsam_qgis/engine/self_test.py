"""A small run of everything a segmentation needs: raster, marks, network, polygons and areas."""

from __future__ import annotations

import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin

from .errors import RefSAMError
from .events import Reporter
from .job import ModelOptions, ReferenceSource, SegmentJob, SegmentOutputs
from .runner import Loader
from .segment import run_segment

CRS = "EPSG:32633"
TRANSFORM = from_origin(391200.0, 5820600.0, 0.5, 0.5)
SIDE = 256
SQUARE = slice(96, 160)
"""Rows and columns of the bright square in the drawing."""
GROUND, COLOUR = 60, (40, 150, 230)


def run_self_test(options: ModelOptions, load: Loader, reporter: Reporter) -> str:
    """Draw a square on a raster of its own, mark it, and look for it.

    Args:
        options: The network to try.
        load: Gives the network.
        reporter: Says when to stop; hears nothing.

    Returns:
        The device it ran on.

    Raises:
        RefSAMError: When a part does not work, or the network prefers the ground to the square.
    """
    with tempfile.TemporaryDirectory(prefix="refsam-self-test-") as name:
        folder = Path(name)
        image, marks, probability = folder / "image.tif", folder / "marks.gpkg", folder / "probability.tif"
        _draw(image)
        _mark(marks)
        job = SegmentJob(
            input=str(image),
            references=ReferenceSource(vector=str(marks)),
            outputs=SegmentOutputs(polygons=str(folder / "polygons.gpkg"), probability=str(probability)),
            model=options,
        )
        result = run_segment(job, _Quiet(reporter), load)
        with rasterio.open(probability) as dataset:
            found = dataset.read(1)
    inside = np.zeros((SIDE, SIDE), np.bool_)
    inside[SQUARE, SQUARE] = True
    if found[inside].mean() <= found[~inside].mean():
        raise RefSAMError(
            "checkpoint", f"Model '{options.model}' does not find a plain square; check its checkpoint and adapters."
        )
    return str(result["device"])


class _Quiet:
    """Keeps the small run's progress and messages from the listener."""

    def __init__(self, reporter: Reporter) -> None:
        self.is_cancelled = reporter.is_cancelled

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        pass

    def log(self, message: str) -> None:
        pass


def _draw(path: Path) -> None:
    pixels = np.full((3, SIDE, SIDE), GROUND, np.uint8)
    pixels[:, SQUARE, SQUARE] = np.array(COLOUR, np.uint8)[:, None, None]
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=SIDE, width=SIDE, dtype="uint8", crs=CRS, transform=TRANSFORM
    ) as dataset:
        dataset.write(pixels)


def _mark(path: Path) -> None:
    corners = TRANSFORM * (SQUARE.start, SQUARE.stop), TRANSFORM * (SQUARE.stop, SQUARE.start)
    square = shapely.box(*corners[0], *corners[1])
    gpd.GeoDataFrame(geometry=[square], crs=CRS).to_file(path)
