"""SAM's mask decoder over a batch of images, each with its own prompts.

Matrices may be bfloat16 (see `precision`); tokens and masks stay float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .channels_last import normalise_channels, split_cells


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
    sam: Any,
    embedding: Tensor,
    dense_position: Tensor,
    sparse: Tensor,
    dense: Tensor,
    wanted: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """Decode image i with prompt set i: the single mask and the three alternatives.

    Weights and arithmetic are those of segment_anything's ``MaskDecoder.predict_masks``, which pairs every image with
    every prompt set instead, and keeps the attention maps between tokens and image whole.

    Args:
        sam: segment_anything's ``Sam`` module.
        embedding: ``(B, 256, h, w)``.
        dense_position: ``(1, 256, h, w)`` positional encoding of the grid.
        sparse: ``(B, N, 256)`` prompt tokens.
        dense: ``(B, 256, h, w)`` dense prompts.
        wanted: Those of the four that are drawn.

    Returns:
        Logits ``(B, 4, 4h, 4w)`` and predicted IoU ``(B, 4)``, or those wanted.
    """
    decoder = sam.mask_decoder
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
    tokens, image = _mix(decoder.transformer, tokens, _as_tokens(embedding + dense), _as_tokens(dense_position))
    of_masks = zip(decoder.output_hypernetworks_mlps, tokens[:, 1 : len(own)].unbind(1), strict=True)
    kernels = torch.stack([mlp(token) for mlp, token in list(of_masks)[wanted]], dim=1)
    logits = _draw(decoder.output_upscaling, image.view(-1, *embedding.shape[-2:], image.shape[-1]), kernels)
    return logits, decoder.iou_prediction_head(tokens[:, 0])[:, wanted]


def _draw(upscaling: Any, image: Tensor, kernels: Tensor) -> Tensor:
    """Enlarge image tokens four times and multiply them with each mask's vector.

    Only the masks themselves are brought from the order of the tokens to that of a map.

    Args:
        upscaling: segment_anything's ``output_upscaling``.
        image: ``(B, h, w, C)``.
        kernels: ``(B, M, C/8)``.

    Returns:
        ``(B, M, 4h, 4w)``.
    """
    first, norm, first_act, second, second_act = upscaling
    cells = split_cells(first, image.to(first.weight.dtype))
    halves = first_act(normalise_channels(norm, cells.to(image.dtype)))
    # (B, h, w, 2, 2, 2, 2, C/8)
    quarters: Tensor = second_act(split_cells(second, halves.to(second.weight.dtype)))
    masks = (quarters.flatten(1, -2) @ kernels.transpose(1, 2).to(quarters.dtype)).view(*quarters.shape[:-1], -1)
    return masks.to(image.dtype).permute(0, 7, 1, 3, 5, 2, 4, 6).flatten(5, 7).flatten(2, 4)


def _as_tokens(grid: Tensor) -> Tensor:
    """``(B, C, h, w)`` -> ``(B, h*w, C)``, together in memory: what follows passes over them many times."""
    return grid.flatten(2).transpose(1, 2).contiguous()


def _mix(transformer: Any, prompts: Tensor, image: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """segment_anything's ``TwoWayTransformer``: prompt tokens and image tokens attend to each other.

    Args:
        transformer: The module.
        prompts: ``(B, N, C)``; also their own positional encoding.
        image: ``(B, n, C)``.
        position: ``(1, n, C)``.

    Returns:
        Both, mixed.
    """
    tokens = prompts
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            tokens = _attend(layer.self_attn, tokens, tokens, tokens)
        else:
            placed = tokens + prompts
            tokens = tokens + _attend(layer.self_attn, placed, placed, tokens)
        tokens = layer.norm1(tokens)
        placed_image = image + position
        tokens = tokens + _attend(layer.cross_attn_token_to_image, tokens + prompts, placed_image, image)
        tokens = layer.norm2(tokens)
        mixed: Tensor = layer.mlp(tokens.to(layer.mlp.lin1.weight.dtype))
        tokens = layer.norm3(tokens + mixed.to(tokens.dtype))
        image = image + _attend(layer.cross_attn_image_to_token, placed_image, tokens + prompts, tokens)
        image = layer.norm4(image)
    tokens = tokens + _attend(transformer.final_attn_token_to_image, tokens + prompts, image + position, image)
    return transformer.norm_final_attn(tokens), image


def _attend(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """segment_anything's ``Attention`` of the decoder, fused."""
    heads = [
        project(tokens.to(project.weight.dtype)).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for project, tokens in (
            (attention.q_proj, query),
            (attention.k_proj, key),
            (attention.v_proj, value),
        )
    ]
    mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    projected: Tensor = attention.out_proj(mixed)
    return projected.to(query.dtype)


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
    wanted = slice(1, None) if multimask else slice(0, 1)
    return decode_all(sam, embedding, dense_position, sparse, dense, wanted)


def no_mask(sam: Any, embedding: Tensor) -> Tensor:
    """Dense prompt ``(B, 256, h, w)`` that says that there is no mask prompt."""
    empty: Tensor = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    return empty.expand_as(embedding)
