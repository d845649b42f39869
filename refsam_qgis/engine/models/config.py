"""Values of ViRefSAM that its paper leaves open, or that one may want to vary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ViRefSAMConfig:
    """Sizes and rules of the prompt encoder, the pseudo-mask prompts and the adapters.

    Attributes:
        background_cells: Voronoi cells of the background per reference, N_b.
        queries: Object queries, N_q.
        heads: Attention heads of the prompt encoder.
        adapter_width: Hidden width of a DTA adapter, C_d.
        sharpness: Factor tau from cosine difference to pseudo-mask logit.
        positive_points: Point prompts set on the peaks of the pseudo-mask.
        negative_points: Point prompts set on its lowest places.
        diversity: ``cosine`` as the paper is read, or ``squared`` cosine, bounded at 0 (method Eq. 7).
    """

    background_cells: int = 5
    queries: int = 64
    heads: int = 8
    adapter_width: int = 64
    sharpness: float = 20.0
    positive_points: int = 4
    negative_points: int = 2
    diversity: str = "squared"
