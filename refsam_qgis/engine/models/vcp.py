"""The Visual Contextual Prompt encoder: references and target in, prompt tokens out (method Eq. 2 and 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        refined, pseudo = self.compare(features, prototypes, prior)
        values = features.flatten(2).transpose(1, 2)
        if not self.object_queries:
            return refined, pseudo, values[:, :0]
        position = dense_position.flatten(2).transpose(1, 2)
        return refined, pseudo, self._object_queries(refined.vectors[:, 0], values, position, pseudo.hard)

    def compare(
        self, features: Tensor, prototypes: Prototypes, prior: Tensor | None = None
    ) -> tuple[Prototypes, PseudoMask]:
        """Refined prototypes and pseudo-mask alone; arguments as for `forward`."""
        refined = prototypes
        if self.visual_interaction:
            refined = self._refine(prototypes, features.flatten(2).transpose(1, 2))
        if prior is None:
            return refined, compute_pseudo_mask(features, refined, self.sharpness)
        return refined, pool_prior(prior, features, refined, self.sharpness)

    def _refine(self, prototypes: Prototypes, values: Tensor) -> Prototypes:
        """Pt = P + a LN(CrossAttn(P, F_t)) with a zero-initialised gate a (method Eq. 2)."""
        attended = attend_few(self.refine, prototypes.vectors, values)
        refined = prototypes.vectors + self.refine_gate * self.refine_norm(attended)
        return Prototypes(refined, prototypes.valid, prototypes.shots)

    def _object_queries(self, class_vector: Tensor, values: Tensor, position: Tensor, hard: Tensor) -> Tensor:
        """Queries attend to the pseudo-mask only, then to each other (method Eq. 4)."""
        queries = self.queries[None] + self.class_to_query(class_vector)[:, None]
        inside = hard.flatten(1)
        # An empty pseudo-mask would leave nothing to attend to: then attend everywhere (Mask2Former's rule).
        inside = inside | ~inside.any(1, keepdim=True)
        # What no query sees is not projected either: the cells inside stand first, as many as some episode has.
        ranks, cells = inside.int().sort(dim=1, descending=True, stable=True)
        most = int(inside.sum(1).max())
        outside = ranks[:, :most] == 0
        index = cells[:, :most, None].expand(-1, -1, values.shape[-1])
        seen = values.gather(1, index)
        keys = seen + position.expand_as(values).gather(1, index)
        attended, _ = self.mask_attention(queries, keys, seen, key_padding_mask=outside, need_weights=False)
        queries = self.mask_norm(queries + attended)
        mixed, _ = self.self_attention(queries, queries, queries, need_weights=False)
        embeddings: Tensor = self.self_norm(queries + mixed)
        return embeddings


def attend_few(attention: nn.MultiheadAttention, queries: Tensor, tokens: Tensor) -> Tensor:
    """What the module makes of few queries and many tokens, without projecting the tokens.

    A score q.(W x + b) is (W^T q).x plus what is the same for every token, which softmax does not see; and as a
    query's weights sum to one, the sum of a (W x + b) is W (sum of a x) + b.

    Args:
        attention: The module.
        queries: ``(B, M, C)``.
        tokens: ``(B, n, C)`` keys and values.

    Returns:
        ``(B, M, C)``.
    """
    to_query, *of_tokens = attention.in_proj_weight.chunk(3)
    to_key, to_value = (weight.view(attention.num_heads, -1, tokens.shape[2]) for weight in of_tokens)
    query_bias, _, value_bias = attention.in_proj_bias.chunk(3)
    query = F.linear(queries, to_query, query_bias).view(*queries.shape[:2], attention.num_heads, -1)
    sought = torch.einsum("bmhc,hcd->bhmd", query, to_key)
    # To the tokens, the queries of all heads are those of one.
    one, own = tokens[:, None], sought.flatten(1, 2)[:, None]
    found = F.scaled_dot_product_attention(own, one, one, scale=attention.head_dim**-0.5).view_as(sought)
    value = torch.einsum("bhmd,hcd->bmhc", found, to_value).flatten(2)
    attended: Tensor = attention.out_proj(value + value_bias)
    return attended
