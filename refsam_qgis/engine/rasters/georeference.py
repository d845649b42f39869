"""Where the pixels of a raster lie on the map, and which map that is."""

from __future__ import annotations

import warnings

import pyproj
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from ..errors import RefSAMError

PICTURE = Affine.scale(1, -1)
"""Where QGIS shows an image without georeference: a map unit a pixel, its upper left corner at (0, 0), y upwards."""


def open_raster(path: str) -> rasterio.DatasetReader:
    """Open a raster; that one lies nowhere on the map is nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path)


def map_transform(dataset: rasterio.DatasetReader) -> Affine:
    """Return the pixel-to-map transform of a raster, which without a georeference is that of its layer in QGIS.

    Raises:
        RefSAMError: With code ``input`` when it lies on the map by control points or RPCs, so that it has none.
    """
    transform: Affine = dataset.transform
    if transform != Affine.identity():  # what rasterio says where there is none, too
        return transform
    if dataset.gcps[0] or dataset.rpcs is not None:
        raise RefSAMError(
            "input",
            f"Raster '{dataset.name}' lies on the map by control points or RPCs alone; warp it first (gdalwarp, or "
            "Warp (reproject) in QGIS).",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotGeoreferencedWarning)
        try:
            dataset.read_transform()
        except NotGeoreferencedWarning:  # the only sign by which it tells a file without one from an identity
            return PICTURE
    return transform


def pyproj_crs(crs: CRS) -> pyproj.CRS:
    """Return a raster's CRS for pyproj, by way of WKT 2: WKT 1 does not know all of them, such as rotated poles."""
    return pyproj.CRS.from_wkt(crs.to_wkt(version="WKT2_2019"))
