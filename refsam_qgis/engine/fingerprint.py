"""What a result depends on, told in a few digits without a network being loaded."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import rasterio
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.errors import RasterioError

from .errors import RefSAMError
from .job import ReferenceSource
from .rasters.georeference import map_transform, open_raster
from .rasters.parts import on_disk, parts_of
from .vectors import unreadable

UNRELATED = (".aux.xml", ".ovr")
"""Endings of side files that programs add to a raster without changing it."""


def fingerprint(document: Any) -> str:
    """Return the SHA-256 of a JSON-compatible document, as hexadecimal digits; the order of fields does not matter."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def is_stamped(identity: dict[str, Any]) -> bool:
    """Whether a raster would get another identity when it is changed.

    Nobody can tell of what is no local file, such as an address in the web, nor of what names no file at all.

    Args:
        identity: As `raster_identity` returned it.
    """
    stamps = identity["files"]
    return bool(stamps) and all(size is not None for _, size, _ in stamps)


def file_stamp(path: str) -> list[Any]:
    """Return path, size in bytes and modification time in nanoseconds; both ``None`` for what is no local file.

    For what lies in an archive they are those of the archive.
    """
    try:
        stat = os.stat(on_disk(path))
    except OSError:
        return [path, None, None]
    return [os.path.realpath(path), stat.st_size, stat.st_mtime_ns]


def raster_identity(path: str) -> dict[str, Any]:
    """Return what tells a raster from any other, and from itself before it was changed.

    The host writes virtual rasters anew for each run, so the text of one counts, not where or when it was written.

    Raises:
        RefSAMError: With code ``input`` when it is missing, no raster or not on a map yet.
    """
    try:
        with open_raster(path) as dataset:
            return {
                **_content(dataset),
                "width": dataset.width,
                "height": dataset.height,
                "crs": None if dataset.crs is None else dataset.crs.to_wkt(),
                "transform": list(map_transform(dataset))[:6],
                "dtypes": list(dataset.dtypes),
                "nodata": str(dataset.nodata),
                "colours": [colour.name for colour in dataset.colorinterp],
                "descriptions": list(dataset.descriptions),
            }
    except RasterioError as error:
        what = "cannot be read as a raster" if os.path.exists(path) else "does not exist"
        raise RefSAMError("input", f"Raster '{path}' {what}; give a file that GDAL opens.") from error
    except UnicodeError as error:
        raise RefSAMError(
            "input", f"Raster '{path}' or a file that it names has a name that is no UTF-8; rename it."
        ) from error


def _content(dataset: rasterio.DatasetReader) -> dict[str, Any]:
    """Return the stamps of the files that a raster consists of, without its own if that is a text that is digested."""
    files = [part for part in parts_of(dataset) if not part.lower().endswith(UNRELATED)]
    digest = None
    if dataset.driver == "VRT":
        with suppress(OSError):  # what stands in for a file, such as vrt://, has no text
            digest = hashlib.sha256(Path(dataset.name).read_bytes()).hexdigest()
            files = [part for part in files if os.path.realpath(part) != os.path.realpath(dataset.name)]
    return {"files": [file_stamp(part) for part in files], "virtual": digest}


def references_identity(source: ReferenceSource) -> dict[str, Any]:
    """Return what a reference source says, whatever its vector files and their class fields are called.

    The host writes the marks to a new file for each run, so their content counts; a reference set counts by its bytes.

    Raises:
        RefSAMError: With code ``reference`` for a file that cannot be read, ``input`` for the raster.
    """
    if source.refset is not None:
        return {"refset": _file_digest(source.refset)}
    return {
        "marks": _marks_digest(str(source.vector), source.layer, source.class_field),
        "negatives": None if source.negatives is None else _marks_digest(source.negatives, None, None),
        "annotation": source.annotation,
        "raster": None if source.raster is None else raster_identity(source.raster),
    }


def _file_digest(path: str) -> str:
    sha256 = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(2**20):
                sha256.update(block)
    except OSError as error:
        raise RefSAMError(
            "reference", f"Reference set '{path}' cannot be read ({error.strerror}); check its path."
        ) from error
    return sha256.hexdigest()


def _marks_digest(path: str, layer: str | None, class_field: str | None) -> str:
    """Digest the geometries, classes and CRS of a layer, in the order of its features."""
    columns = [] if class_field is None else [class_field]
    try:
        meta, _, geometries, fields = pyogrio.raw.read(path, layer=layer, columns=columns)
    except DataLayerError as error:
        raise RefSAMError("reference", f"'{path}' has no layer '{layer}'; choose one that it has.") from error
    except (DataSourceError, OSError, UnicodeError) as error:
        raise unreadable(path, "polygons, lines or points", "reference") from error
    sha256 = hashlib.sha256(repr((meta["crs"], class_field is not None)).encode())
    for geometry in [] if geometries is None else geometries:
        sha256.update(geometry or b"-")
    for values in fields:
        sha256.update(repr(np.asarray(values).tolist()).encode())
    return sha256.hexdigest()
