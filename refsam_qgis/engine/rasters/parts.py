"""The files that a raster consists of: a virtual one names others, which may be virtual again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

import rasterio
from rasterio.errors import RasterioError

from .georeference import open_raster

VIRTUAL = ".vrt"
ARCHIVES = ("/vsizip/", "/vsitar/", "/vsigzip/", "/vsi7z/", "/vsirar/")
"""What GDAL puts before the path of an archive, which goes on with a path inside it."""


def files_of(paths: Iterable[str]) -> list[str]:
    """Return files with all that those of them that are rasters consist of: what no output may replace."""
    found = []
    for path in paths:
        found.append(path)
        # What is wrong with one its reader will say.
        with suppress(RasterioError, UnicodeError), open_raster(path) as dataset:
            found += parts_of(dataset)
    return found


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
            with suppress(RasterioError), open_raster(part) as virtual:  # one that is not there is a part all the same
                waiting += _add(virtual.files, parts)
    return list(parts.values())


def on_disk(path: str) -> str:
    """Return the file that a path of GDAL's leads to: of what lies in an archive, the archive.

    What leads to no file, such as an address in the web, is returned as it is.
    """
    place = path
    while place.startswith(ARCHIVES):
        place = place.split("/", 2)[2]
        if place.startswith("{"):  # braces may tell the archive from the path inside it
            place = place[1 : place.rfind("}")]
    while not os.path.isfile(place):
        parent = os.path.dirname(place)
        if place == path or parent == place:
            return path
        place = parent
    return place


def _add(files: list[str], parts: dict[str, str]) -> list[str]:
    """Note files, and return those among them that are virtual rasters not seen before."""
    new = {os.path.realpath(file): file for file in files if os.path.realpath(file) not in parts}
    parts.update(new)
    return [file for file in new.values() if file.lower().endswith(VIRTUAL)]
