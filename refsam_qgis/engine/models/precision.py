"""In which numbers SAM computes.

The dtype of the matrices of its encoder and its decoder decides: what enters them is rounded to it, and residuals,
normalisations, relative positions, prompts and all that is RefSAM's own stay in float32. bfloat16 is taken where the
hardware multiplies it; float16 never, since SAM's activations leave its range.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def choose_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device multiplies it in hardware, else float32; the same on every call."""
    if device.type == "cuda":
        quick = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # As torch finds the instructions, and so as its libraries use them.
        quick = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        quick = False  # on MPS it saves little, and older systems lack it
    return torch.bfloat16 if quick else torch.float32


def fuses_bfloat16() -> bool:
    """Return whether torch's fused attention multiplies bfloat16 in a CPU's hardware.

    It does with matrix tiles (AMX). With AVX-512 alone, as on AMD's processors, it widens to float32 first, while plain
    products of matrices do not.
    """
    return torch.cpu._is_amx_tile_supported()


def set_precision(part: Any, precision: torch.dtype) -> None:
    """Round the matrices of a part of SAM, in place. Training needs float32, which is what they are loaded as.

    Args:
        part: segment_anything's ``ImageEncoderViT``, or the decoder's ``TwoWayTransformer`` or ``output_upscaling``.
        precision: float32 or bfloat16.
    """
    for module in part.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            module.to(precision)


def name_precision(device: torch.device) -> str:
    """Return what `choose_precision` chooses as ``float32`` or ``bfloat16``, for reports and the keys of caches."""
    return str(choose_precision(device)).removeprefix("torch.")
