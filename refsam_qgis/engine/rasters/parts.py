"""The files that a raster consists of: a virtual one names others, which may be virtual again."""

from __future__ import annotations

import os
import warnings

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

VIRTUAL = ".vrt"


def parts_of(dataset: rasterio.DatasetReader) -> list[str]:
    """Return the files of an open raster and of the virtual rasters among them, each once.

    Raises:
        UnicodeError: For a file whose name is no text.
    """
    parts: dict[str, str] = {}  # by their real path: virtual rasters that name one another may spell it ever longer
    waiting = _add(dataset.files, parts)
    while waiting:
        part = waiting.pop()
        if os.path.realpath(part) != os.path.realpath(dataset.name):
            waiting += _add(_files(part), parts)
    return list(parts.values())


def _add(files: list[str], parts: dict[str, str]) -> list[str]:
    """Note files, and return those among them that are virtual rasters not seen before."""
    new = {os.path.realpath(file): file for file in files if os.path.realpath(file) not in parts}
    parts.update(new)
    return [file for file in new.values() if file.lower().endswith(VIRTUAL)]


def _files(path: str) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                return list(dataset.files)
    except RasterioError:
        return []  # whoever reads the raster hears of it
