"""Class masks, probabilities and polygons on disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pyogrio.raw
import pyproj
import rasterio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window

from ..palette import class_colour
from .georeference import pyproj_crs
from .grid import common
from .objects import ObjectTable
from .outputs import disk_errors

MASK_NODATA = 255
PROBABILITY_NODATA = -1.0
LAYER = "objects"
BLOCK = 256
"""Side of the square blocks of a GeoTIFF, in pixels."""
NO_WAY = (
    "Nothing is known that leads from its CRS to that of the merged layer, which leaves its polygons out; take them "
    "from its own results."
)
"""Why the polygons of a source on a grid of its own, or on another planet, are not merged."""
COLUMNS: dict[str, type] = {
    "object_id": np.int64,
    "class": object,
    "class_id": np.int32,
    "score": np.float64,
    "stability": np.float64,
    "area_m2": np.float64,
}
"""Fields of polygon layers; names of at most ten characters and types that Shapefile and memory layers know too."""
FOUND_COLUMNS = tuple(name for name in COLUMNS if name != "stability")
"""Those of what is found by examples."""


class PieceWriter:
    """A tiled GeoTIFF written in pieces; a context manager.

    The file's blocks wait until they are whole, so that each is compressed once; what waits is at most one row of
    blocks and what a row of pieces touches. Pixels that are in no piece are nodata.

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
        self._waiting: dict[tuple[int, int], _Block] = {}
        self._row = 0

    def __enter__(self) -> PieceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._dataset.close()
            return
        with disk_errors(self._path):
            self._release(self._dataset.height)
            self._dataset.close()
            self._check_whole()

    def write(self, row: int, column: int, values: NDArray[Any]) -> None:
        """Take the next piece.

        Args:
            row: Its first row; no less than that of the piece before.
            column: Its first column.
            values: ``(bands, h, w)``; pieces do not overlap.
        """
        _, height, width = values.shape
        with disk_errors(self._path):
            if row > self._row:
                self._release(row)
            for i in range(row // BLOCK, (row + height - 1) // BLOCK + 1):
                for j in range(column // BLOCK, (column + width - 1) // BLOCK + 1):
                    block = self._waiting.get((i, j)) or self._open(i, j)
                    block.take(row, column, values)
                    if block.missing == 0:
                        self._write_block(i, j)
        self._row = row

    def _open(self, i: int, j: int) -> _Block:
        top, left = i * BLOCK, j * BLOCK
        height, width = min(BLOCK, self._dataset.height - top), min(BLOCK, self._dataset.width - left)
        values = np.full((self._dataset.count, height, width), self._dataset.nodata, self._dataset.dtypes[0])
        return self._waiting.setdefault((i, j), _Block(top, left, values, height * width))

    def _release(self, row: int) -> None:
        """Write the blocks above a row, which no later piece can touch."""
        for i, j in [place for place, block in self._waiting.items() if block.bottom <= row]:
            self._write_block(i, j)

    def _write_block(self, i: int, j: int) -> None:
        block = self._waiting.pop((i, j))
        _, height, width = block.values.shape
        self._dataset.write(block.values, window=Window(block.left, block.top, width, height))

    def set_classes(self, classes: Sequence[str]) -> None:
        """Name and colour the values 1, 2, … of a mask."""
        self._dataset.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(classes, 1)})
        table = {i: (*class_colour(i), 255) for i in range(1, len(classes) + 1)}
        self._dataset.write_colormap(1, {0: (0, 0, 0, 0), **table, MASK_NODATA: (0, 0, 0, 0)})
        self._dataset.colorinterp = (ColorInterp.palette,)

    def _check_whole(self) -> None:
        """Read the last block: GDAL does not report every block that a full disk cut off."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(self._path) as written:
                corner = Window(written.width - 1, written.height - 1, 1, 1)
                written.read(window=corner)


@dataclass
class _Block:
    """A block of a file that is not whole yet.

    Attributes:
        top: Its first row.
        left: Its first column.
        values: ``(bands, h, w)``.
        missing: Number of pixels to come.
    """

    top: int
    left: int
    values: NDArray[Any]
    missing: int

    @property
    def bottom(self) -> int:
        """Row after its last."""
        return self.top + int(self.values.shape[1])

    def take(self, row: int, column: int, values: NDArray[Any]) -> None:
        """Take what a piece holds of it."""
        rows, piece_rows = common(self.top, self.values.shape[1], row, values.shape[1])
        columns, piece_columns = common(self.left, self.values.shape[2], column, values.shape[2])
        self.values[:, rows, columns] = values[:, piece_rows, piece_columns]
        self.missing -= (rows.stop - rows.start) * (columns.stop - columns.start)


def mask_writer(path: str, window: Window, crs: CRS | None, transform: Affine, classes: Sequence[str]) -> PieceWriter:
    """Open a uint8 GeoTIFF of class ids: 0 background, `MASK_NODATA` nodata, class names as band tags.

    Args:
        path: File to write.
        window: The part of a raster it covers.
        crs: CRS of the raster.
        transform: Pixel-to-map transform of that part.
        classes: Name of class 1, 2, …
    """
    writer = PieceWriter(
        path, int(window.width), int(window.height), crs, transform, "uint8", MASK_NODATA, ["class id"]
    )
    writer.set_classes(classes)
    return writer


def probability_writer(
    path: str, window: Window, crs: CRS | None, transform: Affine, classes: Sequence[str]
) -> PieceWriter:
    """Open a float32 GeoTIFF with one band of probabilities in 0..1 per class and nodata `PROBABILITY_NODATA`.

    Arguments are those of `mask_writer`.
    """
    return PieceWriter(
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
    columns = {
        "object_id": table.object_ids,
        "class": np.array([classes[i - 1] for i in table.class_ids], dtype=object),
        "class_id": table.class_ids,
        "score": table.scores,
        "area_m2": table.areas,
    }
    _write_layer(path, columns, table.polygons, crs, "Polygon")


def write_prompted(
    path: str,
    polygons: NDArray[Any],
    object_ids: NDArray[np.int64],
    scores: NDArray[np.float64],
    stabilities: NDArray[np.float64],
    areas: NDArray[np.float64],
    crs: CRS | None,
) -> None:
    """Write the layer `LAYER` of a GeoPackage: object_id, score, stability, area_m2; valid without an object too.

    Args:
        path: File to write.
        polygons: ``(N,)`` shapely polygons or multipolygons; the layer holds multipolygons.
        object_ids: ``(N,)`` ints.
        scores: ``(N,)`` IoU that SAM predicts, in 0..1.
        stabilities: ``(N,)`` stability scores in 0..1.
        areas: ``(N,)`` square metres.
        crs: CRS of the polygons.

    Raises:
        RefSAMError: With code ``disk``.
    """
    columns = {"object_id": object_ids, "score": scores, "stability": stabilities, "area_m2": areas}
    _write_layer(path, columns, polygons, crs, "MultiPolygon")


def merge_polygons(
    path: str, layers: Iterable[tuple[str, str]], crs: CRS | None, leave_out: Callable[[str, str], None]
) -> int:
    """Write the layers of several files that `write_polygons` made into one, with their ``source``.

    One file is in memory at a time. ``object_id`` is unique within a source.

    Args:
        path: GeoPackage to write; its layer is `LAYER`.
        layers: Name of the source and path of the GeoPackage, of each.
        crs: CRS of the merged layer; layers in another one are transformed, those without one are taken as they are.
        leave_out: Hears the name of a source, and why some or all of its polygons have no place in that CRS or cannot
            be read.

    Returns:
        Number of polygons.

    Raises:
        RefSAMError: With code ``disk``.
    """
    count = 0
    nothing: NDArray[Any] = np.array([], dtype=object)
    _write_layer(path, dict.fromkeys(["source", *FOUND_COLUMNS], nothing), nothing, crs, "Polygon")
    own = gpd.read_file(path, layer=LAYER, engine="pyogrio").crs  # as files tell it, which is not word for word
    for source, layer in layers:
        frame = _read_found(layer)
        if frame is None:
            leave_out(
                source,
                f"Its polygons '{layer}' are damaged or no longer RefSAM's, so the merged layer leaves them out; move "
                "that file elsewhere, and the next run does the raster again.",
            )
            continue
        if frame.empty:
            continue
        if crs is not None and frame.crs is not None and frame.crs != own:
            try:
                frame = frame.to_crs(pyproj_crs(crs))
            except ProjError:
                leave_out(source, NO_WAY)
                continue
            there = np.isfinite(shapely.bounds(frame.geometry.to_numpy())).all(axis=1)
            if lost := len(there) - int(there.sum()):
                leave_out(
                    source,
                    f"{lost} of its polygons lie where the CRS of the merged layer does not reach, and are not in it; "
                    "take them from its own results.",
                )
                frame = frame[there]
        columns = {name: frame[name].to_numpy() for name in FOUND_COLUMNS}
        empty = {name: frame[name].isna().to_numpy() for name in FOUND_COLUMNS}  # of what a person has drawn besides
        sources = np.full(len(frame), source, dtype=object)
        polygons = frame.geometry.to_numpy()
        _write_layer(path, {"source": sources, **columns}, polygons, crs, "Polygon", append=True, empty=empty)
        count += len(frame)
    return count


def _read_found(path: str) -> gpd.GeoDataFrame | None:
    """Read what `write_polygons` wrote; ``None`` when it is damaged, or somebody put something else in its place."""
    try:
        frame = gpd.read_file(path, layer=LAYER, engine="pyogrio")
    except (DataLayerError, DataSourceError):
        return None
    return frame if isinstance(frame, gpd.GeoDataFrame) and set(FOUND_COLUMNS) <= set(frame.columns) else None


def _described(crs: pyproj.CRS) -> str:
    """Name a CRS by its number, else in WKT 2; pyogrio writes frames by WKT 1, which does not know all of them."""
    epsg = crs.to_epsg()
    return crs.to_wkt() if epsg is None else f"EPSG:{epsg}"


def _write_layer(
    path: str,
    columns: dict[str, NDArray[Any]],
    polygons: NDArray[Any],
    crs: CRS | None,
    geometry_type: str,
    append: bool = False,
    empty: Mapping[str, NDArray[np.bool_]] | None = None,
) -> None:
    gaps = {**{name: np.zeros(len(polygons), np.bool_) for name in columns}, **(empty or {})}
    values: list[NDArray[Any]] = [
        np.where(gaps[name], 0, column).astype(COLUMNS.get(name, object)) for name, column in columns.items()
    ]
    with disk_errors(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.raw.write(
            path, shapely.to_wkb(polygons), values, list(columns), layer=LAYER, driver="GPKG",
            field_mask=[gaps[name] for name in columns],
            geometry_type=geometry_type, crs=None if crs is None else _described(pyproj_crs(crs)),
            promote_to_multi=geometry_type == "MultiPolygon", append=append,
            VERSION="1.3",  # the GDAL of QGIS 3.22 warns of newer ones
        )  # fmt: skip
        _check_layer(path, len(polygons))


def _check_layer(path: str, count: int) -> None:
    """Raise if a layer lacks some of the features written last: GDAL does not report all that a full disk cut off.

    Raises:
        OSError: In which case the disk is to blame.
    """
    try:
        is_whole = pyogrio.read_info(path, layer=LAYER, force_feature_count=True)["features"] >= count
    except (DataLayerError, DataSourceError):
        is_whole = False
    if not is_whole:
        raise OSError("it came out damaged")
