"""Coarse class map of a target from prototypes (method Eq. 3), and the prompts that SAM reads from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .prototypes import Prototypes
from .sam import PATCH

PEAK_DISTANCE = 2
"""Least distance of two point prompts, in feature cells."""
MASK_SCALE = 4
"""Side of SAM's mask prompt, in pixels a feature cell."""


@dataclass(frozen=True)
class PseudoMask:
    """Where the class seems to be, on the feature grid.

    Attributes:
        logits: ``(B, h, w)``: tau (s_f - s_b), with s_b the mean over the shots of each one's best background cell;
            or the cell averages of a given prior.
        cosine: ``(B, h, w)``: tau (s_f - s_b) in either case.
        likeness: ``(B, h, w)`` in -1..1: s_f, how like the class a position is, whatever the background.
        assignment: ``(B, h, w)`` index of the prototype that each position belongs to; 0 is the class.
    """

    logits: Tensor
    cosine: Tensor
    likeness: Tensor
    assignment: Tensor

    @property
    def hard(self) -> Tensor:
        """``(B, h, w)`` bool: where the class seems to be, s_f > s_b."""
        return self.logits > 0


def compute_pseudo_mask(features: Tensor, prototypes: Prototypes, sharpness: float) -> PseudoMask:
    """Compare every target position with every prototype by cosine similarity (method Eq. 3).

    With K shots the best of all K*N_b background cells would rise with K, and the pseudo-mask shrink with every further
    reference. So each shot compares the class with its own cells, and the shots are averaged; for K = 1 that is Eq. 3.

    Args:
        features: ``(B, C, h, w)`` frozen target features.
        prototypes: Prototypes of each of the B episodes.
        sharpness: Factor from cosine difference to logit, tau.
    """
    similarity = _similarity(features, prototypes)
    logits = _contrast(similarity, prototypes, sharpness).view(len(features), *features.shape[-2:])
    likeness = similarity[:, 0].view_as(logits)
    return PseudoMask(logits, logits, likeness, _assign(logits, similarity, prototypes))


def _contrast(similarity: Tensor, prototypes: Prototypes, sharpness: float) -> Tensor:
    """Class against background, tau (s_f - s_b): cosines ``(B, M, n)`` -> ``(B, n)``."""
    batch, _, positions = similarity.shape
    background = similarity[:, 1:]
    best_of_shot = background.view(batch, prototypes.shots, -1, positions).amax(2)
    has_background = prototypes.valid[:, 1:].view(batch, prototypes.shots, -1).any(2).to(best_of_shot.dtype)
    # A shot without background has no rival to offer; if none has, similarity 0 is the border.
    rivals = torch.einsum("bk,bkn->bn", has_background, best_of_shot) / has_background.sum(1, keepdim=True).clamp_min(1)
    return sharpness * (similarity[:, 0] - rivals)


def pool_prior(prior: Tensor, features: Tensor, prototypes: Prototypes, sharpness: float) -> PseudoMask:
    """Make a pseudo-mask of a given class map; the prototypes only tell the kinds of background apart.

    Args:
        prior: ``(B, 4h, 4w)`` logits, above 0 where the class seems to be.
        features: ``(B, C, h, w)`` frozen target features.
        prototypes: Prototypes of each of the B episodes.
        sharpness: As for `compute_pseudo_mask`.
    """
    logits = F.avg_pool2d(prior[:, None], MASK_SCALE)[:, 0]
    similarity = _similarity(features, prototypes)
    cosine = _contrast(similarity, prototypes, sharpness).view_as(logits)
    likeness = similarity[:, 0].view_as(logits)
    return PseudoMask(logits, cosine, likeness, _assign(logits, similarity, prototypes))


def _similarity(features: Tensor, prototypes: Prototypes) -> Tensor:
    """Cosine of every prototype with every position, ``(B, M, h*w)``; -2, below any cosine, for invalid ones."""
    unit_features = F.normalize(features.flatten(2), dim=1)
    unit_prototypes = F.normalize(prototypes.vectors, dim=-1)
    similarity = torch.bmm(unit_prototypes, unit_features)
    return similarity.masked_fill(~prototypes.valid[..., None], -2.0)


