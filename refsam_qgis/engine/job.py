"""Jobs: the validated, serialisable documents that every entry point hands to the engine.

The Processing algorithms, the command line and the worker all build one of these and run it through
`refsam_qgis.engine.runner.run_job`. Standard library only, and Python 3.9 at the oldest: the QGIS process imports
this module too.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from .errors import RefSAMError

MODELS = ("compact", "vit_b", "vit_l", "vit_h")
METHODS = ("auto", "virefsam", "training_free")
ANNOTATIONS = ("complete", "partial")
STRETCHES = ("auto", "none", "percentile")
DEVICES = ("auto", "cuda", "mps", "cpu")


@dataclass(frozen=True)
class ReferenceSource:
    """Marked examples on a raster.

    Attributes:
        vector: Path of a vector data set with polygons, lines (scribbles) or points.
        raster: Path of the raster they are drawn on; ``None`` for the job's own input.
        layer: Layer inside `vector`; ``None`` for its only or first one.
        class_field: Attribute that holds the class; ``None`` when all marks are one class.
        annotation: ``complete`` when every object of the class near the marks is marked, else ``partial``.
    """

    vector: str
    raster: Optional[str] = None
    layer: Optional[str] = None
    class_field: Optional[str] = None
    annotation: str = "complete"


@dataclass(frozen=True)
class ModelOptions:
    """Which network runs, with which weights, where."""

    model: str = "compact"
    checkpoint: Optional[str] = None
    adapters: Optional[str] = None
    method: str = "auto"
    device: str = "auto"


@dataclass(frozen=True)
class SegmentOutputs:
    """Where the results of a `SegmentJob` go; ``None`` leaves one out.

    Attributes:
        polygons: GeoPackage of polygons with ``class``, ``score`` and ``area_m2``.
        mask: GeoTIFF of class ids (0 background, 255 nodata).
        probability: GeoTIFF with one float32 band per class in 0..1 (nodata -1).
        report: JSON with every parameter, version, digest, device and time.
    """

    polygons: Optional[str] = None
    mask: Optional[str] = None
    probability: Optional[str] = None
    report: Optional[str] = None


@dataclass(frozen=True)
class SegmentJob:
    """Find the classes of the references over a whole raster.

    Attributes:
        input: Path of the raster to search.
        references: Where the examples are.
        outputs: Where the results go.
        model: Network, weights and device.
        bands: One-based indices of the red, green and blue bands; ``None`` chooses from the band descriptions.
        stretch: ``auto`` scales anything but 8-bit data by percentiles, ``none`` never, ``percentile`` always.
        extent: ``(xmin, ymin, xmax, ymax)`` in the input's CRS; ``None`` for all of it.
        tile_size: Side of a tile in pixels of `input`; 0 derives it from the references.
        overlap: Shared part of neighbouring tiles in percent of the tile, 0..50.
        threshold: Probability from which a pixel belongs to a class, 0..1.
        min_area: Smallest polygon kept, in square metres.
        simplify: Tolerance of the polygon simplification in map units; 0 keeps the pixel outline.
    """

    input: str
    references: ReferenceSource
    outputs: SegmentOutputs = field(default_factory=SegmentOutputs)
    model: ModelOptions = field(default_factory=ModelOptions)
    bands: Optional[tuple[int, ...]] = None
    stretch: str = "auto"
    extent: Optional[tuple[float, float, float, float]] = None
    tile_size: int = 0
    overlap: float = 12.5
    threshold: float = 0.5
    min_area: float = 0.0
    simplify: float = 0.0

    def __post_init__(self) -> None:
        _choice("model", self.model.model, MODELS)
        _choice("method", self.model.method, METHODS)
        _choice("annotation", self.references.annotation, ANNOTATIONS)
        _choice("stretch", self.stretch, STRETCHES)
        _range("overlap", self.overlap, 0, 50)
        _range("threshold", self.threshold, 0, 1)
        _range("min_area", self.min_area, 0, float("inf"))
        _range("simplify", self.simplify, 0, float("inf"))
        if self.tile_size != 0 and not 64 <= self.tile_size <= 8192:
            raise RefSAMError(
                "input", f"Tile size {self.tile_size} is out of range; use 64 to 8192 pixels, or 0 for automatic."
            )


@dataclass(frozen=True)
class StatusJob:
    """Report versions and devices and run a self-test."""

    model: ModelOptions = field(default_factory=ModelOptions)


@dataclass(frozen=True)
class TrainJob:
    """Train VCP and DTA adapters by episodes on folders of images with masks.

    Attributes:
        folder: Folder of ``NAME.jpg|png|tif`` with ``NAME_mask.png`` and ``classes.json``; ``None`` for generated
            scenes alone.
        output: Adapters file (safetensors) to write.
        model: Frozen network to adapt.
        steps: Optimiser steps.
        batch: Episodes per step.
        seed: Seed of every random draw.
        resume: Whether to go on from the state left beside `output`.
    """

    output: str
    folder: Optional[str] = None
    model: ModelOptions = field(default_factory=ModelOptions)
    steps: int = 2000
    batch: int = 4
    seed: int = 0
    resume: bool = True


@dataclass(frozen=True)
class EvaluateJob:
    """Measure one or more methods by few-shot episodes on a folder of images with masks (method of Eq. protocol A7).

    Attributes:
        folder: Folder of ``NAME.jpg|png|tif`` with ``NAME_mask.png`` and ``classes.json``.
        report: JSON record to write; ``None`` to only return it.
        methods: Any of ``virefsam``, ``training_free``, ``random_forest``.
        shots: Reference images per episode.
        episodes: Number of episodes.
        seed: Seed of the episode list.
    """

    folder: str
    report: Optional[str] = None
    methods: tuple[str, ...] = ("virefsam", "training_free")
    model: ModelOptions = field(default_factory=ModelOptions)
    shots: int = 1
    episodes: int = 1000
    seed: int = 0


Job = Union[SegmentJob, StatusJob, TrainJob, EvaluateJob]
KINDS: dict[str, type] = {"segment": SegmentJob, "status": StatusJob, "train": TrainJob, "evaluate": EvaluateJob}


def to_dict(job: Job) -> dict[str, Any]:
    """Turn a job into a JSON-compatible document with its ``kind``."""
    kind = next(name for name, cls in KINDS.items() if isinstance(job, cls))
    return {"kind": kind, **dataclasses.asdict(job)}


def from_dict(document: dict[str, Any]) -> Job:
    """Build and validate a job from its document.

    Raises:
        RefSAMError: With code ``input`` for an unknown kind or field, or a value of the wrong type.
    """
    fields = dict(document)
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise RefSAMError("input", f"Job kind {kind!r} is unknown; use one of {', '.join(KINDS)}.")
    job: Job = _build(KINDS[kind], fields, kind)
    return job


def _build(cls: type, fields: Any, where: str) -> Any:
    if not isinstance(fields, dict):
        raise RefSAMError("input", f"'{where}' must be an object with named fields, not {fields!r}.")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(fields) - set(hints))
    if unknown:
        raise RefSAMError("input", f"'{where}' has no field '{unknown[0]}'; it knows {', '.join(sorted(hints))}.")
    required = {f.name for f in dataclasses.fields(cls) if _is_required(f)}
    missing = sorted(required - set(fields))
    if missing:
        raise RefSAMError("input", f"'{where}' lacks its field '{missing[0]}'; add it to the job.")
    return cls(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in fields.items()})


def _is_required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check one JSON value against a field's type, turning lists into tuples and objects into dataclasses."""
    if typing.get_origin(hint) is Union:
        if value is None and type(None) in typing.get_args(hint):
            return None
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        return _convert(inner[0], value, where)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else _build(hint, value, where)  # type: ignore[arg-type]
    if typing.get_origin(hint) is tuple:
        args = typing.get_args(hint)
        if not isinstance(value, (list, tuple)):
            raise RefSAMError("input", f"'{where}' must be a list, not {value!r}.")
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise RefSAMError("input", f"'{where}' needs {len(args)} values, not {len(value)}.")
        return tuple(_convert(args[0], v, where) for v in value)
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise RefSAMError("input", f"'{where}' must be of type {hint.__name__}, not {value!r}.")
    return hint(value)


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RefSAMError("input", f"{name.capitalize()} '{value}' is unknown; use one of {', '.join(known)}.")


def _range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise RefSAMError("input", f"{name.capitalize()} {value} is out of range; use {low} to {high}.")
