"""Marked examples and reference sets turned into the chips that a model is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window
from scipy.ndimage import label
from shapely.geometry.base import BaseGeometry

from ..errors import RefSAMError
from ..events import Reporter, check_cancelled
from ..job import ReferenceSource
from ..models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED, Shots
from ..rasters.cover import cover
from ..rasters.georeference import pyproj_crs
from ..rasters.objects import PixelGrid
from ..rasters.source import RasterSource
from .chips import Chip, ChipSet, chip_side, digest_shots, stack
from .marks import Mark, Marks, read_marks
from .refset_file import read_refset

MAX_CHIPS = 10
"""Most chips taken of a class from one raster."""
CHIP_PER_OBJECT = 8
"""Side of a chip in sides of the median object: an object then takes 8 of the 64 cells of SAM's feature grid."""
MIN_CHIP, MAX_CHIP = 256, 1024
"""Bounds of the automatic side of a chip, in pixels of the (finest) reference raster."""
CHIP_STEP = 32
GUARD_CELLS = 4
"""Feature cells (of 64 along a chip) around a scribble that nobody can say belong to the object or not."""


@dataclass(frozen=True)
class ClassReference:
    """The reference chips of one class, with its name, id (1, 2, …) and the areas of the objects outlined in them."""

    name: str
    class_id: int
    shots: Shots
    areas: tuple[float, ...] = ()


