"""Stage 1: the compact SAM learns promptable segmentation, and features that tell classes apart.

Targets are single objects and whole classes of labelled views; prompts are points, boxes and coarse masks. A
supervised contrast between positions of the image embedding runs beside it: prototypes compare such positions, so
those of one class have to lie together in all views of a place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ..errors import RefSAMError
from ..models.decoder import decode_all, dense_position, no_mask
from ..models.encoder import encode
from ..models.fit_rules import REGRESSION_ALONE
from ..models.fitted_prior import FittedPrior
from ..models.sam import GRID, PATCH, freeze
from .batch import to_device
from .fitted_masks import FittedMasks
from .losses import class_contrast, mask_ious, mask_losses
from .prompt_geometry import embed_geometry, thaw_decoder
from .prompts import PromptSample, sample_prompts
from .sources import Place, generated_classes, generated_place
from .state import Schedule, TrainingState
from .views import LabelledImage, augment

MOST_DRAWS = 20
"""Batches that are drawn anew because nothing in them can be asked for, before giving up."""
CELLS_PER_CLASS = 16
"""Positions of one class of one view that take part in the contrast."""


@dataclass(frozen=True)
class PretrainConfig:
    """Stage 1.

    Attributes:
        steps: Optimiser steps.
        places: Places in a step; two views are drawn from each.
        prompts: Targets asked for in a view.
        window: Side of the training window in input pixels; a window is a part of SAM's 1024 frame.
        learning_rate: Peak of the cosine schedule.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW's.
        contrast_weight: Weight of the class contrast.
        real_share: Share of views cut from real images, where there are some.
        decoder_only: Leave the image encoder as it is.
        seed: Seed of every random draw.
    """

    steps: int = 3000
    places: int = 3
    prompts: int = 4
    window: int = 512
    learning_rate: float = 6e-4
    warmup: int = 200
    weight_decay: float = 0.05
    contrast_weight: float = 0.5
    real_share: float = 0.2
    decoder_only: bool = False
    seed: int = 0


class PromptViews(Dataset[dict[str, Any]]):
    """Item i is the i-th step's batch of views with their prompts; equal for equal seed and index."""

    def __init__(
        self, config: PretrainConfig, real: Sequence[Place], classes: Sequence[str] | None = None, stream: int = 1
    ) -> None:
        """Set what is drawn from.

        Args:
            config: Shares and sizes.
            real: Places of real images.
            classes: Generated classes that are asked for; ``None`` for those of training.
            stream: Keeps training and development draws apart.
        """
        self._config = config
        self._real = list(real)
        self._generated = tuple(classes) if classes is not None else generated_classes()
        self._stream = stream
        self._prior = FittedPrior(torch.device("cpu"), REGRESSION_ALONE)

    def __len__(self) -> int:
        return self._config.steps

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self._config.seed, self._stream, index])
        for _ in range(MOST_DRAWS):
            drawn = [
                (*asked, slot) for slot in range(self._config.places) for asked in self._draw(rng, f"{index}/{slot}")
            ]
            if drawn:
                views, samples, labels, owners = (list(part) for part in zip(*drawn, strict=True))
                return _collate(views, samples, labels, owners, rng, self._config.window)
        raise RefSAMError("input", "The images hold no labelled object that is large enough to be asked for.")

    def _draw(
        self, rng: np.random.Generator, name: str
    ) -> Iterator[tuple[LabelledImage, list[PromptSample], list[tuple[int, int]]]]:
        """Draw two views of one place; those that show nothing to ask for are left out."""
        place = self._place(rng, f"generated/{name}")
        names = {place.class_id(name): name for name in place.class_names()}
        views = self._views(place, rng)
        for view, other in (views, views[::-1]):
            fitted = FittedMasks(self._prior, view, other)
            samples = sample_prompts(view, frozenset(names), self._config.prompts, rng, fitted)
            if samples:
                yield view, samples, _cell_labels(view, names)

    def _place(self, rng: np.random.Generator, name: str) -> Place:
        if self._real and rng.random() < self._config.real_share:
            return self._real[int(rng.integers(len(self._real)))]
        return generated_place(rng, name, self._generated)

    def _views(self, place: Place, rng: np.random.Generator) -> tuple[LabelledImage, LabelledImage]:
        """Two views of a place, half of the time at one scale, as references and target mostly are."""
        # A tile of 256 to 1024 pixels fills SAM's 1024 input, so a window shows 1/4 to 1 pixel per input pixel.
        octaves = rng.uniform(0, 2, 2)
        if rng.random() < 0.5:
            octaves[1] = octaves[0]
        first, second = (self._view(place, round(self._config.window * 2.0**-octave), rng) for octave in octaves)
        return first, second

    def _view(self, place: Place, side: int, rng: np.random.Generator) -> LabelledImage:
        names = place.class_names()
        return augment(place.draw(rng, side, names[int(rng.integers(len(names)))]), rng, self._config.window)


