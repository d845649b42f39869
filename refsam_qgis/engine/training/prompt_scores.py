"""How well SAM answers prompts in views that training never sees: the development table of stage 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .batch import to_device
from .development import STREAM
from .losses import mask_ious
from .pretrain import PretrainConfig, PromptViews, answer_prompts
from .sources import TEST_CLASSES, Place

PROMPTS = 6
"""Targets asked for in a view."""


@torch.inference_mode()
def prompt_scores(sam: Any, real: Sequence[Place], places: int, window: int, seed: int = 0) -> dict[str, float]:
    """Mean IoU of the single mask with its target, by set and by what prompts.

    Args:
        sam: The model.
        real: Places of the held-out real scene; empty where there is none.
        places: Draws of two views each, of every set.
        window: Side of the views.
        seed: Seed of the draws.

    Returns:
        ``generated_points``, ``generated_boxes`` (some with points), ``generated_masks``; with real places ``real_``
        and the same.
    """
    config = PretrainConfig(steps=places, places=1, prompts=PROMPTS, window=window, real_share=0.0, seed=seed)
    sets = {"generated": PromptViews(config, (), sorted(TEST_CLASSES), STREAM)}
    if real:
        sets["real"] = PromptViews(replace(config, real_share=1.0), real, None, STREAM)
    return {f"{name}_{kind}": iou for name, views in sets.items() for kind, iou in _score(sam, views).items()}


def _score(sam: Any, views: PromptViews) -> dict[str, float]:
    found: dict[str, list[float]] = {"points": [], "boxes": [], "masks": []}
    for index in range(len(views)):
        batch = to_device(views[index], sam.device)
        _, logits, _ = answer_prompts(sam, batch)
        side = batch["target"].shape[-1]
        logits = F.interpolate(logits[:, :1], size=(side, side), mode="bilinear", align_corners=False)
        ious = mask_ious(logits, batch["target"][:, None], batch["counted"][batch["owner"]][:, None])[:, 0]
        for iou, boxed, masked in zip(ious.tolist(), batch["has_box"], batch["has_mask"], strict=True):
            found["masks" if masked else "boxes" if boxed else "points"].append(iou)
    return {kind: round(float(np.mean(values)), 4) for kind, values in found.items() if values}
