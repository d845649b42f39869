"""Jobs: the validated, serialisable documents that every entry point hands to the engine.

The Processing algorithms, the command line and the worker all build one of these and run it through
`refsam_qgis.engine.runner.run_job`. Standard library only, and Python 3.9 at the oldest: the QGIS process imports
this module too.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from .errors import RefSAMError

MODELS = ("compact", "vit_b", "vit_l", "vit_h")
METHODS = ("auto", "virefsam", "fitted", "training_free")
THRESHOLD = 0.3
"""Probability from which a pixel counts as the class by default.

With honest probabilities the overlap with the truth is greatest below one half (the threshold that is best for the Dice
score is half that score: Lipton et al. 2014); this value was best on the development scenes.
"""
MAX_SEED = 2**32 - 1
"""Largest seed of a protocol or a training: what numpy and scikit-learn take.

A negative one would draw the lists of its opposite.
"""
ANNOTATIONS = ("complete", "partial")
STRETCHES = ("auto", "none", "percentile")
DEVICES = ("auto", "cuda", "mps", "cpu")


@dataclass(frozen=True)
class ReferenceSource:
    """Marked examples on a raster, or a reference set made of such.

    Attributes:
        vector: Path of a vector data set with polygons, lines (scribbles) or points; ``None`` with `refset`.
        raster: Path of the raster they are drawn on; ``None`` for the job's own input.
        layer: Layer inside `vector`; ``None`` for its only or first one.
        class_field: Attribute that holds the class; ``None`` when all marks are one class.
        annotation: ``complete`` when every object of the class near the marks is marked, else ``partial``.
        negatives: Path of a vector data set with marks on what is to be told apart from every class; ``None`` for none.
        refset: Path of a ``.refset`` file, instead of all the others.
    """

    vector: Optional[str] = None
    raster: Optional[str] = None
    layer: Optional[str] = None
    class_field: Optional[str] = None
    annotation: str = "complete"
    negatives: Optional[str] = None
    refset: Optional[str] = None

    def __post_init__(self) -> None:
        _choice("annotation", self.annotation, ANNOTATIONS)
        if self.refset is None and self.vector is None:
            raise RefSAMError("input", "There are no examples; give a layer of marks or a reference set.")
        if self.refset is not None and (self.vector or self.raster or self.negatives):
            raise RefSAMError("input", "Marks and a reference set were both given; give one of them.")

    def files(self) -> list[str]:
        """Return the files that are read."""
        return [path for path in (self.vector, self.raster, self.negatives, self.refset) if path is not None]


@dataclass(frozen=True)
class ModelOptions:
    """Which network runs, with which weights, where."""

    model: str = "compact"
    checkpoint: Optional[str] = None
    adapters: Optional[str] = None
    method: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        _choice("model", self.model, MODELS)
        _choice("method", self.method, METHODS)

    def files(self) -> list[str]:
        """Return the files that are read."""
        return [path for path in (self.checkpoint, self.adapters) if path is not None]


@dataclass(frozen=True)
class RasterOptions:
    """How a raster is read and cut into tiles.

    Attributes:
        bands: One-based indices of the red, green and blue bands; ``None`` chooses from the band descriptions.
        stretch: ``auto`` scales anything but 8-bit data by percentiles, and both where only the examples or only the
            raster that is searched are 8-bit; ``none`` never, ``percentile`` always.
        tile_size: Side of a tile in pixels of the raster; 0 is automatic.
        overlap: Shared part of neighbouring tiles in percent of the tile, 0..50.
    """

    bands: Optional[tuple[int, ...]] = None
    stretch: str = "auto"
    tile_size: int = 0
    overlap: float = 12.5

    def __post_init__(self) -> None:
        _choice("stretch", self.stretch, STRETCHES)
        _range("overlap", self.overlap, 0, 50)
        if self.tile_size != 0 and not 64 <= self.tile_size <= 8192:
            raise RefSAMError(
                "input", f"Tile size {self.tile_size} is out of range; use 64 to 8192 pixels, or 0 for automatic."
            )


@dataclass(frozen=True)
class PolygonOptions:
    """How outlines become polygons that people can use.

    Attributes:
        min_area: Smallest polygon kept, in square metres; ``None`` keeps what is at least a twentieth of the typical
            example, and everything where there are no examples.
        fill_holes: Holes smaller than this are filled, in square metres; 0 keeps every hole.
        simplify: Tolerance of the simplification in map units; 0 keeps the pixel outline. Shared borders stay shared.
        right_angles: Whether outlines are made right-angled, as buildings are.
    """

    min_area: Optional[float] = None
    fill_holes: float = 0.0
    simplify: float = 0.0
    right_angles: bool = False

    def __post_init__(self) -> None:
        for name in ("min_area", "fill_holes", "simplify"):
            _range(name, getattr(self, name) or 0.0, 0, float("inf"))

    @property
    def least_area(self) -> float:
        """Smallest area kept, in square metres."""
        return self.min_area or 0.0


@dataclass(frozen=True)
class SegmentOutputs:
    """Where the results of a `SegmentJob` go; ``None`` leaves one out.

    Attributes:
        polygons: GeoPackage of polygons with ``object_id``, ``class``, ``class_id``, ``score`` and ``area_m2``.
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
        raster: How the raster is read; tile size 0 derives it from the references.
        polygons: How outlines become polygons.
        extent: ``(xmin, ymin, xmax, ymax)`` in the input's CRS; ``None`` for all of it.
        threshold: Probability from which a pixel belongs to a class, 0..1.
        separate: Touching objects are cut apart where the probability dips by at least this between them, 0..1;
            0 leaves them together.
        keep_encodings: Whether what the frozen encoder says of each tile is kept on disk, up to 4 GiB in all, so that
            asking the same raster for something else is quicker. The result is the same.
        origin: What the job was made from, such as a command of QGIS, for those who read its report. It makes no other
            job: no result and no key depends on it.
    """

    input: str
    references: ReferenceSource
    outputs: SegmentOutputs = field(default_factory=SegmentOutputs)
    model: ModelOptions = field(default_factory=ModelOptions)
    raster: RasterOptions = field(default_factory=RasterOptions)
    polygons: PolygonOptions = field(default_factory=PolygonOptions)
    extent: Optional[tuple[float, float, float, float]] = None
    threshold: float = THRESHOLD
    separate: float = 0.0
    keep_encodings: bool = True
    origin: Optional[str] = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _rectangle("extent", self.extent)
        _range("threshold", self.threshold, 0, 1)
        _range("separate", self.separate, 0, 1)


@dataclass(frozen=True)
class FolderJob:
    """Find the classes of the references in many rasters with one warm model.

    Every raster gives ``STEM.tif`` (mask) and ``STEM.gpkg`` (polygons) in the output folder, beside ``STEM.json`` (its
    report, by which a later run knows what it need not do again). Of equal stems, the others add their ending. A raster
    whose results would replace a file that is not RefSAM's fails.

    Attributes:
        references: Where the examples are; they name their raster unless they are a reference set.
        output_folder: Folder for the results of each raster; made when it does not exist.
        folder: Folder that is searched for rasters, or ``None`` with `inputs`.
        pattern: File names searched for, such as ``*.tif``; several are separated by ``;``.
        recursive: Whether folders inside `folder` are searched too; results keep their relative folder.
        inputs: Rasters, instead of `folder`.
        merged: GeoPackage of all polygons with their ``source``, in the CRS of the first raster that has one, without
            those of rasters that have none; ``None`` for none.
        failures: CSV of the rasters that failed, with ``source`` and ``reason``; ``None`` for none.
        further_tables: Files that the caller writes afterwards, such as a copy of `merged`; no result has their name.
        probability: Whether each raster gives ``STEM_probability.tif`` too.
        redo: Whether finished rasters are done again though nothing changed.
        model: As in `SegmentJob`, like all that follow.
    """

    references: ReferenceSource
    output_folder: str
    folder: Optional[str] = None
    pattern: str = "*.tif;*.tiff"
    recursive: bool = False
    inputs: tuple[str, ...] = ()
    merged: Optional[str] = None
    failures: Optional[str] = None
    further_tables: tuple[str, ...] = ()
    probability: bool = False
    redo: bool = False
    model: ModelOptions = field(default_factory=ModelOptions)
    raster: RasterOptions = field(default_factory=RasterOptions)
    polygons: PolygonOptions = field(default_factory=PolygonOptions)
    threshold: float = THRESHOLD
    separate: float = 0.0
    origin: Optional[str] = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _range("threshold", self.threshold, 0, 1)
        _range("separate", self.separate, 0, 1)
        if bool(self.folder) == bool(self.inputs):
            raise RefSAMError("input", "Give either a folder or a list of rasters to search.")
        if self.references.refset is None and self.references.raster is None:
            raise RefSAMError("input", "The marks need the raster they were drawn on; give it, or a reference set.")

    def tables(self) -> list[str]:
        """Return the files that tell of all rasters together."""
        return [path for path in (self.merged, self.failures, *self.further_tables) if path is not None]


@dataclass(frozen=True)
class RefsetJob:
    """Make a portable reference set from marked examples, or add shots to one.

    Attributes:
        sources: Marked examples, each with its raster.
        output: ``.refset`` file to write.
        base: ``.refset`` file whose shots come first; may be the same as `output`. ``None`` for a new set.
        picture: PNG of the chips with their masks; ``None`` for none.
        bands: As in `RasterOptions`, for every raster.
        stretch: As in `RasterOptions`, but of each raster by itself.
        chip_size: Side of the chips in metres (map units without a CRS); 0 derives it from the marks, or takes that
            of `base`.
    """

    sources: tuple[ReferenceSource, ...]
    output: str
    base: Optional[str] = None
    picture: Optional[str] = None
    bands: Optional[tuple[int, ...]] = None
    stretch: str = "auto"
    chip_size: float = 0.0

    def __post_init__(self) -> None:
        _choice("stretch", self.stretch, STRETCHES)
        _range("chip_size", self.chip_size, 0, float("inf"))
        if not self.sources:
            raise RefSAMError("input", "There are no examples to put into the reference set; give a layer of marks.")
        for source in self.sources:
            if source.vector is None or source.raster is None:
                raise RefSAMError("input", "Each layer of marks needs the raster it was drawn on; give both.")


@dataclass(frozen=True)
class ObjectOutputs:
    """Where the results of a `PromptsJob` or an `EverythingJob` go; ``None`` leaves one out.

    Attributes:
        polygons: GeoPackage of polygons with ``object_id``, ``score``, ``stability`` and ``area_m2``.
        mask: GeoTIFF of object numbers (int32, 0 background); where objects overlap, the better score wins.
        report: JSON as in `SegmentOutputs`.
    """

    polygons: Optional[str] = None
    mask: Optional[str] = None
    report: Optional[str] = None


@dataclass(frozen=True)
class PromptsJob:
    """Segment what points and boxes show, as SAM does.

    Attributes:
        input: Path of the raster.
        points: Vector data set of points; ``None`` for none.
        boxes: Vector data set whose features' bounding boxes are the boxes; ``None`` for none.
        label_field: Attribute of `points`: 1 on the object, 0 beside it; ``None`` takes every point to be on one.
        object_field: Attribute of `points` and `boxes` whose equal values mean one object (several boxes of one become
            the box around them); ``None`` makes each box an object together with the points in it, and each other
            point on an object an object of its own, to the nearest of which belong the other points beside objects.
        best_of_three: Whether SAM proposes three masks for an object with one prompt and the best is taken.
        outputs: Where the results go.
        model: Network, weights and device; adapters and method do not matter.
        raster: How the raster is read; tile size 0 fits the prompts.
        polygons: How outlines become polygons.
        origin: As in `SegmentJob`.
    """

    input: str
    points: Optional[str] = None
    boxes: Optional[str] = None
    label_field: Optional[str] = None
    object_field: Optional[str] = None
    best_of_three: bool = True
    outputs: ObjectOutputs = field(default_factory=ObjectOutputs)
    model: ModelOptions = field(default_factory=ModelOptions)
    raster: RasterOptions = field(default_factory=RasterOptions)
    polygons: PolygonOptions = field(default_factory=PolygonOptions)
    origin: Optional[str] = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.points is None and self.boxes is None:
            raise RefSAMError("input", "There are no prompts; give a layer of points or of boxes.")


@dataclass(frozen=True)
class EverythingJob:
    """Outline everything in a raster, as SAM's automatic mask generator does.

    Attributes:
        input: Path of the raster.
        extent: As in `SegmentJob`.
        points_per_side: Prompts along the side of a tile.
        min_predicted_iou: Masks that SAM itself rates lower are left out, 0..1.
        min_stability: Masks that change more when SAM's cutoff moves are left out, 0..1.
        max_overlap: Of two masks whose boxes' IoU is larger, the worse is a duplicate, 0..1.
        outputs: Where the results go.
        model: Network, weights and device; adapters and method do not matter.
        raster: How the raster is read; tile size 0 is SAM's own 1024.
        polygons: How outlines become polygons.
        origin: As in `SegmentJob`.
    """

    input: str
    extent: Optional[tuple[float, float, float, float]] = None
    points_per_side: int = 32
    min_predicted_iou: float = 0.88
    min_stability: float = 0.95
    max_overlap: float = 0.7
    outputs: ObjectOutputs = field(default_factory=ObjectOutputs)
    model: ModelOptions = field(default_factory=ModelOptions)
    raster: RasterOptions = field(default_factory=RasterOptions)
    polygons: PolygonOptions = field(default_factory=PolygonOptions)
    origin: Optional[str] = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _rectangle("extent", self.extent)
        _range("points_per_side", self.points_per_side, 1, 128)
        for name in ("min_predicted_iou", "min_stability", "max_overlap"):
            _range(name, getattr(self, name), 0, 1)


@dataclass(frozen=True)
class StatusJob:
    """Report versions and devices and run a self-test."""

    model: ModelOptions = field(default_factory=ModelOptions)


@dataclass(frozen=True)
class TrainJob:
    """Train VCP and DTA adapters by episodes on the user's own rasters, labelled images or generated scenes.

    Attributes:
        output: Adapters file (safetensors) to write; its card goes beside it as ``STEM.json``.
        rasters: Rasters with every object of the classes outlined in `labels`, as far as the rectangle around the
            outlines reaches; what lies farther away is not looked at.
        labels: Vector data set of class polygons over the rasters; needed with `rasters`.
        class_field: Attribute of `labels` that holds the class; ``None`` when all are one class.
        folder: Folder of ``NAME.jpg|png|tif`` with ``NAME_mask.png`` and ``classes.json``; ``None`` for none.
        generated: Whether generated scenes are mixed in; they are all there is without `rasters` and `folder`.
        bands: As in `RasterOptions`, for every raster.
        stretch: As in `RasterOptions`, but of each raster by itself.
        model: Frozen network to adapt; training starts from the adapters named, from the bundled ones for the bundled
            compact model, else from nothing.
        steps: Optimiser steps at most.
        batch: Episodes per step.
        seed: Seed of every random draw; 0 to `MAX_SEED`.
        resume: Whether to go on from the state left beside `output`.
        validation: Share of the scenes that are kept for validation, 0..0.9; a lone raster is parted into scenes.
        patience: Stop when validation has not become better for so many looks; 0 never stops early.
        curve: PNG of the loss and validation curves; ``None`` for none.
        origin: As in `SegmentJob`.
    """

    output: str
    rasters: tuple[str, ...] = ()
    labels: Optional[str] = None
    class_field: Optional[str] = None
    folder: Optional[str] = None
    generated: bool = True
    bands: Optional[tuple[int, ...]] = None
    stretch: str = "auto"
    model: ModelOptions = field(default_factory=ModelOptions)
    steps: int = 2000
    batch: int = 4
    seed: int = 0
    resume: bool = True
    validation: float = 0.2
    patience: int = 5
    curve: Optional[str] = None
    origin: Optional[str] = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _choice("stretch", self.stretch, STRETCHES)
        _range("steps", self.steps, 1, float("inf"))
        _range("batch", self.batch, 1, 256)
        _range("validation", self.validation, 0, 0.9)
        _range("patience", self.patience, 0, float("inf"))
        _range("seed", self.seed, 0, MAX_SEED)
        if bool(self.rasters) != bool(self.labels):
            raise RefSAMError("input", "Rasters and the layer of their class polygons belong together; give both.")
        if not (self.rasters or self.folder or self.generated):
            raise RefSAMError("input", "There is nothing to learn from; give rasters with polygons, or a folder.")


@dataclass(frozen=True)
class EvaluateJob:
    """Compare a result with the truth.

    Attributes:
        result: Vector data set of polygons, or raster of class ids (0 background).
        truth: The same of what is really there; a raster on another grid is aligned to the result's.
        result_field: Attribute of a vector result that holds the class; ``None`` when all are one class.
        truth_field: The same of a vector truth.
        result_classes: Names of a raster result's class ids 1, 2, …; empty takes those in RefSAM's own masks, the band
            description of a lone class, or the ids.
        truth_classes: The same of a raster truth.
        gsd: Ground sample distance in metres at which areas and boundaries of two vector data sets are compared; 0 is
            automatic.
        tolerance: How far apart in pixels two boundaries may be and still agree.
        min_iou: IoU from which a found object counts as a true one, 0..1.
        extent: ``(xmin, ymin, xmax, ymax)`` in the truth's CRS; ``None`` for all that both cover.
        report: JSON record; ``None`` for none.
        picture: PNG of the confusion matrix; ``None`` for none.
        table: CSV with one row a class; ``None`` for none.
        origin: As in `SegmentJob`.
    """

    result: str
    truth: str
    result_field: Optional[str] = None
    truth_field: Optional[str] = None
    result_classes: tuple[str, ...] = ()
    truth_classes: tuple[str, ...] = ()
    gsd: float = 0.0
    tolerance: float = 2.0
    min_iou: float = 0.5
    extent: Optional[tuple[float, float, float, float]] = None
    report: Optional[str] = None
    picture: Optional[str] = None
    table: Optional[str] = None
    origin: Optional[str] = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _range("gsd", self.gsd, 0, float("inf"))
        _range("tolerance", self.tolerance, 0, 100)
        _range("min_iou", self.min_iou, 0, 1)
        _rectangle("extent", self.extent)


PROTOCOLS = ("folder", "isaid5i", "loveda2i", "coco20i")
"""Where few-shot episodes come from: anyone's labelled images, or a published data set."""
PROTOCOL_METHODS = (
    "virefsam",
    "fitted",
    "training_free",
    "random_forest",
    "static_prompts",
    "colour_prototype",
    "stitched_a",
    "stitched_b",
    "stitched_c",
    "stitched_d",
)
"""Methods that a protocol compares: RefSAM's own first, then the baselines."""
SUPPORTS = ("mask", "scribble", "point", "box")
"""How the references of an episode are marked."""


