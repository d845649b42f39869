"""What bfloat16 changes: the same searches with SAM's matrices in float32 and in bfloat16.

    python -m benchmarks.speed.rounding --data DATA/train/dubai [--episodes 24]

Each method searches the targets of the same 1-shot episodes twice. Masks are cut where the product cuts them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from refsam_qgis.engine.evaluation.measure import log_odds
from refsam_qgis.engine.evaluation.methods import least_probability
from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.models import checkpoints
from refsam_qgis.engine.models.segmenter import Shots
from refsam_qgis.engine.training.calibrate import PLAIN
from refsam_qgis.engine.training.episodes import Episodes
from refsam_qgis.engine.training.sources import read_places

from ..accuracy.options import markdown_table
from .measured_run import RECORDS

METHODS = ("fitted", "virefsam", "training_free")
PRECISIONS = (torch.float32, torch.bfloat16)
STREAM = 10
"""Draws of these episodes are apart from all others."""


def main() -> None:
    """Search, print the table and write the record."""
    parser = argparse.ArgumentParser(description="What bfloat16 changes.")
    parser.add_argument("--data", type=Path, required=True, help="folder of real training images, such as train/dubai")
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--record", type=Path, default=RECORDS / "rounding.json")
    arguments = parser.parse_args()
    draws = replace(PLAIN, steps=arguments.episodes, real_share=1.0)
    episodes = Episodes(draws, list(read_places(arguments.data).values()), stream=STREAM)
    rows = [_measure(method, episodes) for method in METHODS]
    arguments.record.write_text(
        json.dumps({"episodes": len(episodes), "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )
    names = list(rows[0])
    print(markdown_table(names, [[str(row[name]) for name in names] for row in rows]))


def _measure(method: str, episodes: Episodes) -> dict[str, Any]:
    exact, rounded = (_load(method, precision) for precision in PRECISIONS)
    cut = log_odds(least_probability(method))
    cosines, both, either = [], [], []
    for index in range(len(episodes)):
        batch = episodes[index]
        (features, mask), (rounded_features, rounded_mask) = (_search(one, batch, cut) for one in (exact, rounded))
        cosines.append(float(F.cosine_similarity(features.double(), rounded_features.double(), dim=0)))
        both.append(int((mask & rounded_mask).sum()))
        either.append(int((mask | rounded_mask).sum()))
    ious = [shared / total for shared, total in zip(both, either, strict=True) if total]
    return {
        "method": method,
        "least cosine of features": round(min(cosines), 6),
        "IoU of all masks": round(sum(both) / sum(either), 4),
        "median IoU": round(float(np.median(ious)), 4),
        "least IoU": round(min(ious), 4),
    }


def _load(method: str, precision: torch.dtype) -> Any:
    with mock.patch.object(checkpoints, "choose_precision", lambda device: precision):
        return checkpoints.load_segmenter(ModelOptions(method=method, device="cpu"))


def _search(segmenter: Any, batch: dict[str, Any], cut: float) -> tuple[Tensor, Tensor]:
    images, masks, target = batch["references"][0], batch["reference_masks"][0], batch["target"]
    reference = segmenter.describe(Shots(images, masks, torch.ones_like(masks, dtype=torch.bool)))
    encoding = segmenter.encode(target, torch.ones_like(target[:, 0], dtype=torch.bool))
    frozen = getattr(encoding, "frozen", encoding)
    return frozen.features.flatten(), segmenter.segment(encoding, reference) > cut


if __name__ == "__main__":
    main()
