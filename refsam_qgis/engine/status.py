"""What is installed, where it runs, and whether it works."""

from __future__ import annotations

import platform
import time
from importlib import metadata
from typing import Any

from refsam_qgis import __version__

from .events import Reporter, check_cancelled
from .failures import explain
from .job import StatusJob
from .runner import Loader

PACKAGES = (
    "torch", "segment-anything", "safetensors", "numpy", "pillow", "rasterio", "geopandas", "pyogrio", "shapely",
    "pyproj", "tqdm",
)  # fmt: skip


def run_status(job: StatusJob, reporter: Reporter, load: Loader) -> dict[str, Any]:
    """Report versions and devices and segment a small drawing with the model of `job`.

    A failing part is reported in its place rather than ending the report.

    Returns:
        ``version``, ``python``, ``packages``, ``devices`` and ``self_test`` (``passed``, ``device``, ``seconds`` and,
        when it failed, ``message``).
    """
    reporter.progress(0.0, "Looking at the installation")
    status: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
    }
    check_cancelled(reporter)
    reporter.progress(0.3, "Running a self-test")
    status["self_test"] = _self_test(job, load)
    reporter.progress(1.0, "Done")
    return status


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    """Return the usable devices, the fastest first."""
    try:
        import torch
    except ImportError:
        return []
    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append({"device": f"cuda:{index}", "name": properties.name, "memory_bytes": properties.total_memory})
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": platform.machine()})
    devices.append({"device": "cpu", "name": platform.processor() or platform.machine()})
    return devices


def _self_test(job: StatusJob, load: Loader) -> dict[str, Any]:
    started = time.monotonic()
    try:
        device = _segment_drawing(job, load)
    except Exception as error:
        return {"passed": False, "message": str(explain(error))}
    return {"passed": True, "device": device, "seconds": round(time.monotonic() - started, 2)}


def _segment_drawing(job: StatusJob, load: Loader) -> str:
    """Ask for a bright square, shown as the reference, on the same picture.

    Returns:
        The device it ran on.

    Raises:
        RefSAMError: When the model cannot be loaded, or prefers the ground to the square.
    """
    import torch

    from .errors import RefSAMError
    from .models.segmenter import Shots

    side, square = 256, slice(96, 160)
    image = torch.full((1, 3, side, side), 60, dtype=torch.uint8)
    image[:, :, square, square] = torch.tensor([40, 150, 230], dtype=torch.uint8).view(1, 3, 1, 1)
    mask = torch.zeros((1, side, side), dtype=torch.uint8)
    mask[:, square, square] = 1
    valid = torch.ones((1, side, side), dtype=torch.bool)

    segmenter = load(job.model)
    reference = segmenter.describe(Shots(image, mask, valid))
    logits = segmenter.segment(segmenter.encode(image, valid), reference).float().cpu()
    inside = mask.bool()
    if not torch.isfinite(logits).all() or logits[inside].mean() <= logits[~inside].mean():
        raise RefSAMError(
            "checkpoint", f"Model '{job.model.model}' does not find a plain square; check its checkpoint and adapters."
        )
    return str(segmenter.device)
