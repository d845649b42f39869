"""Class masks, probabilities and polygons on disk."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import rasterio
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window

from ..errors import RefSAMError
from .outputs import disk_errors
from .vectorise import ObjectTable

MASK_NODATA = 255
PROBABILITY_NODATA = -1.0
LAYER = "objects"
BLOCK = 256
COLOURS = (
    (230, 85, 13), (49, 130, 189), (49, 163, 84), (222, 45, 138), (253, 208, 23), (117, 107, 177), (20, 180, 180),
)  # fmt: skip
"""Class colours of the mask, repeated when there are more classes."""


class RowWriter:
    """A tiled GeoTIFF written in blocks of whole rows from top to bottom; a context manager.

    Args:
        path: File to write.
        width: In pixels.
        height: In pixels.
        crs: CRS of the raster, or ``None``.
        transform: Pixel-to-map transform.
        dtype: Data type of the bands.
        nodata: Nodata value.
        descriptions: Name of each band.
    """

    def __init__(
        self,
        path: str,
        width: int,
        height: int,
        crs: CRS | None,
        transform: Affine,
        dtype: str,
        nodata: float,
        descriptions: Sequence[str],
    ) -> None:
        self._path = path
        with disk_errors(path), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._dataset = rasterio.open(
                path, "w", driver="GTiff", width=width, height=height, count=len(descriptions), dtype=dtype,
                crs=crs, transform=transform, nodata=nodata, tiled=True, blockxsize=BLOCK, blockysize=BLOCK,
                compress="deflate", interleave="band", bigtiff="if_safer",
            )  # fmt: skip
            self._dataset.descriptions = tuple(descriptions)

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._dataset.close()
            return
        with disk_errors(self._path):
            self._dataset.close()
            self._check_whole()

    def write(self, row: int, values: NDArray[Any]) -> None:
        """Write rows ``(bands, h, width)`` from `row` on."""
        with disk_errors(self._path):
            self._dataset.write(values, window=Window(0, row, values.shape[2], values.shape[1]))

    def set_classes(self, classes: Sequence[str]) -> None:
        """Name and colour the values 1, 2, … of a mask."""
        self._dataset.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(classes, 1)})
        table = {i: (*COLOURS[(i - 1) % len(COLOURS)], 255) for i in range(1, len(classes) + 1)}
        self._dataset.write_colormap(1, {0: (0, 0, 0, 0), **table, MASK_NODATA: (0, 0, 0, 0)})
        self._dataset.colorinterp = (ColorInterp.palette,)

    def _check_whole(self) -> None:
        """Read the last block: GDAL does not report every block that a full disk cut off."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(self._path) as written:
                corner = Window(written.width - 1, written.height - 1, 1, 1)
                written.read(window=corner)


def mask_writer(path: str, window: Window, crs: CRS | None, transform: Affine, classes: Sequence[str]) -> RowWriter:
    """Open a uint8 GeoTIFF of class ids: 0 background, `MASK_NODATA` nodata, class names as band tags.

    Args:
        path: File to write.
        window: The part of a raster it covers.
        crs: CRS of the raster.
        transform: Pixel-to-map transform of that part.
        classes: Name of class 1, 2, …
    """
    writer = RowWriter(path, int(window.width), int(window.height), crs, transform, "uint8", MASK_NODATA, ["class id"])
    writer.set_classes(classes)
    return writer


def probability_writer(
    path: str, window: Window, crs: CRS | None, transform: Affine, classes: Sequence[str]
) -> RowWriter:
    """Open a float32 GeoTIFF with one band of probabilities in 0..1 per class and nodata `PROBABILITY_NODATA`.

    Arguments are those of `mask_writer`.
    """
    return RowWriter(
        path, int(window.width), int(window.height), crs, transform, "float32", PROBABILITY_NODATA, classes
    )


def write_polygons(path: str, table: ObjectTable, classes: Sequence[str], crs: CRS | None) -> None:
    """Write the layer `LAYER` of a GeoPackage: object_id, class, class_id, score, area_m2; valid without an object too.

    Args:
        path: File to write.
        table: The objects.
        classes: Name of class 1, 2, …
        crs: CRS of the polygons.

    Raises:
        RefSAMError: With code ``disk``.
    """
    frame = gpd.GeoDataFrame(
        {
            "object_id": np.arange(1, len(table.polygons) + 1, dtype=np.int32),
            "class": np.array([classes[i - 1] for i in table.class_ids], dtype=object),
            "class_id": table.class_ids,
            "score": table.scores,
            "area_m2": table.areas,
        },
        geometry=gpd.GeoSeries(table.polygons),
        crs=None if crs is None else pyproj.CRS.from_user_input(crs),
    )
    with disk_errors(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        try:
            frame.to_file(path, layer=LAYER, driver="GPKG", engine="pyogrio", geometry_type="Polygon")
        except DataSourceError as error:
            raise RefSAMError(
                "disk", f"'{path}' cannot be written ({error}); free space on its disk and check its permissions."
            ) from error
