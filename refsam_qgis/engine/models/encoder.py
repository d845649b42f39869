"""SAM's image encoder, run block by block so that adapters can stand beside its attention and passes share a prefix.

The weights and the arithmetic are segment_anything's; only the order of evaluation is ours. Without adapters the
result equals ``ImageEncoderViT.forward`` up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

QUERIES_AT_ONCE = 256
"""Queries whose attention map is held at a time."""

BlockAdapter = Callable[[Tensor], Tensor]
"""What stands parallel to one block's attention: its input ``(B, h, w, d)`` to a residual of the same shape."""


def encode(encoder: Any, pixels: Tensor, origin: tuple[int, int] = (0, 0)) -> Tensor:
    """Encode normalised pixels with segment_anything's ``ImageEncoderViT`` as it is.

    Args:
        encoder: The encoder.
        pixels: As for `embed_patches`.
        origin: As for `embed_patches`.

    Returns:
        The image embedding ``(B, 256, S/16, S/16)``.
    """
    tokens = embed_patches(encoder, pixels, origin)
    return project(encoder, run_blocks(encoder, tokens, range(len(encoder.blocks))))


def embed_patches(encoder: Any, pixels: Tensor, origin: tuple[int, int] = (0, 0)) -> Tensor:
    """Turn pixels into tokens that know their place.

    Args:
        encoder: The encoder.
        pixels: ``(B, 3, S, S)`` normalised pixels; S is the encoder's input side, or less for a training window.
        origin: Row and column, in tokens, of a training window inside the full frame: it takes that part of the
            absolute position embedding. (0, 0) for a full frame.

    Returns:
        Tokens ``(B, S/16, S/16, d)``.
    """
    tokens: Tensor = encoder.patch_embed(pixels)
    if encoder.pos_embed is not None:
        rows, columns = tokens.shape[1:3]
        top, left = origin
        tokens = tokens + encoder.pos_embed[:, top : top + rows, left : left + columns]
    return tokens


def run_blocks(
    encoder: Any,
    tokens: Tensor,
    blocks: range,
    adapters: Mapping[int, BlockAdapter] | None = None,
    checkpointing: bool = False,
) -> Tensor:
    """Run some consecutive blocks, with an adapter parallel to the attention of those that have one.

    Args:
        encoder: The encoder.
        tokens: ``(B, h, w, d)`` tokens that enter the first of the blocks.
        blocks: Indices of the blocks.
        adapters: Adapters by block.
        checkpointing: Recompute each block in the backward pass instead of keeping its activations.

    Returns:
        Tokens that leave the last block; those given when there is none.
    """
    for index in blocks:
        block, adapter = encoder.blocks[index], (adapters or {}).get(index)
        if checkpointing:
            tokens = checkpoint(_block, block, tokens, adapter, use_reentrant=False)
        else:
            tokens = _block(block, tokens, adapter)
    return tokens


def project(encoder: Any, tokens: Tensor) -> Tensor:
    """Bring tokens ``(B, h, w, d)`` through the encoder's neck: ``(B, 256, h, w)``."""
    embedding: Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
    return embedding


def _block(block: Any, tokens: Tensor, adapter: BlockAdapter | None) -> Tensor:
    """One ViT block: h = x + Attn(LN1 x) + DTA(x); y = h + MLP(LN2 h) (method Eq. 5)."""
    hidden = tokens + _windowed_attention(block, block.norm1(tokens))
    if adapter is not None:
        hidden = hidden + adapter(tokens)
    result: Tensor = hidden + block.mlp(block.norm2(hidden))
    return result


def _windowed_attention(block: Any, tokens: Tensor) -> Tensor:
    side = block.window_size
    if side == 0:
        return _attention(block.attn, tokens)
    batch, rows, columns, width = tokens.shape
    below, right = -rows % side, -columns % side
    padded = F.pad(tokens, (0, 0, 0, right, 0, below))
    down, across = padded.shape[1] // side, padded.shape[2] // side
    windows = padded.view(batch, down, side, across, side, width).transpose(2, 3).reshape(-1, side, side, width)
    windows = _attention(block.attn, windows)
    merged = windows.view(batch, down, across, side, side, width).transpose(2, 3).reshape(padded.shape)
    return merged[:, :rows, :columns]


def _attention(attention: Any, tokens: Tensor) -> Tensor:
    """Multi-head attention with decomposed relative positions, a few rows of queries at a time.

    So no attention map is ever whole: on a CPU, allocating the maps of global attention costs more than filling them.
    """
    batch, rows, columns, width = tokens.shape
    heads = attention.num_heads
    qkv = attention.qkv(tokens).view(batch, rows * columns, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    at_once = max(1, QUERIES_AT_ONCE // columns)
    mixed = []
    for first in range(0, rows, at_once):
        chunk = query[:, :, first * columns : (first + at_once) * columns]
        bias = _relative_position_bias(attention, chunk, first, rows, columns) if attention.use_rel_pos else None
        mixed.append(F.scaled_dot_product_attention(chunk, key, value, attn_mask=bias))
    joined = torch.cat(mixed, dim=2).transpose(1, 2).reshape(batch, rows, columns, width)
    projected: Tensor = attention.proj(joined)
    return projected


def _relative_position_bias(attention: Any, query: Tensor, first: int, rows: int, columns: int) -> Tensor:
    """Bias ``(B, heads, q*w, h*w)`` of whole rows of queries from row `first`: q.R_h[dy] + q.R_w[dx] (MViTv2)."""
    batch, heads, count, width = query.shape
    own = count // columns
    grid = query.reshape(batch, heads, own, columns, width)
    rows_apart = _relative(attention.rel_pos_h, rows)[first : first + own]
    vertical = torch.einsum("bnhwc,hkc->bnhwk", grid, rows_apart)
    horizontal = torch.einsum("bnhwc,wkc->bnhwk", grid, _relative(attention.rel_pos_w, columns))
    bias = vertical[..., :, None] + horizontal[..., None, :]
    return bias.reshape(batch, heads, count, rows * columns)


def _relative(table: Tensor, size: int) -> Tensor:
    """Rows of a relative-position table ``(2L-1, c)`` for a grid of `size` <= L positions, as ``(size, size, c)``.

    A smaller grid is a window of the full frame, so it uses the same true distances rather than stretched ones.
    """
    centre = table.shape[0] // 2
    positions = torch.arange(size, device=table.device)
    return table[positions[:, None] - positions[None, :] + centre]
