"""What the user reads, and after how long, when the engine is killed, starved, damaged or cancelled in mid-run.

    python -m benchmarks.robustness.worker_faults --engine PYTHON

PYTHON is that of the engine's environment; it stays as it is, for only a copy made of links is damaged. The jobs search
the bundled sample with the bundled compact model. Runs on Linux.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.job import ModelOptions, ReferenceSource, SegmentJob, SegmentOutputs, to_dict
from refsam_qgis.host.environment import engine_environment, worker_command
from refsam_qgis.host.worker_client import WorkerClient

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample"
WEST, NORTH = 391_200.0, 5_820_600.0
ONE_TILE, FOUR_TILES = (60.0, 60.0), (120.0, 120.0)
"""Sizes of extents in metres, from the upper left corner of the sample."""
STARTING, READING, TILES = "Starting the engine", "Reading references", "Segmenting"
SPARE_BYTES = 16 << 20
START_BYTES = 1 << 30
"""Address space of a worker that is starved from the start: not enough to load torch."""
LIMITED = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({0}, {0})); os.execv(sys.argv[1], sys.argv[1:])"
)

Act = Callable[["Run"], None]


def main() -> None:
    """Try each fault and print the table."""
    parser = argparse.ArgumentParser(description="What the user reads when the engine's process fails.")
    parser.add_argument("--engine", type=Path, required=True, help="Python of the engine's environment")
    engine = Path(os.path.abspath(parser.parse_args().engine))  # a link to the base Python stays one
    with tempfile.TemporaryDirectory(prefix="refsam-faults-") as scratch:
        bench = Bench(engine, Path(scratch))
        bench.undisturbed()
        bench.fault("killed (-9) in a tile", Run(FOUR_TILES, kill, TILES, 2, 0.5))
        bench.fault("starved of memory before the model is loaded", Run(FOUR_TILES, starve, READING), fresh=True)
        bench.client.close()  # it stays starved
        bench.starved_from_the_start()
        bench.damaged("environment damaged while torch is imported", STARTING, 0.5)
        bench.damaged("environment damaged before the model is loaded", READING, 0.0)
        bench.damaged("environment damaged in a tile", TILES, 0.5)
        bench.fault("cancelled in a tile", Run(FOUR_TILES, cancel, TILES, 2, 0.5))
        bench.fault("cancelled while torch is imported", Run(FOUR_TILES, cancel, STARTING, 1, 0.7), fresh=True)
        bench.fault("cancelled in the engine's first instant", Run(FOUR_TILES, cancel, STARTING, 1, 0.0), fresh=True)
        bench.orphaned()
        bench.client.close()
        left = [path.name for path in bench.outputs.iterdir() if path.name.startswith(".refsam-")]
    print("\nHidden folders left beside the outputs in the end:", ", ".join(left) or "none")


@dataclass
class Run:
    """A job as its user sees it, and what happens to it: `act`, `delay` seconds after the n-th event of a stage."""

    extent: tuple[float, float]
    act: Act | None = None
    stage: str = ""
    event: int = 1
    delay: float = 0.0
    cancelled: bool = False
    started: float = 0.0
    acted: float | None = None
    ended: float | None = None
    first_tile: float | None = None
    longest_silence: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    client: WorkerClient | None = None
    _timer: threading.Timer | None = None
    _seen: int = 0
    _last: float = 0.0

    def run(self, client: WorkerClient, outputs: Path) -> str:
        """Run the job; return what the user reads in the end."""
        self.client = client
        self.started = self._last = time.monotonic()
        try:
            self.result = client.run(to_dict(self._job(outputs)), self)
        except RefSAMError as error:
            self.ended = time.monotonic()
            return str(error)
        finally:
            if self._timer is not None:
                self._timer.join()
        return f"done: {self.result['object_count']} objects"

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        """Hear of progress, and act when the time has come."""
        now = time.monotonic()
        self.longest_silence = max(self.longest_silence, now - self._last)
        self._last = now
        if stage == TILES and self.first_tile is None:
            self.first_tile = now - self.started
        if self.act is not None and stage == self.stage:
            self._seen += 1
            if self._seen == self.event:
                self._timer = threading.Timer(self.delay, self._act)
                self._timer.start()

    def log(self, message: str) -> None:
        """Show the engine's messages as they come."""
        print("   log:", message.splitlines()[0], file=sys.stderr)

    def is_cancelled(self) -> bool:
        """Whether it was cancelled by its own fault."""
        return self.cancelled

    def _act(self) -> None:
        assert self.act is not None
        self.acted = time.monotonic()
        self.act(self)

    def _job(self, outputs: Path) -> SegmentJob:
        east, south = WEST + self.extent[0], NORTH - self.extent[1]
        return SegmentJob(
            str(SAMPLE / "scene.tif"),
            ReferenceSource(str(SAMPLE / "references.gpkg"), class_field="class", annotation="partial"),
            SegmentOutputs(polygons=str(outputs / "polygons.gpkg"), mask=str(outputs / "mask.tif")),
            ModelOptions(device="cpu"),
            extent=(WEST, south, east, NORTH),
        )


