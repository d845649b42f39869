"""Attention of SAM's image encoder with decomposed relative positions, in windows or over the whole grid.

The weights and the arithmetic are those of segment_anything's ``Attention`` and ``window_partition``. What differs:
tokens are projected before windows are padded, so that padding costs no matrix product, and no attention map is ever
whole: on a CPU, fetching the memory of whole maps from the kernel costs more than filling them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import fuses_bfloat16

SCORES_IN_CACHE = 2**22
"""Bytes of the scores that each thread of inference on a CPU computes at a time, so that they stay in its cache."""
SCORES_AT_ONCE = {"cpu": 2**22, "mps": 2**26, "cuda": 2**28}
"""Attention scores whose bias is held at a time by fused attention, by type of device; a GPU wants few large ones."""
LEAST_QUERIES = 256
"""Queries that fused attention takes at least; fewer leave its kernels idle."""


def attend(attention: Any, tokens: Tensor, side: int) -> Tensor:
    """Mix tokens among each other.

    Args:
        attention: segment_anything's ``Attention``.
        tokens: ``(B, h, w, d)``.
        side: Side of the windows that attend to themselves alone, in tokens; 0 for the whole grid.

    Returns:
        ``(B, h, w, d)`` of the weights' dtype.
    """
    tokens = tokens.to(attention.qkv.weight.dtype)
    rows, columns, width = tokens.shape[1:]
    height, breadth = (side, side) if side else (rows, columns)
    qkv = _pad(attention.qkv(tokens), attention.qkv.bias, -rows % height, -columns % breadth)
    down, across = qkv.shape[1] // height, qkv.shape[2] // breadth
    split = qkv.view(-1, down, height, across, breadth, 3, attention.num_heads, width // attention.num_heads)
    # (3, B * windows, heads, height, breadth, c)
    query, key, value = split.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 3).contiguous()
    del qkv, split
    mixed = _mix(attention, query, key.flatten(2, 3), value.flatten(2, 3))
    windows = mixed.view(-1, down, across, *mixed.shape[1:]).permute(0, 1, 4, 2, 5, 3, 6)
    merged = windows.reshape(-1, down * height, across * breadth, width)
    projected: Tensor = attention.proj(merged[:, :rows, :columns])
    return projected


def _pad(qkv: Tensor, bias: Tensor | None, below: int, right: int) -> Tensor:
    """Set what projecting zeros gives below and to the right of projected tokens ``(B, h, w, 3d)``.

    segment_anything pads with zeros before it projects, and its softmax counts the padding.
    """
    if not (below or right):
        return qkv
    batch, rows, columns, width = qkv.shape
    ground = qkv.new_zeros(width) if bias is None else bias
    padded = ground.expand(batch, rows + below, columns + right, width).clone()
    padded[:, :rows, :columns] = qkv
    return padded


def _mix(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of queries ``(W, heads, h, w, c)`` to keys and values ``(W, heads, h*w, c)``, shaped as the queries."""
    rows, columns = query.shape[2:4]
    vertical = horizontal = None
    if attention.use_rel_pos:
        # q.R_h[dy] and q.R_w[dx] (MViTv2): (W, heads, h, w, h) and (W, heads, h, w, w)
        down, across = _relative(attention.rel_pos_h, rows, query), _relative(attention.rel_pos_w, columns, query)
        vertical = torch.einsum("bnhwc,hkc->bnhwk", query, down).contiguous()
        horizontal = torch.einsum("bnhwc,wkc->bnhwk", query, across).contiguous()
    if vertical is None or horizontal is None or query.device.type != "cpu" or torch.is_grad_enabled():
        return _fused(query, key, value, vertical, horizontal)
    if query.dtype == torch.bfloat16 and fuses_bfloat16():
        return _as_channels(query, key, value, vertical, horizontal)
    return _in_cache(*(tensor.flatten(0, 1) for tensor in (query, key, value, vertical, horizontal))).view_as(query)


