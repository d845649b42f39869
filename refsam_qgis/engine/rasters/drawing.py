"""Polygons that may overlap, drawn window by window."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window


class DrawnPolygons:
    """Draws the numbers of polygons; memory is that of a window.

    Args:
        polygons: ``(N,)`` shapely polygons or multipolygons in pixel coordinates.
        order: ``(N,)`` indices of the polygons from the lowest to the topmost; ``None`` puts the smaller on top.
    """

    def __init__(self, polygons: NDArray[Any], order: NDArray[np.intp] | None = None) -> None:
        self._polygons = polygons
        order = np.argsort(-shapely.area(polygons), kind="stable") if order is None else order
        self._rank = np.argsort(order)
        self._tree = shapely.STRtree(polygons)

    def draw(self, window: Window) -> NDArray[np.int32]:
        """Return ``(h, w)``: 1 + the index of the polygon that holds each pixel's centre, 0 where none does."""
        left, top = int(window.col_off), int(window.row_off)
        shape = (int(window.height), int(window.width))
        near = self._tree.query(shapely.box(left, top, left + shape[1], top + shape[0]))
        if len(near) == 0:
            return np.zeros(shape, np.int32)
        near = near[np.argsort(self._rank[near])]
        drawn: NDArray[np.int32] = rasterize(
            zip(self._polygons[near], (near + 1).tolist(), strict=True),
            shape,
            transform=Affine.translation(left, top),
            dtype="int32",
        )
        return drawn
