"""SAM's image encoder, run block by block so that adapters can stand beside its attention and passes share a prefix.

The weights and the arithmetic are segment_anything's; only the order of evaluation is ours. Without adapters the
result equals ``ImageEncoderViT.forward`` up to rounding. Matrices may be bfloat16 (see `precision`);
tokens stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .attention import attend
from .channels_last import mix_channels, normalise_channels

TOKENS_AT_ONCE = 4096
"""Tokens that pass an MLP together in inference, times the bytes of a value: hidden layers of one size in memory."""

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
    tokens: Tensor = encoder.patch_embed(pixels.to(encoder.patch_embed.proj.weight.dtype)).float()
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
    attended: Tensor | None = None,
) -> Tensor:
    """Run some consecutive blocks, with an adapter parallel to the attention of those that have one.

    Args:
        encoder: The encoder.
        tokens: ``(B, h, w, d)`` tokens that enter the first of the blocks.
        blocks: Indices of the blocks.
        adapters: Adapters by block.
        checkpointing: Recompute each block in the backward pass instead of keeping its activations.
        attended: What `attend_tokens` makes of the tokens in the first of the blocks, where that has an adapter and it
            is known.

    Returns:
        Tokens that leave the last block; those given when there is none.
    """
    tokens = tokens.contiguous()  # as patches come out of their convolution, channels stand first in memory
    for index in blocks:
        block, adapter = encoder.blocks[index], (adapters or {}).get(index)
        if checkpointing:
            tokens = checkpoint(_block, block, tokens, adapter, attended, use_reentrant=False)
        else:
            tokens = _block(block, tokens, adapter, attended)
        attended = None
    return tokens


def attend_tokens(block: Any, tokens: Tensor) -> Tensor:
    """First half of a ViT block, which no adapter parallel to it changes: x + Attn(LN1 x)."""
    side, normalised = block.window_size, block.norm1(tokens)
    if tokens.device.type != "cpu" or torch.is_grad_enabled() or not side:
        return tokens + attend(block.attn, normalised, side)
    # One row of windows after the other: their memory stays with the process, where that of all windows is fetched
    # from the system each time.
    attended = torch.empty_like(tokens)
    rows = (part.split(side, dim=1) for part in (tokens, normalised, attended))
    for row, seen, out in zip(*rows, strict=True):
        torch.add(row, attend(block.attn, seen, side), out=out)
    return attended


def project(encoder: Any, tokens: Tensor) -> Tensor:
    """Bring tokens ``(B, h, w, d)`` through the encoder's neck: ``(B, 256, h, w)``, with channels last in memory."""
    narrow, first_norm, spread, last_norm = encoder.neck
    # Its normalisations are float32 also where its convolutions are not.
    exact = first_norm.weight.dtype
    tokens = normalise_channels(first_norm, mix_channels(narrow, tokens.to(narrow.weight.dtype)).to(exact))
    embedding = spread(tokens.to(spread.weight.dtype).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return normalise_channels(last_norm, embedding.to(exact)).permute(0, 3, 1, 2)


def _block(block: Any, tokens: Tensor, adapter: BlockAdapter | None, attended: Tensor | None) -> Tensor:
    """One ViT block: h = x + Attn(LN1 x) + DTA(x); y = h + MLP(LN2 h) (method Eq. 5)."""
    hidden = attend_tokens(block, tokens) if attended is None else attended
    if adapter is not None:
        hidden = hidden + adapter(tokens)
    if torch.is_grad_enabled():
        return hidden + _mlp(block, hidden)
    # Part by part and in place: the hidden layer of all tokens would be the largest tensor of all.
    at_once = TOKENS_AT_ONCE // block.mlp.lin1.weight.element_size()
    for part in hidden.view(-1, hidden.shape[-1]).split(at_once):  # type: ignore[no-untyped-call]
        part += _mlp(block, part)
    return hidden


def _mlp(block: Any, tokens: Tensor) -> Tensor:
    mixed: Tensor = block.mlp(block.norm2(tokens).to(block.mlp.lin1.weight.dtype))
    return mixed
