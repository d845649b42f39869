"""Points and boxes, read from vector files and put together into the objects they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from .errors import RefSAMError
from .events import Reporter, check_cancelled
from .job import PromptsJob
from .rasters.source import RasterSource
from .vectors import field_values, in_pixels_of, read_features, value_order

Box = tuple[float, float, float, float]

ON = ("1", "true", "yes", "positive", "foreground")
BESIDE = ("0", "false", "no", "negative", "background")
"""What a label may say, in small letters."""
MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class PromptedObject:
    """An object with its prompts, in pixels of the raster, whose first pixel reaches from (0, 0) to (1, 1).

    Attributes:
        object_id: Its number, 1 or more.
        points: ``(N, 2)`` (x, y), in the order of the layer.
        labels: ``(N,)``: 1 on the object, 0 beside it.
        box: (x0, y0, x1, y1), or ``None``; several boxes of one object become the box around them.
    """

    object_id: int
    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    box: Box | None

    @property
    def bounds(self) -> Box:
        """The rectangle around all prompts."""
        corners = [*self.points.tolist()]
        if self.box is not None:
            corners += [self.box[:2], self.box[2:]]
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


@dataclass(frozen=True)
class _Points:
    """The points of one feature.

    Attributes:
        place: ``(N, 2)``.
        label: 1 or 0.
        value: Of the object field, empty without one.
    """

    place: NDArray[np.float64]
    label: int
    value: str


@dataclass(frozen=True)
class _Box:
    box: Box
    value: str


_Prompt = TypeVar("_Prompt", _Points, _Box)


def read_prompts(job: PromptsJob, raster: RasterSource, reporter: Reporter) -> list[PromptedObject]:
    """Read the objects that a job's prompts show, ordered by their numbers.

    With an object field, objects are numbered by its values where all of them are whole numbers from 1 on, else in the
    order of the values; without one, boxes come first, then points, in the order of their layers.

    Args:
        job: Names the layers and fields.
        raster: The raster they lie on.
        reporter: Hears about what was left out or assumed.

    Raises:
        RefSAMError: With code ``input`` for layers that cannot be used, labels that say nothing, prompts beside the
            raster and objects without a prompt on them.
    """
    points = [] if job.points is None else _read_points(job.points, job, raster, reporter)
    boxes = [] if job.boxes is None else _read_boxes(job.boxes, job, raster, reporter)
    if not points and not boxes:
        paths = " or ".join(f"'{path}'" for path in (job.points, job.boxes) if path is not None)
        raise RefSAMError("input", f"No prompt of {paths} falls on raster '{raster.path}'; check the CRS of both.")
    if job.object_field is not None:
        return _by_value(points, boxes, job.object_field)
    return _by_place(points, boxes)


def _read_points(path: str, job: PromptsJob, raster: RasterSource, reporter: Reporter) -> list[_Points]:
    frame = read_features(path, "points")
    kinds = frame.geometry.geom_type
    if not kinds.isin(["Point", "MultiPoint"]).all():
        raise RefSAMError("input", f"'{path}' holds {kinds.iloc[0].lower()}s; give a layer of points.")
    labels = [1] * len(frame) if job.label_field is None else _labels(frame, path, job.label_field)
    values = _values(frame, path, job.object_field, reporter)
    shapes = in_pixels_of(raster, frame, path, reporter)
    found, beside = [], 0
    for shape, label, value in zip(shapes, labels, values, strict=True):
        check_cancelled(reporter)
        if value is None:
            continue
        place = shapely.get_coordinates(shape)
        inside = (place >= 0).all(axis=1) & (place < (raster.width, raster.height)).all(axis=1)
        beside += int(not inside.all() or len(place) == 0)
        if inside.any():
            found.append(_Points(place[inside], label, value))
    _tell_of_lost(beside, path, raster, reporter)
    return found


def _read_boxes(path: str, job: PromptsJob, raster: RasterSource, reporter: Reporter) -> list[_Box]:
    frame = read_features(path, "boxes")
    kinds = frame.geometry.geom_type
    if kinds.isin(["Point", "MultiPoint"]).any():
        raise RefSAMError("input", f"'{path}' holds points; give a layer of rectangles or other polygons as boxes.")
    values = _values(frame, path, job.object_field, reporter)
    bounds = shapely.bounds(in_pixels_of(raster, frame, path, reporter))
    found, beside = [], 0
    for (left, top, right, bottom), value in zip(bounds, values, strict=True):
        check_cancelled(reporter)
        if value is None:
            continue
        clipped = max(left, 0.0), max(top, 0.0), min(right, float(raster.width)), min(bottom, float(raster.height))
        if clipped[0] < clipped[2] and clipped[1] < clipped[3]:
            found.append(_Box((float(clipped[0]), float(clipped[1]), float(clipped[2]), float(clipped[3])), value))
        else:
            beside += 1
    _tell_of_lost(beside, path, raster, reporter)
    return found


def _labels(frame: Any, path: str, field: str) -> list[int]:
    """Return the label of each feature."""
    labels = []
    for number, value in enumerate(field_values(frame, path, field), 1):
        if value.lower() in ON:
            labels.append(1)
        elif value.lower() in BESIDE:
            labels.append(0)
        else:
            said = f"'{value}'" if value else "nothing"
            raise RefSAMError(
                "input",
                f"Field '{field}' of '{path}' says {said} in feature {number}; use 1 for a point on the object and 0 "
                "for one beside it.",
            )
    return labels


def _values(frame: Any, path: str, field: str | None, reporter: Reporter) -> Sequence[str | None]:
    """Return the object that each feature belongs to, ``None`` for one to be left out."""
    if field is None:
        return [""] * len(frame)
    values = [value or None for value in field_values(frame, path, field)]
    if lost := values.count(None):
        reporter.log(f"{lost} prompts of '{path}' have no object in field '{field}' and are left out.")
    return values


def _tell_of_lost(count: int, path: str, raster: RasterSource, reporter: Reporter) -> None:
    if count:
        reporter.log(f"{count} prompts of '{path}' lie beside raster '{raster.path}' and are left out.")


def _by_value(points: list[_Points], boxes: list[_Box], field: str) -> list[PromptedObject]:
    """Put together what has the same value."""
    values = sorted({point.value for point in points} | {box.value for box in boxes}, key=value_order)
    numbers = [int(value) for value in values if value.isascii() and value.isdigit()]
    own_numbers = len(set(numbers)) == len(values) and all(1 <= number <= MAX_ID for number in numbers)
    points_of, boxes_of = _grouped(points), _grouped(boxes)
    objects = []
    for number, value in zip(numbers if own_numbers else range(1, len(values) + 1), values, strict=True):
        own = points_of.get(value, [])
        of_boxes = [prompt.box for prompt in boxes_of.get(value, [])]
        if not of_boxes and not any(prompt.label for prompt in own):
            raise RefSAMError(
                "input",
                f"Object '{value}' of field '{field}' has only points beside it (0); add a point on it (1) or a box.",
            )
        objects.append(_object(number, own, of_boxes))
    return objects


def _grouped(prompts: Sequence[_Prompt]) -> dict[str, list[_Prompt]]:
    """Return the prompts of each value, in their order."""
    groups: dict[str, list[_Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(prompt.value, []).append(prompt)
    return groups


def _by_place(points: list[_Points], boxes: list[_Box]) -> list[PromptedObject]:
    """Make each box an object with the points in it, and each other point on an object an object.

    Points beside an object that lie in no box belong to the nearest object.
    """
    seeds: list[tuple[list[_Points], list[Box]]] = [([], [box.box]) for box in boxes]
    places = shapely.points(np.array([prompt.place[0] for prompt in points]).reshape(-1, 2))
    # Without a predicate the tree compares rectangles, which boxes and points are, borders included.
    held, holders = shapely.STRtree([shapely.box(*box.box) for box in boxes]).query(places)
    for i, holder in zip(held.tolist(), holders.tolist(), strict=True):
        seeds[holder][0].append(points[i])
    loose = np.setdiff1d(np.arange(len(points)), held).tolist()
    seeds += [([points[i]], []) for i in loose if points[i].label]
    if not seeds:
        raise RefSAMError(
            "input", "There are only points beside objects (0); add a point on each object (1), or a box."
        )
    shapes = [shapely.box(*of_boxes[0]) if of_boxes else shapely.Point(own[0].place[0]) for own, of_boxes in seeds]
    beside = [i for i in loose if not points[i].label]
    for i, nearest in zip(beside, _nearest(places[beside], shapes), strict=True):
        seeds[nearest][0].append(points[i])
    return [_object(number, own, of_boxes) for number, (own, of_boxes) in enumerate(seeds, 1)]


def _nearest(places: NDArray[Any], shapes: Sequence[BaseGeometry]) -> NDArray[np.intp]:
    """Return the index of the shape nearest to each place; the first of several."""
    which, found = shapely.STRtree(shapes).query_nearest(places)
    nearest = np.full(len(places), len(shapes), np.intp)
    np.minimum.at(nearest, which, found)
    return nearest


def _object(number: int, points: list[_Points], boxes: list[Box]) -> PromptedObject:
    places = [prompt.place for prompt in points]
    labels = [np.full(len(prompt.place), prompt.label) for prompt in points]
    corners = np.array(boxes)
    box = None
    if boxes:
        low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
        box = float(low[0]), float(low[1]), float(high[0]), float(high[1])
    return PromptedObject(
        number,
        np.concatenate(places) if places else np.zeros((0, 2)),
        np.concatenate(labels).astype(np.int64) if labels else np.zeros(0, np.int64),
        box,
    )
