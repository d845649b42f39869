"""What a run that is cancelled or killed in the middle keeps, and whether the next one ends with the same bytes.

    python -m benchmarks.robustness.resume [--raster RASTER --references MARKS]

Three times the same run, each in a process of its own: undisturbed, stopped in the middle, and gone on with. The
bundled sample and the bundled compact model are the defaults.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pyogrio.raw

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.interrupt import interruptible
from refsam_qgis.engine.job import MODELS, ModelOptions, RasterOptions, ReferenceSource, SegmentJob, SegmentOutputs

SAMPLE = Path(__file__).resolve().parents[2] / "sample"


class _PipeReporter:
    """Tells the other end of a pipe what it hears; a message from there cancels."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        self._pipe.send(("progress", (fraction, stage)))

    def log(self, message: str) -> None:
        self._pipe.send(("log", message))

    def is_cancelled(self) -> bool:
        return self._pipe.poll()


def _run(pipe: Connection, job: SegmentJob) -> None:
    from refsam_qgis.engine.segment import run_segment

    reporter = _PipeReporter(pipe)
    try:
        with interruptible(reporter):
            pipe.send(("result", run_segment(job, reporter)))
    except RefSAMError as error:
        pipe.send(("error", str(error)))


def _start(job: SegmentJob) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, job))
    process.start()
    theirs.close()
    return process, ours


def run_whole(job: SegmentJob) -> tuple[dict[str, Any], float]:
    """Run a job to its end; return its result and the seconds it took, the start of the process included."""
    started = time.monotonic()
    process, pipe = _start(job)
    while True:
        kind, content = pipe.recv()
        if kind == "error":
            raise SystemExit(content)
        if kind == "result":
            process.join()
            return content, time.monotonic() - started


def stop(job: SegmentJob, at: float, kill: bool) -> tuple[str, float]:
    """Run a job until a share of it is done, then cancel or kill it.

    Returns:
        What it said last, and the seconds from asking until its end.
    """
    process, pipe = _start(job)
    while True:
        kind, content = pipe.recv()
        if kind in ("result", "error"):
            raise SystemExit(f"The run ended before it could be stopped: {content}")
        if kind == "progress" and content[0] >= at:
            break
    time.sleep(0.5)  # into the middle of a tile
    asked = time.monotonic()
    if kill:
        os.kill(process.pid or 0, signal.SIGKILL)
    else:
        pipe.send("cancel")
    said = "(killed)"
    try:
        while not kill:
            kind, content = pipe.recv()
            if kind == "error":
                said = content
                break
    finally:
        felt = time.monotonic() - asked
    process.join()
    return said, felt


def contents(outputs: SegmentOutputs) -> list[Any]:
    """Return the bytes of the rasters and the features of the layer."""
    _, _, shapes, fields = pyogrio.raw.read(outputs.polygons)
    rasters = [Path(str(path)).read_bytes() for path in (outputs.mask, outputs.probability)]
    return [*rasters, shapes.tolist(), [values.tolist() for values in fields]]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raster", default=str(SAMPLE / "scene.tif"))
    parser.add_argument("--references", default=str(SAMPLE / "references.gpkg"))
    parser.add_argument("--class-field", default=None)
    parser.add_argument("--model", choices=MODELS, default=ModelOptions.model)
    parser.add_argument("--checkpoint")
    parser.add_argument("--device", default=ModelOptions.device)
    parser.add_argument("--tile-size", type=int, default=RasterOptions.tile_size)
    parser.add_argument("--at", type=float, default=0.5, help="share of the run after which it is stopped")
    parser.add_argument("--kill", action="store_true", help="kill it (-9) instead of cancelling")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        os.environ["REFSAM_HOME"] = str(Path(folder, "home"))
        outputs = SegmentOutputs(*(str(Path(folder, name)) for name in ("p.gpkg", "m.tif", "q.tif", "r.json")))
        job = SegmentJob(
            arguments.raster,
            ReferenceSource(arguments.references, class_field=arguments.class_field),
            outputs,
            ModelOptions(arguments.model, arguments.checkpoint, device=arguments.device),
            RasterOptions(tile_size=arguments.tile_size),
        )
        whole, whole_seconds = run_whole(job)
        undisturbed = contents(outputs)
        for path in (outputs.polygons, outputs.mask, outputs.probability):
            os.unlink(str(path))
        said, felt = stop(job, arguments.at, arguments.kill)
        left = [path for path in (outputs.polygons, outputs.mask, outputs.probability) if Path(str(path)).exists()]
        resumed, resumed_seconds = run_whole(job)
        print(f"tiles                      {whole['tiles']}")
        print(f"undisturbed run            {whole_seconds:.1f} s")
        print(f"stopped after {arguments.at:4.0%}         felt after {felt:.2f} s")
        print(f"it said                    {said}")
        print(f"outputs of the stopped run {left or 'none'}")
        print(f"tiles kept                 {resumed['tiles_kept']}")
        print(f"run that went on           {resumed_seconds:.1f} s")
        print(f"the same bytes             {'yes' if contents(outputs) == undisturbed else 'NO'}")


if __name__ == "__main__":
    main()
