"""How well a model does on episodes it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import ConcatDataset

from ..job import THRESHOLD
from ..models.virefsam import ViRefSAM
from .batch import to_device
from .episodes import Episodes
from .trainer import fit_priors, run_episodes, target_edges

EpisodeList = Episodes | ConcatDataset[dict[str, Any]] | Sequence[dict[str, Any]]
"""Batches of one episode."""


@torch.inference_mode()
def class_ious(
    model: ViRefSAM, episodes: EpisodeList, check: Callable[[], None] = lambda: None, fitted: bool = False
) -> dict[str, tuple[float, float]]:
    """IoU of each class, intersections and unions summed over all its episodes (method A7).

    Args:
        model: The model; left in evaluation mode.
        episodes: What to search.
        check: Called before each episode; may raise to stop.
        fitted: Let a fitted prior take the place of the cosine; results are then cut where the product cuts them.

    Returns:
        IoU of full results and of the pseudo-mask alone, by class.
    """
    model.eval()
    totals: dict[str, np.ndarray] = {}
    for index in range(len(episodes)):
        check()
        batch = to_device(episodes[index], model.device)
        logits, pseudo, _ = run_episodes(model, batch, None, fit_priors(model, batch) if fitted else None)
        if fitted:
            logits = target_edges(batch).smooth(logits) - math.log(THRESHOLD / (1 - THRESHOLD))
        counts = np.array([*_counts(logits, batch), *_counts(pseudo.logits, batch)])
        name = batch["classes"][0]
        totals[name] = totals.get(name, np.zeros(4)) + counts
    return {
        name: (float(counts[0] / max(counts[1], 1)), float(counts[2] / max(counts[3], 1)))
        for name, counts in sorted(totals.items())
    }


def _counts(logits: Tensor, batch: dict[str, Any]) -> tuple[float, float]:
    """Intersection and union in pixels of the view."""
    scaled = F.interpolate(logits[:, None], size=batch["mask"].shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    found = (scaled > 0) & batch["counted"]
    target = batch["mask"] & batch["counted"]
    return float((found & target).sum()), float((found | target).sum())
