"""Whose the files are that stand where the results of a raster of a folder go."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.errors import RasterioError

from .errors import RefSAMError
from .events import Reporter
from .folder_rasters import FolderRaster
from .rasters.georeference import open_raster
from .rasters.outputs import side_files
from .rasters.writers import FOUND_COLUMNS, LAYER, PROBABILITY_NODATA


def check_results(raster: FolderRaster, probability: bool, parts: Collection[str], report: Mapping[str, Any]) -> None:
    """Raise if a result would replace what is not RefSAM's to replace.

    Args:
        raster: The raster.
        probability: Whether probabilities are written too.
        parts: Real paths of all that is read.
        report: `read_report` of the raster.

    Raises:
        RefSAMError: With code ``input``.
    """
    results = [path for path in raster.results() if probability or path != raster.probability]
    for path in results:
        if os.path.realpath(path) in parts:
            raise RefSAMError(
                "input", f"Result '{path}' would replace a part of a raster that is read; choose another output folder."
            )
    foreign = _foreign(raster, report, [path for path in results if os.path.exists(path)])
    if foreign is not None:
        raise RefSAMError(
            "input", f"'{foreign}' is not RefSAM's, and a result would replace it; choose another output folder."
        )


def earlier_results(raster: FolderRaster, parts: Collection[str], report: Mapping[str, Any]) -> list[str]:
    """Return the results of an earlier run: what its report lists, as far as it is there and looks like it.

    Args:
        raster: The raster.
        parts: Real paths of all that is read, none of which is given out.
        report: `read_report` of the raster.
    """
    listed = _listed(report)
    return [
        path
        for path, looks in _looks(raster).items()
        if os.path.basename(path) in listed and os.path.realpath(path) not in parts and looks(path)
    ]


def discard(results: Iterable[str], reporter: Reporter) -> None:
    """Delete results, which another run gave than the report that is beside them now, and say so.

    What programs put beside them goes too. One that another program holds stays.
    """
    for result in results:
        try:
            for path in (Path(result), *side_files(Path(result))):
                path.unlink(missing_ok=True)
            reporter.log(f"'{result}' of an earlier run is deleted, as it is out of date.")
        except OSError as error:
            reporter.log(f"'{result}' of an earlier run is out of date and cannot be deleted ({error}); delete it.")


def _looks(raster: FolderRaster) -> dict[str, Callable[[str], bool]]:
    """Return for each place of a result whether a file looks like it."""
    return {raster.mask: _is_mask, raster.polygons: _is_layer, raster.probability: _is_probability}


def _listed(report: Mapping[str, Any]) -> set[str]:
    """Return the names of the files that a report of RefSAM's lists, without their folder: it may have been moved."""
    files = report.get("files")
    if "refsam" not in report or not isinstance(files, dict):
        return set()
    return {os.path.basename(str(entry.get("path"))) for entry in files.values() if isinstance(entry, dict)}


def _foreign(raster: FolderRaster, report: Mapping[str, Any], there: list[str]) -> str | None:
    """Return one of the files in the places of results that RefSAM did not write, ``None`` if there is none.

    Files are known by what they hold: a run that was killed may have left them without a report, a report may get lost,
    and people put their own in the place of those that it lists. It vouches for itself and for those that nobody can
    open; files vouch for a report that is torn.
    """
    looks, listed = _looks(raster), _listed(report)
    others = [path for path in there if path != raster.report]
    for path in others:
        if not looks[path](path) and (os.path.basename(path) not in listed or _opens(path)):
            return path
    is_ours = raster.report not in there or "refsam" in report or (others and _is_torn(raster.report))
    return None if is_ours else raster.report


def _opens(path: str) -> bool:
    """Whether a file, known by its ending, is a raster or a data set of layers."""
    try:
        if path.endswith(".gpkg"):
            return len(pyogrio.list_layers(path)) > 0
        with open_raster(path):
            return True
    except (DataSourceError, RasterioError):
        return False


def _is_mask(path: str) -> bool:
    """Whether a file is a raster with the names of classes."""
    try:
        with open_raster(path) as dataset:
            return "CLASS_1" in dataset.tags(1)
    except RasterioError:
        return False


def _is_probability(path: str) -> bool:
    """Whether a file is a raster that may hold probabilities."""
    try:
        with open_raster(path) as dataset:
            return bool(dataset.dtypes[0] == "float32" and dataset.nodata == PROBABILITY_NODATA)
    except RasterioError:
        return False


def _is_layer(path: str) -> bool:
    """Whether a file holds the layer of polygons with its fields."""
    try:
        fields = pyogrio.read_info(path, layer=LAYER)["fields"]
    except (DataLayerError, DataSourceError):
        return False
    return set(FOUND_COLUMNS) <= set(fields)


def _is_torn(path: str) -> bool:
    """Whether a file is no JSON."""
    try:
        with open(path, encoding="utf-8") as stream:
            json.load(stream)
    except ValueError:
        return True
    return False