def _in_cache(query: Tensor, key: Tensor, value: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Inference on a CPU: the few scores that its cache holds at a time, always in the same memory.

    Args:
        query: ``(G, h, w, c)``, G windows and heads.
        key: ``(G, h*w, c)``.
        value: ``(G, h*w, c)``.
        vertical: ``(G, h, w, h)`` bias.
        horizontal: ``(G, h, w, w)`` bias.

    Returns:
        ``(G, h*w, c)``.
    """
    groups, rows, columns, width = query.shape
    queries = query.flatten(1, 2)
    positions = queries.shape[1]
    scores_of_row = columns * positions
    rows_in_cache = SCORES_IN_CACHE // (scores_of_row * query.element_size())
    own = max(1, min(rows, rows_in_cache))
    # A window or head for each thread: sharing one would make the threads wait for each other.
    together = min(groups, torch.get_num_threads() * max(1, rows_in_cache // own))
    memory = query.new_empty(together * own * scores_of_row)
    mixed = torch.empty_like(queries)
    for first in range(0, groups, together):
        group = slice(first, min(first + together, groups))
        for top in range(0, rows, own):
            count = min(own, rows - top)
            some = slice(top * columns, (top + count) * columns)
            shape = (group.stop - group.start, count * columns, positions)
            scores = memory[: shape[0] * shape[1] * shape[2]].view(shape)
            torch.add(
                vertical[group, top : top + count, :, :, None],
                horizontal[group, top : top + count, :, None, :],
                out=scores.view(shape[0], count, columns, rows, columns),
            )
            scores.baddbmm_(queries[group, some], key[group].transpose(1, 2), alpha=width**-0.5)
            torch.softmax(scores, dim=-1, out=scores)
            torch.bmm(scores, value[group], out=mixed[group, some])
    return mixed


def _as_channels(query: Tensor, key: Tensor, value: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Inference in bfloat16 on a CPU: the bias as further channels of queries and keys; arguments as in `_mix`.

    What a query adds to the keys of a row, and of a column, is its product with which row and column a key is in. CPUs
    with tiles of bfloat16 do that sooner than they set up a bias of as many values as there are scores.
    """
    rows, columns, width = query.shape[2:]
    index = torch.arange(rows * columns, device=key.device)
    place = key.new_zeros(rows * columns, rows + columns)
    # Scores are divided by this, which the bias has to come through unchanged.
    place[index, index // columns] = place[index, rows + index % columns] = width**0.5
    queries = torch.cat([query, vertical, horizontal], dim=-1).flatten(2, 3)
    keys = torch.cat([key, place.expand(*key.shape[:2], -1, -1)], dim=-1)
    values = F.pad(value, (0, rows + columns))  # fused attention wants as many channels of all three
    mixed = F.scaled_dot_product_attention(queries, keys, values, scale=width**-0.5)
    return mixed[..., :width].reshape(query.shape)


def _fused(query: Tensor, key: Tensor, value: Tensor, vertical: Tensor | None, horizontal: Tensor | None) -> Tensor:
    """Fused attention, some rows of queries at a time with their bias; arguments and result as in `_mix`."""
    windows, heads, rows, columns, _ = query.shape
    scores = windows * heads * columns * key.shape[2]
    at_once = max(1, LEAST_QUERIES // columns, SCORES_AT_ONCE.get(query.device.type, 2**26) // scores)
    mixed = []
    for top in range(0, rows, at_once):
        bias = None
        if vertical is not None and horizontal is not None:
            own = slice(top, top + at_once)
            bias = vertical[:, :, own, :, :, None] + horizontal[:, :, own, :, None, :]
            bias = bias.view(windows, heads, -1, key.shape[2])
        some = query[:, :, top : top + at_once].flatten(2, 3)
        mixed.append(F.scaled_dot_product_attention(some, key, value, attn_mask=bias))
    return torch.cat(mixed, dim=2).view_as(query)


def _relative(table: Tensor, size: int, like: Tensor) -> Tensor:
    """Rows of a relative-position table ``(2L-1, c)`` for a grid of `size` <= L positions, as ``(size, size, c)``.

    A smaller grid is a window of the full frame, so it uses the same true distances rather than stretched ones.
    """
    centre = table.shape[0] // 2
    positions = torch.arange(size, device=table.device)
    return table[positions[:, None] - positions[None, :] + centre].to(like.dtype)