@dataclass(frozen=True)
class ProtocolJob:
    """Measure one or more methods by few-shot episodes on a labelled data set (method A7).

    Attributes:
        folder: Folder of the data set in the form in which it is published; with ``folder``, of
            ``NAME.jpg|png|tif`` with ``NAME_mask.png`` and ``classes.json``.
        protocol: One of `PROTOCOLS`.
        folds: Numbers of the folds measured, from 0; ``None`` for all of the data set.
        methods: Any of `PROTOCOL_METHODS`.
        model: Network, weights and device of the methods that use one; its method does not matter.
        shots: Reference images per episode.
        episodes: Number of episodes of each run and fold.
        runs: Episode lists, of whose figures mean and deviation are told.
        seed: Master seed, from which each run draws its own; 0 to `MAX_SEED`.
        support: How the references are marked, one of `SUPPORTS`.
        min_pixels: Fewest pixels of a class that is present in an image; ``None`` for the protocol's own.
        report: JSON record; ``None`` for none.
        picture: PNG of the best, the median and the worst episode of each method; ``None`` for none.
        table: CSV with one row a method; ``None`` for none.
    """

    folder: str
    protocol: str = "folder"
    folds: Optional[tuple[int, ...]] = None
    methods: tuple[str, ...] = ("fitted", "virefsam", "training_free")
    model: ModelOptions = field(default_factory=ModelOptions)
    shots: int = 1
    episodes: int = 1000
    runs: int = 5
    seed: int = 0
    support: str = "mask"
    min_pixels: Optional[int] = None
    report: Optional[str] = None
    picture: Optional[str] = None
    table: Optional[str] = None

    def __post_init__(self) -> None:
        _choice("protocol", self.protocol, PROTOCOLS)
        _choice("support", self.support, SUPPORTS)
        if not self.methods:
            known = ", ".join(PROTOCOL_METHODS)
            raise RefSAMError("input", f"There is no method to measure; give one or more of {known}.")
        for method in self.methods:
            _choice("method", method, PROTOCOL_METHODS)
        if len(set(self.methods)) < len(self.methods):
            raise RefSAMError("input", "A method is named twice; name each once.")
        for name in ("shots", "episodes", "runs"):
            _range(name, getattr(self, name), 1, float("inf"))
        _range("seed", self.seed, 0, MAX_SEED)
        if self.min_pixels is not None:
            _range("min_pixels", self.min_pixels, 1, float("inf"))
        if self.folds is not None and (not self.folds or min(self.folds) < 0 or len(set(self.folds)) < len(self.folds)):
            raise RefSAMError("input", f"Folds {list(self.folds)} are invalid; give numbers from 0, each once.")


Job = Union[SegmentJob, FolderJob, RefsetJob, PromptsJob, EverythingJob, StatusJob, TrainJob, EvaluateJob, ProtocolJob]
KINDS: dict[str, type] = {
    "segment": SegmentJob,
    "folder": FolderJob,
    "refset": RefsetJob,
    "prompts": PromptsJob,
    "everything": EverythingJob,
    "status": StatusJob,
    "train": TrainJob,
    "evaluate": EvaluateJob,
    "protocol": ProtocolJob,
}


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
        fit = f"{low} or more" if high == math.inf else f"{low} to {high}"
        raise RefSAMError("input", f"{name.replace('_', ' ').capitalize()} {value} is out of range; use {fit}.")


def _rectangle(name: str, bounds: Optional[tuple[float, float, float, float]]) -> None:
    if bounds is None:
        return
    xmin, ymin, xmax, ymax = bounds
    if not (all(map(math.isfinite, bounds)) and xmin <= xmax and ymin <= ymax):
        values = " ".join(f"{value:.15g}" for value in bounds)
        raise RefSAMError(
            "input",
            f"{name.capitalize()} {values} is no rectangle; use finite numbers in the order xmin ymin xmax ymax.",
        )
