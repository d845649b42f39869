"""SAM from segment_anything's own modules, frozen: the published sizes and RefSAM's compact one.

`segment_anything.__init__` imports torchvision, which its model code does not need and which is not part of the
engine's environment. `segment_anything_modules` therefore loads its torch-only parts through a bare package entry
and takes that entry away again, so that whoever imports the real package later gets the real package.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RefSAMError
from ..installation import mend
from . import vector_maths

INPUT_SIZE = 1024
"""Side of SAM's square input in pixels."""
PATCH = 16
"""Side of one token in input pixels."""
GRID = INPUT_SIZE // PATCH
"""Side of the token grid and of the image embedding."""
CHANNELS = 256
"""Channels of the image embedding and of every prompt embedding."""

COMPACT = {
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 6,
    "mlp_ratio": 3,
    "window_size": 16,  # divides the 64 grid: no padded tokens
    "global_attn_indexes": (2, 5),
    "decoder_mlp_dim": 384,
}
"""The compact model: SAM's architecture with a small ViT and a narrower decoder MLP, to fit a 15 MB download."""


@lru_cache(maxsize=1)
def segment_anything_modules() -> types.SimpleNamespace:
    """Load `segment_anything.build_sam`, `.modeling` and `.utils.amg` (automatic masks) without torchvision.

    Returns:
        A namespace with ``build_sam``, ``modeling`` and ``amg``.

    Raises:
        RefSAMError: With code ``environment`` when segment_anything is not installed.
    """
    spec = importlib.util.find_spec("segment_anything")
    if spec is None or spec.submodule_search_locations is None:
        raise RefSAMError("environment", f"The package segment_anything is missing; {mend()}.")
    with _bare_package("segment_anything", list(spec.submodule_search_locations)):
        return types.SimpleNamespace(
            build_sam=importlib.import_module("segment_anything.build_sam"),
            modeling=importlib.import_module("segment_anything.modeling"),
            amg=importlib.import_module("segment_anything.utils.amg"),
        )


@contextmanager
def _bare_package(name: str, path: list[str]) -> Iterator[None]:
    """Make submodules of a package importable without running its ``__init__``; restore `sys.modules` afterwards."""
    before = {key: module for key, module in sys.modules.items() if key == name or key.startswith(name + ".")}
    for key in before:
        del sys.modules[key]
    package = types.ModuleType(name)
    package.__path__ = path
    sys.modules[name] = package
    try:
        yield
    finally:
        for key in [key for key in sys.modules if key == name or key.startswith(name + ".")]:
            del sys.modules[key]
        sys.modules.update(before)


def build_sam(model: str) -> nn.Module:
    """Build SAM with random weights.

    Args:
        model: ``compact``, ``vit_b``, ``vit_l`` or ``vit_h``.

    Returns:
        segment_anything's ``Sam`` module in evaluation mode.
    """
    vector_maths.settle()
    if model == "compact":
        return _build_compact()
    sam: nn.Module = segment_anything_modules().build_sam.sam_model_registry[model](checkpoint=None)
    return sam


def _build_compact() -> nn.Module:
    modeling = segment_anything_modules().modeling
    sam: nn.Module = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=INPUT_SIZE,
            patch_size=PATCH,
            embed_dim=COMPACT["embed_dim"],
            depth=COMPACT["depth"],
            num_heads=COMPACT["num_heads"],
            mlp_ratio=COMPACT["mlp_ratio"],
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=COMPACT["global_attn_indexes"],
            window_size=COMPACT["window_size"],
            out_chans=CHANNELS,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(GRID, GRID),
            input_image_size=(INPUT_SIZE, INPUT_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=2, embedding_dim=CHANNELS, mlp_dim=COMPACT["decoder_mlp_dim"], num_heads=8
            ),
            transformer_dim=CHANNELS,
            iou_head_depth=3,
            iou_head_hidden_dim=CHANNELS,
        ),
    )
    return sam.eval()


def freeze(sam: nn.Module) -> nn.Module:
    """Put SAM into evaluation mode and take every weight out of training."""
    return sam.eval().requires_grad_(False)


def normalise(images: Tensor, valid: Tensor, sam: Any) -> Tensor:
    """Turn 8-bit tiles into SAM's input: scale, normalise, then pad with zeros on the right and below.

    A tile that sticks out over the raster is scaled without what sticks out, as SAM scales an oblong image; nodata
    inside it is zero like SAM's padding.

    Args:
        images: ``(B, 3, T, T)`` uint8 RGB.
        valid: ``(B, T, T)`` bool; False where there is no image.
        sam: The model whose mean and deviation are used.

    Returns:
        ``(B, 3, 1024, 1024)`` float32.
    """
    return torch.stack([_normalise_one(image, inside, sam) for image, inside in zip(images, valid, strict=True)])


def _normalise_one(image: Tensor, valid: Tensor, sam: Any) -> Tensor:
    scale = INPUT_SIZE / image.shape[-1]
    height, width = _extent(valid)
    size = (int(height * scale + 0.5), int(width * scale + 0.5))
    pixels = resize_pixels(image[None, :, :height, :width], size)[0]
    pixels = (pixels - sam.pixel_mean) / sam.pixel_std
    inside = valid[None, None, :height, :width]
    if not bool(inside.all()):
        pixels = pixels * nn.functional.interpolate(inside.to(pixels.dtype), size=size, mode="nearest")[0]
    return nn.functional.pad(pixels, (0, INPUT_SIZE - size[1], 0, INPUT_SIZE - size[0]))


def _extent(valid: Tensor) -> tuple[int, int]:
    """Height and width of the part of a tile, from its top left corner, that holds every valid pixel."""
    rows, columns = valid.any(1).nonzero(), valid.any(0).nonzero()
    return (int(rows[-1]) + 1, int(columns[-1]) + 1) if len(rows) else (1, 1)


def resize_pixels(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale 8-bit images as SAM's own transform does (antialiased bilinear).

    Args:
        images: ``(B, 3, H, W)`` uint8.
        size: Height and width of the result.

    Returns:
        ``(B, 3, height, width)`` float32 in 0..255.
    """
    pixels = images.to(torch.float32)
    if tuple(images.shape[-2:]) == size:
        return pixels
    return nn.functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)
