"""Loss and development curves of a training of the bundled weights, out of the logs of `scripts/train_compact`.

    python -m benchmarks.accuracy.training_curves --work WORK [--card CARD]

WORK is the training's folder of states and logs. Writes a picture with a panel for each stage, and a record with the
same points beside what the card says of the run: device, steps, samples, samples per second and the share of the time
that was spent waiting for them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from refsam_qgis.engine.training.curve import draw_curve

from .options import RECORDS

STAGES = ("geometry", "sam_1", "sam_2", "adapters_1", "adapters_2", "embedding")
SAMPLES = ("views", "episodes", "shapes")
CARD = Path(__file__).resolve().parents[2] / "refsam_qgis" / "checkpoints" / "compact.json"


def main() -> None:
    """Write record and picture."""
    parser = argparse.ArgumentParser(description="Curves of a training of the bundled weights.")
    parser.add_argument("--work", type=Path, required=True, help="folder of the training's logs")
    parser.add_argument("--card", type=Path, default=CARD, help="what the training wrote of itself")
    parser.add_argument("--record", type=Path, default=RECORDS / "training.json")
    arguments = parser.parse_args()
    card = json.loads(arguments.card.read_text(encoding="utf-8"))
    stages = [read_stage(arguments.work / f"{name}.log", card) for name in STAGES if _ran(arguments.work, name, card)]
    described = {key: card.get(key) for key in ("commit", "device", "torch", "seed", "development")}
    record = {**described, "stages": stages}
    arguments.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    panels = [_panel(stage) for stage in stages]
    picture = Image.new("RGB", (panels[0].width, sum(panel.height for panel in panels)))
    for number, panel in enumerate(panels):
        picture.paste(panel, (0, number * panel.height))
    picture.save(arguments.record.with_suffix(".png"))


def _ran(work: Path, name: str, card: dict[str, Any]) -> bool:
    return (work / f"{name}.log").is_file() and any(stage["stage"] == name for stage in card["stages"])


def read_stage(log: Path, card: dict[str, Any]) -> dict[str, Any]:
    """Read one stage's log.

    Returns:
        The card's entry of the stage with ``seconds`` (of all calls together), ``samples_per_second``, ``waited`` (the
        share of the time without samples; ``None`` where it was not measured), ``losses`` as pairs of step and loss,
        and ``development`` as pairs of step and scores. What a resumed run did again counts once in the curves.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    stage: dict[str, Any] = next(stage for stage in card["stages"] if stage["stage"] == log.stem)
    losses, looks = {}, {}
    seconds = last = waited = 0.0
    steps = 0
    for line in lines:
        seconds += line["seconds"] - last if line["seconds"] >= last else line["seconds"]
        last = line["seconds"]
        if "development" in line:
            looks[line["step"]] = line["development"]
            continue
        waited += line.get("waited", float("nan")) * max(0, line["step"] - steps)
        steps = line["step"]
        losses[steps] = line.get("mask", line.get("loss"))
    samples = next(stage[unit] for unit in SAMPLES if unit in stage)
    return {
        **stage,
        "seconds": round(seconds),
        "samples_per_second": round(samples / seconds, 2),
        "waited": None if np.isnan(waited) else round(waited / seconds, 3),
        "losses": sorted(losses.items()),
        "development": sorted(looks.items()),
    }


def _panel(stage: dict[str, Any]) -> Image.Image:
    steps, losses = zip(*stage["losses"], strict=True)
    every = np.interp(np.arange(1, stage["steps"] + 1), steps, losses).tolist()
    looks = [(step, float(np.mean(list(scores.values())))) for step, scores in stage["development"]]
    return draw_curve(every, looks, None, f"Stage {stage['stage']}, {stage['steps']} steps")


if __name__ == "__main__":
    main()
