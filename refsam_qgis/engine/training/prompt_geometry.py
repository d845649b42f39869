"""Stage 0: SAM's decoder learns where a prompt is, before it learns what is there.

From segment_anything's random initialisation the compact decoder does not find out: after a thousand steps of real
targets it still answers every point and every box with an empty mask, since its attention ties nothing to a place and
so nothing rewards it for looking. Two things change that. Queries and keys of the attention between prompts and image
begin with the same projection, and positions are encoded more finely, so that a prompt looks at its own place from the
first step; and discs and rectangles over noise teach what to do there within a few minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models.decoder import decode_all, dense_position, no_mask
from ..models.sam import CHANNELS, GRID, PATCH, build_sam, freeze
from .batch import to_device
from .losses import mask_ious, mask_losses
from .prompts import POINTS
from .state import Schedule, TrainingState

POSITION_SCALE = 2.0
"""Deviation of the frequencies of the positional encoding, where SAM has 1: two cells of the grid tell apart."""
ATTENTION_GAIN = 4.0
"""Factor on the projections that queries and keys begin with: a prompt's attention is sharp then, not even."""
DISC_RADIUS = 40.0
"""What a point alone asks for, in input pixels; any size would do, since a point says nothing of it."""


@dataclass(frozen=True)
class GeometryConfig:
    """Stage 0.

    Attributes:
        steps: Optimiser steps.
        prompts: Shapes of a step.
        window: Side of the training window in input pixels.
        learning_rate: Peak of the cosine schedule.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW's.
        seed: Seed of every random draw.
    """

    steps: int = 600
    prompts: int = 24
    window: int = 256
    learning_rate: float = 1e-3
    warmup: int = 30
    weight_decay: float = 0.01
    seed: int = 0


def begin_decoder(sam: Any) -> None:
    """Replace prompt encoder and mask decoder of the compact model by new ones that look at a prompt's own place."""
    new: Any = build_sam("compact")
    with torch.no_grad():
        new.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(POSITION_SCALE)
        for name, module in new.mask_decoder.transformer.named_modules():
            if "token_to_image" in name or "image_to_token" in name:
                if hasattr(module, "q_proj"):
                    module.q_proj.weight.mul_(ATTENTION_GAIN)
                    module.k_proj.weight.copy_(module.q_proj.weight)
    sam.prompt_encoder.load_state_dict(new.prompt_encoder.state_dict())
    sam.mask_decoder.load_state_dict(new.mask_decoder.state_dict())


def thaw_decoder(sam: Any) -> list[nn.Parameter]:
    """Freeze the model but for its prompt encoder and mask decoder, and return their weights."""
    freeze(sam)
    weights = [*sam.prompt_encoder.parameters(), *sam.mask_decoder.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def learn_geometry(
    sam: Any,
    config: GeometryConfig,
    state: TrainingState,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
) -> None:
    """Train prompt encoder and mask decoder from where `state` stands to `config.steps`; frozen again after that.

    Args:
        sam: The compact model, after `begin_decoder`.
        config: Sizes and rates.
        state: As for `pretrain`.
        on_step: Told each step's losses.
    """
    weights = thaw_decoder(sam)
    schedule = Schedule(config.learning_rate, config.warmup, config.steps)
    state.begin(weights, sam, config.weight_decay, asdict(config))
    try:
        while state.step < config.steps:
            loss, iou = _losses(sam, config, state.step)
            state.optimise(loss, schedule)
            on_step(state.step, {"mask": float(loss.detach()), "mean_iou": float(iou)})
    finally:
        state.save()
        freeze(sam)


@dataclass(frozen=True)
class Shapes:
    """Prompts and what they ask for, in pixels of a window.

    Attributes:
        target: ``(N, S/4, S/4)`` 0 or 1.
        points: ``(N, POINTS, 2)`` (x, y).
        labels: ``(N, POINTS)``: 1, or -1 for absent.
        boxes: ``(N, 4)`` (x0, y0, x1, y1).
        has_box: ``(N,)`` bool.
    """

    target: Tensor
    points: Tensor
    labels: Tensor
    boxes: Tensor
    has_box: Tensor


def draw_shapes(count: int, window: int, draws: torch.Generator) -> Shapes:
    """Draw a third each of points, boxes, and boxes with a point inside.

    A point alone asks for a disc around it, a box for all that is inside.
    """
    kind = torch.randint(3, (count,), generator=draws)
    centre = torch.rand(count, 2, generator=draws) * window
    half = PATCH / 2 * 8 ** torch.rand(count, 2, generator=draws)
    low, high = (centre - half).clamp(0, window - 1), (centre + half).clamp(0, window - 1)
    alone, has_box = (kind == 0)[:, None], kind != 0
    points, labels = torch.zeros(count, POINTS, 2), torch.full((count, POINTS), -1.0)
    points[:, 0] = torch.where(alone, centre, low + (high - low) * torch.rand(count, 2, generator=draws))
    labels[kind != 1, 0] = 1
    middle = torch.arange(window // 4) * 4 + 2.0
    place = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), -1)[None]
    near = (place - centre[:, None, None]).square().sum(-1) < DISC_RADIUS**2
    inside = ((place >= low[:, None, None]) & (place <= high[:, None, None])).all(-1)
    target = torch.where(alone[..., None], near, inside).float()
    return Shapes(target, points, labels, torch.cat([low, high], 1), has_box)


def _losses(sam: Any, config: GeometryConfig, step: int) -> tuple[Tensor, Tensor]:
    """Loss of one step over all four masks, and mean IoU of the single one."""
    draws = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    device = sam.pixel_mean.device
    cells = config.window // PATCH
    top, left = torch.randint(GRID - cells + 1, (2,), generator=draws).tolist()
    drawn = draw_shapes(config.prompts, config.window, draws)
    noise = torch.randn(1, CHANNELS, cells, cells, generator=draws).expand(config.prompts, -1, -1, -1).to(device)
    shapes = Shapes(**to_device(vars(drawn), device))
    sparse = embed_geometry(sam, shapes.points, shapes.labels, shapes.boxes, shapes.has_box, (top, left))
    position = dense_position(sam, (cells, cells), (top, left))
    logits, _ = decode_all(sam, noise, position, sparse, no_mask(sam, noise))
    weight = torch.ones_like(shapes.target)
    with torch.no_grad():
        iou = mask_ious(logits[:, :1], shapes.target[:, None] > 0, weight[:, None] > 0)
    return mask_losses(logits, shapes.target, weight).mean(), iou.mean()


def embed_geometry(
    sam: Any, points: Tensor, labels: Tensor, boxes: Tensor, has_box: Tensor, origin: tuple[int, int]
) -> Tensor:
    """Prompt tokens of points and boxes of a training window.

    Args:
        sam: The model.
        points: ``(N, P, 2)`` (x, y) in pixels of the window.
        labels: ``(N, P)``; -1 for absent.
        boxes: ``(N, 4)`` in pixels of the window.
        has_box: ``(N,)``; False where the box is no prompt.
        origin: Row and column, in tokens, of the window in the full frame.

    Returns:
        ``(N, P + 2, 256)``.
    """
    encoder = sam.prompt_encoder
    shift = points.new_tensor([origin[1], origin[0]]) * PATCH
    embedded = encoder._embed_points(points + shift, labels, pad=False)
    corners = encoder._embed_boxes(boxes + shift.repeat(2))
    nothing = encoder.not_a_point_embed.weight[None].expand_as(corners)
    return torch.cat([embedded, torch.where(has_box[:, None, None], corners, nothing)], dim=1)
