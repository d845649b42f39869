"""A learned view of pixel features in which a few marks go further: across light, scenes and sensors.

Pixel features say what a place looks like; which differences between two images are those of light and which of kind,
they do not. A small network, taught by episodes, brings them into a space in which ridge regression on the marks of
one image answers others (R2-D2: Bertinetto et al., Meta-learning with differentiable closed-form solvers, 2019). Each
image is also seen against its own mean and spread, so that what is dark in a dark image is told from what is dark.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fit_rules import RAREST
from .pixel_features import FEATURES

EMBEDDED = 48
"""Numbers of an embedded place."""
BLOCKS = 3
LENGTH = 3.0
"""Of every embedded place, so that none weighs more than another."""
LEAST_SPREAD = 0.3
"""Added to an image's own spread, in units of the usual one: flat images are not blown up."""
LIMIT, OWN_LIMIT = 6.0, 4.0
"""Usual, and own, spreads beyond which a feature says no more."""


class PixelEmbedding(nn.Module):
    """Embeds thinned pixel features; with it come what a fit in its space needs to be asked as it was taught.

    Args:
        width: Of the hidden layers.

    Attributes:
        mean: ``(FEATURES,)`` of the views it was taught by.
        deviation: ``(FEATURES,)`` likewise.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.stem = nn.Linear(2 * FEATURES, width)
        own = nn.Linear(width, 2 * width)
        self.scale_and_shift = nn.Sequential(nn.Linear(2 * FEATURES, width), nn.GELU(), own)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(BLOCKS))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(BLOCKS)
        )
        self.last_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, EMBEDDED)
        self.gain = nn.Parameter(torch.tensor(0.0))
        self.offset = nn.Parameter(torch.tensor(-1.0))
        self.ridge = nn.Parameter(torch.tensor(-4.0))
        # An image's own mean and spread have no say at first.
        nn.init.zeros_(own.weight)
        nn.init.zeros_(own.bias)

    def forward(self, samples: Tensor, inside: Tensor | None = None) -> Tensor:
        """Embed places of images.

        Args:
            samples: ``(B, h, w, FEATURES)``, see `fitted_prior.thin`.
            inside: ``(B, h, w)`` bool; False where there is no image. All of it by default.

        Returns:
            ``(B, h, w, EMBEDDED + 1)``; the last is 1, for the offset of a fit.
        """
        flat = samples.flatten(1, 2)
        mean, spread = self.describe(flat, None if inside is None else inside.flatten(1))
        return self.embed(flat, mean, spread).view(*samples.shape[:3], -1)

    def describe(self, flat: Tensor, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and spread of the standardised features of images, ``(B, 1, FEATURES)`` each.

        Args:
            flat: ``(B, n, FEATURES)``.
            inside: ``(B, n)`` bool; an image without a place inside is taken whole.
        """
        standard = self.standardise(flat)
        weight = torch.ones_like(standard[..., :1])
        if inside is not None:
            weight = torch.where(inside.any(1, keepdim=True), inside, True)[..., None].to(standard)
        count = weight.sum(1, keepdim=True)
        mean = (standard * weight).sum(1, keepdim=True) / count
        variance = ((standard - mean).square() * weight).sum(1, keepdim=True) / count
        return mean, (variance + 1e-6).sqrt()

    def embed(self, flat: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        """Embed places ``(B, n, FEATURES)`` of images of which `describe` tells: ``(B, n, EMBEDDED + 1)``."""
        standard = self.standardise(flat)
        own = ((standard - mean) / (spread + LEAST_SPREAD)).clamp(-OWN_LIMIT, OWN_LIMIT)
        scale, shift = _apply(self.scale_and_shift, torch.cat([mean, spread], dim=-1)).chunk(2, dim=-1)
        hidden = _apply(self.stem, torch.cat([standard, own], dim=-1)) * (1 + scale) + shift
        for norm, block in zip(self.norms, self.blocks, strict=True):
            hidden = hidden + _apply(block, norm(hidden))
        embedded = LENGTH * F.normalize(_apply(self.out, self.last_norm(hidden)), dim=-1)
        return torch.cat([embedded, torch.ones_like(embedded[..., :1])], dim=-1)

    def fit(self, embedded: Tensor, of_class: Tensor, of_rest: Tensor) -> Tensor:
        """Fit heads to marked places: the mean of a fit to as much of the class as of the rest, and one as they are.

        Args:
            embedded: ``(T, n, EMBEDDED + 1)``.
            of_class: ``(T, n)`` weights, 0 or more, of the class.
            of_rest: ``(T, n)`` likewise of background.

        Returns:
            ``(T, EMBEDDED + 1)``.
        """
        positive, negative = (weight.sum(1, keepdim=True).clamp_min(1e-6) for weight in (of_class, of_rest))
        natural = (positive / (positive + negative)).clamp(RAREST, 1 - RAREST)
        penalty = self.ridge.exp() * torch.eye(embedded.shape[-1], device=embedded.device)
        heads = []
        for share in (torch.full_like(natural, 0.5), natural):
            class_weight, rest_weight = of_class * (share / positive), of_rest * ((1 - share) / negative)
            weighted = (embedded * (class_weight + rest_weight)[..., None]).transpose(1, 2)
            gram = weighted @ embedded + penalty
            answers = embedded.transpose(1, 2) @ (class_weight - rest_weight)[..., None]
            heads.append(_solve(gram, answers)[..., 0])
        return (heads[0] + heads[1]) / 2

    def ask(self, embedded: Tensor, heads: Tensor) -> Tensor:
        """Logits ``(..., n)`` of embedded places ``(..., n, EMBEDDED + 1)``, of heads ``(..., EMBEDDED + 1)``."""
        values = (embedded @ heads[..., None])[..., 0]
        return self.gain.exp() * values + self.offset

    def standardise(self, flat: Tensor) -> Tensor:
        """Features ``(..., FEATURES)`` in usual spreads from the usual mean, within `LIMIT`."""
        return ((flat - self.mean) / self.deviation).clamp(-LIMIT, LIMIT)


def _apply(part: nn.Module, values: Tensor) -> Tensor:
    """Apply a part whose matrices may be bfloat16; what is between parts stays in float32."""
    weight = next(part.parameters())
    applied: Tensor = part(values.to(weight.dtype))
    return applied.float()


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """On the CPU: the systems are small, and not every device can solve them."""
    solved: Tensor = torch.linalg.solve(matrix.cpu(), right.cpu())
    return solved.to(matrix)
