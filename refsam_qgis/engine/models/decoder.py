"""SAM's mask decoder over a batch of images, each with its own prompts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def dense_position(sam: Any, size: tuple[int, int], origin: tuple[int, int]) -> Tensor:
    """SAM's positional encoding of a window of the grid.

    Args:
        sam: The model.
        size: Height and width of the window in cells.
        origin: Row and column of its first cell.

    Returns:
        ``(1, 256, h, w)``.
    """
    (rows, columns), (top, left) = size, origin
    full: Tensor = sam.prompt_encoder.get_dense_pe()
    return full[..., top : top + rows, left : left + columns]


def decode_all(
    sam: Any, embedding: Tensor, dense_position: Tensor, sparse: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """Decode image i with prompt set i: the single mask and the three alternatives.

    segment_anything's decoder pairs every image with every prompt set. It also adds the dense prompt to the image
    before anything else, so handing over the sum, and nothing as the image, pairs them one to one with the same
    arithmetic.

    Args:
        sam: The model.
        embedding: ``(B, 256, h, w)`` image embeddings.
        dense_position: ``(1, 256, h, w)`` positional encoding of the grid.
        sparse: ``(B, N, 256)`` prompt tokens.
        dense: ``(B, 256, h, w)`` dense prompts.

    Returns:
        Logits ``(B, 4, 4h, 4w)`` and predicted IoU ``(B, 4)``.
    """
    logits, iou = sam.mask_decoder.predict_masks(
        image_embeddings=torch.zeros_like(embedding[:1]),
        image_pe=dense_position,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=embedding + dense,
    )
    return logits, iou


def decode(
    sam: Any,
    embedding: Tensor,
    dense_position: Tensor,
    sparse: Tensor,
    dense: Tensor,
    multimask: bool = False,
) -> tuple[Tensor, Tensor]:
    """Decode image i with prompt set i.

    Args:
        sam: As for `decode_all`.
        embedding: As for `decode_all`.
        dense_position: As for `decode_all`.
        sparse: As for `decode_all`.
        dense: As for `decode_all`.
        multimask: Return the three alternatives instead of the single mask.

    Returns:
        Logits ``(B, 1 or 3, 4h, 4w)`` and predicted IoU ``(B, 1 or 3)``.
    """
    logits, iou = decode_all(sam, embedding, dense_position, sparse, dense)
    wanted = slice(1, None) if multimask else slice(0, 1)
    return logits[:, wanted], iou[:, wanted]


def no_mask(sam: Any, embedding: Tensor) -> Tensor:
    """Dense prompt ``(B, 256, h, w)`` that says that there is no mask prompt."""
    empty: Tensor = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    return empty.expand_as(embedding)
