"""Training of adapters as `trainadapters` does it: episodes per second, and memory, for each model and device.

    python -m benchmarks.speed.training --models compact vit_b [--devices cpu cuda]

Frozen weights are random, episodes are generated, steps and views are of the size that the product takes on the device.
Each row is measured in a process of its own, after one step that does not count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from refsam_qgis.engine.job import MODELS, TrainJob
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.virefsam import ViRefSAM
from refsam_qgis.engine.training.episodes import EpisodeConfig, Episodes
from refsam_qgis.engine.training.state import TrainingState
from refsam_qgis.engine.training.trainer import CPU_WINDOW, FITTED_SHARE, WINDOW, TrainerConfig, train_adapters

from ..accuracy.cells import Cells, Fields
from ..accuracy.options import markdown_table
from ..memory import peak_bytes

RECORD = Path(__file__).parent / "records" / "training.json"


def main() -> None:
    """Measure, print a table and write the record; rows not measured stay as the record has them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["compact", "vit_b"])
    parser.add_argument("--devices", nargs="+", default=["cuda" if torch.cuda.is_available() else "cpu"])
    parser.add_argument("--steps", type=int, default=5, help="steps that are measured")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw the episodes")
    parser.add_argument("--record", type=Path, default=RECORD, help="JSON to read and to write")
    arguments = parser.parse_args()
    cells = Cells(arguments.record)
    for device in arguments.devices:
        for model in arguments.models:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                measured = pool.submit(measure, model, device, arguments.steps, arguments.workers).result()
            settings = {"steps": arguments.steps, "workers": arguments.workers}
            cells.put({"model": model, "device": device}, settings, measured)
    print(_table([{**cell["key"], **cell["result"]} for cell in cells]))


def measure(model: str, device: str, steps: int, workers: int) -> Fields:
    """Train random weights for `steps` and one more."""
    torch.manual_seed(0)
    window = CPU_WINDOW if device == "cpu" else WINDOW
    draws = EpisodeConfig(steps=steps + 1, batch=TrainJob.batch, window=window)
    network = ViRefSAM(build_sam(model)).to(device)
    trained = sum(weight.numel() for weight in network.trainable_state().values())
    ends: list[float] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        train_adapters(
            network, Episodes(draws, ()), draws, TrainerConfig(fitted_share=FITTED_SHARE),
            TrainingState(Path(folder) / "state"), lambda step, loss: ends.append(time.monotonic()), workers,
        )  # fmt: skip
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes()
    return {
        "chip": _chip(device),
        "torch": torch.__version__,
        "window": window,
        "batch": draws.batch,
        "trained_weights": trained,
        "first_step_seconds": round(ends[0] - started, 2),
        "episodes_per_second": round(steps * draws.batch / (ends[-1] - ends[0]), 3),
        "peak_bytes": peak,
    }


def _chip(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def _table(rows: list[Fields]) -> str:
    header = ["model", "device", "view", "episodes a step", "trained weights, million", "episodes/s", "peak MiB"]
    return markdown_table(
        header,
        [
            [
                row["model"],
                row["chip"],
                f"{row['window']}²",
                str(row["batch"]),
                f"{row['trained_weights'] / 1e6:.2f}",
                f"{row['episodes_per_second']:.2f}",
                f"{row['peak_bytes'] / 2**20:.0f}",
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