def _assign(logits: Tensor, similarity: Tensor, prototypes: Prototypes) -> Tensor:
    """Prototype index ``(B, h, w)``: the class where the logits say so, else the most similar background cell."""
    nearest = (similarity[:, 1:].argmax(1) + 1).view_as(logits)
    has_background = prototypes.valid[:, 1:].any(1)[:, None, None]
    return torch.where((logits > 0) | ~has_background, 0, nearest)


def geometric_prompts(
    sam: Any,
    logits: Tensor,
    positive: int,
    negative: int,
    origin: tuple[int, int] = (0, 0),
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Turn pseudo-mask logits into SAM's point, box and mask prompts.

    Points sit on the highest separate peaks inside the pseudo-mask and on its lowest positions outside; the box bounds
    the pseudo-mask; the logits, enlarged four times, are the mask prompt unless a finer one is given. A target without
    a positive position has no positive points and no box: SAM's own "not a point" embedding stands in their place.

    Args:
        sam: The model whose prompt encoder is used.
        logits: ``(B, h, w)``.
        positive: Number of positive points.
        negative: Number of negative points.
        origin: Row and column, in tokens, of the grid inside the full frame.
        mask: ``(B, 4h, 4w)`` logits of the mask prompt.

    Returns:
        Sparse prompts ``(B, positive + negative + 2, 256)`` and dense prompts ``(B, 256, h, w)``.
    """
    encoder = sam.prompt_encoder
    hard = logits.detach() > 0
    inside, inside_found = _peaks(logits.detach().masked_fill(~hard, -torch.inf), positive)
    outside, outside_found = _peaks((-logits.detach()).masked_fill(hard, -torch.inf), negative)
    points = torch.cat([inside, outside], dim=1)
    absent = torch.full(points.shape[:2], -1.0, device=logits.device)
    wanted = absent.new_tensor([1.0] * positive + [0.0] * negative).expand_as(absent)
    labels = torch.where(torch.cat([inside_found, outside_found], dim=1), wanted, absent)
    shift = logits.new_tensor([origin[1], origin[0]])
    # Centre of a cell; the prompt encoder adds the half pixel itself.
    coordinates = (points + shift + 0.5) * PATCH - 0.5
    sparse_points = encoder._embed_points(coordinates, labels, pad=False)

    box, found = _bounding_box(hard)
    corners = (box + shift.repeat(2)) * PATCH - 0.5
    sparse_box = encoder._embed_boxes(corners)
    nothing = encoder.not_a_point_embed.weight[None].expand_as(sparse_box)
    sparse_box = torch.where(found[:, None, None], sparse_box, nothing)

    if mask is None:
        mask = F.interpolate(logits[:, None], scale_factor=MASK_SCALE, mode="bilinear", align_corners=False)[:, 0]
    return torch.cat([sparse_points, sparse_box], dim=1), encoder._embed_masks(mask[:, None])


def _peaks(score: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions (x, y) of the highest values at least `PEAK_DISTANCE` apart, ``(B, count, 2)``, and which exist."""
    batch, rows, columns = score.shape
    remaining = score.clone()
    y = torch.arange(rows, device=score.device)[:, None]
    x = torch.arange(columns, device=score.device)[None, :]
    points, found = [], []
    for _ in range(count):
        value, index = remaining.flatten(1).max(dim=1)
        top, left = index // columns, index % columns
        points.append(torch.stack([left, top], dim=-1))
        found.append(value > -torch.inf)
        near = (y[None] - top.view(batch, 1, 1)).abs().maximum((x[None] - left.view(batch, 1, 1)).abs())
        remaining = remaining.masked_fill(near < PEAK_DISTANCE, -torch.inf)
    if not points:
        return score.new_zeros(batch, 0, 2), torch.zeros(batch, 0, dtype=torch.bool, device=score.device)
    return torch.stack(points, dim=1).to(score.dtype), torch.stack(found, dim=1)


def _bounding_box(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Bounding box (x0, y0, x1, y1) in cells of each mask ``(B, h, w)``, and whether there is one."""
    columns, rows = mask.any(1), mask.any(2)
    width, height = columns.shape[1], rows.shape[1]
    first_x, first_y = columns.int().argmax(1), rows.int().argmax(1)
    last_x = width - columns.flip(1).int().argmax(1)
    last_y = height - rows.flip(1).int().argmax(1)
    return torch.stack([first_x, first_y, last_x, last_y], dim=-1).to(torch.float32), mask.flatten(1).any(1)