class Bench:
    """Runs the faults one after the other on one client, as one session of QGIS would, and prints a row of each."""

    def __init__(self, engine: Path, scratch: Path) -> None:
        self._engine = engine
        self._scratch = scratch
        self.outputs = scratch / "outputs"
        self.outputs.mkdir()
        self._environment = {**engine_environment(), "REFSAM_HOME": str(scratch / "home")}
        self.client = self._make_client(worker_command(engine))
        print("| what happens | what the user reads | after s | next run: engine | first tile after s | ends with |")
        print("|---|---|---|---|---|---|")

    def undisturbed(self) -> None:
        """A cold start and a warm one."""
        for what in ("nothing, cold start", "nothing, warm start"):
            run = Run(ONE_TILE)
            read = run.run(self.client, self.outputs)
            print(
                f"| {what} | {read}; first tile after {run.first_tile or 0:.2f} s, {run.result.get('model_loads')} "
                f"model loads, longest silence {run.longest_silence:.2f} s | | | | |",
                flush=True,
            )

    def fault(self, what: str, run: Run, client: WorkerClient | None = None, fresh: bool = False) -> None:
        """Run a job that fails and a next one, and print both."""
        client = client or self.client
        if fresh:
            client.close()
        read = run.run(client, self.outputs)
        after = f"{run.ended - run.acted:.2f}" if run.acted and run.ended else "-"
        pid = client.pid
        following = Run(ONE_TILE)
        end = following.run(client, self.outputs)
        engine = "-" if client.pid is None else "same" if client.pid == pid else "new"
        tile = "-" if following.first_tile is None else f"{following.first_tile:.2f}"
        print(f"| {what} | {read} | {after} | {engine} | {tile} | {end} |", flush=True)

    def starved_from_the_start(self) -> None:
        """A worker that never gets enough memory."""
        limited = [sys.executable, "-c", LIMITED.format(START_BYTES), *worker_command(self._engine)]
        client = self._make_client(limited)
        run = Run(ONE_TILE, act=lambda run: None, stage=STARTING)
        self.fault("starved of memory from the start", run, client)
        client.close()

    def damaged(self, what: str, stage: str, delay: float) -> None:
        """A worker whose environment loses all its packages' files in mid-run, and the next run of a new worker."""
        root = self._scratch / "damaged"
        shutil.copytree(self._engine.parents[1], root, symlinks=True, copy_function=os.symlink)
        client = self._make_client(worker_command(root / "bin" / self._engine.name))
        self.fault(what, Run(ONE_TILE, lambda run: damage(root), stage, 1, delay), client)
        client.close()
        self.fault("the same, the engine started again", Run(ONE_TILE, lambda run: None, STARTING), client)
        client.close()
        shutil.rmtree(root)

    def orphaned(self) -> None:
        """QGIS is killed in mid-run."""
        code = f"from {__spec__.name} import be_killed; be_killed({str(self._engine)!r}, {str(self._scratch)!r})"
        parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        worker = int(next(line for line in parent.stdout if line.strip().isdigit()))
        parent.kill()
        killed = time.monotonic()
        while is_running(worker):
            time.sleep(0.05)
        after = time.monotonic() - killed
        print(f"| QGIS killed (-9) in a tile | its engine is gone | {after:.2f} | | | |", flush=True)
        parent.wait()

    def _make_client(self, command: list[str]) -> WorkerClient:
        return WorkerClient(command, self._environment)


def kill(run: Run) -> None:
    """End the worker as the system's memory killer does."""
    os.kill(_pid(run), signal.SIGKILL)


def starve(run: Run) -> None:
    """Leave the worker next to no address space beyond what it has."""
    pages = int(Path(f"/proc/{_pid(run)}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + SPARE_BYTES
    resource.prlimit(_pid(run), resource.RLIMIT_AS, (limit, limit))


def cancel(run: Run) -> None:
    """Press Cancel."""
    run.cancelled = True


def damage(root: Path) -> None:
    """Take away every package but its record, as a broken update or a clean-up tool would."""
    for packages in root.glob("lib/python3*/site-packages"):
        gone = root / "gone"
        gone.mkdir()
        for folder in list(packages.iterdir()):
            if folder.is_dir() and folder.suffix != ".dist-info":
                folder.rename(gone / folder.name)


def be_killed(engine: str, scratch: str) -> None:
    """Be the QGIS that is killed: run a job and say in the midst of it which process does it."""

    def tell(run: Run) -> None:
        print(_pid(run), flush=True)

    bench = Bench(Path(engine), Path(tempfile.mkdtemp(dir=scratch)))
    Run(FOUR_TILES, tell, TILES, 2, 0.5).run(bench.client, bench.outputs)


def is_running(pid: int) -> bool:
    """Whether a process runs that nobody may have buried yet."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _pid(run: Run) -> int:
    assert run.client is not None and run.client.pid is not None
    return run.client.pid


if __name__ == "__main__":
    main()
