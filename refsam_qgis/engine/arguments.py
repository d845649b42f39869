"""The command line: its flags mirror the fields of the jobs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from refsam_qgis import __version__

from .errors import RefSAMError
from .job import (
    ANNOTATIONS,
    DEVICES,
    METHODS,
    MODELS,
    PROTOCOL_METHODS,
    PROTOCOLS,
    STRETCHES,
    SUPPORTS,
    EvaluateJob,
    EverythingJob,
    FolderJob,
    Job,
    ModelOptions,
    ObjectOutputs,
    PolygonOptions,
    PromptsJob,
    ProtocolJob,
    RasterOptions,
    ReferenceSource,
    RefsetJob,
    SegmentJob,
    SegmentOutputs,
    StatusJob,
    TrainJob,
    from_dict,
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m refsam_qgis.engine``."""
    parser = argparse.ArgumentParser(
        prog="python -m refsam_qgis.engine", description="Find the class of a few references over a whole raster."
    )
    parser.add_argument("--version", action="version", version=f"RefSAM {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an unexpected failure")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, add, build, text in (
        ("segment", _add_segment, _segment_job, "find the classes of the references over a raster"),
        ("folder", _add_folder, _folder_job, "find them in many rasters"),
        ("refset", _add_refset, _refset_job, "make a portable reference set, or add shots to one"),
        ("prompts", _add_prompts, _prompts_job, "segment what points and boxes show"),
        ("everything", _add_everything, _everything_job, "outline everything in a raster"),
        ("train", _add_train, _train_job, "train VCP and DTA adapters"),
        ("evaluate", _add_evaluate, _evaluate_job, "compare a result with the truth, or methods by a protocol"),
        ("status", _add_model, _status_job, "report versions and devices and run a self-test"),
    ):
        command = commands.add_parser(name, help=text)
        add(command)
        command.set_defaults(build=build)
    run = commands.add_parser("run", help="run a job document, or the job of a report again")
    run.add_argument("job", type=Path, metavar="JOB.json")
    run.set_defaults(build=_read_job)
    worker = commands.add_parser("worker", help="serve jobs as JSON lines on standard input and output")
    worker.add_argument("--idle-seconds", type=float, default=600.0, help="leave after so long without a job")
    return parser


def job_from_arguments(arguments: argparse.Namespace) -> Job:
    """Return the job that parsed arguments ask for.

    Raises:
        RefSAMError: With code ``input`` when a value is out of range or a job document cannot be read.
    """
    job: Job = arguments.build(arguments)
    return job


def _segment_job(arguments: argparse.Namespace) -> SegmentJob:
    outputs = SegmentOutputs(arguments.polygons, arguments.mask, arguments.probability, arguments.report)
    if outputs == SegmentOutputs():
        raise RefSAMError("input", "No output was asked for; add --polygons, --mask, --probability or --report.")
    return SegmentJob(
        input=arguments.input,
        references=_references(arguments),
        outputs=outputs,
        model=_model(arguments),
        raster=_raster(arguments),
        polygons=_polygons(arguments),
        extent=_extent(arguments),
        threshold=arguments.threshold,
        separate=arguments.separate,
        keep_encodings=arguments.keep_encodings,
    )


def _folder_job(arguments: argparse.Namespace) -> FolderJob:
    if arguments.inputs is not None:
        _refuse({name for name in ("pattern", "recursive") if getattr(arguments, name) is not None}, "--inputs")
    return FolderJob(
        references=_references(arguments),
        output_folder=arguments.output_folder,
        folder=arguments.folder,
        pattern=arguments.pattern or FolderJob.pattern,
        recursive=bool(arguments.recursive),
        inputs=tuple(arguments.inputs or ()),
        merged=arguments.merged,
        failures=arguments.failures,
        probability=arguments.probability,
        redo=arguments.redo,
        model=_model(arguments),
        raster=_raster(arguments),
        polygons=_polygons(arguments),
        threshold=arguments.threshold,
        separate=arguments.separate,
    )