@dataclass(frozen=True)
class ReferenceSet:
    """The reference chips of all classes.

    Attributes:
        classes: In the order of their ids.
        chip_ground_size: Side of the chips in metres (in map units without a CRS).
        gsd: Ground sample distance of the (finest) reference raster in the same unit.
        negative: Chips of what is to be told apart from every class: a class that wins pixels but is never given out.
    """

    classes: tuple[ClassReference, ...]
    chip_ground_size: float
    gsd: float
    negative: Shots | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, chips and sizes: equal for equal content, wherever it was read."""
        parts: list[Any] = [self.chip_ground_size, self.gsd]
        parts += [(reference.name, reference.class_id, digest_shots(reference.shots)) for reference in self.classes]
        parts.append(None if self.negative is None else digest_shots(self.negative))
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @cached_property
    def typical_example(self) -> float:
        """Median area in square metres of the objects marked whole in the chips, of the class of the smallest ones.

        0 where no object is whole.
        """
        areas = [reference.areas or self._connected(reference.shots) for reference in self.classes]
        return min((float(np.median(of_class)) for of_class in areas if of_class), default=0.0)

    def _connected(self, shots: Shots) -> tuple[float, ...]:
        """Return the areas of what is marked, but not outlined as objects: scribbles, and what older files hold."""
        pixel = self.chip_ground_size / shots.masks.shape[-1]
        return tuple(count * pixel**2 for count in _whole_marks(shots))


def _whole_marks(shots: Shots) -> list[int]:
    """Return the pixels of each connected mark that does not reach the border of its chip."""
    areas: list[int] = []
    for mask in shots.masks.numpy() == FOREGROUND:
        labels, _ = label(mask)
        cut = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        pixels = np.bincount(labels.ravel())
        pixels[0] = 0
        pixels[cut] = 0
        areas += pixels[pixels > 0].tolist()
    return areas


@dataclass(frozen=True)
class MarkedRaster:
    """An open raster with the marks on it.

    Attributes:
        source: Where the marks were read.
        raster: The raster.
        stretch: How it is read, for the chips' origin.
        marks: In pixels of the raster.
    """

    source: ReferenceSource
    raster: RasterSource
    stretch: str
    marks: Marks


def gather_references(
    source: ReferenceSource,
    default_raster: str,
    bands: tuple[int, ...] | None,
    stretch: str,
    reporter: Reporter,
    ground_size: float | None = None,
) -> ReferenceSet:
    """Read a reference set, or marked examples, as chips of one ground size.

    Args:
        source: Where the examples are.
        default_raster: Raster of the marks if `source` names none.
        bands: Of the raster of the marks, as in `RasterSource`; see `bands_of_examples`.
        stretch: As in `RasterSource`; ``percentile`` also stretches the chips of a reference set that are not, and
            the others leave them as they were made.
        reporter: Hears about what was left out, and is asked whether to stop.
        ground_size: Side of the chips in metres (map units without a CRS); ``None`` takes that of the reference set,
            or for marks `CHIP_PER_OBJECT` times the median object, within `MIN_CHIP` to `MAX_CHIP` pixels and no
            larger than the raster.

    Raises:
        RefSAMError: With code ``reference`` for examples that cannot be used, ``input`` for the raster.
    """
    if source.refset is not None:
        chips = read_refset(source.refset, reporter)
        if stretch == "percentile":
            chips = chips.with_stretch()
            if left := sum(chip.stretched is not True for _, chip in chips.chips()):
                reporter.log(
                    f"Chips of '{source.refset}' that are not known to be stretched, as the raster that is searched "
                    f"is: {left}; build the set anew with Contrast stretch 'auto'."
                )
        return to_reference_set(chips if ground_size is None else chips.at_ground_size(ground_size))
    with open_marked(source, source.raster or default_raster, bands, stretch, reporter) as marked:
        chips = cut_chips(marked, choose_ground_size([marked]) if ground_size is None else ground_size, reporter)
    require_chips(chips, [marked])
    return to_reference_set(chips)


def to_reference_set(chips: ChipSet) -> ReferenceSet:
    """Stack the chips of each class."""
    classes = tuple(
        ClassReference(name, i, stack(shown), tuple(area for chip in shown for area in chip.areas))
        for i, (name, shown) in enumerate(chips.classes.items(), 1)
    )
    negative = stack(chips.negatives) if chips.negatives else None
    return ReferenceSet(classes, chips.ground_size, min(chip.gsd for _, chip in chips.chips()), negative)


@contextmanager
def open_marked(
    source: ReferenceSource, path: str, bands: tuple[int, ...] | None, stretch: str, reporter: Reporter
) -> Iterator[MarkedRaster]:
    """Open a raster and read the marks on it; see `read_marks` and `RasterSource` for what may fail."""
    with RasterSource(path, bands, stretch) as raster:
        raster.tell_bands(reporter)
        yield MarkedRaster(source, raster, stretch, read_marks(source, raster, reporter))


def choose_ground_size(marked: Sequence[MarkedRaster]) -> float:
    """Choose the side of the chips in metres from the objects' sizes; polygons say it best, then scribbles."""
    finest = min(one.raster.gsd for one in marked)
    every = [
        (mark.is_area, mark.size * (one.raster.gsd / finest))
        for one in marked
        for marks in one.marks.classes.values()
        for mark in marks
        if mark.size is not None
    ]
    sizes = [size for is_area, size in every if is_area] or [size for _, size in every]
    wanted = CHIP_PER_OBJECT * float(np.median(np.array(sizes, dtype=float))) if sizes else MIN_CHIP
    longest = max(max(one.raster.width, one.raster.height) * (one.raster.gsd / finest) for one in marked)
    whole_raster = -(-longest // CHIP_STEP) * CHIP_STEP
    side = min(round(min(max(wanted, MIN_CHIP), MAX_CHIP) / CHIP_STEP) * CHIP_STEP, whole_raster)
    return float(side * finest)


def cut_chips(marked: MarkedRaster, ground_size: float, reporter: Reporter) -> ChipSet:
    """Cut the chips of every class and of the negatives; a class without a valid pixel gets none.

    Raises:
        RefSAMError: With code ``reference`` for chips of too many pixels, ``input`` for a damaged raster.
    """
    side = chip_side(ground_size, marked.raster.gsd, marked.raster.path)
    marks = marked.marks
    every = [mark for of_class in marks.classes.values() for mark in of_class]
    classes: dict[str, list[Chip]] = {}
    for name, own in marks.classes.items():
        rivals = [mark for other, of_class in marks.classes.items() if other != name for mark in of_class]
        subject = _Subject(f"class '{name}'", own, [*rivals, *marks.negatives], every, marked.source.annotation)
        classes[name] = _cut(marked, subject, side, reporter)
    # Nobody was asked to mark all of what the negatives show.
    subject = _Subject("the negatives", marks.negatives, every, [*every, *marks.negatives], "partial")
    return ChipSet(ground_size, classes, _cut(marked, subject, side, reporter))


def require_chips(chips: ChipSet, marked: Sequence[MarkedRaster]) -> None:
    """Raise if a class has no chip.

    Raises:
        RefSAMError: With code ``reference``, naming the marks.
    """
    for name, shown in chips.classes.items():
        if not shown:
            one = next(one for one in marked if name in one.marks.classes)
            raise RefSAMError(
                "reference",
                f"Class '{name}' of '{one.source.vector}' marks no valid pixel of raster '{one.raster.path}'; mark it "
                "where the raster has data, or remove it.",
            )


@dataclass(frozen=True)
class _Subject:
    """What chips are cut of.

    Attributes:
        what: Its name in messages.
        own: Marks that are foreground.
        others: Marks that are background for certain.
        near: Marks around which somebody looked; chips stay close to them.
        annotation: As in `ReferenceSource`.
    """

    what: str
    own: Sequence[Mark]
    others: Sequence[Mark]
    near: Sequence[Mark]
    annotation: str


def _cut(marked: MarkedRaster, subject: _Subject, side: int, reporter: Reporter) -> list[Chip]:
    """Cut chips that show a subject, those that show most of it first."""
    if not subject.own:
        return []
    raster = marked.raster
    chips: list[Chip] = []
    taken: list[BaseGeometry] = []
    grid = PixelGrid.of(raster, Window(0, 0, raster.width, raster.height))
    outlines = [mark.outline for mark in subject.own]
    frame = shapely.total_bounds([mark.outline for mark in subject.near])
    for window in cover(outlines, (frame[0], frame[1], frame[2], frame[3]), side, (raster.height, raster.width)):
        check_cancelled(reporter)
        image, valid = raster.read(window)
        mask = _chip_mask(subject, window, valid)
        if not (mask == FOREGROUND).any():
            continue
        if len(chips) == MAX_CHIPS:
            break
        origin = _origin(marked, window, subject.annotation)
        areas = _whole_areas(subject, window, grid)
        chips.append(Chip(image, mask, valid, raster.gsd, origin, areas, raster.limits is not None))
        taken.append(_box(window))
    unseen = len(outlines) - int(shapely.intersects(outlines, shapely.union_all(taken)).sum())
    if unseen and chips:
        reporter.log(f"{unseen} of {len(outlines)} marks of {subject.what} are left out; {len(chips)} chips are used.")
    return chips


def _whole_areas(subject: _Subject, window: Window, grid: PixelGrid) -> tuple[float, ...]:
    """Return the areas on the ground of the objects that are outlined as a whole in a chip."""
    outlines = np.array([mark.outline for mark in subject.own if mark.is_area], dtype=object)
    whole = shapely.contains_properly(_box(window), outlines)
    return tuple(grid.areas(grid.to_map(outlines[whole])).tolist())


def _chip_mask(subject: _Subject, window: Window, valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw the mask of a chip, ``(S, S)``.

    Around scribbles and points lies a guard ring of `IGNORE`, since their object goes on for an unknown distance; what
    is marked as something else is background for certain, even there.
    """
    frame = _box(window)
    mask = np.full(valid.shape, BACKGROUND if subject.annotation == "complete" else UNMARKED, np.uint8)
    guard = GUARD_CELLS * valid.shape[0] / 64
    rings = [mark.outline.buffer(guard) for mark in subject.own if not mark.is_area]
    mask[_drawn(rings, frame, window)] = IGNORE
    for marks, value in ((subject.others, BACKGROUND), (subject.own, FOREGROUND)):
        for all_touched in (False, True):
            outlines = [mark.outline for mark in marks if mark.all_touched == all_touched]
            mask[_drawn(outlines, frame, window, all_touched)] = value
    mask[~valid] = IGNORE
    return mask


def _drawn(
    outlines: Sequence[BaseGeometry], frame: BaseGeometry, window: Window, all_touched: bool = False
) -> NDArray[np.bool_]:
    """Return which pixels of a window polygons in pixel coordinates cover, ``(h, w)``."""
    shape = (int(window.height), int(window.width))
    near = [outline for outline in outlines if outline.intersects(frame)]
    if not near:
        return np.zeros(shape, np.bool_)
    place = Affine.translation(window.col_off, window.row_off)
    drawn: NDArray[np.uint8] = rasterize(near, shape, transform=place, all_touched=all_touched, dtype="uint8")
    return drawn.astype(np.bool_)


def _box(window: Window) -> shapely.Polygon:
    return shapely.box(window.col_off, window.row_off, window.col_off + window.width, window.row_off + window.height)


def _origin(marked: MarkedRaster, window: Window, annotation: str) -> dict[str, Any]:
    """Say where a chip was cut, without the folders of the user's machine."""
    raster = marked.raster
    x, y = raster.transform * (window.col_off + window.width / 2, window.row_off + window.height / 2)
    origin: dict[str, Any] = {
        "raster": Path(raster.path).name,
        "annotation": annotation,
        "bands": list(raster.bands),
        "stretch": marked.stretch,
        "crs": None if raster.crs is None else raster.crs.to_string(),
        "centre": [x, y],
    }
    if (place := _longitude_latitude(raster, x, y)) is not None:
        origin["longitude"], origin["latitude"] = place
    return origin


def _longitude_latitude(raster: RasterSource, x: float, y: float) -> tuple[float, float] | None:
    """Return a place in WGS 84 degrees, or ``None`` where that says nothing, as on other planets."""
    if raster.crs is None:
        return None
    try:
        transformer = pyproj.Transformer.from_crs(pyproj_crs(raster.crs), "EPSG:4326", always_xy=True)
        longitude, latitude = transformer.transform(x, y)
    except ProjError:
        return None
    return (round(longitude, 7), round(latitude, 7)) if np.isfinite([longitude, latitude]).all() else None
