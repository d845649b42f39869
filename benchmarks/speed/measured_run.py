"""Runs a segmentation in a process of its own, and says where its time went and how much memory it took.

Stages overlap, as threads work on them at a time: their seconds are those that a thread was in them, and may come to
more than the whole.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window
from shapely.geometry import Polygon
from torch import Tensor

from refsam_qgis.engine import segment
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.job import ModelOptions, SegmentJob
from refsam_qgis.engine.models.segmenter import ReferenceSegmenter, Shots
from refsam_qgis.engine.rasters.mosaic import _Seams
from refsam_qgis.engine.rasters.source import RasterSource
from refsam_qgis.engine.rasters.vectorise import Vectoriser
from refsam_qgis.engine.rasters.writers import PieceWriter
from refsam_qgis.engine.runner import load_from_disk

from ..memory import peak_bytes

RECORDS = Path(__file__).parent / "records"
ANSWER_SIDE = 256
"""Side of the answer of SAM's decoder."""
STAND_IN = "stand-in"
"""Name of the model that costs nothing."""

STAGES: tuple[tuple[str, Any, str], ...] = (
    ("read", RasterSource, "read"),
    ("blend", _Seams, "join"),
    ("write", PieceWriter, "write"),
    ("polygons", Vectoriser, "add"),
    ("polygons", Vectoriser, "finish"),
    ("polygons", segment, "finish_objects"),
    ("polygons", segment, "write_polygons"),
)
"""Name of the stage, and where the function that is timed for it stands."""
MODEL_STAGES = (("encode", None, "encode"), ("decode", None, "segment"))
"""The same of the model, which is loaded when the run begins."""


class StandIn:
    """Costs the CPU nothing, and finds an object in the middle of each tile, whatever is there.

    Args:
        seconds: That encoding a tile takes, as if on another device.
    """

    device = torch.device("cpu")

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        answer = torch.full((1, ANSWER_SIDE, ANSWER_SIDE), -2.0)
        answer[:, 100:130, 100:140] = 2.0
        self._answer = answer

    def describe(self, shots: Shots, encodings: Sequence[Any] = ()) -> None:
        """See nothing."""

    def encode(self, images: Tensor, valid: Tensor) -> None:
        """See nothing, but take as long as was asked for."""
        time.sleep(self._seconds * len(images))

    def segment(self, encoding: None, reference: None) -> Tensor:
        """Return ``(1, 256, 256)`` logits."""
        return self._answer


@dataclass(frozen=True)
class Measured:
    """What a run took.

    Attributes:
        megapixels: Of the raster.
        tiles: That the model saw.
        seconds: Wall time, without the start of the process.
        cpu_seconds: Of all threads.
        peak_bytes: Largest resident memory.
        start_bytes: Resident memory before the run, with everything imported.
        stages: Seconds in each stage.
        result: What the job returned.
    """

    megapixels: float
    tiles: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    start_bytes: int
    stages: dict[str, float]
    result: dict[str, Any]

    @property
    def seconds_per_megapixel(self) -> float:
        """Wall time by size."""
        return self.seconds / self.megapixels

    def record(self) -> dict[str, Any]:
        """Return the figures for a JSON record."""
        figures = {name: value for name, value in asdict(self).items() if name not in ("result", "stages")}
        stages = {name: round(seconds, 3) for name, seconds in self.stages.items()}
        objects = {"objects": self.result["object_count"], "encodings_reused": self.result["encodings_reused"]}
        return {**{k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}, **objects, **{
            "stages": stages
        }}  # fmt: skip


def run_alone(job: SegmentJob, home: Path, stand_in: StandIn | None = None) -> Measured:
    """Run a job in a fresh process.

    Args:
        job: What to do.
        home: The engine's folder: journals and caches.
        stand_in: Stands in the place of the network.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, job, str(home), stand_in).result()


def _run(job: SegmentJob, home: str, stand_in: StandIn | None) -> Measured:
    os.environ["REFSAM_HOME"] = home
    return measure(job, stand_in)


def measure(job: SegmentJob, stand_in: StandIn | None = None) -> Measured:
    """Run a job in this process; its peak memory is then that of all the process did before."""
    stages = {stage: 0.0 for stage, _, _ in (*STAGES, *MODEL_STAGES)}
    with ExitStack() as stack:

        def time_for(stage: str, owner: Any, name: str) -> None:
            function = getattr(owner, name)
            stack.callback(setattr, owner, name, function)
            setattr(owner, name, _timed(function, stage, stages))

        def load(options: ModelOptions) -> ReferenceSegmenter:
            model: ReferenceSegmenter = stand_in or load_from_disk(options)
            for stage, _, name in MODEL_STAGES:
                time_for(stage, model, name)
            return model

        for entry in STAGES:
            time_for(*entry)
        with rasterio.open(job.input) as raster:
            megapixels = raster.width * raster.height / 1e6
        start_bytes = peak_bytes()
        started, cpu_started = time.monotonic(), time.process_time()
        result = segment.run_segment(job, SilentReporter(), load)
        seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    return Measured(megapixels, result["tiles"], seconds, cpu_seconds, peak_bytes(), start_bytes, stages, result)


def _timed(function: Callable[..., Any], stage: str, stages: dict[str, float]) -> Callable[..., Any]:
    @wraps(function)
    def timed(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            stages[stage] += time.perf_counter() - started

    return timed


def sparse_raster(path: Path, width: int, height: int) -> Path:
    """Write an RGB GeoTIFF that takes no room on the disk: one block of noise, and zeros."""
    profile = {
        "driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8", "tiled": True,
        "blockxsize": 512, "blockysize": 512, "compress": "deflate", "sparse_ok": True, "bigtiff": "yes",
        "crs": "EPSG:32640", "transform": from_origin(320000.0, 2790000.0, 0.5, 0.5),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        part = Window(0, 0, min(512, width), min(512, height))
        shape = (3, part.height, part.width)
        raster.write(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), window=part)
    return path


def square_marks(path: Path, raster: Path, classes: int, shots: int, tile: int) -> Path:
    """Mark squares on a raster, so many of each class, each in a chip of its own; what they show does not matter."""
    side = tile // 8
    with rasterio.open(raster) as opened:
        transform, crs = opened.transform, opened.crs
        across = max(1, opened.width // tile)
        if classes * shots > across * (opened.height // tile):
            sys.exit(f"'{raster}' has no room for {classes * shots} examples; give a larger one.")
    squares, names = [], []
    for index in range(classes * shots):
        row, column = divmod(index, across)
        left, top = column * tile + tile // 2, row * tile + tile // 2
        corners = ((left, top), (left + side, top), (left + side, top + side), (left, top + side))
        squares.append(Polygon([transform @ corner for corner in corners]))
        names.append(f"class {index // shots:02}")
    gpd.GeoDataFrame({"class": names}, geometry=squares, crs=crs).to_file(path)
    return path


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for rasters, results and caches of a benchmark."""
    return tempfile.TemporaryDirectory(prefix="refsam-speed-")