def _refset_job(arguments: argparse.Namespace) -> RefsetJob:
    vectors, rasters = arguments.references, arguments.reference_raster
    if len(vectors) != len(rasters):
        raise RefSAMError("input", "Give one --reference-raster for each of the --references, in the same order.")
    negatives = arguments.negatives or [None] * len(vectors)
    if len(negatives) != len(vectors):
        raise RefSAMError("input", "Give --negatives for each of the --references, in the same order, or none.")
    return RefsetJob(
        sources=tuple(
            ReferenceSource(
                vector=vector,
                raster=raster,
                class_field=arguments.class_field,
                annotation=arguments.annotation,
                negatives=negative,
            )
            for vector, raster, negative in zip(vectors, rasters, negatives, strict=True)
        ),
        output=arguments.output,
        base=arguments.base,
        picture=arguments.picture,
        bands=_bands(arguments),
        stretch=arguments.stretch,
        chip_size=arguments.chip_size,
    )


def _prompts_job(arguments: argparse.Namespace) -> PromptsJob:
    return PromptsJob(
        input=arguments.input,
        points=arguments.points,
        boxes=arguments.boxes,
        label_field=arguments.label_field,
        object_field=arguments.object_field,
        best_of_three=arguments.best_of_three,
        outputs=_object_outputs(arguments),
        model=_model(arguments),
        raster=_raster(arguments),
        polygons=_polygons(arguments),
    )


def _everything_job(arguments: argparse.Namespace) -> EverythingJob:
    return EverythingJob(
        input=arguments.input,
        extent=_extent(arguments),
        points_per_side=arguments.points_per_side,
        min_predicted_iou=arguments.min_predicted_iou,
        min_stability=arguments.min_stability,
        max_overlap=arguments.max_overlap,
        outputs=_object_outputs(arguments),
        model=_model(arguments),
        raster=_raster(arguments),
        polygons=_polygons(arguments),
    )


def _train_job(arguments: argparse.Namespace) -> TrainJob:
    return TrainJob(
        output=arguments.output,
        rasters=tuple(arguments.rasters or ()),
        labels=arguments.labels,
        class_field=arguments.class_field,
        folder=arguments.folder,
        generated=arguments.generated,
        bands=_bands(arguments),
        stretch=arguments.stretch,
        model=_model(arguments),
        steps=arguments.steps,
        batch=arguments.batch,
        seed=arguments.seed,
        resume=arguments.resume,
        validation=arguments.validation,
        patience=arguments.patience,
        curve=arguments.curve,
    )


def _evaluate_job(arguments: argparse.Namespace) -> EvaluateJob | ProtocolJob:
    """Return one of two jobs; an option of the other one would do nothing."""
    result, protocol = _given(arguments, EvaluateJob), _given(arguments, ProtocolJob)
    if "protocol" in protocol:
        _refuse(result.keys() - protocol.keys(), "--protocol")
        if "folder" not in protocol:
            raise RefSAMError("input", "A protocol needs its images with masks; add --folder.")
        return ProtocolJob(**{**protocol, "model": _model(arguments)})
    if useless := _flags((protocol | _given(arguments, ModelOptions)).keys() - result.keys()):
        raise RefSAMError(
            "input",
            f"Without --protocol there is no use for {useless}; add --protocol and --folder, or leave that out.",
        )
    if not {"result", "truth"} <= result.keys():
        raise RefSAMError("input", "There is nothing to compare; add --result and --truth, or --protocol and --folder.")
    return EvaluateJob(**result)


def _status_job(arguments: argparse.Namespace) -> StatusJob:
    return StatusJob(_model(arguments))


