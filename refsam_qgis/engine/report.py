"""The record of a run: every parameter, version, digest, device and time."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any

import rasterio
import torch

from refsam_qgis import __version__

from .fingerprint import raster_identity
from .job import Job, ModelOptions, to_dict
from .models.precision import name_precision
from .models.weight_files import describe_model
from .rasters.outputs import disk_errors
from .rasters.source import RasterSource

PACKAGES = ("torch", "segment-anything", "numpy", "scipy", "rasterio", "shapely", "geopandas", "pyogrio", "pyproj")


class Clock:
    """Wall time of a run and of its stages.

    Attributes:
        stages: Seconds by the name of the stage.
    """

    def __init__(self) -> None:
        self._began = datetime.now().astimezone()
        self._start = time.monotonic()
        self.stages: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.monotonic() - start

    def times(self) -> dict[str, Any]:
        """Return begin, end, seconds and seconds of each stage, for a report."""
        return {
            "started": self._began.isoformat(timespec="seconds"),
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
        }


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the device with its name, and what else the last bits of a result depend on."""
    if device.type == "cuda":
        return {
            "device": str(device),
            "name": torch.cuda.get_device_name(device),
            "precision": name_precision(device),
        }
    return {
        "device": str(device),
        "name": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": name_precision(device),
    }


def describe_input(raster: RasterSource) -> dict[str, Any]:
    """Return what a raster is and how it is read."""
    return {
        **raster_identity(raster.path),
        "bands": list(raster.bands),
        "stretched_between": raster.limits,
        "gsd": raster.gsd,
    }


def write_report(
    path: str,
    job: Job,
    options: ModelOptions,
    device: torch.device,
    clock: Clock,
    result: Mapping[str, Any],
    further: Mapping[str, Any],
) -> None:
    """Write the record of a run as JSON.

    Args:
        path: File to write.
        job: What was asked for.
        options: Network and weights.
        device: Where it ran.
        clock: How long it took.
        result: What the job returns.
        further: What else is to be told, by name.

    Raises:
        RefSAMError: With code ``disk``.
    """
    report = {
        "refsam": __version__,
        "job": to_dict(job),
        "result": result,
        "model": describe_model(options),
        "device": describe_device(device),
        "time": clock.times(),
        **further,
        "versions": _versions(),
    }
    # A file name that is no UTF-8 gets JSON's own escapes, of which the same name is read again.
    with disk_errors(path), open(path, "w", encoding="utf-8", errors="backslashreplace") as stream:
        json.dump(report, stream, ensure_ascii=False, indent=2)


@cache
def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gdal": rasterio.__gdal_version__,
        **{package: version(package) for package in PACKAGES},
    }