def _cell_labels(view: LabelledImage, names: dict[int, str]) -> list[tuple[int, int]]:
    """Feature cells that mostly hold one class, with that class's id; -1 for what may not be asked for."""
    grid = view.classes.shape[0] // PATCH
    cells = view.classes.reshape(grid, PATCH, grid, PATCH).transpose(0, 2, 1, 3).reshape(grid * grid, -1)
    labelled = []
    for value in np.unique(view.classes):
        if int(value) != view.ignore:
            label = int(value) if int(value) in names else -1
            labelled += [(int(cell), label) for cell in np.flatnonzero((cells == value).mean(1) > 0.6)]
    return labelled


def _sample_cells(
    labelled: list[list[tuple[int, int]]], owners: list[int], rng: np.random.Generator
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """A few cells of each class of each view: (view, cell) positions, labels and places."""
    positions, labels, places = [], [], []
    for image, group in enumerate(labelled):
        by_label: dict[int, list[int]] = {}
        for cell, label in group:
            by_label.setdefault(label, []).append(cell)
        for label, cells in by_label.items():
            for cell in rng.permutation(cells)[:CELLS_PER_CLASS]:
                positions.append((image, int(cell)))
                labels.append(label)
                places.append(owners[image])
    return positions, labels, places


def _collate(
    views: list[LabelledImage],
    samples: list[list[PromptSample]],
    labelled: list[list[tuple[int, int]]],
    owners: list[int],
    rng: np.random.Generator,
    window: int,
) -> dict[str, Any]:
    flat = [sample for group in samples for sample in group]
    positions, labels, places = _sample_cells(labelled, owners, rng)
    free = GRID - window // PATCH
    return {
        "images": torch.from_numpy(np.stack([v.image for v in views]).transpose(0, 3, 1, 2).copy()),
        "owner": torch.tensor([i for i, group in enumerate(samples) for _ in group]),
        "target": torch.from_numpy(np.stack([s.target for s in flat])),
        "counted": torch.from_numpy(np.stack([v.classes != v.ignore for v in views])),
        "points": torch.from_numpy(np.stack([s.points for s in flat])),
        "labels": torch.from_numpy(np.stack([s.labels for s in flat])),
        "box": torch.from_numpy(np.stack([s.box for s in flat])),
        "has_box": torch.tensor([s.has_box for s in flat]),
        "mask": torch.from_numpy(np.stack([s.mask for s in flat])),
        "has_mask": torch.tensor([s.has_mask for s in flat]),
        "cells": torch.tensor(positions).reshape(-1, 2),
        "cell_labels": torch.tensor(labels),
        "cell_places": torch.tensor(places),
        "origin": (int(rng.integers(free + 1)), int(rng.integers(free + 1))),
    }


def answer_prompts(sam: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Encode the views of a batch and answer its N prompts.

    Returns:
        Image embeddings ``(V, 256, S/16, S/16)``, logits ``(N, 4, S/4, S/4)`` of the single mask and the three
        alternatives, predicted IoU ``(N, 4)``.
    """
    origin = batch["origin"]
    pixels = (batch["images"].float() - sam.pixel_mean) / sam.pixel_std
    features = encode(sam.image_encoder, pixels, origin=origin)
    owned = features[batch["owner"]]
    sparse, dense = _embed_prompts(sam, batch, owned, origin)
    rows, columns = features.shape[-2:]
    position = dense_position(sam, (rows, columns), origin)
    return features, *decode_all(sam, owned, position, sparse, dense)


def prompt_losses(sam: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Losses of one batch of views.

    The single-mask token learns every prompt; of the three multi-mask tokens only the best does, as SAM is trained.
    """
    features, logits, predicted_iou = answer_prompts(sam, batch)
    side = batch["target"].shape[-1] // 2
    logits = F.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
    target = F.avg_pool2d(batch["target"].float()[:, None], 2)[:, 0]
    weight = F.avg_pool2d(batch["counted"].float()[:, None], 2)[:, 0][batch["owner"]]
    per_mask = mask_losses(logits, target, weight)
    with torch.no_grad():
        true_iou = mask_ious(logits, target[:, None] > 0.5, weight[:, None] > 0)
    cells = batch["cells"]
    sampled = features.flatten(2).transpose(1, 2)[cells[:, 0], cells[:, 1]]
    return {
        "mask": per_mask[:, 0].mean() + per_mask[:, 1:].amin(1).mean(),
        "iou": F.mse_loss(predicted_iou, true_iou),
        "contrast": class_contrast(sampled, batch["cell_labels"], batch["cell_places"]),
        "mean_iou": true_iou[:, 0].mean(),
    }


def _embed_prompts(sam: Any, batch: dict[str, Any], owned: Tensor, origin: tuple[int, int]) -> tuple[Tensor, Tensor]:
    sparse = embed_geometry(sam, batch["points"], batch["labels"], batch["box"], batch["has_box"], origin)
    masks = sam.prompt_encoder._embed_masks(batch["mask"][:, None])
    dense = torch.where(batch["has_mask"][:, None, None, None], masks, no_mask(sam, owned))
    return sparse, dense


def pretrain(
    sam: nn.Module,
    config: PretrainConfig,
    state: TrainingState,
    real: Sequence[Place] = (),
    on_step: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
    workers: int = 1,
) -> None:
    """Train `sam` from where `state` stands to `config.steps`; frozen again after that.

    Args:
        sam: The compact model.
        config: Sizes and rates.
        state: Optimiser, step and where they are saved; resumed when a file is there.
        real: Places of real images.
        on_step: Told each step's losses, and for how many seconds it waited for its views.
        workers: Processes that draw the views.
    """
    weights = thaw_decoder(sam) if config.decoder_only else list(sam.requires_grad_(True).parameters())
    device = next(sam.parameters()).device
    schedule = Schedule(config.learning_rate, config.warmup, config.steps)
    state.begin(weights, sam, config.weight_decay, asdict(config))
    dataset = PromptViews(config, real)
    remaining = torch.utils.data.Subset(dataset, range(state.step, config.steps))
    loader = DataLoader(remaining, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None)
    try:
        for batch, waited in _timed(loader):
            batch = to_device(batch, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                losses = prompt_losses(sam, batch)
            total = losses["mask"] + losses["iou"] + config.contrast_weight * losses["contrast"]
            state.optimise(total, schedule)
            on_step(state.step, {key: float(value.detach()) for key, value in losses.items()} | {"waited": waited})
    finally:
        state.save()
        freeze(sam)


def _timed(loader: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], float]]:
    """Batches, each with the seconds that it was waited for."""
    batches = iter(loader)
    while True:
        asked = time.monotonic()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.monotonic() - asked
