"""The command line: its flags mirror the fields of the jobs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from refsam_qgis import __version__

from .errors import RefSAMError
from .job import (
    ANNOTATIONS,
    DEVICES,
    METHODS,
    MODELS,
    STRETCHES,
    EvaluateJob,
    Job,
    ModelOptions,
    ReferenceSource,
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
    _add_segment(commands.add_parser("segment", help="find the classes of the references over a raster"))
    _add_train(commands.add_parser("train", help="train VCP and DTA adapters"))
    _add_evaluate(commands.add_parser("evaluate", help="measure methods by few-shot episodes"))
    _add_model(commands.add_parser("status", help="report versions and devices and run a self-test"))
    run = commands.add_parser("run", help="run a job document")
    run.add_argument("job", type=Path, metavar="JOB.json")
    worker = commands.add_parser("worker", help="serve jobs as JSON lines on standard input and output")
    worker.add_argument("--idle-seconds", type=float, default=600.0, help="leave after so long without a job")
    return parser


def job_from_arguments(arguments: argparse.Namespace) -> Job:
    """Return the job that parsed arguments ask for.

    Raises:
        RefSAMError: With code ``input`` when a value is out of range or a job document cannot be read.
    """
    if arguments.command == "run":
        return _read_job(arguments.job)
    model = ModelOptions(arguments.model, arguments.checkpoint, arguments.adapters, arguments.method, arguments.device)
    if arguments.command == "segment":
        return _segment_job(arguments, model)
    if arguments.command == "train":
        return TrainJob(
            output=arguments.output,
            folder=arguments.folder,
            model=model,
            steps=arguments.steps,
            batch=arguments.batch,
            seed=arguments.seed,
            resume=arguments.resume,
        )
    if arguments.command == "evaluate":
        return EvaluateJob(
            folder=arguments.folder,
            report=arguments.report,
            methods=tuple(arguments.methods),
            model=model,
            shots=arguments.shots,
            episodes=arguments.episodes,
            seed=arguments.seed,
        )
    return StatusJob(model)


def _segment_job(arguments: argparse.Namespace, model: ModelOptions) -> SegmentJob:
    outputs = SegmentOutputs(arguments.polygons, arguments.mask, arguments.probability, arguments.report)
    if outputs == SegmentOutputs():
        raise RefSAMError("input", "No output was asked for; add --polygons, --mask, --probability or --report.")
    references = ReferenceSource(
        vector=arguments.references,
        raster=arguments.reference_raster,
        layer=arguments.reference_layer,
        class_field=arguments.class_field,
        annotation=arguments.annotation,
    )
    return SegmentJob(
        input=arguments.input,
        references=references,
        outputs=outputs,
        model=model,
        bands=tuple(arguments.bands) if arguments.bands else None,
        stretch=arguments.stretch,
        extent=tuple(arguments.extent) if arguments.extent else None,
        tile_size=arguments.tile_size,
        overlap=arguments.overlap,
        threshold=arguments.threshold,
        min_area=arguments.min_area,
        simplify=arguments.simplify,
    )


def _read_job(path: Path) -> Job:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RefSAMError("input", f"The job {path} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise RefSAMError("input", f"The job {path} is not JSON ({error}); correct the file.") from error
    if not isinstance(document, dict):
        raise RefSAMError("input", f"The job {path} must be a JSON object with a 'kind'; correct the file.")
    return from_dict(document)


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", choices=MODELS, default=ModelOptions.model)
    group.add_argument("--checkpoint", help="SAM checkpoint (.pth); the compact model brings its own")
    group.add_argument("--adapters", help="trained VCP and DTA adapters (.safetensors)")
    group.add_argument("--method", choices=METHODS, default=ModelOptions.method)
    group.add_argument("--device", choices=DEVICES, default=ModelOptions.device)


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, help="raster to search")
    parser.add_argument("--references", required=True, help="vector file of polygons, lines or points")
    parser.add_argument("--reference-raster", help="raster they are drawn on (default: the input)")
    parser.add_argument("--reference-layer", help="layer inside the vector file (default: the first)")
    parser.add_argument("--class-field", help="attribute that holds the class (default: all one class)")
    parser.add_argument("--annotation", choices=ANNOTATIONS, default=ReferenceSource.annotation)
    parser.add_argument("--bands", type=int, nargs="+", metavar="BAND", help="grey, or red, green and blue; from 1")
    parser.add_argument("--stretch", choices=STRETCHES, default=SegmentJob.stretch)
    parser.add_argument("--extent", type=float, nargs=4, metavar=("XMIN", "YMIN", "XMAX", "YMAX"))
    parser.add_argument("--tile-size", type=int, default=SegmentJob.tile_size, help="pixels; 0 is automatic")
    parser.add_argument("--overlap", type=float, default=SegmentJob.overlap, help="percent of a tile, 0 to 50")
    parser.add_argument("--threshold", type=float, default=SegmentJob.threshold, help="probability, 0 to 1")
    parser.add_argument("--min-area", type=float, default=SegmentJob.min_area, help="square metres")
    parser.add_argument("--simplify", type=float, default=SegmentJob.simplify, help="map units; 0 is off")
    outputs = parser.add_argument_group("outputs (at least one)")
    outputs.add_argument("--polygons", help="GeoPackage")
    outputs.add_argument("--mask", help="GeoTIFF of class ids")
    outputs.add_argument("--probability", help="GeoTIFF, one band a class")
    outputs.add_argument("--report", help="JSON")
    _add_model(parser)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, help="adapters file to write (.safetensors)")
    parser.add_argument("--folder", help="images with masks (default: generated scenes alone)")
    parser.add_argument("--steps", type=int, default=TrainJob.steps)
    parser.add_argument("--batch", type=int, default=TrainJob.batch, help="episodes per step")
    parser.add_argument("--seed", type=int, default=TrainJob.seed)
    parser.add_argument("--no-resume", dest="resume", action="store_false", help="start anew")
    _add_model(parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", required=True, help="images with masks")
    parser.add_argument("--report", help="JSON to write")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=("virefsam", "training_free", "random_forest"),
        default=list(EvaluateJob.methods),
    )
    parser.add_argument("--shots", type=int, default=EvaluateJob.shots)
    parser.add_argument("--episodes", type=int, default=EvaluateJob.episodes)
    parser.add_argument("--seed", type=int, default=EvaluateJob.seed)
    _add_model(parser)