def _read_job(arguments: argparse.Namespace) -> Job:
    path: Path = arguments.job
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RefSAMError("input", f"The job {path} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise RefSAMError("input", f"The job {path} is not JSON ({error}); correct the file.") from error
    if isinstance(document, dict) and isinstance(document.get("job"), dict):  # a report
        document = document["job"]
    if not isinstance(document, dict) or "kind" not in document:
        raise RefSAMError(
            "input",
            f"'{path}' holds no job; give a JSON object with the 'kind' of a job and its fields, or a report of a run.",
        )
    return from_dict(document)


def _references(arguments: argparse.Namespace) -> ReferenceSource:
    if arguments.reference_set is not None:
        described = {"annotation", "class_field", "reference_layer"}
        _refuse({name for name in described if getattr(arguments, name) is not None}, "--reference-set")
    return ReferenceSource(
        vector=arguments.references,
        raster=arguments.reference_raster,
        layer=arguments.reference_layer,
        class_field=arguments.class_field,
        annotation=arguments.annotation or ReferenceSource.annotation,
        negatives=arguments.negatives,
        refset=arguments.reference_set,
    )


def _model(arguments: argparse.Namespace) -> ModelOptions:
    return ModelOptions(**_given(arguments, ModelOptions))


def _given(arguments: argparse.Namespace, cls: type[Any]) -> dict[str, Any]:
    """Return the fields of a job, or of a part of one, of which the arguments tell."""
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(arguments).items()}
    return {field.name: given[field.name] for field in fields(cls) if field.name in given}


def _refuse(useless: Iterable[str], beside: str) -> None:
    """Raise `RefSAMError` if fields were given that do nothing beside an option."""
    if flags := _flags(useless):
        raise RefSAMError("input", f"With {beside} there is no use for {flags}; leave one or the other out.")


