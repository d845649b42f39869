"""Values of ViRefSAM that its paper leaves open, and the parts that one may leave out to learn what they do."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from types import NoneType

from .sam import CHANNELS

MOST = 4096
"""Largest count or width, far more than makes sense; a damaged file may ask for more than there is memory."""
LEAST = {
    "background_cells": 1,
    "queries": 1,
    "heads": 1,
    "adapter_width": 1,
    "positive_points": 0,
    "negative_points": 0,
    "embedding": 0,
}
"""Smallest of each of them."""
DIVERSITIES = ("squared", "cosine")


@dataclass(frozen=True)
class ViRefSAMConfig:
    """Sizes, rules and parts of the prompt encoder, the pseudo-mask prompts and the adapters.

    Attributes:
        background_cells: Voronoi cells of the background per reference, N_b.
        queries: Object queries, N_q.
        heads: Attention heads of the prompt encoder.
        adapter_width: Hidden width of a DTA adapter, C_d.
        sharpness: Factor tau from cosine difference to pseudo-mask logit.
        positive_points: Point prompts set on the peaks of the pseudo-mask.
        negative_points: Point prompts set on its lowest places.
        diversity: ``cosine`` as the paper is read, or ``squared`` cosine, bounded at 0 (method Eq. 7).
        visual_interaction: Let the target refine the prototypes (method Eq. 2).
        object_queries: Prompt SAM with object-aware embeddings (method Eq. 4) beside points, box and mask.
        adapted_blocks: Encoder blocks with a DTA adapter: ``all`` (the paper's), ``global`` (those with global
            attention), ``last_N``, or ``none``, which leaves the second encoder pass out. Blocks before the first
            adapted one run once for both passes.
        position_code: Show each adapter the prototype that a position is assigned to, G_n of method Eq. 6.
        feature_block: Encoder block, counted from 0, whose tokens prototypes and prompt encoder look at, through SAM's
            neck; ``None`` for the image embedding.
        embedding: Width of the learned embedding of pixel features, beside SAM; 0 for none.

    Raises:
        ValueError: If a value is of another type than its default, or no such value makes sense for any SAM.
    """

    background_cells: int = 5
    queries: int = 64
    heads: int = 8
    adapter_width: int = 64
    sharpness: float = 20.0
    positive_points: int = 4
    negative_points: int = 2
    diversity: str = "squared"
    visual_interaction: bool = True
    object_queries: bool = True
    adapted_blocks: str = "all"
    position_code: bool = True
    feature_block: int | None = None
    embedding: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            kind = type(field.default)
            allowed = {float: (float, int), NoneType: (NoneType, int)}.get(kind, (kind,))
            if type(getattr(self, field.name)) not in allowed:  # not isinstance: to it, True is a number
                raise ValueError(f"{field.name} is of another type")
        counts = all(least <= getattr(self, name) <= MOST for name, least in LEAST.items())
        if not counts or CHANNELS % self.heads or not 0 < self.sharpness < math.inf:
            raise ValueError("a number is out of range")
        if self.diversity not in DIVERSITIES:
            raise ValueError("the diversity is unknown")
