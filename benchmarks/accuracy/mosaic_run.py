"""Runs one method of the mosaic benchmark in a process of its own, so that its memory is its own."""

from __future__ import annotations

import json
import multiprocessing
import resource
import subprocess
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from refsam_qgis.engine.evaluation.methods import build_segmenter
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.job import METHODS, ModelOptions, SegmentJob
from refsam_qgis.engine.models.checkpoints import load_segmenter
from refsam_qgis.engine.models.segmenter import ReferenceSegmenter
from refsam_qgis.engine.segment import run_segment

from ..memory import peak_bytes


def run_alone(job: SegmentJob, method: str, qgis_process: str | None) -> tuple[dict[str, Any], int]:
    """Segment the mosaic in a fresh process.

    Args:
        job: What to do; its model holds the method, unless that is a baseline.
        method: Name of the method.
        qgis_process: Executable to run the Processing algorithm with; ``None`` runs the engine itself. Baselines
            are no part of the product and always run through the engine's raster path.

    Returns:
        The result of the job and the peak resident memory in bytes.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        if qgis_process is None or method not in METHODS:
            return pool.submit(_run_engine, job, method).result()
        return pool.submit(_run_qgis, job, qgis_process).result()


def _run_engine(job: SegmentJob, method: str) -> tuple[dict[str, Any], int]:
    def load(options: ModelOptions) -> ReferenceSegmenter:
        return build_segmenter(method, options, 0, load_segmenter)

    result = run_segment(job, SilentReporter(), load)
    return result, peak_bytes()


def _run_qgis(job: SegmentJob, qgis_process: str) -> tuple[dict[str, Any], int]:
    parameters = {
        "INPUT": job.input,
        "REFERENCE_RASTER": job.references.raster,
        "REFERENCES": job.references.vector,
        "CLASS_FIELD": job.references.class_field,
        "ANNOTATION": job.references.annotation,
        "MODEL": job.model.model,
        "CHECKPOINT": job.model.checkpoint,
        "ADAPTERS": job.model.adapters,
        "METHOD": job.model.method,
        "DEVICE": job.model.device,
        "OUTPUT": job.outputs.polygons,
        "MASK": job.outputs.mask,
        "REPORT": job.outputs.report,
    }
    given = [f"{name}={value}" for name, value in parameters.items() if value is not None]
    subprocess.run([qgis_process, "run", "refsam:segmentbyreference", "--json", "--", *given], check=True)
    peak = peak_bytes(resource.RUSAGE_CHILDREN)
    with open(str(job.outputs.report), encoding="utf-8") as stream:
        result: dict[str, Any] = json.load(stream)["result"]
    return result, peak
