"""What is installed, where it runs, whether it works, and how to mend what does not.

Imports nothing that may be missing, so that a damaged environment can tell of itself.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
import time
from importlib import metadata
from typing import Any

from refsam_qgis import __version__

from .errors import JobCancelled, RefSAMError
from .events import Reporter, check_cancelled
from .failures import explain
from .installation import damage, locked_versions, mend
from .job import ModelOptions, StatusJob
from .models.weight_files import describe_model
from .runner import Loader

PACKAGES = {
    "torch": "torch", "segment-anything": None, "safetensors": "safetensors", "numpy": "numpy", "scipy": "scipy",
    "pillow": "PIL", "rasterio": "rasterio", "geopandas": "geopandas", "pyogrio": "pyogrio", "shapely": "shapely",
    "pyproj": "pyproj", "tqdm": "tqdm",
}  # fmt: skip
"""Module of each package that the engine imports; ``None`` where only parts are, which the self-test loads."""


def run_status(job: StatusJob, reporter: Reporter, load: Loader) -> dict[str, Any]:
    """Report versions and devices and find a square in a small drawing with the model of `job`.

    A failing part is reported in its place rather than ending the report.

    Returns:
        ``version``, ``python``, ``executable``, ``packages`` (version by name, ``None`` when missing), ``devices``,
        ``model`` (names and digests of the weights), ``self_test`` (``passed``, ``device``, ``seconds`` and, when it
        failed, ``message``; not run, and so not passed, where packages are broken), ``problems`` (sentences with what
        is broken and how to mend it) and ``notes`` (sentences with what is only worth knowing).
    """
    reporter.progress(0.0, "Looking at the installation")
    packages = {name: _version(name) for name in PACKAGES}
    problems = _broken_packages(packages)
    check_cancelled(reporter)
    model = _describe(job.model)
    self_test: dict[str, Any] = {"passed": False}
    if not problems:
        if what := damage():
            problems.append(f"The engine's environment is damaged: {what}; {mend()}.")
        reporter.progress(0.3, "Running a self-test")
        self_test = _self_test(job.model, load, reporter)
    for part in (model, self_test):
        message = part.get("message")
        if message and message not in problems:
            problems.append(message)
    reporter.progress(1.0, "Done")
    return {
        "version": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": packages,
        "devices": _devices(),
        "model": model,
        "self_test": self_test,
        "problems": problems,
        "notes": [*_other_versions(packages), *_unused_devices()],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _broken_packages(packages: dict[str, str | None]) -> list[str]:
    """Return a sentence on the packages that are missing, and one on each that cannot be loaded."""
    missing = [name for name, version in packages.items() if version is None]
    problems = []
    if missing:
        what = f"Package {missing[0]} is" if len(missing) == 1 else f"Packages {', '.join(missing)} are"
        problems.append(f"{what} missing from the engine's environment; {mend()}.")
    for name, module in PACKAGES.items():
        if module is None or name in missing:
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # a library that cannot be loaded raises what it likes
            problems.append(f"Package {name} {packages[name]} cannot be loaded ({_first_line(error)}); {mend()}.")
    return problems


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _describe(options: ModelOptions) -> dict[str, Any]:
    try:
        return describe_model(options)
    except RefSAMError as error:
        return {"model": options.model, "message": str(error)}


def _self_test(options: ModelOptions, load: Loader, reporter: Reporter) -> dict[str, Any]:
    started = time.monotonic()
    try:
        from .self_test import run_self_test

        device = run_self_test(options, load, reporter)
    except JobCancelled:
        raise
    except Exception as error:
        return {"passed": False, "message": str(explain(error))}
    return {"passed": True, "device": device, "seconds": round(time.monotonic() - started, 2)}


def _devices() -> list[dict[str, Any]]:
    """Return the usable devices, the fastest first."""
    try:
        import torch
    except Exception:  # told among the problems
        return []
    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append({"device": f"cuda:{index}", "name": properties.name, "memory_bytes": properties.total_memory})
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": platform.machine()})
    devices.append({"device": "cpu", "name": platform.processor() or platform.machine()})
    return devices


def _other_versions(packages: dict[str, str | None]) -> list[str]:
    """Return a sentence on packages of other versions than RefSAM was tested with."""
    tested = locked_versions()
    others = [
        f"{name} {version} instead of {tested[name]}"
        for name, version in packages.items()
        if version is not None and name in tested and version.split("+")[0] != tested[name]
    ]
    if not others:
        return []
    return [f"RefSAM was tested with other versions ({', '.join(others)}); {mend()} if something fails."]


def _unused_devices() -> list[str]:
    """Return a sentence on an NVIDIA processor that torch does not use."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        import torch
    except Exception:  # told among the problems
        return []
    if torch.cuda.is_available():
        return []
    if torch.version.cuda is None:
        remedy = f"it was built without CUDA; {mend()} --extra-index-url URL, of a CUDA build (see pytorch.org)"
    else:
        remedy = f"it wants a driver for CUDA {torch.version.cuda}; update the driver"
    return [f"This machine has NVIDIA's driver, but torch {torch.__version__} finds no graphics processor: {remedy}."]
