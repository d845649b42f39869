"""SAM's mask decoder over a batch of images, each with its own prompts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def decode(
    sam: Any,
    embedding: Tensor,
    dense_position: Tensor,
    sparse: Tensor,
    dense: Tensor,
    multimask: bool = False,
) -> tuple[Tensor, Tensor]:
    """Decode image i with prompt set i.

    segment_anything's decoder pairs every image with every prompt set. It also adds the dense prompt to the image
    before anything else, so handing over the sum, and nothing as the image, pairs them one to one with the same
    arithmetic.

    Args:
        sam: The model.
        embedding: ``(B, 256, h, w)`` image embeddings.
        dense_position: ``(1, 256, h, w)`` positional encoding of the grid.
        sparse: ``(B, N, 256)`` prompt tokens.
        dense: ``(B, 256, h, w)`` dense prompts.
        multimask: Return the three alternatives instead of the single mask.

    Returns:
        Logits ``(B, 1 or 3, 4h, 4w)`` and predicted IoU ``(B, 1 or 3)``.
    """
    logits, iou = sam.mask_decoder(
        image_embeddings=torch.zeros_like(embedding[:1]),
        image_pe=dense_position,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=embedding + dense,
        multimask_output=multimask,
    )
    return logits, iou


def no_mask(sam: Any, embedding: Tensor) -> Tensor:
    """Dense prompt ``(B, 256, h, w)`` that says that there is no mask prompt."""
    empty: Tensor = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    return empty.expand_as(embedding)
