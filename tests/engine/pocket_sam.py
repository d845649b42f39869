"""A SAM of segment_anything's own modules that is small enough for a test, with weights that answer prompts."""

from __future__ import annotations

from functools import lru_cache, partial

import torch

from benchmarks.accuracy.sam_reference import make_responsive
from refsam_qgis.engine.models.sam import segment_anything_modules

WIDTH = 32


@lru_cache(maxsize=2)
def pocket_sam(width: int = WIDTH) -> torch.nn.Module:
    modeling = segment_anything_modules().modeling
    torch.manual_seed(0)
    sam = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            embed_dim=16, depth=1, num_heads=2, mlp_ratio=2, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            qkv_bias=True, use_rel_pos=True, window_size=16, out_chans=width,
        ),
        prompt_encoder=modeling.PromptEncoder(width, (64, 64), (1024, 1024), mask_in_chans=4),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=width,
            transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=32, num_heads=2),
            iou_head_hidden_dim=width,
        ),
    )  # fmt: skip
    return make_responsive(sam).requires_grad_(False)
