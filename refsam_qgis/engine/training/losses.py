"""Losses of the training stages."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean binary cross-entropy of each sample over its counted pixels.

    Args:
        logits: ``(N, H, W)``.
        target: ``(N, H, W)`` in 0..1.
        weight: ``(N, H, W)``; 0 where a pixel does not count.

    Returns:
        ``(N,)``.
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="none")
    return loss.sum((1, 2)) / weight.sum((1, 2)).clamp_min(1.0)


def dice(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Dice loss of each sample, smoothed by one pixel (VRP-SAM). Shapes as in `binary_cross_entropy`."""
    probability = logits.sigmoid() * weight
    target = target * weight
    overlap = (probability * target).sum((1, 2))
    return 1 - (2 * overlap + 1) / (probability.sum((1, 2)) + target.sum((1, 2)) + 1)


def mask_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """BCE + Dice of each sample (method Eq. 8). Shapes as in `binary_cross_entropy`."""
    return binary_cross_entropy(logits, target, weight) + dice(logits, target, weight)


def mask_losses(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """BCE + Dice ``(N, M)`` of M answers ``(N, M, H, W)`` each; target and weight as in `binary_cross_entropy`."""
    return torch.stack([mask_loss(answer, target, weight) for answer in logits.unbind(1)], dim=1)


def mask_ious(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """IoU of each mask at logit 0, ``(N, M)``.

    Args:
        logits: ``(N, M, H, W)``.
        target: ``(N, 1, H, W)`` bool.
        counted: ``(N, 1, H, W)`` bool; False where a pixel does not count.
    """
    mask = (logits > 0) & counted
    target = target & counted
    union = (mask | target).sum((2, 3)).clamp_min(1)
    return (mask & target).sum((2, 3)) / union


def diversity(embeddings: Tensor, form: str) -> Tensor:
    """Mean pairwise similarity of the object-aware embeddings, over the batch (method Eq. 7).

    Args:
        embeddings: ``(B, N_q, C)``.
        form: ``cosine`` or ``squared``.
    """
    unit = F.normalize(embeddings, dim=-1)
    similarity = torch.bmm(unit, unit.transpose(1, 2))
    if form == "squared":
        similarity = similarity.square()
    count = embeddings.shape[1]
    off_diagonal = similarity.sum((1, 2)) - similarity.diagonal(dim1=1, dim2=2).sum(-1)
    return (off_diagonal / (count * (count - 1))).mean()


def class_contrast(features: Tensor, labels: Tensor, places: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss between sampled positions (Khosla et al. 2020, Eq. 2).

    Positions are compared only with positions of the same place: a reference has to tell its class from what surrounds
    it there, not from what the class looks like elsewhere.

    Args:
        features: ``(N, C)``.
        labels: ``(N,)``; negative labels are rivals of every class but have no positives of their own.
        places: ``(N,)`` number of the place that each position was drawn from.
        temperature: Softmax temperature.
    """
    unit = F.normalize(features, dim=-1)
    rivals = places[:, None] == places[None]
    rivals.fill_diagonal_(False)
    scores = (unit @ unit.T / temperature).masked_fill(~rivals, -torch.inf)
    positive = (labels[:, None] == labels[None]) & rivals & (labels >= 0)[:, None]
    count = positive.sum(1)
    anchors = count > 0
    if not bool(anchors.any()):
        return features.sum() * 0.0
    log_share = (scores[anchors] - scores[anchors].logsumexp(1, keepdim=True)).masked_fill(~positive[anchors], 0.0)
    return -(log_share.sum(1) / count[anchors]).mean()