def _flags(names: Iterable[str]) -> str:
    """Return fields as the flags that name them."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))


def _raster(arguments: argparse.Namespace) -> RasterOptions:
    return RasterOptions(_bands(arguments), arguments.stretch, arguments.tile_size, arguments.overlap)


def _polygons(arguments: argparse.Namespace) -> PolygonOptions:
    return PolygonOptions(arguments.min_area, arguments.fill_holes, arguments.simplify, arguments.right_angles)


def _object_outputs(arguments: argparse.Namespace) -> ObjectOutputs:
    outputs = ObjectOutputs(arguments.polygons, arguments.mask, arguments.report)
    if outputs == ObjectOutputs():
        raise RefSAMError("input", "No output was asked for; add --polygons, --mask or --report.")
    return outputs


def _bands(arguments: argparse.Namespace) -> tuple[int, ...] | None:
    return tuple(arguments.bands) if arguments.bands else None


def _extent(arguments: argparse.Namespace) -> tuple[float, float, float, float] | None:
    return tuple(arguments.extent) if arguments.extent else None


def _add_model(parser: argparse.ArgumentParser, adapters: bool = True, method: bool = True) -> None:
    """Add the options of the model; `adapters` and `method` only for commands on which they have a bearing."""
    group = parser.add_argument_group("model", argument_default=argparse.SUPPRESS)
    group.add_argument("--model", choices=MODELS)
    group.add_argument("--checkpoint", help="SAM checkpoint (.pth); the compact model brings its own")
    if adapters:
        group.add_argument("--adapters", help="trained VCP and DTA adapters (.safetensors)")
    if method:
        group.add_argument("--method", choices=METHODS)
    group.add_argument("--device", help=f"{', '.join(DEVICES)}, or cuda:1, …")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bands", type=int, nargs="+", metavar="BAND", help="grey, or red, green and blue; from 1")
    parser.add_argument("--stretch", choices=STRETCHES, default=RasterOptions.stretch)


def _add_raster(parser: argparse.ArgumentParser) -> None:
    _add_reading(parser)
    parser.add_argument("--tile-size", type=int, default=RasterOptions.tile_size, help="pixels; 0 is automatic")
    parser.add_argument("--overlap", type=float, default=RasterOptions.overlap, help="percent of a tile, 0 to 50")


def _add_extent(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--extent", type=float, nargs=4, metavar=("XMIN", "YMIN", "XMAX", "YMAX"))


def _add_polygons(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("polygons")
    group.add_argument("--min-area", type=float, help="square metres (default: a twentieth of the typical example)")
    group.add_argument("--fill-holes", type=float, default=PolygonOptions.fill_holes, help="below; square metres")
    group.add_argument("--simplify", type=float, default=PolygonOptions.simplify, help="map units; 0 is off")
    group.add_argument("--right-angles", action="store_true", help="make outlines right-angled")


def _add_decision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threshold", type=float, default=SegmentJob.threshold, help="probability, 0 to 1")
    parser.add_argument(
        "--separate", type=float, default=SegmentJob.separate, help="dip of probability that parts objects; 0 is off"
    )


def _add_references(parser: argparse.ArgumentParser, raster_help: str) -> None:
    group = parser.add_argument_group("references")
    group.add_argument("--references", help="vector file of polygons, lines or points")
    group.add_argument("--reference-raster", help=raster_help)
    group.add_argument("--reference-layer", help="layer inside the vector file (default: the first)")
    group.add_argument("--class-field", help="attribute that holds the class (default: all one class)")
    group.add_argument("--annotation", choices=ANNOTATIONS, help=f"default: {ReferenceSource.annotation}")
    group.add_argument("--negatives", help="vector file of marks on what is to be told apart")
    group.add_argument("--reference-set", help="reference set (.refset), instead of the others")


def _add_object_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("outputs (at least one)")
    group.add_argument("--polygons", help="GeoPackage")
    group.add_argument("--mask", help="GeoTIFF of object numbers")
    group.add_argument("--report", help="JSON")


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, help="raster to search")
    _add_references(parser, "raster they are drawn on (default: the input)")
    _add_raster(parser)
    _add_extent(parser)
    _add_decision(parser)
    _add_polygons(parser)
    outputs = parser.add_argument_group("outputs (at least one)")
    outputs.add_argument("--polygons", help="GeoPackage")
    outputs.add_argument("--mask", help="GeoTIFF of class ids")
    outputs.add_argument("--probability", help="GeoTIFF, one band a class")
    outputs.add_argument("--report", help="JSON")
    parser.add_argument(
        "--no-encodings", dest="keep_encodings", action="store_false", help="keep no encodings for the next run"
    )
    _add_model(parser)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    rasters = parser.add_mutually_exclusive_group(required=True)
    rasters.add_argument("--folder", help="folder that is searched for rasters")
    rasters.add_argument("--inputs", nargs="+", metavar="RASTER", help="rasters, instead of a folder")
    parser.add_argument("--pattern", help=f"file names, separated by ';' (default: {FolderJob.pattern})")
    parser.add_argument("--recursive", action="store_true", default=None, help="search the folders inside too")
    _add_references(parser, "raster they are drawn on")
    _add_raster(parser)
    _add_decision(parser)
    _add_polygons(parser)
    outputs = parser.add_argument_group("outputs")
    outputs.add_argument("--output-folder", required=True, help="folder for the results of each raster")
    outputs.add_argument("--merged", help="GeoPackage of all polygons")
    outputs.add_argument("--failures", help="CSV of the rasters that failed")
    outputs.add_argument("--probability", action="store_true", help="write probabilities too")
    outputs.add_argument("--redo", action="store_true", help="do finished rasters again")
    _add_model(parser)


def _add_refset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--references", nargs="+", required=True, help="vector files of polygons, lines or points")
    parser.add_argument("--reference-raster", nargs="+", required=True, help="the raster each is drawn on")
    parser.add_argument("--negatives", nargs="+", help="vector files of marks on what is to be told apart")
    parser.add_argument("--class-field", help="attribute that holds the class (default: all one class)")
    parser.add_argument("--annotation", choices=ANNOTATIONS, default=ReferenceSource.annotation)
    parser.add_argument("--base", help="reference set whose shots come first")
    parser.add_argument("--chip-size", type=float, default=RefsetJob.chip_size, help="metres; 0 is automatic")
    _add_reading(parser)
    parser.add_argument("--output", required=True, help="reference set to write (.refset)")
    parser.add_argument("--picture", help="PNG of the chips with their masks")


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, help="raster")
    parser.add_argument("--points", help="vector file of points")
    parser.add_argument("--boxes", help="vector file; bounding boxes of its features")
    parser.add_argument("--label-field", help="attribute of the points: 1 on the object, 0 beside it")
    parser.add_argument("--object-field", help="attribute whose equal values mean one object")
    parser.add_argument(
        "--one-mask", dest="best_of_three", action="store_false", help="let SAM propose one mask, not three"
    )
    _add_raster(parser)
    _add_polygons(parser)
    _add_object_outputs(parser)
    _add_model(parser, adapters=False, method=False)


def _add_everything(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, help="raster")
    parser.add_argument("--points-per-side", type=int, default=EverythingJob.points_per_side)
    parser.add_argument("--min-predicted-iou", type=float, default=EverythingJob.min_predicted_iou, help="0 to 1")
    parser.add_argument("--min-stability", type=float, default=EverythingJob.min_stability, help="0 to 1")
    parser.add_argument("--max-overlap", type=float, default=EverythingJob.max_overlap, help="IoU of boxes, 0 to 1")
    _add_raster(parser)
    _add_extent(parser)
    _add_polygons(parser)
    _add_object_outputs(parser)
    _add_model(parser, adapters=False, method=False)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, help="adapters file to write (.safetensors)")
    parser.add_argument("--rasters", nargs="+", metavar="RASTER", help="rasters whose objects are all outlined")
    parser.add_argument("--labels", help="vector file of class polygons over them")
    parser.add_argument("--class-field", help="attribute that holds the class (default: all one class)")
    parser.add_argument("--folder", help="images with masks")
    parser.add_argument("--no-generated", dest="generated", action="store_false", help="leave generated scenes out")
    _add_reading(parser)
    parser.add_argument("--steps", type=int, default=TrainJob.steps)
    parser.add_argument("--batch", type=int, default=TrainJob.batch, help="episodes per step")
    parser.add_argument("--seed", type=int, default=TrainJob.seed)
    parser.add_argument("--no-resume", dest="resume", action="store_false", help="start anew")
    parser.add_argument("--validation", type=float, default=TrainJob.validation, help="share of the scenes")
    parser.add_argument("--patience", type=int, default=TrainJob.patience, help="looks without gain; 0 is endless")
    parser.add_argument("--curve", help="PNG of the loss and validation curves")
    _add_model(parser, method=False)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the options of two jobs; those that are not given stay away, so that it shows which were."""
    result = parser.add_argument_group("a result against the truth", argument_default=argparse.SUPPRESS)
    result.add_argument("--result", help="polygons, or raster of class ids")
    result.add_argument("--truth", help="polygons, or raster of class ids")
    result.add_argument("--result-field", help="attribute of result polygons that holds the class")
    result.add_argument("--truth-field", help="attribute of truth polygons that holds the class")
    result.add_argument("--result-classes", nargs="+", metavar="NAME", help="names of class ids 1, 2, …")
    result.add_argument("--truth-classes", nargs="+", metavar="NAME", help="names of class ids 1, 2, …")
    result.add_argument("--gsd", type=float, help="metres, for two vector files")
    result.add_argument("--tolerance", type=float, help="pixels between boundaries")
    result.add_argument("--min-iou", type=float, help="of an object found, 0 to 1")
    _add_extent(result)
    protocol = parser.add_argument_group("methods by few-shot episodes", argument_default=argparse.SUPPRESS)
    protocol.add_argument("--protocol", choices=PROTOCOLS, help="where the episodes come from")
    protocol.add_argument("--folder", help="the data set as it is published, or images with masks")
    protocol.add_argument("--folds", type=int, nargs="+", metavar="FOLD", help="from 0 (default: all)")
    protocol.add_argument("--methods", nargs="+", choices=PROTOCOL_METHODS)
    protocol.add_argument("--shots", type=int, help="references of an episode")
    protocol.add_argument("--episodes", type=int, help="of each run and fold")
    protocol.add_argument("--runs", type=int, help="episode lists")
    protocol.add_argument("--seed", type=int, help="from which each run draws its own")
    protocol.add_argument("--support", choices=SUPPORTS, help="marks of the references")
    protocol.add_argument("--min-pixels", type=int, help="of a class that is present (default: the protocol's own)")
    parser.add_argument("--picture", help="PNG of the confusion matrix, or of the best, median and worst episodes")
    parser.add_argument("--table", help="CSV, one row a class or a method")
    parser.add_argument("--report", help="JSON to write")
    _add_model(parser, method=False)
