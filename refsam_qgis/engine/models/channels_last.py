"""SAM's layers over maps, for tokens: a map's channels stand together in memory, as they leave the transformers.

There a 1x1 convolution is one matrix product, and so is a transposed convolution whose patches do not overlap; a
normalisation over channels runs along the memory. Weights are the modules' own, so training reaches them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


def normalise_channels(norm: Any, tokens: Tensor) -> Tensor:
    """segment_anything's ``LayerNorm2d`` of tokens ``(..., C)``."""
    return F.layer_norm(tokens, tokens.shape[-1:], norm.weight, norm.bias, norm.eps)


def mix_channels(convolution: nn.Conv2d, tokens: Tensor) -> Tensor:
    """A 1x1 convolution: ``(..., C)`` -> ``(..., D)``."""
    return F.linear(tokens, convolution.weight.flatten(1), convolution.bias)


def split_cells(convolution: nn.ConvTranspose2d, tokens: Tensor) -> Tensor:
    """A transposed convolution whose stride is its kernel: every cell becomes k*k cells of its own.

    Args:
        convolution: The module.
        tokens: ``(..., C)``.

    Returns:
        ``(..., k, k, D)``, rows before columns.
    """
    own = convolution.weight.permute(2, 3, 1, 0)  # (C, D, k, k) -> (k, k, D, C)
    bias = None if convolution.bias is None else convolution.bias.expand(own.shape[:3]).flatten()
    return F.linear(tokens, own.flatten(0, 2), bias).view(*tokens.shape[:-1], *own.shape[:3])
