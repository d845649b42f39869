"""The Visual Contextual Prompt encoder: references and target in, prompt tokens out (method Eq. 2 and 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import ViRefSAMConfig
from .prototypes import Prototypes
from .pseudo_mask import PseudoMask, compute_pseudo_mask, pool_prior
from .sam import CHANNELS


class VCPEncoder(nn.Module):
    """Refines prototypes by the target and gathers object-aware prompt embeddings, unless either is left out.

    At initialisation the refinement's gate is zero, so the pseudo-mask is the training-free one.
    """

    def __init__(self, config: ViRefSAMConfig) -> None:
        super().__init__()
        self.sharpness = config.sharpness
        self.visual_interaction = config.visual_interaction
        self.object_queries = config.object_queries
        if config.visual_interaction:
            self.refine = nn.MultiheadAttention(CHANNELS, config.heads, batch_first=True)
            self.refine_norm = nn.LayerNorm(CHANNELS)
            self.refine_gate = nn.Parameter(torch.zeros(()))
        if config.object_queries:
            self.queries = nn.Parameter(torch.randn(config.queries, CHANNELS))
            self.class_to_query = nn.Linear(CHANNELS, CHANNELS)
            self.mask_attention = nn.MultiheadAttention(CHANNELS, config.heads, batch_first=True)
            self.mask_norm = nn.LayerNorm(CHANNELS)
            self.self_attention = nn.MultiheadAttention(CHANNELS, config.heads, batch_first=True)
            self.self_norm = nn.LayerNorm(CHANNELS)

    def forward(
        self, features: Tensor, dense_position: Tensor, prototypes: Prototypes, prior: Tensor | None = None
    ) -> tuple[Prototypes, PseudoMask, Tensor]:
        """Encode B episodes.

        Args:
            features: ``(B, 256, h, w)`` frozen target features.
            dense_position: ``(1, 256, h, w)`` SAM's positional encoding of the grid.
            prototypes: Reference prototypes of each episode.
            prior: ``(B, 4h, 4w)`` logits that stand in the place of Eq. 3.

        Returns:
            Refined prototypes (those given, without visual interaction), pseudo-mask, and object-aware embeddings
            ``(B, N_q, 256)``, none of them without object queries.
        """
        values = features.flatten(2).transpose(1, 2)
        refined = self._refine(prototypes, values) if self.visual_interaction else prototypes
        if prior is None:
            pseudo = compute_pseudo_mask(features, refined, self.sharpness)
        else:
            pseudo = pool_prior(prior, features, refined, self.sharpness)
        if not self.object_queries:
            return refined, pseudo, values[:, :0]
        keys = values + dense_position.flatten(2).transpose(1, 2)
        return refined, pseudo, self._object_queries(refined.vectors[:, 0], keys, values, pseudo.hard)

    def _refine(self, prototypes: Prototypes, values: Tensor) -> Prototypes:
        """Pt = P + a LN(CrossAttn(P, F_t)) with a zero-initialised gate a (method Eq. 2)."""
        attended, _ = self.refine(prototypes.vectors, values, values, need_weights=False)
        refined = prototypes.vectors + self.refine_gate * self.refine_norm(attended)
        return Prototypes(refined, prototypes.valid, prototypes.shots)

    def _object_queries(self, class_vector: Tensor, keys: Tensor, values: Tensor, hard: Tensor) -> Tensor:
        """Queries attend to the pseudo-mask only, then to each other (method Eq. 4)."""
        queries = self.queries[None] + self.class_to_query(class_vector)[:, None]
        outside = ~hard.flatten(1)
        # An empty pseudo-mask would leave nothing to attend to: then attend everywhere (Mask2Former's rule).
        outside = outside & ~outside.all(1, keepdim=True)
        attended, _ = self.mask_attention(queries, keys, values, key_padding_mask=outside, need_weights=False)
        queries = self.mask_norm(queries + attended)
        mixed, _ = self.self_attention(queries, queries, queries, need_weights=False)
        embeddings: Tensor = self.self_norm(queries + mixed)
        return embeddings
