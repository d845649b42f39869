"""Values of ViRefSAM that its paper leaves open, and the parts that one may leave out to learn what they do."""

from __future__ import annotations

from dataclasses import dataclass


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
