"""RefSAM's image encoder beside segment_anything's own: time, error, processor time and memory.

    python -m benchmarks.speed.encoder --models compact vit_b

Both run in turn in one process on the same random weights and the same tile; the ratio is that of their median times.
Each allocator setting has processes of its own, since glibc reads it when a process starts: `default`, and `kept` as
the engine sets it. Working memory is the peak above the weights of one tile in a fresh process. What this machine has
no hardware for stands in the table as not measured; models not named are left as the record has them.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.accuracy.options import markdown_table
from refsam_qgis.engine.job import MODELS
from refsam_qgis.engine.models.encoder import encode
from refsam_qgis.engine.models.precision import choose_precision, set_precision
from refsam_qgis.engine.models.sam import INPUT_SIZE, build_sam
from refsam_qgis.engine.report import describe_device
from refsam_qgis.host.environment import engine_environment

RECORD = Path(__file__).parent / "records" / "encoder.json"
PRECISIONS = ("float32", "bfloat16")
ALLOCATORS = ("default", "kept")
WEIGHT = 0.02
"""Deviation of the random weights that SAM starts at zero: relative positions and the position embedding."""
KEY = ("model", "device", "precision", "allocator")


def main() -> None:
    """Measure what was asked for, print the table, write record and picture."""
    arguments = _parse()
    if arguments.cell is not None:
        print(json.dumps(measure(**json.loads(arguments.cell))))
        return
    rows = {_key(row): row for row in _load(arguments.record)}
    for cell in _cells():
        if cell["model"] in arguments.models and _can_run(cell):
            row = {**cell, **_run(cell, arguments.repeats, arguments.threads)}
            rows[_key(row)] = row
            print(_table([row]), flush=True)
            arguments.record.parent.mkdir(exist_ok=True)
            kept = [rows[_key(one)] for one in _cells() if _key(one) in rows]
            arguments.record.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(_table([rows.get(_key(cell), cell) for cell in _cells()]))
    _draw([row for row in rows.values() if "ratio" in row], arguments.record.with_suffix(".png"))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="RefSAM's image encoder beside segment_anything's own.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["compact", "vit_b"])
    parser.add_argument("--repeats", type=int, default=5, help="tiles of each encoder, after one that does not count")
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    parser.add_argument("--record", type=Path, default=RECORD, help="JSON to update; the picture lies beside it")
    parser.add_argument("--cell", help=argparse.SUPPRESS)  # what a process of its own measures
    return parser.parse_args()


def _cells() -> list[dict[str, str]]:
    cells = []
    for model in MODELS:
        for device, allocators in (("cpu", ALLOCATORS), ("cuda", ("",))):
            for precision in PRECISIONS:
                cells += [dict(zip(KEY, (model, device, precision, one), strict=True)) for one in allocators]
    return cells


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def _can_run(cell: dict[str, str]) -> bool:
    """Whether this machine has the device, and multiplies the precision in hardware."""
    if cell["device"] == "cuda" and not torch.cuda.is_available():
        return False
    return cell["precision"] == "float32" or choose_precision(torch.device(cell["device"])) == torch.bfloat16


def _load(record: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else []
    return rows


def _run(cell: dict[str, str], repeats: int, threads: int | None) -> dict[str, Any]:
    """Measure a cell: times in one process, the memory of each encoder in another."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    if cell["allocator"] == "kept":
        environ |= {name: value for name, value in engine_environment({}).items() if name.startswith("MALLOC_")}
    shared = {"model": cell["model"], "device": cell["device"], "precision": cell["precision"], "threads": threads}
    found: dict[str, Any] = {}
    for asked in (
        {"repeats": repeats, "encoders": ["reference", "ours"]},
        *({"repeats": 0, "encoders": [encoder]} for encoder in ("reference", "ours")),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed.encoder", "--cell", json.dumps({**shared, **asked})],
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
            check=True,
        )
        found |= json.loads(done.stdout.splitlines()[-1])
    return found


