"""Objects seen in overlapping tiles, each kept once and whole.

What two tiles show of one object agrees where both look. An object that one tile shows whole replaces what another
shows of it; one that both cut off is put together. Tiles come row by row, and objects that no later tile can touch
leave, so that only those along the last row of tiles are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

STITCH_OVERLAP = 0.5
"""IoU, where both tiles look, from which two views are of one object when at least one of them is cut off."""


@dataclass(frozen=True)
class SeenObject:
    """An object as it is known so far.

    Attributes:
        outline: Polygon or multipolygon in pixels of the raster.
        score: IoU that SAM predicts.
        stability: Stability score in 0..1.
    """

    outline: BaseGeometry
    score: float
    stability: float


@dataclass(frozen=True)
class _Known:
    """An object with where it was looked for.

    Attributes:
        seen: Polygon of the tiles that showed it.
        tiles: Their numbers.
        cut: Whether it reaches a border of `seen` that is none of the raster.
    """

    object: SeenObject
    seen: BaseGeometry
    tiles: frozenset[int]
    cut: bool


class Stitcher:
    """Collects the objects of overlapping tiles.

    Args:
        width: Of the raster, in pixels.
        height: Of the raster, in pixels.
        border: How near to a tile's border, in pixels, an object counts as cut off.
        max_overlap: IoU above which two whole objects are one, 0..1; the better score stays.
    """

    def __init__(self, width: int, height: int, border: float, max_overlap: float) -> None:
        self._frame = shapely.box(0, 0, width, height).exterior
        self._border = border
        self._max_overlap = max_overlap
        self._tiles: list[BaseGeometry] = []
        self._open: list[_Known] = []
        self._finished: list[SeenObject] = []

    def add(self, window: Window, objects: list[SeenObject]) -> None:
        """Take the objects of the next tile, which are different from each other.

        Args:
            window: The tile.
            objects: What it shows; outlines lie inside it.
        """
        left, top = int(window.col_off), int(window.row_off)
        tile = shapely.box(left, top, left + int(window.width), top + int(window.height))
        number = len(self._tiles)
        new = [_Known(item, tile, frozenset([number]), self._is_cut(item.outline, tile)) for item in objects]
        partners = self._partners(tile, new)
        matched = {index for of_object in partners for index in of_object}
        core = self._core(tile)
        self._open = [
            known
            for index, known in enumerate(self._open)
            if index not in matched and not self._better_seen(known, [core])
        ] + self._merged(new, partners, self._open)
        self._tiles.append(tile)

    def release(self, row: int) -> None:
        """Let go of what no later tile can touch, as all of them begin at `row` or below."""
        ended = [known.object.outline.bounds[3] <= row for known in self._open]
        self._finished += [known.object for known, over in zip(self._open, ended, strict=True) if over]
        self._open = [known for known, over in zip(self._open, ended, strict=True) if not over]

    def finish(self) -> list[SeenObject]:
        """Return all objects."""
        self._finished += [known.object for known in self._open]
        self._open = []
        return self._finished

    def _partners(self, tile: BaseGeometry, new: list[_Known]) -> list[list[int]]:
        """Return which open objects each new one is the same as, best first; at most one of each tile."""
        partners: list[list[int]] = [[] for _ in new]
        if not new or not self._open:
            return partners
        ours = np.array([known.object.outline for known in self._open], dtype=object)
        theirs = np.array([known.object.outline for known in new], dtype=object)
        i, j = shapely.STRtree(theirs).query(ours, predicate="intersects")
        agreement = self._agreement(ours, theirs, i, j, tile)
        cut = np.array([known.cut for known in self._open])[i] | np.array([known.cut for known in new])[j]
        same = agreement > np.where(cut, min(STITCH_OVERLAP, self._max_overlap), self._max_overlap)
        taken: set[int] = set()
        used: list[frozenset[int]] = [frozenset()] * len(new)
        for pair in np.argsort(-agreement, kind="stable"):
            known, other = int(i[pair]), int(j[pair])
            if same[pair] and known not in taken and not used[other] & self._open[known].tiles:
                taken.add(known)
                used[other] |= self._open[known].tiles
                partners[other].append(known)
        return partners

    def _agreement(
        self, ours: NDArray[Any], theirs: NDArray[Any], i: NDArray[np.intp], j: NDArray[np.intp], tile: BaseGeometry
    ) -> NDArray[np.float64]:
        """IoU of pairs of objects where both were looked for."""
        seen = np.array([known.seen for known in self._open], dtype=object)
        both = shapely.area(shapely.intersection(ours[i], theirs[j]))
        our_part = shapely.area(shapely.intersection(ours, tile))[i]
        their_part = shapely.area(shapely.intersection(theirs[j], seen[i]))
        iou: NDArray[np.float64] = both / np.maximum(our_part + their_part - both, np.finfo(np.float64).tiny)
        return iou

    def _merged(self, new: list[_Known], partners: list[list[int]], known: list[_Known]) -> list[_Known]:
        """Return the new objects joined with their partners, without those that an earlier tile had seen better."""
        merged = []
        for item, of_item in zip(new, partners, strict=True):
            if not of_item:
                near = [tile for tile in self._tiles if tile.intersects(item.object.outline)]
                if self._better_seen(item, [self._core(tile) for tile in near]):
                    continue
            for index in of_item:
                item = self._joined(known[index], item)
            merged.append(item)
        return merged

    def _joined(self, a: _Known, b: _Known) -> _Known:
        """Make one object of two views of it."""
        seen, tiles = shapely.union(a.seen, b.seen), a.tiles | b.tiles
        if a.cut and b.cut:
            weights = [a.object.outline.area, b.object.outline.area]
            whole = SeenObject(
                shapely.union(a.object.outline, b.object.outline),
                float(np.average([a.object.score, b.object.score], weights=weights)),
                float(np.average([a.object.stability, b.object.stability], weights=weights)),
            )
            return _Known(whole, seen, tiles, self._is_cut(whole.outline, seen))
        if a.cut or b.cut:
            better = b if a.cut else a
        else:
            better = b if b.object.score > a.object.score else a
        return replace(better, seen=seen, tiles=tiles)

    def _is_cut(self, outline: BaseGeometry, seen: BaseGeometry) -> bool:
        inner = seen.boundary.difference(self._frame)
        return bool(not inner.is_empty and outline.distance(inner) < self._border)

    def _core(self, tile: BaseGeometry) -> BaseGeometry:
        """The part of a tile in which nothing is cut off by it."""
        inner = tile.boundary.difference(self._frame)
        return tile.difference(inner.buffer(self._border, cap_style="square", join_style="mitre"))

    def _better_seen(self, known: _Known, cores: list[BaseGeometry]) -> bool:
        """Whether an object cut off by its only tile lies where another shows it whole, and was not found there."""
        if not known.cut or len(known.tiles) > 1:
            return False
        return any(core.covers(shapely.box(*known.object.outline.bounds)) for core in cores)
