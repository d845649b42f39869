"""Where the pixels of a raster lie on the map."""

from __future__ import annotations

import rasterio
from rasterio.transform import Affine

from ..errors import RefSAMError

PICTURE = Affine.scale(1, -1)
"""Where QGIS shows an image without georeference: a map unit a pixel, its upper left corner at (0, 0), y upwards."""


def map_transform(dataset: rasterio.DatasetReader) -> Affine:
    """Return the pixel-to-map transform of a raster, which without a georeference is that of its layer in QGIS.

    Raises:
        RefSAMError: With code ``input`` when it lies on the map by control points or RPCs, so that it has none.
    """
    transform: Affine = dataset.transform
    if transform != Affine.identity():  # what rasterio says where there is none
        return transform
    if dataset.gcps[0] or dataset.rpcs is not None:
        raise RefSAMError(
            "input",
            f"Raster '{dataset.name}' lies on the map by control points or RPCs alone; warp it first (gdalwarp, or "
            "Warp (reproject) in QGIS).",
        )
    return PICTURE if dataset.crs is None else transform