def measure(
    model: str, device: str, precision: str, threads: int | None, repeats: int, encoders: list[str]
) -> dict[str, Any]:
    """Measure in this process; with no repeats, the working memory of one tile.

    Args:
        model: SAM's size.
        device: Where it runs.
        precision: Of RefSAM's encoder. On a GPU the other computes in it too, by autocast; the error is always that
            to its float32.
        threads: Of torch; ``None`` for its own choice.
        repeats: Tiles of each encoder.
        encoders: ``reference`` and ``ours``, or one of them.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    place, dtype = torch.device(device), getattr(torch, precision)
    theirs: Any = build_sam(model).requires_grad_(False).image_encoder
    for weight in theirs.parameters():
        if not bool(weight.any()):
            torch.nn.init.normal_(weight, std=WEIGHT)
    ours = theirs if dtype == torch.float32 else copy.deepcopy(theirs)
    set_precision(ours, dtype)
    theirs, ours = theirs.to(place), ours.to(place)
    pixels = torch.randn(1, 3, INPUT_SIZE, INPUT_SIZE).to(place)

    def reference() -> Tensor:
        with torch.autocast(place.type, dtype=dtype, enabled=place.type == "cuda" and dtype != torch.float32):
            embedding: Tensor = theirs(pixels)
        return embedding

    calls: dict[str, Callable[[], Tensor]] = {"reference": reference, "ours": lambda: encode(ours, pixels)}
    with torch.inference_mode():
        if not repeats:
            return {f"{encoders[0]}_working_bytes": _working_memory(calls[encoders[0]], place)}
        exact, close = theirs(pixels).float(), encode(ours, pixels).float()
        walls, processors = _time({name: calls[name] for name in encoders}, repeats, place)
    return {
        "ratio": median(walls["ours"]) / median(walls["reference"]),
        "processor_ratio": median(processors["ours"]) / median(processors["reference"]),
        "seconds": walls,
        "processor_seconds": processors,
        "error": float((close - exact).abs().max()),
        "cosine": float(torch.nn.functional.cosine_similarity(close.double().flatten(), exact.double().flatten(), 0)),
        "largest": float(exact.abs().max()),
        "machine": describe_device(place),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "date": date.today().isoformat(),
    }


def _time(
    calls: dict[str, Callable[[], Tensor]], repeats: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Wall and processor seconds of each call, in turn."""
    walls: dict[str, list[float]] = {name: [] for name in calls}
    processors: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started, used = time.perf_counter(), time.process_time()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            walls[name].append(round(time.perf_counter() - started, 5))
            processors[name].append(round(time.process_time() - used, 5))
    return walls, processors


def _working_memory(call: Callable[[], Tensor], device: torch.device) -> int | None:
    """Peak bytes of one call above what was there before; ``None`` where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return int(torch.cuda.max_memory_allocated(device)) - before
    if not sys.platform.startswith("linux"):
        return None
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what came before
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def _table(rows: list[dict[str, Any]]) -> str:
    header = [
        "model", "device", "precision", "allocator", "s, segment_anything", "s, RefSAM", "ratio", "processor time",
        "largest error", "cosine", "working MB", "ratio",
    ]  # fmt: skip
    return markdown_table(header, [_line(row) for row in rows])


def _line(row: dict[str, Any]) -> list[str]:
    names = [row[name] or "–" for name in KEY]
    if "ratio" not in row:
        return [*names, *["not measured"] * 8]
    theirs, ours = row["reference_working_bytes"], row["ours_working_bytes"]
    return [
        *names,
        *(f"{median(row['seconds'][name]):.3g}" for name in ("reference", "ours")),
        f"{row['ratio']:.2f}",
        f"{row['processor_ratio']:.2f}",
        f"{row['error']:.1e}",
        f"{row['cosine']:.5f}",
        *(["–", "–"] if ours is None else [f"{theirs / 1e6:.0f} → {ours / 1e6:.0f}", f"{ours / theirs:.2f}"]),
    ]


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratio of time, processor time and memory of every cell as bars."""
    if not rows:
        return
    figure = Figure(figsize=(7, 1.2 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    bars = {
        "time": [row["ratio"] for row in rows],
        "processor time": [row["processor_ratio"] for row in rows],
        "working memory": [
            (row["ours_working_bytes"] or 0) / (row["reference_working_bytes"] or 1) for row in rows
        ],
    }  # fmt: skip
    for number, (label, values) in enumerate(bars.items()):
        axes.barh([place + 0.25 * number for place in range(len(rows))], values, height=0.22, label=label)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([place + 0.25 for place in range(len(rows))], [" ".join(filter(None, _key(row))) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("RefSAM / segment_anything")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
