"""Cuts the references of the mosaic benchmark from one ninth of the mosaic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.windows import Window
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True)
class Ninth:
    """One part of a 3 x 3 cut.

    Attributes:
        row: 0..2 from the top.
        column: 0..2 from the left.
        window: Its pixels.
        shares: Share of each class in it, 0..1.
    """

    row: int
    column: int
    window: Window
    shares: dict[str, float]


def choose_ninth(truth: rasterio.DatasetReader, classes: Mapping[str, int]) -> Ninth:
    """Return the ninth whose rarest class has the largest share: a rule that sees the truth but no result."""
    ninths = [_ninth(truth, classes, row, column) for row in range(3) for column in range(3)]
    return max(ninths, key=lambda ninth: min(ninth.shares.values()))


def cut_references(
    image: rasterio.DatasetReader,
    truth: rasterio.DatasetReader,
    ninth: Ninth,
    classes: Mapping[str, int],
    most: int,
    folder: Path,
) -> tuple[Path, Path, dict[str, int]]:
    """Save the ninth as a raster of its own and the outlines of the classes in it.

    On a raster of its own no reference chip can reach into the parts that are measured.

    Args:
        image: The mosaic.
        truth: Its class ids.
        ninth: Where to cut.
        classes: Id of each class by its name.
        most: Outlines kept of each class, the largest first as a user would pick them; 0 keeps all.
        folder: Where the files go.

    Returns:
        Paths of the raster and of the vector file (with a field ``class``), and the number of outlines per class.
    """
    raster, vector = folder / "references.tif", folder / "references.gpkg"
    transform = image.window_transform(ninth.window)
    profile = {
        "driver": "GTiff",
        "dtype": image.dtypes[0],
        "count": image.count,
        "crs": image.crs,
        "transform": transform,
        "width": ninth.window.width,
        "height": ninth.window.height,
    }
    with rasterio.open(raster, "w", **profile) as target:
        target.write(image.read(window=ninth.window))
    ids = truth.read(1, window=ninth.window)
    kept = {name: _outlines(ids == class_id, transform, most) for name, class_id in classes.items()}
    names = [name for name, outlines in kept.items() for _ in outlines]
    geometry = [outline for outlines in kept.values() for outline in outlines]
    layer = gpd.GeoDataFrame({"class": names}, geometry=geometry, crs=image.crs)
    layer.to_file(vector, layer="references")
    return raster, vector, {name: len(outlines) for name, outlines in kept.items()}


def _ninth(truth: rasterio.DatasetReader, classes: Mapping[str, int], row: int, column: int) -> Ninth:
    rows = [round(i * truth.height / 3) for i in range(4)]
    columns = [round(i * truth.width / 3) for i in range(4)]
    window = Window.from_slices((rows[row], rows[row + 1]), (columns[column], columns[column + 1]))
    ids = truth.read(1, window=window)
    shares = {name: float(np.mean(ids == class_id)) for name, class_id in classes.items()}
    return Ninth(row, column, window, shares)


def _outlines(mask: NDArray[np.bool_], transform: rasterio.Affine, most: int) -> list[BaseGeometry]:
    found = [shape(outline) for outline, _ in shapes(mask.astype(np.uint8), mask, 8, transform)]
    found.sort(key=lambda outline: outline.area, reverse=True)
    return found[:most] if most else found
